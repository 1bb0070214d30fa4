"""Titles: text over the picture, at the episode's own size."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .errors import InputError


def check_title(text: str, font: Path | None, where: str) -> None:
    """Check that the font has a glyph for every letter of a title; a missing glyph would show as an empty box.

    Raises:
        InputError: a letter has no glyph, or the font cannot be read.
    """
    missing = _missing_letters(text, font)
    if missing:
        have = font.name if font else "the built-in font"
        raise InputError(f"{where}: title: {have} has no shape for {missing[0]!r}; give the episode a title_font that has")


def _missing_letters(text: str, font: Path | None) -> list[str]:
    face = _font(font, 32)
    nothing = _shape(face, "\U000f1ffe")  # a private-use code point: the font draws its box for missing glyphs
    return [c for c in dict.fromkeys(text) if not c.isspace() and _shape(face, c) == nothing]


def _shape(face: ImageFont.FreeTypeFont, letter: str) -> bytes:
    mask = face.getmask(letter)
    return bytes(mask) + repr(mask.size).encode()


@lru_cache(maxsize=8)
def _font(path: Path | None, size: int) -> ImageFont.FreeTypeFont:
    try:
        face = ImageFont.truetype(str(path), size) if path else ImageFont.load_default(size)
    except OSError as error:
        raise InputError(f"title_font {path} is not a font that can be read") from error
    assert isinstance(face, ImageFont.FreeTypeFont)
    return face


def title_layer(text: str, width: int, height: int, font: Path | None) -> np.ndarray:
    """White letters with a soft shadow in the lower third: float32 RGBA 0..1, (height, width, 4)."""
    size = max(10, height // 11)
    while size > 8 and _font(font, size).getlength(text) > width * 0.9:
        size -= 1
    face = _font(font, size)
    layer = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    place = (width / 2, height * 0.80)
    draw.text((place[0] + size / 14, place[1] + size / 14), text, font=face, anchor="mm", fill=(10, 10, 30, 150))
    draw.text(
        place, text, font=face, anchor="mm", fill=(255, 255, 255, 255), stroke_width=max(1, size // 16), stroke_fill=(24, 22, 48, 230)
    )
    return np.asarray(layer, np.float32) / 255


def title_opacity(frame: int, frames: int, fps: int) -> float:
    """Opacity of the title at a frame, 0..1. It fades in and out over half a second each, at most a third of the shot each."""
    ramp = max(1.0, min(fps / 2, frames / 3))
    return float(min(1.0, (frame + 1) / ramp, (frames - frame) / ramp))


def overlay(frame: np.ndarray, layer: np.ndarray, opacity: float) -> np.ndarray:
    """Blend a layer, RGBA 0..1, over a frame, uint8 RGB of the same size. `opacity`, 0..1, scales the layer's alpha."""
    alpha = layer[..., 3:] * opacity
    return (frame * (1 - alpha) + layer[..., :3] * 255 * alpha).round().astype(np.uint8)
