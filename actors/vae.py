"""The VAE of stills: loaded by itself where a workflow names another one, and called by us, in its own type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from .files import in_one_line
from .folders import variant_of_part
from .single_file import load_part
from .values import ModelError


def load_vae(path: Path, base: Path, dtype: torch.dtype) -> AutoencoderKL:
    """A VAE from a diffusers folder, or from a file in the layout of the original code.

    Args:
        base: diffusers folder of the checkpoint, whose VAE has the same configuration as the file's.

    Raises:
        ModelError: it cannot be loaded, or tensors are missing or have no place.
    """
    if path.is_file():
        return load_part(path, base, "vae", dtype, "")
    folder = path if (path / "config.json").is_file() else path / "vae"
    try:
        how: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
        vae, told = AutoencoderKL.from_pretrained(folder, torch_dtype=dtype, variant=variant_of_part(folder), **how)
    except Exception as error:
        raise ModelError(f"VAE {path} cannot be loaded: {in_one_line(error)}") from error
    if told["missing_keys"]:
        raise ModelError(f"VAE {path} lacks {len(told['missing_keys'])} tensors, such as {sorted(told['missing_keys'])[0]}")
    return vae


def decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Pictures (n, 3, height, width), 0..1, from latents. Computed in the VAE's type, which may be wider than the denoiser's."""
    latents = latents.to(vae.dtype)
    mean, std = statistics(vae, latents)
    pictures = vae.decode(latents * std + mean, return_dict=False)[0]
    return (pictures * 0.5 + 0.5).clamp(0, 1)


def encode(vae: AutoencoderKL, pictures: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
    """Latents of pictures (n, 3, height, width), 0..1. The VAE draws from a distribution; each picture has its own generator."""
    drawn = [
        vae.encode(picture[None].to(vae.dtype) * 2 - 1).latent_dist.sample(one) for picture, one in zip(pictures, generators, strict=True)
    ]
    latents = torch.cat(drawn)
    mean, std = statistics(vae, latents)
    return (latents - mean) / std


def statistics(vae: AutoencoderKL, latents: torch.Tensor) -> tuple[Any, Any]:
    """Mean and spread by which the denoiser's latents differ from the VAE's. Some VAEs have one of each for every channel."""
    told = vae.config
    if told.get("latents_mean") is None or told.get("latents_std") is None:
        return 0.0, 1 / told.scaling_factor
    mean, std = (torch.tensor(told[name]).view(1, -1, 1, 1).to(latents) for name in ("latents_mean", "latents_std"))
    return mean, std / told.scaling_factor
