"""Registry: workflows as the catalog holds them: versions that never change, files and digests on this machine, standing, promotions.

Nothing here plans or renders.
"""
