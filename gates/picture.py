"""Measures of one picture: uint8 RGB, shape (height, width, 3), or its luma, (height, width)."""

from __future__ import annotations

import cv2
import numpy as np

cv2.setNumThreads(1)  # a gate runs as a CPU task on one core; more threads would take cores from other tasks

DARK = 25  # luma: a dark pixel is below this, which is ffmpeg blackdetect's pixel threshold of .10
PITCH_BLACK = 10  # luma: no drawn night scene is darker than this over its whole picture
BAR = 18  # highest channel value in a black bar, with a few levels of codec noise; drawn nights are bluer than this
BURNT = 250  # every channel of a burnt-out pixel is at least this


def gray(image: np.ndarray) -> np.ndarray:
    """Luma (ITU-R BT.601 weights, as OpenCV has them), uint8."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def contrast(luma: np.ndarray) -> float:
    """Standard deviation of luma, levels 0..127.5. An empty (single-coloured) picture is near 0."""
    return float(cv2.meanStdDev(luma)[1][0, 0])


def dark_fraction(luma: np.ndarray, level: int = DARK) -> float:
    """Share of pixels with luma under `level`, 0..1."""
    return np.count_nonzero(luma < level) / luma.size


def over_exposed_fraction(image: np.ndarray) -> float:
    """Share of burnt-out pixels, 0..1: every channel is at least 250 of 255."""
    return cv2.countNonZero(cv2.inRange(image, (BURNT,) * 3, (255,) * 3)) / (image.shape[0] * image.shape[1])


def flat_fraction(luma: np.ndarray) -> float:
    """Share of pixels whose luma lies within 6 levels of their 3x3 median, 0..1.

    Drawings are flat between their lines; noise has few flat pixels. A share and not a mean residual,
    so that dense line art counts by its area and not by its contrast.
    """
    return np.count_nonzero(cv2.absdiff(luma, cv2.medianBlur(luma, 3)) <= 6) / luma.size


def sharpness(luma: np.ndarray) -> float:
    """99th percentile of the Sobel gradient's magnitude (3x3, unnormalised), 0..1443, in whole levels.

    It measures the strongest edges, which are a drawing's lines. The Laplacian's variance would fall as the
    share of flat colour grows (it is 38 to 9,239 on good anime clips); this percentile does not.
    """
    values = luma.astype(np.float32)
    magnitude = cv2.magnitude(cv2.Sobel(values, cv2.CV_32F, 1, 0), cv2.Sobel(values, cv2.CV_32F, 0, 1))
    counts = cv2.calcHist([magnitude], [0], None, [1444], [0, 1444]).ravel()
    return float(np.searchsorted(counts.cumsum(), 0.99 * magnitude.size))


def crispness(luma: np.ndarray) -> float:
    """`sharpness` divided by the sharpness of the picture at half size, 0 up. It tells how wide edges are, whatever their contrast.

    A sharp edge is as steep at half size as at full size, which gives 1. A wide edge is twice as steep at half size,
    which gives 0.5.
    """
    half = cv2.resize(luma, (max(1, luma.shape[1] // 2), max(1, luma.shape[0] // 2)), interpolation=cv2.INTER_AREA)
    return sharpness(luma) / max(sharpness(half), 1.0)


def bars(image: np.ndarray) -> float:
    """Share of the height, or of the width, that black bars at the edges take; the larger of the two, 0..1.

    A picture that is black throughout has no bars.

    Args:
        image: a still; or, for a clip, the maximum of each pixel over all frames. A bar stays black through the whole
            clip, and a night sky does not.
    """
    lit = image.max(axis=2) > BAR
    return max((share for share in (_dark_ends(~lit.any(axis=1)), _dark_ends(~lit.any(axis=0))) if share < 1), default=0.0)


def _dark_ends(dark: np.ndarray) -> float:
    if dark.all():
        return 1.0
    lit = np.flatnonzero(~dark)
    return float((lit[0] + len(dark) - 1 - lit[-1]) / len(dark))


def perceptual_hash(luma: np.ndarray) -> int:
    """64 bits: signs of the lowest 8x8 DCT coefficients of luma at 32x32 against their median (pHash, Zauner 2010).

    The fewer bits differ, the more alike are two pictures. Recompression changes up to 4 bits; another drawing differs in about 32.
    """
    small = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return int("".join("1" if b else "0" for b in bits), 2)


def hash_distance(a: int, b: int) -> int:
    """Number of bits in which two hashes differ, 0..64."""
    return (a ^ b).bit_count()
