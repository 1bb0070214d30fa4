"""Measures: one number each, from pixels. Formula, unit and range stand with each.

All pictures are uint8 RGB, shape (height, width, 3); all clips uint8 RGB, (frames, height, width, 3).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

cv2.setNumThreads(1)  # a gate is one CPU task; more threads would steal the neighbours' cores

WORK_AREA = 384 * 256  # pixels that moving measures are taken at: enough for cells of 16, and bounded in cost


def gray(image: np.ndarray) -> np.ndarray:
    """Luma (ITU-R BT.601 weights, as OpenCV has them), uint8."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def contrast(image: np.ndarray) -> float:
    """Standard deviation of luma, levels 0..127. An empty (single-coloured) picture is near 0."""
    return float(gray(image).std())


def dark_fraction(image: np.ndarray) -> float:
    """Share of pixels with luma under 25 of 255 (about ffmpeg blackdetect's pixel threshold of .10), 0..1."""
    return float((gray(image) < 25).mean())


def over_exposed_fraction(image: np.ndarray) -> float:
    """Share of pixels whose darkest channel is at least 250 of 255: burnt-out white, 0..1."""
    return float((image.min(axis=2) >= 250).mean())


def noise_residual(image: np.ndarray) -> float:
    """Median of |luma - 3x3 median filter of luma| over all pixels, levels 0..255.

    Drawings are flat between their lines, so at least half of their pixels equal their neighbourhood
    and the median is near 0; noise has no flat pixels. (Robust statistics of a median residual: as in
    Immerkaer, "Fast Noise Variance Estimation", 1996, with a median in place of the Laplacian.)
    """
    luma = gray(image)
    return float(np.median(cv2.absdiff(luma, cv2.medianBlur(luma, 3))))


def flat_fraction(image: np.ndarray) -> float:
    """Share of pixels whose luma lies within 6 levels of their 3x3 median, 0..1. Noise has few."""
    luma = gray(image)
    return float((cv2.absdiff(luma, cv2.medianBlur(luma, 3)) <= 6).mean())


def working_size(height: int, width: int) -> tuple[int, int]:
    """(width, height) with about WORK_AREA pixels at most, same shape; small pictures stay as they are."""
    factor = min(1.0, (WORK_AREA / (height * width)) ** 0.5)
    return max(16, round(width * factor)), max(16, round(height * factor))


def motion(frames: np.ndarray) -> np.ndarray:
    """Largest change of any cell from one frame to the next, levels 0..255; shape (frames - 1,).

    Mean |difference| of luma in cells of a 24x16 grid, maximum over cells: small moving things (an eye,
    a mouth) count as motion, sparse noise does not.
    """
    size = working_size(*frames.shape[1:3])
    small = [cv2.resize(gray(f), size, interpolation=cv2.INTER_AREA) for f in frames]
    grid = (max(1, min(24, size[0] // 4)), max(1, min(16, size[1] // 4)))
    return np.array(
        [cv2.resize(cv2.absdiff(a, b).astype(np.float32), grid, interpolation=cv2.INTER_AREA).max() for a, b in itertools.pairwise(small)]
    )


def reach(frames: np.ndarray) -> float:
    """How far any cell ever gets from its first frame, levels 0..255: the largest `motion` against frame 0.

    Slow movement hides from frame-to-frame differences at high frame rates, but not from this.
    """
    picks = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), 25)).round().astype(int))[1:]
    return max((float(motion(frames[[0, i]])[0]) for i in picks), default=0.0)


def picture_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean CIE76 colour difference between two pictures after reduction to 48x32, units of Delta E."""
    small = [
        cv2.cvtColor(cv2.resize(x, (48, 32), interpolation=cv2.INTER_AREA).astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for x in (a, b)
    ]
    return float(np.linalg.norm(small[0] - small[1], axis=2).mean())


@dataclass(frozen=True)
class Likeness:
    """How alike two pictures are, over 8x8 tiles: SSIM of luma (-1..1) and colour difference (CIE76 Delta E, 0..)."""

    ssim_min: float
    ssim_median: float
    delta_e_max: float


def likeness(a: np.ndarray, b: np.ndarray) -> Likeness:
    """Compare two pictures tile by tile, after aligning b to a.

    The worst tile tells a missing or a recoloured character, which a mean over the picture hides.

    The alignment is a partial affine transform (Lucas-Kanade points, RANSAC) kept only while its scale
    is 0.9..1.1 and its shift under a tenth of the width: a small zoom or shake in the first frame is not
    a wrong picture. SSIM as in Wang et al. 2004, Gaussian window sigma 1.5, on luma at working size.
    """
    size = working_size(*a.shape[:2])
    a, b = (cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in (a, b))
    b = _align(a, b)
    ssim = _tiles(_ssim_map(gray(a).astype(np.float32), gray(b).astype(np.float32)))
    # Softened first: the colour of an area counts, not a line that lies a pixel beside its twin.
    lab = [cv2.cvtColor(cv2.GaussianBlur(p, (0, 0), size[0] / 96).astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for p in (a, b)]
    colour = _tiles(np.linalg.norm(lab[0] - lab[1], axis=2))
    return Likeness(float(ssim.min()), float(np.median(ssim)), float(colour.max()))


def _tiles(values: np.ndarray) -> np.ndarray:
    return cv2.resize(values.astype(np.float32), (8, 8), interpolation=cv2.INTER_AREA)


def _align(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    x, y = gray(a), gray(b)
    points = cv2.goodFeaturesToTrack(x, 200, 0.01, 4)
    if points is None or len(points) < 8:
        return b
    moved, found, _ = cv2.calcOpticalFlowPyrLK(x, y, points, None, winSize=(15, 15), maxLevel=2)  # type: ignore[call-overload]
    good = found[:, 0] == 1
    if good.sum() < 8:
        return b
    matrix, _ = cv2.estimateAffinePartial2D(moved[good], points[good], ransacReprojThreshold=2.0)
    if matrix is None or not 0.9 <= np.hypot(matrix[0, 0], matrix[1, 0]) <= 1.1 or np.abs(matrix[:, 2]).max() > 0.1 * x.shape[1]:
        return b
    return cv2.warpAffine(b, matrix, (x.shape[1], x.shape[0]), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _ssim_map(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    def blur(p: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(p, (11, 11), 1.5)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    return ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
