"""Is the light steady? Measures over a reduced clip: flicker, flashes, black frames, drift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

REDRAWN = 25.0  # levels: a cell that changes more was drawn anew, which flicker does not do
FLASH_CAP = 8.0  # percent: larger swings of the whole picture are flashes, and `flashes` counts them
DIM = 32.0  # levels: what is darker does not flicker for an eye


@dataclass(frozen=True)
class Flicker:
    """whole: the picture's light, in percent of itself, 0..8. texture: levels, 0..25. per_frame: percent (n,)."""

    whole: float
    texture: float
    per_frame: np.ndarray


def flicker(cells: np.ndarray, change: np.ndarray) -> Flicker:
    """How much the light goes back and forth between drawings.

    Held frames are left out. For three drawings a, b, c in a row the energy is min(|b-a|, |b-c|) where b lies outside of
    a and c, and 0 where light goes one way. whole: of the median cell's light, in percent of the mean light. texture: the
    median over cells of the energy of what a cell does besides, leaving out cells that were redrawn (speed lines, rain).
    Both are means over drawings; at least a third of the clip's frames count, so that one lightning stays one event.

    Args:
        cells: float32 (n, h, w), levels. change: float (n,), levels.
    """
    per_frame = np.zeros(len(cells))
    shown = np.concatenate([[0], np.flatnonzero(change >= 1.0)])
    if len(shown) < 3:
        return Flicker(0.0, 0.0, per_frame)
    steps = np.diff(cells[shown], axis=0)
    common = np.median(steps, axis=(1, 2))
    light = np.maximum(cells[shown].mean(axis=(1, 2)), DIM)[1:-1]
    whole = np.minimum(100 * _back_and_forth(common) / light, FLASH_CAP)
    own = steps - common[:, None, None]
    redrawn = np.abs(own) > REDRAWN
    local = np.where(redrawn[:-1] | redrawn[1:], 0.0, _back_and_forth(own))
    count = max(len(whole), len(cells) / 3)
    per_frame[shown[1:-1]] = whole
    return Flicker(float(whole.sum() / count), float(np.median(local.sum(axis=0)) / count), per_frame)


def _back_and_forth(steps: np.ndarray) -> np.ndarray:
    a, b = steps[:-1], steps[1:]
    return np.where(a * b < 0, np.minimum(np.abs(a), np.abs(b)), 0.0)


@dataclass(frozen=True)
class Flashes:
    """Most flashes in any second, and the first frame of that second."""

    per_second: float
    at: int


def flashes(colours: np.ndarray, fps: float) -> tuple[Flashes, Flashes]:
    """General and red flashes after WCAG 2.3.1, each a pair of opposing changes on at least a quarter of the picture.

    General: relative luminance changes by 0.10 or more while the darker state is under 0.80. Red: (R - G - B) x 320
    changes by more than 20 and one of the states is a saturated red, R / (R + G + B) >= 0.8 (linear light).
    A quarter must go the same way in the same frame, less what goes the other way: pans and speed lines do not flash.

    Args:
        colours: uint8 RGB (n, h, w, 3), the mean colours of large cells. fps: frames a second.
    """
    linear = SRGB_TO_LINEAR[colours]
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    red = np.maximum(0.0, linear[..., 0] - linear[..., 1] - linear[..., 2]) * 320
    saturated = linear[..., 0] >= 0.8 * np.maximum(linear.sum(axis=-1), 1e-6)
    general = _swings(luminance, 0.10, 0.80)
    return _most(general, fps), _most(_swings(np.where(saturated, red, 0.0), 20.0, math.inf), fps)


def _swings(values: np.ndarray, least: float, darker_under: float) -> list[tuple[int, int]]:
    """(frame, +1 or -1) for every frame in which a quarter of the cells completes a change in one direction."""
    low, high = values[0].copy(), values[0].copy()
    found: list[tuple[int, int]] = []
    for i in range(1, len(values)):
        now = values[i]
        up, down = (now - low >= least) & (low < darker_under), (high - now >= least) & (now < darker_under)
        net = float(up.mean() - down.mean())
        if abs(net) >= 0.25:
            found.append((i, 1 if net > 0 else -1))
        # An extreme starts anew where the change is complete; until then it follows the cell.
        low, high = np.where(up | (now < low), now, low), np.where(down | (now > high), now, high)
        low, high = np.where(down, now, low), np.where(up, now, high)
    return found


