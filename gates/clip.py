"""Reduces a clip in one pass: each frame is decoded, reduced to a few small arrays and numbers, and released.

The reduced values take about 27 KB a frame, so the longest clip that gates read (decode.MAX_FRAMES) fits in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from . import picture as p

if TYPE_CHECKING:  # frames that are already in memory can be measured without PyAV
    from .decode import Frame

SAMPLES = 12  # frames whose sharpness and noise are measured at full size, evenly spread
HELD = 1.2  # levels: a cell that changes less shows the same drawing; codec noise stays below this
CELLS = (48, 32)  # width, height of the grid on which light is measured
THUMB = (96, 64)  # width, height of the small pictures on which cuts and colours are measured


@dataclass(frozen=True)
class Reduced:
    """A reduced clip of n frames.

    drawings: int (n,): index of the drawing that each frame shows; frames that hold a drawing share its index.
    change: float (n,): `most_changed` from the frame before, levels 0..255; 0 at frame 0.
    away: float (n,): `most_changed` from frame 0, levels 0..255.
    cells: float32 (n, 32, 48): mean luma of each cell, levels 0..255.
    thumbs, colours: uint8 RGB (n, 64, 96, 3) and (n, 32, 48, 3): the frames at two small sizes.
    dark, pitch_black, over_exposed: float (n,): shares of pixels, 0..1; see `picture`.
    contrast: float (n,): levels 0..127.5; see `picture`.
    sampled: int (s,): the frames at which sharpness (s,) and flat (s,) were measured; see `picture`.
    bars: share of the height or width that black bars take, 0..1; see `picture`.
    first, last: uint8 RGB (height, width, 3): the first and the last frame at full size.
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
    """Reduce a clip, reading each frame once.

    Args:
        hint: expected number of frames; it only decides which frames are measured at full size.

    Raises:
        Undecodable: from a VideoReader as `frames`.
    """
    stride = max(1, hint // SAMPLES)
    rows: list[tuple[float, ...]] = []
    cells, thumbs, colours, samples = [], [], [], []
    first = last = None
    first_luma = previous_luma = drawing_luma = brightest = np.zeros((0, 0), np.uint8)
    drawing = 0
    for i, frame in enumerate(frames):
        luma = p.gray(frame.small)
        if first is None:
            first, first_luma, previous_luma, drawing_luma = frame.rgb(), luma, luma, luma
            brightest = frame.small.copy()
        change = most_changed(previous_luma, luma)
        if (change if drawing_luma is previous_luma else most_changed(drawing_luma, luma)) >= HELD:
            drawing, drawing_luma = drawing + 1, luma
        rows.append(
            (
                drawing,
                change,
                most_changed(first_luma, luma),
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
        brightest = np.maximum(brightest, frame.small)
        previous_luma, last = luma, frame
    assert first is not None and last is not None  # VideoReader raises Undecodable where there is no frame
    drawings, change, away, dark, pitch_black, over_exposed, contrast = np.array(rows).T
    sampled, sharpness, flat = np.array(samples).T
    return Reduced(
        drawings=drawings.astype(int),
        change=change,
        away=away,
        cells=np.stack(cells),
        thumbs=np.stack(thumbs),
        colours=np.stack(colours),
        dark=dark,
        pitch_black=pitch_black,
        over_exposed=over_exposed,
        contrast=contrast,
        sampled=sampled.astype(int),
        sharpness=sharpness,
        flat=flat,
        bars=p.bars(brightest),
        first=first,
        last=last.rgb(),
    )


def most_changed(a: np.ndarray, b: np.ndarray) -> float:
    """The largest change among the cells of a 24x16 grid, minus the median cell's change, levels 0..255.

    The change of a cell is its mean absolute difference of luma. A moving mouth or eye fills a cell, so it counts. Grain
    and fades change all cells alike, so subtracting the median removes them.

    Args:
        a, b: luma, uint8 (height, width), of equal shape.
    """
    if a is b:
        return 0.0
    height, width = a.shape
    grid = (max(1, min(24, width // 4)), max(1, min(16, height // 4)))
    cells = cv2.resize(cv2.absdiff(a, b).astype(np.float32), grid, interpolation=cv2.INTER_AREA)
    return min(float(cells.max() - np.median(cells)), 255.0)  # rounding in single precision can exceed 255 on a white flash
