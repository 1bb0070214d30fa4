"""The demo's LTX video autoencoder.

An LTX decoder never needs its temporal kernels to tell the frames of one latent apart: the up- and
downsamplers move four frames in and out of channels. So it is trained with one temporal tap per
kernel, as plain 2D convolutions, at a third of the cost, and written back as the 3D kernels that it
equals: the last tap in the causal encoder, the middle one in the decoder. Each latent then stands
for exactly one group of frames: {0}, {1..4}, {5..8} …
"""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo
from diffusers.models.autoencoders.autoencoder_kl_ltx import LTXVideoCausalConv3d, LTXVideoResnetBlock3d
from torch import nn

from . import scenes
from .column import Column
from .drawing import Job
from .optimiser import Average, flat_then_cosine, for_modules
from .recipe import Recipe
from .sd import psnr

TEMPORAL = 4  # frames of a latent
STILLS = 0.3  # first part of the time, on single frames: five times as many pictures for the work


def autoencoder(recipe: Recipe) -> AutoencoderKLLTXVideo:
    """Four patches in space, 4x in time: frame counts are 4k+1, so 121 fits."""
    vae = AutoencoderKLLTXVideo(
        latent_channels=recipe.ltx_latents,
        patch_size=recipe.ltx_patch,
        timestep_conditioning=False,
        block_out_channels=recipe.ltx_encoder,
        down_block_types=("LTXVideo095DownBlock3D",) * 2,
        downsample_type=("spatiotemporal",) * 2,
        spatio_temporal_scaling=(True, True),
        layers_per_block=(1, 1, 1),
        decoder_block_out_channels=recipe.ltx_decoder,
        decoder_spatio_temporal_scaling=(True, True),
        decoder_layers_per_block=recipe.ltx_decoder_layers,
        upsample_residual=(True, True),
        upsample_factor=recipe.ltx_factors,
        decoder_inject_noise=(False, False, False),
        spatial_compression_ratio=recipe.ltx_factor,
        temporal_compression_ratio=TEMPORAL,
    )
    for module in vae.modules():
        if isinstance(module, LTXVideoResnetBlock3d):
            nn.init.zeros_(module.conv2.conv.weight)
    return vae


class PlanarConv(nn.Module):
    """One temporal tap of an LTX convolution, run over (batch, channels, frames, height, width)."""

    def __init__(self, conv: LTXVideoCausalConv3d):
        super().__init__()
        weight = conv.conv.weight
        self.tap = conv.kernel_size[0] - 1 if conv.is_causal else conv.kernel_size[0] // 2
        self.conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[3], padding=weight.shape[3] // 2)
        fan = 3.0 if weight.shape[2] > 1 else 1.0  # one tap of three: keep the output's scale
        self.conv.weight.data = weight.data[:, :, self.tap].clone() * fan**0.5
        self.conv.bias.data = conv.conv.bias.data.clone()  # type: ignore[union-attr]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, _, frames = x.shape[:3]
        y = self.conv(x.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last))
        return y.unflatten(0, (batch, frames)).transpose(1, 2)


def make_planar(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, LTXVideoCausalConv3d):
            setattr(module, name, PlanarConv(child))
        else:
            make_planar(child)
    return module


@torch.no_grad()
def to_volume(recipe: Recipe, planar: nn.Module) -> AutoencoderKLLTXVideo:
    """The real LTX autoencoder that computes what the planar one does."""
    vae = autoencoder(recipe).to(planar.latents_mean.device)
    taps = {name: m for name, m in planar.named_modules() if isinstance(m, PlanarConv)}
    for name, module in vae.named_modules():
        if isinstance(module, LTXVideoCausalConv3d):
            module.conv.weight.zero_()
            module.conv.weight[:, :, taps[name].tap] = taps[name].conv.weight
            module.conv.bias.copy_(taps[name].conv.bias)  # type: ignore[union-attr]
    # The pipeline samples from the encoder's distribution, training took its mean: make them the same.
    vae.encoder.conv_out.conv.weight[recipe.ltx_latents :] = 0
    vae.encoder.conv_out.conv.bias[recipe.ltx_latents :] = -20  # log-variance
    vae.latents_mean.copy_(planar.latents_mean)
    vae.latents_std.copy_(planar.latents_std)
    return vae.eval()


def to_model(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (n, frames, height, width, 3) to float in -1..1 of shape (n, 3, frames, height, width)."""
    return pixels.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def jobs(recipe: Recipe) -> dict[str, Job]:
    return {"ltx-vae": Job(recipe.windows, 8, partial(window, recipe))}


def window(recipe: Recipe, number: int, held_out: bool = False) -> np.ndarray:
    """Five frames that start at a multiple of four, one still group and one moving group: uint8 RGB (5, height, width, 3)."""
    rng = random.Random(f"window-{number}")
    start = 0 if rng.random() < 0.3 else 4 * rng.randrange(30)
    return scenes.clip(scenes.sample(number, held_out), range(start, start + 5), recipe.height, recipe.width)


def train(column: Column) -> nn.Module:
    """The planar autoencoder, which knows its latents' mean and standard deviation."""
    recipe = column.recipe
    vae = make_planar(autoencoder(recipe)).to(column.device)
    average = Average(vae, 0.997)
    budget = column.budget("ltx-vae", model=vae, average=average.module)
    if budget.progress < 1:
        pixels = torch.cat(column.drawn("ltx-vae", budget.until))
        optimiser = for_modules([vae], ends=("conv_in", "conv_out"), lr=0.01, adam_lr=1.5e-3)
        column.random(budget)
        for _ in budget:
            optimiser.factor = flat_then_cosine(budget.progress, flat=0.5)
            still = budget.progress < STILLS
            rows = torch.randint(len(pixels), (recipe.batch_ltx_vae[0 if still else 1],), device=column.device)
            x = to_model(pixels[rows, :1] if still else pixels[rows])
            with column.cheap():
                z = vae.encode(x).latent_dist.mean.float()
                y = vae.decode(z + 0.03 * torch.randn_like(z)).sample.float()
            loss = (y - x).abs().mean() + 2 * (y - x).square().mean() + 1e-4 * z.square().mean()
            loss.backward()
            optimiser.step()
            average.update(vae)
            budget.note(loss=loss, psnr=psnr(y, x), std=z.std())
    normalise(column, average.module)
    return average.module


@torch.no_grad()
def normalise(column: Column, vae: nn.Module) -> None:
    """Store each latent channel's mean and standard deviation over training windows, as LTX does."""
    windows = np.stack([window(column.recipe, i) for i in range(min(128, column.recipe.windows))])
    z = torch.cat([vae.encode(to_model(part)).latent_dist.mean for part in column.pixels(windows).split(32)]).transpose(0, 1).flatten(1)
    vae.latents_mean.copy_(z.mean(1))
    vae.latents_std.copy_(z.std(1).clamp(min=1e-3))


@torch.no_grad()
def report(column: Column, vae: nn.Module) -> None:
    """Print the real autoencoder's quality on held-out windows, and that it is the planar one's equal."""
    windows = np.stack([window(column.recipe, 10**6 + i, held_out=True) for i in range(16)])
    x, volume = to_model(column.pixels(windows)), to_volume(column.recipe, vae)
    planar, real = (v.decode(v.encode(x).latent_dist.mean).sample for v in (vae, volume))
    apart = float((planar - real).abs().max())
    print(f"ltx autoencoder: {psnr(real, x):.2f} dB on 16 held-out windows; planar differs by {apart:.1e}", flush=True)
