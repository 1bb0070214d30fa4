"""Measures of two pictures of equal shape: do they show the same? Pictures are uint8 RGB, (height, width, 3)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .picture import gray
from .still import working_size


@dataclass(frozen=True)
class Likeness:
    """How alike two pictures are.

    ssim_min, ssim_median: SSIM of luma in the worst and the median of 8x8 tiles, -1..1.
    delta_e: mean colour difference (CIE76) at 48x32, 0 up; shows a change of the whole light or palette.
    delta_e_max: mean colour difference (CIE76) in the worst of 8x8 tiles, 0 up; shows that one figure changed its coat.
    """

    ssim_min: float
    ssim_median: float
    delta_e: float
    delta_e_max: float


def likeness(a: np.ndarray, b: np.ndarray) -> Likeness:
    """Compare two pictures tile by tile, after aligning b to a.

    The worst tile shows a missing or a recoloured character, which a mean over the picture hides.
    The alignment is a partial affine transform (Lucas-Kanade points, RANSAC). It is used only where its scale
    is 0.9..1.1 and its shift at most a tenth of the width: a small zoom or shake in the first frame is not
    a wrong picture. SSIM is as in Wang et al. 2004, with a Gaussian window of sigma 1.5.
    """
    size = working_size(a.shape[1], a.shape[0])
    a, b = (cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in (a, b))
    overall = float(np.linalg.norm(lab(_tiny(a)) - lab(_tiny(b)), axis=2).mean())
    b = _align(a, b)
    ssim = tiles(ssim_map(gray(a).astype(np.float32), gray(b).astype(np.float32)))
    # Blurred first, so that the colours of areas are compared: a line that is off by a pixel must not count.
    soft = [lab(cv2.GaussianBlur(p, (0, 0), size[0] / 96)) for p in (a, b)]
    colour = tiles(np.linalg.norm(soft[0] - soft[1], axis=2))
    return Likeness(ssim_min=float(ssim.min()), ssim_median=float(np.median(ssim)), delta_e=overall, delta_e_max=float(colour.max()))


def ssim_map(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) at every pixel, -1..1; Gaussian window of sigma 1.5.

    Args:
        x, y: luma, float32 (height, width), levels 0..255.
    """

    def blur(p: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(p, (11, 11), 1.5)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    ssim = ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return np.clip(ssim, -1, 1)  # rounding in single precision gives a flat picture slightly more than 1


def lab(image: np.ndarray) -> np.ndarray:
    """CIELAB of uint8 RGB, float32 (height, width, 3): L 0..100, a and b about -128..127."""
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _tiny(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (48, 32), interpolation=cv2.INTER_AREA)


def tiles(values: np.ndarray) -> np.ndarray:
    """Means of 8x8 tiles: float32 (8, 8)."""
    return cv2.resize(values.astype(np.float32), (8, 8), interpolation=cv2.INTER_AREA)


def _align(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """b, moved onto a; unchanged where no plausible transform is found."""
    luma_a, luma_b = gray(a), gray(b)
    points = cv2.goodFeaturesToTrack(luma_a, 200, 0.01, 4)
    if points is None or len(points) < 8:
        return b
    moved, found, _ = cv2.calcOpticalFlowPyrLK(luma_a, luma_b, points, None, winSize=(15, 15), maxLevel=2)  # type: ignore[call-overload]
    good = found[:, 0] == 1
    if good.sum() < 8:
        return b
    matrix, _ = cv2.estimateAffinePartial2D(moved[good], points[good], ransacReprojThreshold=2.0)
    height, width = luma_a.shape
    if matrix is None or not 0.9 <= np.hypot(matrix[0, 0], matrix[1, 0]) <= 1.1 or np.abs(matrix[:, 2]).max() > 0.1 * width:
        return b
    return cv2.warpAffine(b, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
