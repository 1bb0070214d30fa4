"""A canvas that takes coordinates in units, whatever its size in pixels.

Drawn with OpenCV at twice the wanted size and reduced by area: smooth edges without a thousand samples.
"""

from __future__ import annotations

import cv2
import numpy as np

cv2.setNumThreads(1)

UNITS = 64  # of the picture's height
OUTLINE_RGB = (34, 28, 46)
Rgb = tuple[int, ...]  # red, green, blue, 0..255


class Painter:
    """A canvas of twice the wanted size that takes coordinates in units."""

    def __init__(self, height: int, width: int, tint: tuple[float, float, float]):
        self.scale = 2 * height / UNITS
        self.size = (height, width)
        self.units_wide = width * UNITS / height
        self.canvas = np.zeros((2 * height, 2 * width, 3), np.uint8)
        self.tint = tint

    def colour(self, rgb: Rgb, tinted: bool = True) -> Rgb:
        r, g, b = (int(c * t) for c, t in zip(rgb, self.tint, strict=False)) if tinted else rgb
        return r, g, b

    def points(self, xy: list[tuple[float, float]]) -> np.ndarray:
        return np.round((np.array(xy) * self.scale - 0.5) * 16).astype(np.int32)

    def polygon(self, xy: list[tuple[float, float]], rgb: Rgb, tinted: bool = True, outline: bool = False) -> None:
        pts = self.points(xy)
        cv2.fillPoly(self.canvas, [pts], self.colour(rgb, tinted), cv2.LINE_AA, 4)
        if outline:
            cv2.polylines(self.canvas, [pts], True, self.colour(OUTLINE_RGB), self.stroke(0.9), cv2.LINE_AA, 4)

    def ellipse(self, x: float, y: float, rx: float, ry: float, rgb: Rgb, tinted: bool = True, outline: bool = False) -> None:
        centre = self.points([(x, y)])[0]
        axes = np.round(np.array([rx, ry]) * self.scale * 16).astype(int)
        args = (self.canvas, (int(centre[0]), int(centre[1])), (int(axes[0]), int(axes[1])), 0, 0, 360)
        cv2.ellipse(*args, self.colour(rgb, tinted), -1, cv2.LINE_AA, 4)
        if outline:
            cv2.ellipse(*args, self.colour(OUTLINE_RGB), self.stroke(0.9), cv2.LINE_AA, 4)

    def line(self, xy: list[tuple[float, float]], width: float, rgb: Rgb, tinted: bool = True) -> None:
        cv2.polylines(self.canvas, [self.points(xy)], False, self.colour(rgb, tinted), self.stroke(width), cv2.LINE_AA, 4)

    def stroke(self, width: float) -> int:
        return max(1, round(width * self.scale))

    def finish(self) -> np.ndarray:
        height, width = self.size
        return cv2.resize(self.canvas, (width, height), interpolation=cv2.INTER_AREA)
