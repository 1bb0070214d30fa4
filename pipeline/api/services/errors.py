"""Errors of services that are not bad input."""

from __future__ import annotations

from pipeline.story.errors import InputError


class NoSuch(InputError):
    """What the request names does not exist."""
