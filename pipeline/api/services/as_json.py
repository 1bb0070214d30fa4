"""Answers as bytes, so that one that is kept is written once."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json


def as_json(data: Any) -> bytes:
    """JSON; what is no number becomes null."""
    return to_json(data, inf_nan_mode="null")
