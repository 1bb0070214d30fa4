"""What is known of upscalers without loading one. The module imports no torch, so that planning stays quick."""

from __future__ import annotations

import math
from pathlib import Path

from .headers import Header, read_header
from .values import ModelError

AT_ONCE = 4  # frames of a clip that are on the device together
LAYERS_AT_ONCE = 6  # outputs of convolutions that live at the same time: what is skipped over, the sum, and scratch memory
COMPACT = "RealESRGAN Compact"


def compact_scale(header: Header) -> int | None:
    """Of a network of Real-ESRGAN's compact kind: its last convolution makes scale x scale pixels of three channels. None for others."""
    layers = {int(n.split(".")[1]) for n in header.tensors if n.startswith("body.") and n.count(".") == 2 and n.split(".")[1].isdigit()}
    last = header.tensors.get(f"body.{max(layers, default=0)}.weight")
    if not {0, 1} <= layers or last is None or len(last.shape) != 4 or len(header.tensors["body.0.weight"].shape) != 4:
        return None
    scale = math.isqrt(last.shape[0] // 3)
    return scale if scale * scale * 3 == last.shape[0] and header.tensors["body.0.weight"].shape[1] == 3 else None


def check_reduces(clip: tuple[int, int], scale: int, size: tuple[int, int]) -> None:
    """Raises ModelError where a clip that is made larger by `scale` is smaller than `size`, or of another shape. Sizes: width, height."""
    made = clip[0] * scale, clip[1] * scale
    if size[0] * made[1] != size[1] * made[0] or size[0] > made[0]:
        told, wanted = f"{made[0]}x{made[1]}", f"{size[0]}x{size[1]}"
        fits = f"sizes up to {told} of the same shape are made, such as {told}"
        raise ModelError(f"a clip of {clip[0]}x{clip[1]} becomes {told} with scale {scale}, which does not reduce to {wanted}; {fits}")


def upscale_numbers(checkpoint: str, width: int, height: int, scale: int, tile: int | None, overlap: int) -> int:
    """How many numbers live at most on the device while a clip is made larger: a rule of thumb, until it is measured there.

    Args:
        checkpoint: path of the file. width, height: of the finished clip. tile, overlap: as in `tiles.in_tiles`.
    """
    sides = [min(-(-side // scale), tile + 2 * overlap) if tile else -(-side // scale) for side in (width, height)]
    widest = max((t.shape[0] for t in read_header(Path(checkpoint)).tensors.values() if len(t.shape) == 4), default=64)
    return AT_ONCE * (sides[0] * sides[1] * widest * LAYERS_AT_ONCE + 2 * 3 * width * height)
