"""Measures of a finished clip against the clip that it was made from: reduced to that size, it must be the same clip, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from . import picture as p
from .pair import lab, ssim_map, tiles
from .still import Undecodable

if TYPE_CHECKING:
    from .decode import Frame

SAMPLES = 12  # frames whose sharpness is measured at full size, evenly spread
SOFT = 1.0  # pixels (of the source): colours are compared after a blur of this sigma, so that a crisper line is no other colour


class Beside:
    """Reads the source along with the finished clip; both are read once, one frame at a time.

    Args:
        source: path of the clip. hint: expected number of frames; it only decides which frames are measured at full size.
    """

    def __init__(self, source: Path, hint: int):
        self.source, self.stack = source, ExitStack()
        self.stride = max(1, hint // SAMPLES)
        self.rows: list[tuple[float, float, float]] = []
        self.residuals: list[np.ndarray] = []
        self.gains: list[float] = []

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def along(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The finished frames as they are, each compared with the source's of the same number on its way.

        Raises:
            Undecodable: the source cannot be decoded to its end.
        """
        sources = self._sources()
        for number, frame in enumerate(frames):
            source = next(sources, None)
            if source is not None:
                self._compare(number, frame, source)
            yield frame

    def _sources(self) -> Iterator[Frame]:
        from .decode import VideoReader

        try:
            yield from self.stack.enter_context(VideoReader(self.source))
        except Undecodable as error:
            raise Undecodable(f"what it was made from: {error}") from error

    def _compare(self, number: int, frame: Frame, source: Frame) -> None:
        given, made = source.small, frame.small
        made = cv2.resize(made, given.shape[1::-1], interpolation=cv2.INTER_AREA)
        luma = [p.gray(picture).astype(np.float32) for picture in (given, made)]
        soft = [lab(cv2.GaussianBlur(picture, (0, 0), SOFT)) for picture in (given, made)]
        away = np.linalg.norm(soft[0] - soft[1], axis=2)
        self.rows.append((float(tiles(ssim_map(*luma)).min()), float(away.mean()), float(tiles(away).max())))
        self.residuals.append(tiles(luma[1] - luma[0]))
        if number % self.stride == 0:
            self.gains.append(sharper(frame.luma(), source.luma()))

    def values(self) -> dict[str, float]:
        """The measures; `measures.VIDEO` has units and ranges."""
        if not self.rows:
            return {}
        ssim, mean, worst = np.array(self.rows).T
        moved = np.abs(np.diff(np.stack(self.residuals), axis=0)).reshape(len(self.residuals) - 1, -1)
        return {
            "source_ssim": float(ssim.min()),
            "source_ssim_at": float(ssim.argmin()),
            "source_delta_e": float(mean.max()),
            "source_delta_e_at": float(mean.argmax()),
            "source_tile_delta_e": float(worst.max()),
            "source_tile_delta_e_at": float(worst.argmax()),
            "source_flicker": float(moved.max(axis=1).mean()) if len(moved) else 0.0,
            "source_flicker_at": float(moved.max(axis=1).argmax() + 1) if len(moved) else 0.0,
            "source_sharper": float(np.median(self.gains)),
        }


def sharper(finished: np.ndarray, source: np.ndarray) -> float:
    """Sharpness (`picture.sharpness`) of a finished frame over that of its source enlarged by Lanczos. 1: no sharper than that.

    Args:
        finished, source: luma, uint8 (height, width), the finished frame larger or as large.
    """
    plain = cv2.resize(source, finished.shape[::-1], interpolation=cv2.INTER_LANCZOS4)
    return p.sharpness(finished) / max(p.sharpness(plain), 1.0)
