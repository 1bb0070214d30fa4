"""Cluster: everything that knows Ray, and nothing that knows anime.

The package starts or joins a cluster, and holds the pool, which pins models to devices and sends them requests.
It imports no other package of Tower, so the pool can be tested without a model.
"""
