"""How a clip fills its shot."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from .rate import played_at

Fit = Literal["trim", "hold", "stretch", "on_twos", "on_threes", "flow"]
HELD = {"on_twos": 2, "on_threes": 3}  # frames of the episode that each of the clip's frames is held for


def fills(fit: Fit, frames: int, clip_fps: Fraction, fps: Fraction) -> int | None:
    """How many frames of the episode a clip fills; None where it fills any number.

    Args:
        frames: of the clip. clip_fps, fps: frames a second of the clip and of the episode.
    """
    if fit in HELD:
        return frames * HELD[fit]
    return None if fit in ("hold", "stretch") else int(frames / played_at(clip_fps, fps) * fps)


def speed(fit: Fit, length: int, frames: int, clip_fps: Fraction, fps: Fraction) -> Fraction:
    """How fast a clip runs; 1: at its own rate, as the pull-down has it. Arguments as of `moment`."""
    own = played_at(clip_fps, fps)
    if fit == "stretch":
        return frames / own * fps / length
    return fps / (HELD[fit] * own) if fit in HELD else Fraction(1)


def moment(n: int, fit: Fit, length: int, frames: int, clip_fps: Fraction, fps: Fraction) -> Fraction:
    """Which of the clip's frames frame n of a shot shows, counted from the clip's beginning. Between two of them only for `flow`.

    Frames are repeated, never blended, as drawn animation does it; `flow` alone makes in-betweens.

    Args:
        length: of the shot, in the episode's frames. Others as of `fills`.
    """
    if fit == "stretch":
        return Fraction(n * frames // length)
    at = Fraction(n, HELD[fit]) if fit in HELD else n * played_at(clip_fps, fps) / fps
    at = min(Fraction(frames - 1), at)
    return at if fit == "flow" else Fraction(int(at))
