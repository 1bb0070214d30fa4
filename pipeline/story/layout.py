"""Lays a text out in lines, as large as fits, and draws them: white letters with an outline, over whatever picture."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial

from PIL import Image, ImageDraw

from .direction import directed
from .letters import Fonts, lines_of, width, wrapped, write

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

    def narrower(share: int) -> list[str] | None:
        return wrapped(line, limit * share / 100, measure)

    shares = range(30, 100, 5)
    enough = bisect_left(shares, True, key=lambda share: len(narrower(share) or ()) == len(parts))
    return (narrower(shares[enough]) if enough < len(shares) else None) or parts


def drawn(lines: Sequence[tuple[str, float]], size: int, outline: int, fonts: Fonts, across: int, height: int) -> Image.Image:
    """Lines, each with the row of the foot of its letters, centred on a transparent layer: RGBA, (across, height) pixels.

    Args:
        size, outline: of the letters, pixels.
    """
    layer = Image.new("RGBA", (across, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    places = [((across - width(line, fonts, size)) / 2, foot) for line, foot in lines]
    for (line, _), (x, y) in zip(lines, places, strict=True):
        write(draw, (x + size / 14, y + size / 14), line, fonts, size, fill=(10, 10, 30, 150))
    style = {"fill": (255, 255, 255, 255), "stroke_width": outline, "stroke_fill": (24, 22, 48, 230)}
    for (line, _), place in zip(lines, places, strict=True):
        write(draw, place, line, fonts, size, **style)
    return layer
