"""Registry: the workflows in the catalog. It knows their versions, their files and digests on this machine, their status and promotions.

A registered version never changes. Nothing here plans or renders.
"""
