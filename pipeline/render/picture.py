"""Scale pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

from gates.still import MAX_PIXELS


def fill(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale a picture to cover (width, height), and crop its middle: no distortion and no bars. uint8 RGB (height, width, 3) in and out."""
    if image.shape[:2] == (height, width):
        return image
    factor = max(width / image.shape[1], height / image.shape[0])
    size = max(width, round(image.shape[1] * factor)), max(height, round(image.shape[0] * factor))
    if size[0] * size[1] > MAX_PIXELS:  # a narrow strip: scaled whole, it would fill the memory, so its middle is cut out first
        return fill(_middle(image, width / height), width, height)
    picture = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.asarray(picture.crop((left, top, left + width, top + height)))


def _middle(image: np.ndarray, shape: float) -> np.ndarray:
    """The middle of a picture, about as wide for its height as `shape` says, and at least one pixel of each."""
    high, wide = image.shape[:2]
    high, wide = max(1, min(high, round(wide / shape))), max(1, min(wide, round(high * shape)))
    top, left = (image.shape[0] - high) // 2, (image.shape[1] - wide) // 2
    return image[top : top + high, left : left + wide]
