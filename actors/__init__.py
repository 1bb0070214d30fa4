"""Actors: the models, as plain classes that run on any device, with or without Ray.

The package loads models, encodes prompts and generates, and defines the small typed values that go in and come out.
It imports no other package of Tower and no Ray, so a model can be timed, tested and debugged in one process.
"""

import os

# Set before the libraries are imported: models come from local files only, and warnings about optional parts are hidden.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
