"""Subtitles that are burnt in: lines at the foot of the picture, above a title where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from .cues import Cue, spans
from .direction import undirected
from .episode import Episode
from .errors import InputError
from .layout import PITCH, drawn, laid_out
from .letters import Fonts, built_in, missing, reach
from .title import title_top

WIDEST = 0.86  # share of the picture's width that a line may take
HIGHEST = 0.35  # share of its height that all lines together may take; a title takes at most 0.5
LOWEST = 0.94  # share of the height: where letters end
LARGEST, SMALLEST = 18, 27  # letters per height of the picture
APART = 0.02  # share of the height between subtitle and title


@dataclass(frozen=True, slots=True)
class Burnt:
    """What is drawn into some frames of a part of the cut.

    start, end: frames of the part; `end` is the first without it. titles: of the shots that are seen meanwhile; the text stands above them.
    """

    start: int
    end: int
    text: str
    titles: tuple[str, ...]


def burnt(episode: Episode, every: Sequence[Cue], first: int, last: int) -> list[Burnt]:
    """What is drawn into the part of the cut from frame `first` up to and without `last`. Frames without subtitles are in none of them."""
    if not every:
        return []
    titled = [(start, start + shot.frames, shot.title) for _, shot, start in episode.cut if shot.title]
    found = []
    for span in spans(every, first, last):
        edges = {edge for start, end, _ in titled for edge in (start, end) if span.start < edge < span.end}
        for start, end in pairwise(sorted({span.start, span.end, *edges})) if span.cues else ():
            titles = tuple(title for begin, until, title in titled if begin < end and until > start)
            found.append(Burnt(start - first, end - first, span.text, titles))
    return found


def letter_size(height: int) -> int:
    """Size in pixels of the letters of a subtitle that has room."""
    return max(10, height // LARGEST)


def check_subtitle(one: Burnt, font: Path | None, where: str, size: tuple[int, int]) -> None:
    """Check that a subtitle can be drawn.

    Args:
        font: the episode's own for titles, which draws what the built-in ones lack. size: (width, height) of the episode in pixels.

    Raises:
        InputError: a letter has no shape in any font, or the text does not fit.
    """
    fonts = _fonts(one.text, font)
    if lacking := missing(one.text, fonts):
        names = ", ".join(path.name if path else "Pillow's own" for path in fonts)
        raise InputError(f"{where}: text: no font has a shape for {lacking[0]!r} ({names}); give the episode a title_font that has")
    if unordered := undirected(one.text):
        raise InputError(f"{where}: text: {unordered}")
    try:
        _placed(one.text, one.titles, *size, font)
    except OverlongSubtitle as error:
        raise InputError(f"{where}: {error}") from error


class OverlongSubtitle(InputError):
    """A subtitle that does not fit into the picture, however small."""


def subtitle_layer(one: Burnt, width: int, height: int, font: Path | None) -> np.ndarray:
    """White letters with an outline at the foot of the picture, above titles: float32 RGBA 0..1, (height, width, 4).

    Args:
        font: as in `check_subtitle`.

    Raises:
        InputError: as `check_subtitle` would have.
    """
    size, lines = _placed(one.text, one.titles, width, height, font)
    return np.asarray(drawn(lines, size, _outline(size), _fonts(one.text, font), width, height), np.float32) / 255


@lru_cache(maxsize=4096)  # a plan is made more than once in a render
def _placed(text: str, titles: tuple[str, ...], width: int, height: int, font: Path | None) -> tuple[int, list[tuple[str, float]]]:
    """The size of the letters, and each line with the row of the foot of its letters.

    A line stands as far above the next as both need: stacked accents and long descenders touch nothing.
    """
    fonts, largest = _fonts(text, font), letter_size(height)
    sizes = range(largest, min(largest, max(8, height // SMALLEST)) - 1, -1)
    found = laid_out(text, WIDEST * width, HIGHEST * height, sizes, fonts)
    if found is None:
        raise OverlongSubtitle(f"text: {text!r} does not fit into a picture of {width}x{height}; shorten it, or divide it")
    size, lines = found
    foot = min([LOWEST * height, *(title_top(title, width, height, font) - APART * height for title in titles)])
    placed: list[tuple[str, float]] = []
    below = 0
    for line in reversed(lines):
        above, under = reach(line, fonts, size, _outline(size))
        foot -= max(PITCH * size, below + under) if placed else max(under, 0.25 * size)
        placed.insert(0, (line, foot))
        below = above
    if foot < below:
        raise OverlongSubtitle(f"text: {text!r} does not fit above the title in a picture of {width}x{height}; shorten one of them")
    return size, placed


def _outline(size: int) -> int:
    """As wide as letters need it that stand before any picture, pixels."""
    return max(1, size // 10)


def _fonts(text: str, font: Path | None) -> Fonts:
    """One font for all of the text where one has all of it; otherwise each letter is drawn by the first that has it."""
    every = (*built_in(), font) if font else built_in()
    return next(((one,) for one in every if not missing(text, (one,))), every)
