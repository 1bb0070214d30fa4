"""One pass over a clip: every frame is reduced to a few small things as it is decoded, and then let go.

What is kept is about 27 KB a frame, so a clip of any length that gates read fits in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from . import picture as p

if TYPE_CHECKING:  # measures of pixels that are there need no decoder
    from .decode import Frame

SAMPLES = 12  # frames whose sharpness and noise are measured at full size, evenly spread
HELD = 1.2  # levels: a cell that changes less shows the same drawing; codec noise stays under it
CELLS = (48, 32)  # width, height of the grid that light is measured on
THUMB = (96, 64)  # width, height of the pictures that cuts and colours are measured on


@dataclass(frozen=True)
class Reduced:
    """A clip, reduced. n frames.

    drawings: int (n,): number of the drawing that each frame shows; the same number while it is held.
    change: float (n,): largest change of any of 24x16 cells from the frame before, levels 0..255; 0 at frame 0.
    away: float (n,): the same against frame 0.
    cells: float32 (n, 32, 48): mean luma of each cell, levels 0..255.
    thumbs, colours: uint8 RGB (n, 64, 96, 3) and (n, 32, 48, 3).
    dark, pitch_black, over_exposed: float (n,): shares of pixels, 0..1; see `picture`.
    contrast: float (n,): levels.
    sampled: int (s,): frames that sharpness (s,) and flat (s,) were taken of.
    bars: share of the height or width.
    first, last: uint8 RGB at full size.
    """

    drawings: np.ndarray
    change: np.ndarray
    away: np.ndarray
    cells: np.ndarray
    thumbs: np.ndarray
    colours: np.ndarray
    dark: np.ndarray
    pitch_black: np.ndarray
    over_exposed: np.ndarray
    contrast: np.ndarray
    sampled: np.ndarray
    sharpness: np.ndarray
    flat: np.ndarray
    bars: float
    first: np.ndarray
    last: np.ndarray

    def __len__(self) -> int:
        return len(self.change)


def reduce_clip(frames: Iterable[Frame], hint: int) -> Reduced:
    """Read all frames once.

    Args:
        hint: frames that the header promises; it only decides which frames are sampled.
    """
    stride = max(1, hint // SAMPLES)
    rows: list[tuple[float, ...]] = []
    cells, thumbs, colours, samples = [], [], [], []
    first = last = None
    start = before = drawn = peak = np.zeros((0, 0), np.uint8)
    drawing = 0
    for i, frame in enumerate(frames):
        luma = p.gray(frame.small)
        if first is None:
            first, start, before, drawn = frame.rgb(), luma, luma, luma
            peak = frame.small.copy()
        change = most_changed(before, luma)
        if (change if drawn is before else most_changed(drawn, luma)) >= HELD:
            drawing, drawn = drawing + 1, luma
        rows.append(
            (
                drawing,
                change,
                most_changed(start, luma),
                p.dark_fraction(luma),
                p.dark_fraction(luma, p.PITCH_BLACK),
                p.over_exposed_fraction(frame.small),
                p.contrast(luma),
            )
        )
        cells.append(cv2.resize(luma.astype(np.float32), CELLS, interpolation=cv2.INTER_AREA))
        thumbs.append(cv2.resize(frame.small, THUMB, interpolation=cv2.INTER_AREA))
        colours.append(cv2.resize(thumbs[-1], CELLS, interpolation=cv2.INTER_AREA))
        if i % stride == 0:
            full = frame.luma()
            samples.append((i, p.sharpness(full), p.flat_fraction(full)))
        peak = np.maximum(peak, frame.small)
        before, last = luma, frame
    assert first is not None and last is not None  # a reader without frames raises
    drawings, change, away, dark, pitch_black, over_exposed, contrast = np.array(rows).T
    at, sharp, flat = np.array(samples).T
    return Reduced(
        drawings.astype(int),
        change,
        away,
        np.stack(cells),
        np.stack(thumbs),
        np.stack(colours),
        dark,
        pitch_black,
        over_exposed,
        contrast,
        at.astype(int),
        sharp,
        flat,
        p.bars(peak),
        first,
        last.rgb(),
    )


def most_changed(a: np.ndarray, b: np.ndarray) -> float:
    """By how much the most changed cell of a 24x16 grid changed more than the median cell: mean |difference| of luma, levels 0..255.

    A mouth or an eye fills a cell and counts; grain and a fade change all cells alike and do not.
    """
    if a is b:
        return 0.0
    height, width = a.shape
    grid = (max(1, min(24, width // 4)), max(1, min(16, height // 4)))
    cells = cv2.resize(cv2.absdiff(a, b).astype(np.float32), grid, interpolation=cv2.INTER_AREA)
    return min(float(cells.max() - np.median(cells)), 255.0)  # single precision rounds a white flash up
