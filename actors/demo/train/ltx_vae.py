"""Train the demo's LTX video autoencoder.

    python -m actors.demo.train.ltx_vae --work train-work

An LTX decoder never needs its temporal kernels to tell the frames of one latent apart: the up- and
downsamplers move four frames in and out of channels. So it is trained with one temporal tap per
kernel, as plain 2D convolutions, at a third of the cost, and written back as the 3D kernels that it
equals: the last tap in the causal encoder, the middle one in the decoder. Each latent then stands
for exactly one group of frames: {0}, {1..4}, {5..8} …
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo
from diffusers.models.autoencoders.autoencoder_kl_ltx import LTXVideoCausalConv3d, LTXVideoResnetBlock3d
from torch import nn

from . import scenes
from .optimiser import Average, flat_then_cosine, for_modules
from .progress import Budget
from .sd import psnr

LATENT_CHANNELS, SPATIAL, TEMPORAL = 96, 16, 4


def autoencoder() -> AutoencoderKLLTXVideo:
    """16x in space, 4x in time, 96 channels; frame counts are 4k+1, so 121 fits."""
    vae = AutoencoderKLLTXVideo(
        latent_channels=LATENT_CHANNELS,
        patch_size=4,
        timestep_conditioning=False,
        block_out_channels=(48, 96, 128),
        down_block_types=("LTXVideo095DownBlock3D",) * 2,
        downsample_type=("spatiotemporal",) * 2,
        spatio_temporal_scaling=(True, True),
        layers_per_block=(1, 1, 1),
        decoder_block_out_channels=(96, 192),
        decoder_spatio_temporal_scaling=(True, True),
        decoder_layers_per_block=(2, 2, 1),
        upsample_residual=(True, True),
        upsample_factor=(2, 2),
        decoder_inject_noise=(False, False, False),
        spatial_compression_ratio=SPATIAL,
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
def to_volume(planar: nn.Module) -> AutoencoderKLLTXVideo:
    """The real LTX autoencoder that computes what the planar one does."""
    vae = autoencoder()
    taps = {name: m for name, m in planar.named_modules() if isinstance(m, PlanarConv)}
    for name, module in vae.named_modules():
        if isinstance(module, LTXVideoCausalConv3d):
            module.conv.weight.zero_()
            module.conv.weight[:, :, taps[name].tap] = taps[name].conv.weight
            module.conv.bias.copy_(taps[name].conv.bias)  # type: ignore[union-attr]
    # The pipeline samples from the encoder's distribution, training took its mean: make them the same.
    vae.encoder.conv_out.conv.weight[LATENT_CHANNELS:] = 0
    vae.encoder.conv_out.conv.bias[LATENT_CHANNELS:] = -20  # log-variance
    vae.latents_mean.copy_(planar.latents_mean)
    vae.latents_std.copy_(planar.latents_std)
    return vae.eval()


def to_model(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (n, frames, height, width, 3) to float in -1..1 of shape (n, 3, frames, height, width)."""
    return torch.from_numpy(pixels).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def windows(count: int, offset: int = 0, held_out: bool = False) -> np.ndarray:
    """Five frames of each scene that start at a multiple of four: one still group and one moving group."""
    rng = np.random.default_rng(offset)
    starts = np.where(rng.random(count) < 0.3, 0, 4 * rng.integers(0, 30, count))
    return np.stack([scenes.clip(scenes.sample(offset + i, held_out), range(s, s + 5)) for i, s in enumerate(starts)])


def train(work: Path, seconds: float, count: int = 5000, stills: float = 0.3) -> nn.Module:
    vae = make_planar(autoencoder())
    average = Average(vae, 0.997)
    budget = Budget(work, "ltx-vae", seconds, {"model": vae, "average": average.module})
    if budget.progress < 1:
        pixels = windows(count)
        optimiser = for_modules([vae], ends=("conv_in", "conv_out"), lr=0.01, adam_lr=1.5e-3)
        rng = np.random.default_rng(budget.steps)
        for _ in budget:
            optimiser.factor = flat_then_cosine(budget.progress, flat=0.5)
            still = budget.progress < stills  # single frames first: five times as many pictures for the work
            pick = rng.integers(0, count, 24 if still else 8)
            x = to_model(pixels[pick, :1] if still else pixels[pick])
            z = vae.encode(x).latent_dist.mean
            y = vae.decode(z + 0.03 * torch.randn_like(z)).sample
            loss = (y - x).abs().mean() + 2 * (y - x).square().mean() + 1e-4 * z.square().mean()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            average.update(vae)
            budget.note(loss=loss.item(), psnr=psnr(y.detach(), x), std=z.std().item())
    vae = average.module
    normalise(vae)
    return vae


@torch.no_grad()
def normalise(vae: nn.Module) -> None:
    """Store each latent channel's mean and standard deviation, as LTX does."""
    z = vae.encode(to_model(windows(256))).latent_dist.mean.transpose(0, 1).flatten(1)
    vae.latents_mean.copy_(z.mean(1))
    vae.latents_std.copy_(z.std(1).clamp(min=1e-3))


@torch.no_grad()
def report(vae: nn.Module) -> None:
    x = to_model(windows(48, offset=10**6, held_out=True))
    planar = vae.decode(vae.encode(x).latent_dist.mean).sample
    volume = to_volume(vae)
    real = volume.decode(volume.encode(x).latent_dist.mean).sample
    print(
        f"ltx autoencoder: {psnr(real, x):.2f} dB on 48 held-out windows; planar differs by {float((planar - real).abs().max()):.1e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("train-work"))
    parser.add_argument("--seconds", type=float, default=1800)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(1)
    vae = train(args.work, args.seconds)
    report(vae)
    torch.save(vae.state_dict(), args.work / "ltx-vae-planar.pt")


if __name__ == "__main__":
    main()
