"""Cluster: everything that knows Ray, and nothing that knows anime.

Here live starting or joining a cluster, and the pool that pins models to devices and feeds them.
Nothing else of Tower's may be imported: the pool can be tested without a model.
"""
