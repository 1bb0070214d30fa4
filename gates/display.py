"""What a player does with a decoded frame before it shows it: it scales pixels that are not square, turns, mirrors, guesses colours.

This module, `decode` and `frames` are the only ones of `gates` that import PyAV.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np

from .still import MAX_PIXELS, Undecodable

UNTAGGED, BT709 = 2, 1  # FFmpeg's numbers of colour spaces
HD_WIDTH, HD_HEIGHT = 1280, 720  # pixels, as stored: untagged files of this size and over are BT.709 for players, smaller ones BT.601
HDR = {16: "PQ (smpte2084)", 18: "HLG (arib-std-b67)"}  # FFmpeg's numbers of transfer curves that need an HDR screen
UPRIGHT = ((1, 0), (0, 1))


@dataclass(frozen=True)
class Display:
    """How a clip's frames are shown.

    aspect: width over height of one stored pixel; 1 where pixels are square. The width is scaled by it, before any turn.
    turn: signs of the display matrix's four parts ((a, b), (c, d)): a stored x goes to a on the shown x and b on the shown y,
    a stored y to c and d. Players turn by right angles only; so does this, by the one that is nearest.
    """

    aspect: Fraction = Fraction(1)
    turn: tuple[tuple[int, int], tuple[int, int]] = UPRIGHT

    @classmethod
    def of(cls, picture: av.VideoFrame, aspect: Fraction | None) -> Display:
        """The display of a clip.

        Args:
            picture: its first frame, which carries the display matrix.
            aspect: of its pixels; None or 0 where it is not known, which players take for square.
        """
        data: Any = picture.side_data  # PyAV's type is a mapping, its annotation is not
        matrix = data.get("DISPLAYMATRIX")
        return cls(aspect or Fraction(1), _turn(bytes(matrix)) if matrix is not None else UPRIGHT)

    def shown(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The frame as a player shows it. One that is upright, with square pixels, is the frame itself, with all its bits.

        Raises:
            Undecodable: the shown frame has more than MAX_PIXELS.
        """
        if picture.colorspace == UNTAGGED and picture.format.name.startswith(("yuv", "nv", "p0")) and _is_hd(picture):
            picture.colorspace = BT709
        width = max(1, round(picture.width * self.aspect))
        if width == picture.width and self.turn == UPRIGHT:
            return picture
        if width * picture.height > MAX_PIXELS:
            raise Undecodable(f"{width}x{picture.height} pixels are more than the {MAX_PIXELS:,} that are read")
        image: np.ndarray = picture.to_ndarray(format="rgb24")
        if width != picture.width:
            how = cv2.INTER_AREA if width < picture.width else cv2.INTER_CUBIC
            image = cv2.resize(image, (width, picture.height), interpolation=how)
        shown = av.VideoFrame.from_ndarray(self._turned(image), format="rgb24")
        shown.pts, shown.time_base = picture.pts, picture.time_base
        return shown

    def _turned(self, image: np.ndarray) -> np.ndarray:
        (a, b), (c, d) = self.turn
        if b:
            image, a, d = image.transpose(1, 0, 2), c, b
        return np.ascontiguousarray(image[:: d or 1, :: a or 1])


def _turn(matrix: bytes) -> tuple[tuple[int, int], tuple[int, int]]:
    """Signs of the parts of a display matrix: nine 32-bit numbers, of which a, b, -, c, d, - turn and mirror."""
    if len(matrix) < 36:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(np.int64)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return ((-1 if a < 0 else 1, 0), (0, -1 if d < 0 else 1))
    return ((0, -1 if b < 0 else 1), (-1 if c < 0 else 1, 0))


def _is_hd(picture: av.VideoFrame) -> bool:
    return picture.width >= HD_WIDTH or picture.height >= HD_HEIGHT
