"""Errors that only a service knows."""

from __future__ import annotations

from pipeline.story.errors import InputError


class Nobody(InputError):
    """Nobody does now what the request wants to stop or to go on."""


class Busy(Exception):
    """As much of this kind is under way as may be at once. The same request may do a little later."""
