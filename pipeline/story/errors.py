"""Errors whose message a person sees. Each message is one sentence."""

from __future__ import annotations


class InputError(ValueError):
    """An input that cannot work. The message says what is wrong, where, and what would be right."""


class NoSuch(InputError):
    """What is asked for by its id does not exist."""


class NotProven(InputError):
    """A workflow is not proven, and whoever asks has not allowed that."""


class StorageError(RuntimeError):
    """The disk or the bucket refused a write, or has too little room. No partial file is left behind."""
