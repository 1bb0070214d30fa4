"""Plan: what each shot is made from, which takes hold, what is stale and why, and how long that will take.

Reads the catalog and files; writes nothing and starts nothing. Everything that can be wrong with names and files is found here.
"""
