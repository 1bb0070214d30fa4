"""How much memory the decoding of a clip takes, from configurations alone. The module imports no torch, so that planning stays quick."""

from __future__ import annotations

from .files import read_config
from .values import ClipSettings

# Numbers that LTX-Video's decoder holds at its peak, for each value of its last layers: six tensors of that size, and a little more.
# Measured with diffusers 0.42 by counting what lives on torch's meta device, for the VAEs of 0.9.0, 0.9.1 and 0.9.5 (tests/test_ltx.py).
ALIVE = 6.25
TILE = 512  # pixels of a tile's side: diffusers' own, from which `enable_tiling` starts


def ltx_decode_numbers(folder: str, settings: ClipSettings) -> int:
    """How many numbers are alive at most while a clip is decoded.

    Args:
        folder: diffusers folder with the VAE's configuration.
    """
    config = read_config(folder, "vae")
    width = (config.get("decoder_block_out_channels") or [128])[0] // (config.get("upsample_factor") or [1])[0]
    each = ALIVE * width / config.get("patch_size", 4) ** 2  # for each pixel of each frame
    picture = settings.width * settings.height
    tile = min(settings.width, TILE) * min(settings.height, TILE) if settings.vae_tiling else picture
    return int(settings.num_frames * (each * tile + 3 * (picture - tile)))  # tiles that are done wait as RGB
