"""Gate 1: is this keyframe a usable picture?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from . import picture as p
from .rules import Profile, judge, no_numbers
from .still import Still, Undecodable, read_still
from .verdict import Verdict


def judge_image(
    source: Path | bytes,
    profile: Profile,
    size: tuple[int, int] | None = None,
    declared: Collection[str] = (),
    not_finite: str = "",
) -> Verdict:
    """Decode a picture file and judge it.

    Args:
        source: path of the file, or its bytes.
        size: (width, height) in pixels that the picture must have; None allows any size.
        declared: the shot's declarations, such as "night" (`rules.Declaration`).
        not_finite: where the model's values were no numbers before the cast to uint8, such as "latents"; "" where all were finite.
    """
    try:
        still = read_still(source)
    except Undecodable as error:
        return judge("image", {"undecodable": 1.0}, profile, declared, {"undecodable": str(error)})
    wanted = dict(zip(("expected_width", "expected_height"), map(float, size or ()), strict=False))
    return judge("image", measure_image(still, not not_finite) | wanted, profile, declared, no_numbers(not_finite))


def measure_image(still: Still, finite: bool = True) -> dict[str, float]:
    """Every number that a verdict on a still needs; formulas and ranges are in `picture`."""
    image = still.image
    luma = p.gray(image)
    high, low = divmod(p.perceptual_hash(luma), 2**32)
    return {
        "undecodable": 0.0,
        "frames": float(still.frames),
        "expected_frames": 1.0,
        "width": float(image.shape[1]),
        "height": float(image.shape[0]),
        "non_finite": float(not (still.finite and finite)),
        "contrast": p.contrast(luma),
        "dark": p.dark_fraction(luma),
        "pitch_black": p.dark_fraction(luma, p.PITCH_BLACK),
        "over_exposed": p.over_exposed_fraction(image),
        "flat": p.flat_fraction(luma),
        "sharpness": p.sharpness(luma),
        "crispness": p.crispness(luma),
        "bars": p.bars(image),
        "hash_high": float(high),  # two halves of 32 bits, since a float64 holds integers of at most 53 bits
        "hash_low": float(low),
    }


def keyframe_hash(measures: Mapping[str, float]) -> int:
    """Join the two stored halves of the perceptual hash, 64 bits."""
    return int(measures["hash_high"]) << 32 | int(measures["hash_low"])


def nearest(measures: Mapping[str, float], others: np.ndarray) -> dict[str, float]:
    """Measure `duplicate`: bits, of 64, by which the most similar keyframe of other shots differs. Empty without other shots.

    Args:
        measures: stored measures of this keyframe. others: hashes of the other shots' keyframes, uint64 (n,).
    """
    if not len(others):
        return {}
    bits = np.bitwise_count(others ^ np.uint64(keyframe_hash(measures)))
    return {"duplicate": float(bits.min())}
