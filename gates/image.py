"""Gate 1: is this keyframe a usable picture?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import measures as m
from .verdict import Finding, Verdict, verdict


@dataclass(frozen=True)
class ImageThresholds:
    """Start values; the reasons are measured in docs/gates.md."""

    contrast: float = 8.0  # levels; a flat cel night measures above 15, a single colour 0
    dark: float = 0.98  # share of the picture (ffmpeg blackdetect's default)
    over_exposed: float = 0.50  # share of the picture
    flat: float = 0.60  # share of pixels; drawings above 0.85, Gaussian noise of sigma 12 below 0.5


def judge_image(image: np.ndarray, width: int, height: int, limits: ImageThresholds | None = None) -> Verdict:
    """Judge a keyframe.

    Args:
        image: uint8 RGB, shape (height, width, 3), as decoded from the stored file.
        width, height: what the workflow asked for, in pixels.
    """
    limits = limits or ImageThresholds()
    if image.shape != (height, width, 3):
        return verdict("image", [Finding("wrong_size", f"{image.shape[1]}x{image.shape[0]}", f"{width}x{height}")], {})
    values = {
        "contrast": m.contrast(image),
        "dark_fraction": m.dark_fraction(image),
        "over_exposed_fraction": m.over_exposed_fraction(image),
        "flat_fraction": m.flat_fraction(image),
        "noise_residual": m.noise_residual(image),
    }
    findings = [
        _finding("empty", values["contrast"], limits.contrast, values["contrast"] < limits.contrast),
        _finding("black", values["dark_fraction"], limits.dark, values["dark_fraction"] >= limits.dark),
        _finding(
            "over_exposed", values["over_exposed_fraction"], limits.over_exposed, values["over_exposed_fraction"] > limits.over_exposed
        ),
        _finding("noise", values["flat_fraction"], limits.flat, values["flat_fraction"] < limits.flat),
    ]
    return verdict("image", findings, values)


def _finding(label: str, value: float, threshold: float, found: bool) -> Finding | None:
    return Finding(label, value, threshold) if found else None
