"""Is the light steady? Measures over a reduced clip: flicker, flashes, black frames, drift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

REDRAWN = 25.0  # levels: a cell that changes more was redrawn, so its change is no flicker
FLASH_CAP = 8.0  # percent: larger swings of the whole picture are flashes, which `flashes` counts
DIM = 32.0  # levels: darker light counts as this much, since the eye sees no flicker in the dark


@dataclass(frozen=True)
class Flicker:
    """How much a clip flickers; `flicker` has the formulas.

    whole: swings of the whole picture's light, in percent of that light, 0..8.
    texture: swings of single cells beyond those of the whole picture, levels 0..25.
    per_frame: float (n,): what each frame adds to `whole`, percent 0..8.
    """

    whole: float
    texture: float
    per_frame: np.ndarray


def flicker(cells: np.ndarray, change: np.ndarray) -> Flicker:
    """Measure how much the light goes back and forth between drawings.

    Frames that change by less than 1 level hold a drawing and are left out. For three drawings a, b, c in a row, the swing
    of a value is min(|b-a|, |b-c|) where b lies outside the range from a to c, and 0 where the value keeps its direction.

    whole: the swing of the common step (the median over cells), in percent of the mean light.
    texture: the swing of each cell's step minus the common step, as the median over cells. It is 0 where a cell was redrawn
        (speed lines, rain).

    Both are means over drawings. The divisor is at least a third of the clip's frames, so that a single flash of lightning
    weighs little.

    Args:
        cells: float32 (n, h, w), mean luma of each cell, levels. change: float (n,), levels; see `Reduced`.
    """
    per_frame = np.zeros(len(cells))
    shown = np.concatenate([[0], np.flatnonzero(change >= 1.0)])
    if len(shown) < 3:
        return Flicker(whole=0.0, texture=0.0, per_frame=per_frame)
    steps = np.diff(cells[shown], axis=0)
    common = np.median(steps, axis=(1, 2))
    light = np.maximum(cells[shown].mean(axis=(1, 2)), DIM)[1:-1]
    whole = np.minimum(100 * _back_and_forth(common) / light, FLASH_CAP)
    own = steps - common[:, None, None]
    redrawn = np.abs(own) > REDRAWN
    local = np.where(redrawn[:-1] | redrawn[1:], 0.0, _back_and_forth(own))
    count = max(len(whole), len(cells) / 3)
    per_frame[shown[1:-1]] = whole
    texture = np.median(local.sum(axis=0)) / count
    return Flicker(whole=float(whole.sum() / count), texture=float(texture), per_frame=per_frame)


def _back_and_forth(steps: np.ndarray) -> np.ndarray:
    a, b = steps[:-1], steps[1:]
    return np.where(a * b < 0, np.minimum(np.abs(a), np.abs(b)), 0.0)


@dataclass(frozen=True)
class Flashes:
    """The largest number of flashes in any second, and the first frame of that second."""

    per_second: float
    at: int


def flashes(colours: np.ndarray, fps: float) -> tuple[Flashes, Flashes]:
    """General and red flashes after WCAG 2.3.1, each a pair of opposing changes on at least a quarter of the picture.

    General: relative luminance changes by 0.10 or more while the darker state is under 0.80. Red: (R - G - B) x 320
    changes by more than 20 and one of the states is a saturated red, R / (R + G + B) >= 0.8 (linear light).
    In one frame, the share of the area that changes in one direction minus the share that changes in the other must be at
    least a quarter; so pans and speed lines are no flashes.

    Args:
        colours: uint8 RGB (n, h, w, 3), the mean colours of large cells. fps: frames a second.

    Returns:
        (general flashes, red flashes).
    """
    linear = SRGB_TO_LINEAR[colours]
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    red = np.maximum(0.0, linear[..., 0] - linear[..., 1] - linear[..., 2]) * 320
    saturated = linear[..., 0] >= 0.8 * np.maximum(linear.sum(axis=-1), 1e-6)
    general = _swings(luminance, least=0.10, darker_under=0.80)
    reds = _swings(np.where(saturated, red, 0.0), least=20.0, darker_under=math.inf)
    return _most(general, fps), _most(reds, fps)


def _swings(values: np.ndarray, least: float, darker_under: float) -> list[tuple[int, int]]:
    """(frame, +1 or -1) for every frame in which a quarter of the cells, net, completes a change in one direction.

    Args:
        values: float (n, h, w). least: the least change that counts. darker_under: the lower of its two ends must be below this.
    """
    low, high = values[0].copy(), values[0].copy()
    found: list[tuple[int, int]] = []
    for i in range(1, len(values)):
        now = values[i]
        up, down = (now - low >= least) & (low < darker_under), (high - now >= least) & (now < darker_under)
        net = float(up.mean() - down.mean())
        if abs(net) >= 0.25:
            found.append((i, 1 if net > 0 else -1))
        # `low` and `high` are each cell's extremes since its last complete change; a complete change resets both.
        low, high = np.where(up | (now < low), now, low), np.where(down | (now > high), now, high)
        low, high = np.where(down, now, low), np.where(up, now, high)
    return found


def _most(swings: list[tuple[int, int]], fps: float) -> Flashes:
    """The second with the most flashes. A flash is a pair of successive swings in opposite directions."""
    turns = [s for k, s in enumerate(swings) if k == 0 or s[1] != swings[k - 1][1]]
    best = Flashes(0.0, 0)
    for at, _ in turns:
        inside = sum(at <= t < at + fps for t, _ in turns)
        if inside // 2 > best.per_second:
            best = Flashes(float(inside // 2), at)
    return best


def black_frames(dark: np.ndarray, cells: np.ndarray, share: float = 0.98) -> np.ndarray:
    """Indices of the frames that are dark on at least `share` of their area, without the black frames of fades.

    A fade is a run of black frames at the beginning or the end, at most a tenth of the clip long. The light must fall into
    it over at least four frames, and no single step may take more than half of it. A sudden change to black is no fade.

    Args:
        dark: float (n,), share of dark pixels, 0..1. cells: float32 (n, h, w), levels.
    """
    black, light = dark >= share, cells.mean(axis=(1, 2))
    opening, closing = _fade(black[::-1], light[::-1]), _fade(black, light)
    found = np.flatnonzero(black)
    return found[(found >= opening) & (found < len(black) - closing)]


def _fade(black: np.ndarray, light: np.ndarray) -> int:
    """How many black frames at the clip's end belong to a fade; 0 where there is no fade."""
    n = len(black)
    run = n - 1 - int(np.flatnonzero(~black).max(initial=-1))
    if not run or run > max(1, round(n / 10)) or n - run < 4:
        return 0
    falls = -np.diff(light[n - run - 4 : n - run + 1])
    gradual = (falls >= -0.5).all() and falls.max() <= 0.5 * light[n - run - 4]
    return run if gradual else 0


