"""Decode still pictures."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MAX_PIXELS = 64_000_000  # a picture: four times an 8K frame's height and width would be a bomb, not a keyframe
WORK_WIDTH, WORK_HEIGHT = 384, 256  # moving measures are taken at about this many pixels, whatever the shape


class Undecodable(ValueError):
    """The file cannot be decoded from its first frame to its last."""


@dataclass(frozen=True)
class Still:
    """A decoded picture: uint8 RGB (height, width, 3); how many pictures its file holds; whether all values were finite."""

    image: np.ndarray
    frames: int = 1
    finite: bool = True


def read_still(source: Path | bytes) -> Still:
    """Decode a picture file of any kind that Pillow reads.

    16-bit and floating-point pictures are scaled to 8 bits, CMYK and palettes become RGB, alpha is dropped.

    Raises:
        Undecodable: not a picture, damaged, or larger than MAX_PIXELS.
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
    """Gray with more than 8 bits: integers of 0..65535, or floats of 0..1."""
    finite = bool(np.isfinite(values).all())
    scaled = np.nan_to_num(values.astype(np.float64)) * (255 if values.dtype.kind == "f" else 255 / 65535)
    gray = np.clip(np.round(scaled), 0, 255).astype(np.uint8)
    return Still(np.repeat(gray[..., None], 3, axis=2), frames, finite)


def words(error: Any) -> str:
    """The decoder's own words, without the path that it was given."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than the {MAX_PIXELS:,} pixels that are read"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).replace("<_io.BytesIO object", "<the file").split())[:200]


def working_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) with about 384x256 pixels at most, same shape; small pictures stay as they are."""
    factor = min(1.0, (WORK_WIDTH * WORK_HEIGHT / (height * width)) ** 0.5)
    return max(16, round(width * factor)), max(16, round(height * factor))
