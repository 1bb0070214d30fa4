"""Actors: the models, as plain classes that run on any device, with or without Ray.

Here live loading, encoding, generating and the small typed values that go in and come out. Nothing
else of Tower's may be imported, and Ray is never mentioned: a model can be timed, tested and debugged
in one process.
"""

import os

# Before the libraries are imported: models come from local files only, and warnings about optional parts are noise.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
