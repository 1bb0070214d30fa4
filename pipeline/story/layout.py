"""Lays a text out in lines: how large its letters are, and where its lines break."""

from __future__ import annotations

from functools import partial

from .direction import directed
from .letters import Fonts, lines_of, width, wrapped

PITCH = 1.3  # from line to line, in sizes of letters


def laid_out(text: str, limit: float, room: float, sizes: range, fonts: Fonts) -> tuple[int, list[str]] | None:
    """The size of the letters in pixels, and the lines: large and as written if that fits, else wrapped, else smaller.

    Args:
        limit: widest line, pixels. room: for all lines together, pixels. sizes: allowed, largest first.

    Returns:
        None where it does not fit even at the smallest size.
    """
    written = lines_of(text)
    for size in sizes:
        measure = partial(width, fonts=fonts, size=size)
        if size >= 0.8 * sizes[0] and all(measure(line) <= limit for line in written) and high(len(written), size) <= room:
            return size, written
    for size in sizes:
        measure = partial(width, fonts=fonts, size=size)
        parts = [wrapped(line, limit, measure) for line in written]
        if all(parts) and high(sum(len(p) for p in parts if p), size) <= room:
            even = ((whole, _balanced(whole, p, limit, measure)) for p, whole in zip(parts, written, strict=True) if p)
            return size, [directed(line, whole) for whole, lines in even for line in lines]
    return None


def high(lines: int, size: int) -> float:
    return lines * PITCH * size


def _balanced(line: str, parts: list[str], limit: float, measure: partial[float]) -> list[str]:
    """The same number of parts, as even in width as possible: no word is left alone on a last line."""
    for share in range(30, 100, 5):
        narrower = wrapped(line, limit * share / 100, measure)
        if narrower and len(narrower) == len(parts):
            return narrower
    return parts