def _most(swings: list[tuple[int, int]], fps: float) -> Flashes:
    """Opposing swings in a row, by pairs, in the fullest second."""
    turns = [s for k, s in enumerate(swings) if k == 0 or s[1] != swings[k - 1][1]]
    best = Flashes(0.0, 0)
    for at, _ in turns:
        inside = sum(at <= t < at + fps for t, _ in turns)
        if inside // 2 > best.per_second:
            best = Flashes(float(inside // 2), at)
    return best


def black_frames(dark: np.ndarray, cells: np.ndarray, share: float = 0.98) -> np.ndarray:
    """Numbers of the frames that are dark on `share` of their area, less those at the end of a fade.

    A fade is at most a tenth of the clip at its beginning or end, and is gone into gradually: light falls for four
    frames at least, by no more than half at once. Black that comes at once is no fade.
    """
    black, light = dark >= share, cells.mean(axis=(1, 2))
    opening, closing = _fade(black[::-1], light[::-1]), _fade(black, light)
    found = np.flatnonzero(black)
    return found[(found >= opening) & (found < len(black) - closing)]


def _fade(black: np.ndarray, light: np.ndarray) -> int:
    """How many black frames at the end are the end of a fade."""
    n = len(black)
    run = n - 1 - int(np.flatnonzero(~black).max(initial=-1))
    if not run or run > max(1, round(n / 10)) or n - run < 4:
        return 0
    falls = -np.diff(light[n - run - 4 : n - run + 1])
    gradual = (falls >= -0.5).all() and falls.max() <= 0.5 * light[n - run - 4]
    return run if gradual else 0


@dataclass(frozen=True)
class Drift:
    """How the end of a clip differs from its beginning.

    colour: the smaller of the Bhattacharyya distance of 32x32 ab histograms / 0.4 and the median cell's change of
        (a, b) / 8; 0 up, 1 where both say that the palette moved. A pan keeps its palette, a walk keeps most cells.
    exposure: the smaller of the median shift of L's deciles and the median cell's shift of L, times half of one plus
        the correlation of the two pictures' L (where the camera has moved on, other light may be another place); L, 0..100.
    """

    colour: float
    exposure: float


def drift(thumbs: np.ndarray, cells: np.ndarray) -> Drift:
    """First against last tenth of the clip (3 frames at least), each as the median picture; fades at either end are left out."""
    light = cells.mean(axis=(1, 2))
    start, end = len(light) - _before_fade(light[::-1]), _before_fade(light)
    k = max(1, min(max(3, (end - start) // 10), (end - start) // 2))
    first, last = (_median_lab(thumbs[part]) for part in (slice(start, start + k), slice(end - k, end)))
    palette = float(np.sqrt(max(0.0, 1.0 - np.sqrt(_palette(first) * _palette(last)).sum())))
    moved = float(np.median(np.linalg.norm(first[..., 1:] - last[..., 1:], axis=-1)))
    shift = last[..., 0] - first[..., 0]
    deciles = np.arange(10, 100, 10)
    spread = float(np.median(np.percentile(last[..., 0], deciles) - np.percentile(first[..., 0], deciles)))
    middle = float(np.median(shift))
    same = _correlation(first[..., 0], last[..., 0])
    exposure = min(abs(spread), abs(middle)) * (1 + same) / 2 if spread * middle > 0 else 0.0
    return Drift(min(palette / 0.4, moved / 8), exposure)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, 0 where it is negative; 1 where a picture is flat, and any other is as like it as can be."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return max(0.0, float((a * b).sum()) / size) if size > 1e-3 else 1.0


def _before_fade(light: np.ndarray) -> int:
    """Frames before a closing fade to black or white, which may take a third of the clip."""
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
    """32x32 histogram of a and b, softened so that flat cel does not hop between bins."""
    bins = np.clip((lab[..., 1:] + 128) / 8, 0, 31).astype(int)
    counts = np.bincount((bins[..., 0] * 32 + bins[..., 1]).ravel(), minlength=1024).reshape(32, 32).astype(np.float32)
    soft = cv2.GaussianBlur(counts, (0, 0), 1.0)
    return soft / soft.sum()


SRGB_TO_LINEAR = np.where(np.arange(256) <= 10, np.arange(256) / 255 / 12.92, ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4).astype(
    np.float32
)
