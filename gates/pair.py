"""Measures of two pictures of one shape: is the second the first again? uint8 RGB, (height, width, 3)."""

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
    delta_e: mean colour difference (CIE76) at 48x32, 0 up; light and palette as a whole.
    delta_e_max: the same in the worst of 8x8 tiles; one figure's other coat.
    """

    ssim_min: float
    ssim_median: float
    delta_e: float
    delta_e_max: float


def likeness(a: np.ndarray, b: np.ndarray) -> Likeness:
    """Compare two pictures tile by tile, after aligning b to a.

    The worst tile tells a missing or a recoloured character, which a mean over the picture hides.
    The alignment is a partial affine transform (Lucas-Kanade points, RANSAC) kept only while its scale
    is 0.9..1.1 and its shift under a tenth of the width: a small zoom or shake in the first frame is not
    a wrong picture. SSIM as in Wang et al. 2004, Gaussian window of sigma 1.5.
    """
    size = working_size(a.shape[1], a.shape[0])
    a, b = (cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in (a, b))
    overall = float(np.linalg.norm(_lab(_tiny(a)) - _lab(_tiny(b)), axis=2).mean())
    b = _align(a, b)
    ssim = _tiles(ssim_map(gray(a).astype(np.float32), gray(b).astype(np.float32)))
    # Softened first: the colour of an area counts, not a line that lies a pixel beside its twin.
    soft = [_lab(cv2.GaussianBlur(p, (0, 0), size[0] / 96)) for p in (a, b)]
    colour = _tiles(np.linalg.norm(soft[0] - soft[1], axis=2))
    return Likeness(float(ssim.min()), float(np.median(ssim)), overall, float(colour.max()))


def ssim_map(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) at every pixel of two float32 lumas of 0..255; Gaussian window, sigma 1.5; -1..1."""

    def blur(p: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(p, (11, 11), 1.5)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    ssim = ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return np.clip(ssim, -1, 1)  # in single precision a flat picture comes out a ten-thousandth above 1


def _lab(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _tiny(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (48, 32), interpolation=cv2.INTER_AREA)


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
