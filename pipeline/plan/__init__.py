"""Plan: what each shot is made from, which takes still count, which shots are stale and why, and how long they will take to render.

What people said of takes counts here. The room reads the catalog and files. It starts nothing and writes nothing but the cache of file
digests. Wrong names and missing files are reported here.
"""
