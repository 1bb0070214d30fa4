"""Decodes still pictures."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MAX_PIXELS = 64_000_000  # about twice an 8K frame; a larger picture is a decompression bomb and no keyframe
WORK_WIDTH, WORK_HEIGHT = 384, 256  # pixels: clips are measured at about this size, at their own aspect ratio


class Undecodable(ValueError):
    """The file cannot be decoded from its first frame to its last."""


@dataclass(frozen=True)
class Still:
    """A decoded picture.

    image: uint8 RGB (height, width, 3).
    frames: number of pictures in the file.
    finite: whether all values in the file were finite.
    """

    image: np.ndarray
    frames: int = 1
    finite: bool = True


def read_still(source: Path | bytes) -> Still:
    """Decode a picture file of any kind that Pillow reads.

    16-bit and floating-point pictures are scaled to 8 bits, CMYK and palettes become RGB, alpha is dropped.

    Raises:
        Undecodable: the file is no picture, is damaged, or has more than MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Undecodable(f"{picture.width}x{picture.height} pixels are more than the {MAX_PIXELS:,} that are read")
            frames = getattr(picture, "n_frames", 1)
            if picture.mode == "F" or picture.mode.startswith("I"):
                return _deep(np.asarray(picture), frames)
            return Still(np.asarray(picture.convert("RGB")), frames)
    except Undecodable:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them raise
        raise Undecodable(words(error)) from error


def _deep(values: np.ndarray, frames: int) -> Still:
    """A gray picture with more than 8 bits: integers of 0..65535, or floats of 0..1."""
    finite = bool(np.isfinite(values).all())
    scaled = np.nan_to_num(values.astype(np.float64)) * (255 if values.dtype.kind == "f" else 255 / 65535)
    gray = np.clip(np.round(scaled), 0, 255).astype(np.uint8)
    return Still(np.repeat(gray[..., None], 3, axis=2), frames, finite)


def words(error: Any) -> str:
    """The decoder's own message without the file's name, in one line of at most 200 characters."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than the {MAX_PIXELS:,} pixels that are read"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).replace("<_io.BytesIO object", "<the file").split())[:200]


def working_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of at most about 384x256 pixels with the same aspect ratio. Smaller pictures keep their size.

    No side is below 16 pixels.
    """
    factor = min(1.0, (WORK_WIDTH * WORK_HEIGHT / (height * width)) ** 0.5)
    return max(16, round(width * factor)), max(16, round(height * factor))
