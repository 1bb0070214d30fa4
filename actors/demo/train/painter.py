"""A canvas that takes coordinates in units, whatever its size in pixels.

Drawn with OpenCV at twice the wanted size and reduced by area: smooth edges without a thousand samples.
"""

from __future__ import annotations

import cv2
import numpy as np

cv2.setNumThreads(1)

UNITS = 64  # of the picture's height
BLEED = 0.7  # pixels of the canvas by which OpenCV's smooth edges lie outside what they should bound, at any size (measured)
OUTLINE_RGB = (34, 28, 46)
Rgb = tuple[int, ...]  # red, green, blue, 0..255


class Painter:
    """A canvas of twice the wanted size that takes coordinates in units.

    The world is as it looks at a height of UNITS pixels, with OpenCV's bleeding edges and strokes of whole pixels. A larger
    picture shows the same shapes and strokes: `growth` widens there what would bleed less.
    """

    def __init__(self, height: int, width: int, tint: tuple[float, float, float]):
        self.scale = 2 * height / UNITS
        self.size = (height, width)
        self.units_wide = width * UNITS / height
        self.canvas = np.zeros((2 * height, 2 * width, 3), np.uint8)
        self.growth = BLEED * (self.scale / 2 - 1)  # pixels of the canvas, on each side
        self.tint = tint

    def colour(self, rgb: Rgb, tinted: bool = True) -> Rgb:
        r, g, b = (int(c * t) for c, t in zip(rgb, self.tint, strict=False)) if tinted else rgb
        return r, g, b

    def points(self, xy: list[tuple[float, float]]) -> np.ndarray:
        return np.round((np.array(xy) * self.scale - 0.5) * 16).astype(np.int32)

    def polygon(self, xy: list[tuple[float, float]], rgb: Rgb, tinted: bool = True, outline: bool = False) -> None:
        pts = self.points(xy)
        cv2.fillPoly(self.canvas, [pts], self.colour(rgb, tinted), cv2.LINE_AA, 4)
        if edge := round(2 * self.growth):
            cv2.polylines(self.canvas, [pts], True, self.colour(rgb, tinted), edge, cv2.LINE_AA, 4)
        if outline:
            cv2.polylines(self.canvas, [pts], True, self.colour(OUTLINE_RGB), self.stroke(0.9), cv2.LINE_AA, 4)

    def ellipse(self, x: float, y: float, rx: float, ry: float, rgb: Rgb, tinted: bool = True, outline: bool = False) -> None:
        centre = self.points([(x, y)])[0]
        for grown, colour, stroke in ((self.growth, self.colour(rgb, tinted), -1), (0.0, self.colour(OUTLINE_RGB), self.stroke(0.9))):
            axes = np.round((np.array([rx, ry]) * self.scale + grown) * 16).astype(int).tolist()
            if stroke < 0 or outline:
                cv2.ellipse(self.canvas, centre.tolist(), axes, 0, 0, 360, colour, stroke, cv2.LINE_AA, 4)

    def line(self, xy: list[tuple[float, float]], width: float, rgb: Rgb, tinted: bool = True) -> None:
        cv2.polylines(self.canvas, [self.points(xy)], False, self.colour(rgb, tinted), self.stroke(width), cv2.LINE_AA, 4)

    def stroke(self, width: float) -> int:
        """Pixels of the canvas: whole ones at a height of UNITS pixels, where the canvas has two for each unit."""
        return round(max(1, round(2 * width)) * self.scale / 2 + 2 * self.growth)

    def finish(self) -> np.ndarray:
        height, width = self.size
        return cv2.resize(self.canvas, (width, height), interpolation=cv2.INTER_AREA)
