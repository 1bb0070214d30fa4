"""Titles: text over the picture, at the episode's own size."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from .direction import undirected
from .errors import InputError
from .layout import PITCH, drawn, laid_out
from .letters import Fonts, built_in, middle, missing

WIDEST = 0.9  # share of the picture's width that a line may take
HIGHEST = 0.5  # share of its height that all lines together may take
CENTRE, LOWEST = 0.80, 0.95  # shares of the height: the middle of the lines, and their lower end where there are many


def check_title(text: str, font: Path | None, where: str, size: tuple[int, int] | None = None) -> None:
    """Check that a title can be drawn, by drawing it: a missing letter would show as an empty box, and a long title be cut off.

    Args:
        font: the episode's font; None for the built-in ones. size: (width, height) of the episode in pixels; None checks letters only.

    Raises:
        InputError: a letter has no shape, the font cannot be read, or the title does not fit.
    """
    lacking = missing(text, _fonts(font))
    if lacking:
        have = f"{font.name} has" if font else "the built-in fonts have"
        raise InputError(f"{where}: title: {have} no shape for {lacking[0]!r}; give the episode a title_font that has")
    if unordered := undirected(text):
        raise InputError(f"{where}: title: {unordered}")
    if size is None:
        return
    try:
        _prove(text, *size, font)
    except OverlongTitle as error:
        raise InputError(f"{where}: {error}") from error
    except (OSError, ValueError) as error:  # a font may be damaged in the shapes of single letters
        name = font.name if font else "the built-in font"
        raise InputError(f"{where}: title: {name} cannot draw {text!r}: {' '.join(str(error).split())}") from error


@lru_cache(maxsize=4096)  # a plan is made more than once in a render
def _prove(text: str, across: int, height: int, font: Path | None) -> None:
    _drawn(text, across, height, font)


class OverlongTitle(InputError):
    """A title that does not fit into the picture, however small."""


def _fonts(font: Path | None) -> Fonts:
    """An episode's own font stands alone: a few letters of another would look like a mistake."""
    return (font,) if font else built_in()


def title_layer(text: str, width: int, height: int, font: Path | None) -> np.ndarray:
    """White letters with a soft shadow in the lower third: float32 RGBA 0..1, (height, width, 4).

    Lines are centred, and wrapped at the picture's width; letters get smaller, down to half, where that is not enough.

    Raises:
        InputError: the title does not fit, or the font cannot be read.
    """
    return np.asarray(_drawn(text, width, height, font), np.float32) / 255


def _drawn(text: str, across: int, height: int, font: Path | None) -> Image.Image:
    fonts = _fonts(font)
    size, lines = _laid_out(text, across, height, fonts)
    pitch = PITCH * size
    centre = min(CENTRE * height, LOWEST * height - pitch * len(lines) / 2)
    feet = [centre + (i - (len(lines) - 1) / 2) * pitch + middle(line, fonts, size) for i, line in enumerate(lines)]
    return drawn(list(zip(lines, feet, strict=True)), size, max(1, size // 16), fonts, across, height)


def _laid_out(text: str, across: int, height: int, fonts: Fonts) -> tuple[int, list[str]]:
    """The size of the letters in pixels, and the lines.

    Raises:
        OverlongTitle: it does not fit even at the smallest size.
    """
    largest = max(10, height // 11)
    smallest = min(largest, max(8, largest // 2))
    found = laid_out(text, WIDEST * across, HIGHEST * height, range(largest, smallest - 1, -1), fonts)
    if found is None:
        raise OverlongTitle(f"title: {text!r} does not fit into a picture of {across}x{height}; shorten it")
    return found


@lru_cache(maxsize=4096)
def title_top(text: str, width: int, height: int, font: Path | None) -> int:
    """The uppermost row of a picture that its title touches; the picture's height where nothing of it is seen."""
    box = _drawn(text, width, height, font).getbbox()
    return box[1] if box else height


def title_opacity(frame: int, frames: int, fps: Fraction) -> float:
    """Opacity of the title at a frame, 0..1. It fades in and out over half a second each, at most a third of the shot each."""
    ramp = max(1.0, min(float(fps) / 2, frames / 3))
    return float(min(1.0, (frame + 1) / ramp, (frames - frame) / ramp))


def overlay(frame: np.ndarray, layer: np.ndarray, opacity: float) -> np.ndarray:
    """Blend a layer, RGBA 0..1, over a frame, uint8 RGB of the same size. `opacity`, 0..1, scales the layer's alpha."""
    alpha = layer[..., 3:] * opacity
    return (frame * (1 - alpha) + layer[..., :3] * 255 * alpha).round().astype(np.uint8)
