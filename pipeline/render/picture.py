"""Scale pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image


def fill(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale a picture to cover (width, height), and crop its middle: no distortion and no bars. uint8 RGB (height, width, 3) in and out."""
    if image.shape[:2] == (height, width):
        return image
    factor = max(width / image.shape[1], height / image.shape[0])
    size = max(width, round(image.shape[1] * factor)), max(height, round(image.shape[0] * factor))
    picture = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.asarray(picture.crop((left, top, left + width, top + height)))
