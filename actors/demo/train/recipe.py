"""Recipes: every size, count and share of time of a training, as data.

SHIPPED made the checkpoints in this repository, GPU makes larger ones for twice the picture's height
and width, TINY is the rehearsal of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

Three = tuple[int, int, int]


@dataclass(frozen=True)
class Recipe:
    """Sizes in pixels, widths in channels, counts of what is drawn at most, batches in items.

    sd_widths: channels of the image autoencoder's levels; each level after the first halves the picture.
    unet_widths, unet_groups: of the UNet and of the motion adapter.
    text_width: of both text encoders.
    ltx_patch, ltx_encoder, ltx_decoder, ltx_decoder_layers, ltx_factors: diffusers' patch_size, block_out_channels
        and so on of the video autoencoder; its two blocks halve height, width and frames each.
    ltx_heads, ltx_layers: of the transformer; a head has 32 channels.
    pictures_vae, pictures: stills for the image autoencoder, for the UNet.
    clips_adapter, windows, clips, clips_whole: 16 frames for the adapter; 5 frames for the video autoencoder; nine
        groups of frames, and all 31, for the transformer.
    batch_ltx_vae: single frames first, then windows. batch_ltx: clips of a few groups, whole clips.
    whole_share: last part of the transformer's time, in which whole clips are mixed in.
    sd_shares, ltx_shares: how each column's time is shared out, in any unit; in this order.
    validation_share: of all the time.
    bfloat16: forward passes of the training in bfloat16, and float32 products in TF32, where the device is a GPU.
    """

    name: str
    height: int
    width: int
    sd_widths: tuple[int, ...]
    sd_groups: int
    sd_latents: int
    unet_widths: Three
    unet_groups: int
    text_width: int
    ltx_patch: int
    ltx_encoder: Three
    ltx_decoder: tuple[int, int]
    ltx_decoder_layers: Three
    ltx_factors: tuple[int, int]
    ltx_latents: int
    ltx_heads: int
    ltx_layers: int
    pictures_vae: int
    pictures: int
    clips_adapter: int
    windows: int
    clips: int
    clips_whole: int
    batch_sd_vae: int
    batch_unet: int
    batch_adapter: int
    batch_ltx_vae: tuple[int, int]
    batch_ltx: tuple[int, int]
    whole_share: float
    sd_shares: Mapping[str, float]
    ltx_shares: Mapping[str, float]
    validation_share: float
    bfloat16: bool
    seed: int = 0

    @property
    def sd_factor(self) -> int:
        """Pixels of height or width that one latent of the image autoencoder stands for."""
        return 2 ** (len(self.sd_widths) - 1)

    @property
    def ltx_factor(self) -> int:
        """The same for the video autoencoder."""
        return 4 * self.ltx_patch

    @property
    def ltx_grid(self) -> tuple[int, int]:
        """Rows and columns of tokens that one latent picture has."""
        return self.height // self.ltx_factor, self.width // self.ltx_factor


SHIPPED = Recipe(
    name="shipped",
    height=64,
    width=96,
    sd_widths=(16, 32, 64),
    sd_groups=8,
    sd_latents=8,
    unet_widths=(32, 64, 96),
    unet_groups=16,
    text_width=128,
    ltx_patch=4,
    ltx_encoder=(48, 96, 128),
    ltx_decoder=(96, 192),
    ltx_decoder_layers=(2, 2, 1),
    ltx_factors=(2, 2),
    ltx_latents=96,
    ltx_heads=6,
    ltx_layers=7,
    pictures_vae=8000,
    pictures=16000,
    clips_adapter=900,
    windows=5000,
    clips=2400,
    clips_whole=120,
    batch_sd_vae=16,
    batch_unet=16,
    batch_adapter=2,
    batch_ltx_vae=(24, 8),
    batch_ltx=(16, 3),
    whole_share=0.2,
    sd_shares={"sd-vae": 600, "sd-text": 25, "sd-unet": 2400, "adapter": 2100},
    ltx_shares={"ltx-vae": 1800, "ltx-text": 30, "ltx-transformer": 4000},
    validation_share=0.05,
    bfloat16=False,
)

# 48 MB of float16 in all. The image latents are as many as SHIPPED's and a clip has as many tokens, so that a CPU can
# still draw; an f4 autoencoder would make a still three times as slow, an f16 video autoencoder a clip.
GPU = replace(
    SHIPPED,
    name="gpu",
    height=128,
    width=192,
    sd_widths=(24, 48, 72, 72),
    sd_latents=16,
    unet_widths=(48, 96, 112),
    ltx_patch=8,
    ltx_encoder=(48, 96, 96),
    ltx_decoder=(64, 128),
    ltx_factors=(1, 2),
    ltx_latents=192,
    ltx_heads=8,
    ltx_layers=6,
    pictures_vae=12000,
    pictures=48000,
    clips_adapter=4000,
    windows=16000,
    clips=6000,
    clips_whole=600,
    batch_sd_vae=48,
    batch_unet=96,
    batch_adapter=8,
    batch_ltx_vae=(64, 24),
    batch_ltx=(64, 8),
    sd_shares={"sd-vae": 20, "sd-text": 3, "sd-unet": 45, "adapter": 32},
    ltx_shares={"ltx-vae": 40, "ltx-text": 3, "ltx-transformer": 57},
    validation_share=0.15,
    bfloat16=True,
)

TINY = replace(
    SHIPPED,
    name="tiny",
    sd_widths=(8, 8, 8),
    sd_groups=4,
    sd_latents=4,
    unet_widths=(8, 8, 16),
    unet_groups=4,
    text_width=32,
    ltx_encoder=(8, 8, 16),
    ltx_decoder=(8, 16),
    ltx_decoder_layers=(1, 1, 1),
    ltx_latents=8,
    ltx_heads=1,
    ltx_layers=2,
    pictures_vae=48,
    pictures=64,
    clips_adapter=6,
    windows=24,
    clips=8,
    clips_whole=2,
    batch_sd_vae=4,
    batch_unet=4,
    batch_adapter=1,
    batch_ltx_vae=(4, 2),
    batch_ltx=(4, 1),
    sd_shares={"sd-vae": 1, "sd-text": 1, "sd-unet": 1, "adapter": 1},
    ltx_shares={"ltx-vae": 1, "ltx-text": 1, "ltx-transformer": 2},
    validation_share=0.5,
)

RECIPES = {recipe.name: recipe for recipe in (SHIPPED, GPU, TINY)}
