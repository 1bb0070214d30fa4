"""Stable Diffusion checkpoints in one file: their parts, loaded with the configurations of a diffusers folder beside them.

Such a file holds weights alone. What they mean (sizes, noise schedule, tokenizer) comes from a folder of the same architecture, and
never from a network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from .files import in_one_line
from .headers import read_header
from .identify import LDM_VAE, UNET
from .values import ModelError

PARTS: dict[str, tuple[Any, str]] = {"unet": (UNet2DConditionModel, UNET), "vae": (AutoencoderKL, LDM_VAE)}


def load_parts(file: Path, base: Path, dtype: torch.dtype) -> dict[str, Any]:
    """UNet and VAE of a checkpoint in one file.

    Args:
        base: diffusers folder with their configurations.

    Raises:
        ModelError: a part cannot be loaded, or a tensor of the file has no place in it.
    """
    return {name: load_part(file, base, name, dtype) for name in PARTS}


def load_part(file: Path, base: Path, name: str, dtype: torch.dtype, prefix: str | None = None) -> Any:
    """A part of a checkpoint, from a file that holds it.

    Args:
        name: of PARTS. prefix: what the part's tensors begin with in the file; None is as in a whole checkpoint.

    Raises:
        ModelError: as `load_parts`.
    """
    cls, usual = PARTS[name]
    prefix = usual if prefix is None else prefix
    try:
        part = cls.from_single_file(str(file), config=str(base), subfolder=name, torch_dtype=dtype, local_files_only=True)
    except Exception as error:
        raise ModelError(f"{name} of checkpoint {file} cannot be loaded with the configuration of {base}: {in_one_line(error)}") from error
    keys = [key for key in read_header(file).tensors if not key.removeprefix(LDM_VAE).startswith("loss.")]  # of a VAE's training
    held, wanted = sum(key.startswith(prefix) for key in keys), len(part.state_dict())
    if held != wanted:  # the loader would pass over what has no place, and fill up what is missing
        raise ModelError(f"{name} of checkpoint {file} has {held} tensors, and the configuration of {base} asks for {wanted}")
    return part
