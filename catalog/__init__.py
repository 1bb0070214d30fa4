"""Catalog: the record of everything that happened.

The package holds the tables (Delta Lake), their schemas, the media store and the one writer of a driver. Rows
are only ever added; views compute the present state from them. It imports no other package of Tower.
"""
