"""Errors that a person sees: one sentence each."""

from __future__ import annotations


class InputError(ValueError):
    """What was given cannot work. The sentence says what is wrong, where, and what would be right."""


class StorageError(RuntimeError):
    """The disk or the store refused; nothing half-written is left."""
