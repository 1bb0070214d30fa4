"""Catalog: the record of everything that happened.

Here live the tables (Delta Lake), their schemas, the media store and the one writer of a driver. Rows
are only ever added; what is true now is a view over them. Nothing else of Tower's may be imported.
"""