@dataclass(frozen=True)
class Drift:
    """How the end of a clip differs from its beginning, in CIELAB.

    colour: ratio, 0 up; 1 where both of its terms say that the palette moved. It is the smaller of two terms: the
        Bhattacharyya distance of 32x32 histograms of (a, b), divided by 0.4; and the median pixel's change of (a, b),
        divided by 8. A pan keeps the histogram and a walking figure keeps most pixels, so neither is a drift.
    exposure: L, 0..100. It is the smaller of the median shift of L's deciles and the median pixel's shift of L, times
        (1 + r) / 2; 0 where the two shifts have opposite signs. r is the correlation of L between the two pictures: a
        low r means that the camera has moved on, and other light may then be another place.
    """

    colour: float
    exposure: float


def drift(thumbs: np.ndarray, cells: np.ndarray) -> Drift:
    """Compare the median picture of the clip's first tenth with that of its last tenth. Fades at either end are left out.

    A tenth is at least 3 frames, or half of a clip that is shorter than 6.

    Args:
        thumbs: uint8 RGB (n, h, w, 3). cells: float32 (n, h, w), levels.
    """
    light = cells.mean(axis=(1, 2))
    start, end = len(light) - _before_fade(light[::-1]), _before_fade(light)
    k = max(1, min(max(3, (end - start) // 10), (end - start) // 2))
    first, last = (_median_lab(thumbs[part]) for part in (slice(start, start + k), slice(end - k, end)))
    palette = float(np.sqrt(max(0.0, 1.0 - np.sqrt(_palette(first) * _palette(last)).sum())))
    moved = float(np.median(np.linalg.norm(first[..., 1:] - last[..., 1:], axis=-1)))
    deciles = np.arange(10, 100, 10)
    decile_shift = float(np.median(np.percentile(last[..., 0], deciles) - np.percentile(first[..., 0], deciles)))
    pixel_shift = float(np.median(last[..., 0] - first[..., 0]))
    r = _correlation(first[..., 0], last[..., 0])
    exposure = min(abs(decile_shift), abs(pixel_shift)) * (1 + r) / 2 if decile_shift * pixel_shift > 0 else 0.0
    return Drift(colour=min(palette / 0.4, moved / 8), exposure=exposure)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; negative values become 0. It is undefined for a flat picture, and 1 is returned for that."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return max(0.0, float((a * b).sum()) / size) if size > 1e-3 else 1.0


def _before_fade(light: np.ndarray) -> int:
    """Number of frames before a closing fade to black or white; all frames without a fade. It takes at most a third of the clip."""
    n = len(light)
    if not n or 30 < light[-1] < 225:
        return n
    sign = -1 if light[-1] <= 30 else 1
    i = n - 1
    while i > 2 * n // 3 and sign * (light[i] - light[i - 1]) >= -0.5:
        i -= 1
    return max(1, i)


def _median_lab(thumbs: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.median(thumbs, axis=0).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _palette(lab: np.ndarray) -> np.ndarray:
    """32x32 histogram of a and b with sum 1. It is blurred, so that a flat colour near a bin's edge does not jump between bins."""
    bins = np.clip((lab[..., 1:] + 128) / 8, 0, 31).astype(int)
    counts = np.bincount((bins[..., 0] * 32 + bins[..., 1]).ravel(), minlength=1024).reshape(32, 32).astype(np.float32)
    soft = cv2.GaussianBlur(counts, (0, 0), 1.0)
    return soft / soft.sum()


SRGB_TO_LINEAR = np.where(np.arange(256) <= 10, np.arange(256) / 255 / 12.92, ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4).astype(
    np.float32
)
