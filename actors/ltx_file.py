"""LTX-Video checkpoints in one file, in the layout of the original code: their parts, loaded with the configurations of a folder.

The file holds the transformer and mostly the VAE, never the text encoder. What it lacks comes from the folder beside it, the base; so do
all configurations. Every tensor of the file has its place, by name and shape, or the file is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLLTXVideo, GGUFQuantizationConfig, LTXVideoTransformer3DModel
from diffusers.utils import is_gguf_available
from safetensors import safe_open

from .files import in_one_line
from .headers import Header, read_header
from .identify import INPUT_SCALES, LTX_VAE, SCALES, UNET
from .values import ModelError

PARTS: dict[str, Any] = {"transformer": LTXVideoTransformer3DModel, "vae": AutoencoderKLLTXVideo}
STATISTICS = {"latents_mean": "per_channel_statistics.mean-of-means", "latents_std": "per_channel_statistics.std-of-means"}
RENAMED = {"proj_in": "patchify_proj", "time_embed": "adaln_single"}  # of the transformer: its modules here and in the original code
OF_RESNETS = (("resnets.", "res_blocks."), ("conv_shortcut.conv.", "conv_shortcut."), ("norm3.", "norm3.norm."))
EMBEDDERS = {"decoder.time_embedder": "decoder.last_time_embedder", "decoder.scale_shift_table": "decoder.last_scale_shift_table"}
# What a block of the VAE is made of, in the order in which the original code counts it: each is a block of its own there.
STEPS = {"encoder": ("resnets.", "downsamplers.0.", "conv_out."), "decoder": ("conv_in.", "upsamplers.0.", "")}


def load_ltx_parts(file: Path, base: Path, dtype: torch.dtype) -> dict[str, Any]:
    """The transformer of the file, and its VAE if it has one.

    Args:
        base: diffusers folder with their configurations.

    Raises:
        ModelError: a tensor is missing, has another shape, or has no place.
    """
    header = read_header(file)
    held = [name for name in PARTS if name != "vae" or any(key.startswith(LTX_VAE) for key in header.tensors)]
    return {name: _part(file, header, base, name, dtype) for name in held}


def _part(file: Path, header: Header, base: Path, name: str, dtype: torch.dtype) -> Any:
    what = f"{name} of checkpoint {file}"
    try:
        with init_empty_weights():
            part = PARTS[name].from_config(PARTS[name].load_config(base / name, local_files_only=True))
    except Exception as error:
        raise ModelError(f"{what}: the configuration in {base / name} cannot be used: {in_one_line(error)}") from error
    wanted = part.state_dict()
    names = _vae_names(wanted) if name == "vae" else _transformer_names(wanted, header)
    _check_places(what, header, base, name, {names[key]: tuple(value.shape) for key, value in wanted.items()})
    if header.format == "gguf":
        return _quantised(file, base, dtype)
    with safe_open(file, "pt") as tensors:
        state = {key: _read(tensors, names[key], header, dtype) for key in wanted}
    part.load_state_dict(state, assign=True)
    return part.eval()


def _quantised(file: Path, base: Path, dtype: torch.dtype) -> Any:
    """The transformer of a GGUF file. Its weights stay as small as they are in the file; each is unpacked where it is used."""
    if not is_gguf_available():
        raise ModelError(f"checkpoint {file} is GGUF, which needs one more library: pip install 'tower[gguf]'")
    how = {"quantization_config": GGUFQuantizationConfig(compute_dtype=dtype), "torch_dtype": dtype, "local_files_only": True}
    try:
        return LTXVideoTransformer3DModel.from_single_file(str(file), config=str(base), subfolder="transformer", **how)
    except Exception as error:
        raise ModelError(f"transformer of checkpoint {file} cannot be loaded: {in_one_line(error)}") from error


def _check_places(what: str, header: Header, base: Path, name: str, wanted: dict[str, tuple[int, ...]]) -> None:
    """Raise ModelError unless the file holds exactly the wanted tensors of a part, beside what belongs to their scales."""
    missing = [key for key in wanted if key not in header.tensors]
    mine = [key for key in header.tensors if key.startswith(LTX_VAE) == (name == "vae")]
    extra = [key for key in mine if key not in wanted and not _passed_over(key)]
    if missing or extra:
        told = f"lacks {missing[0]}" if missing else f"has no place for {extra[0]}"
        counts = f"the file has {len(mine)} tensors, and the configuration asks for {len(wanted)}"
        raise ModelError(f"{what} does not fit the configuration of {base}: it {told} ({counts})")
    for key, shape in wanted.items():
        if header.tensors[key].shape != shape:
            here, there = ("x".join(map(str, of)) for of in (header.tensors[key].shape, shape))
            raise ModelError(f"{what} does not fit the configuration of {base}: {key} is {here}, and {there} is wanted")


def _passed_over(key: str) -> bool:
    """Scales, which weights are multiplied by, and statistics of the VAE that only its training read."""
    return key.endswith((*SCALES, *INPUT_SCALES)) or key.startswith(f"{LTX_VAE}per_channel_statistics.")


def _read(tensors: Any, key: str, header: Header, dtype: torch.dtype) -> torch.Tensor:
    """A tensor, multiplied by its scale where the file has one: one number, or one for each row."""
    value = tensors.get_tensor(key)
    scales = [scale for end in ("_scale", "_weight") if (scale := _scale_key(key, end)) in header.tensors]
    if not scales:
        return value.to(dtype)
    scale = tensors.get_tensor(scales[0]).float()
    if scale.numel() > 1:
        if scale.numel() != value.shape[0] or scale.shape[0] != value.shape[0]:
            told = "x".join(map(str, scale.shape))
            raise ModelError(f"{header.path}: {scales[0]} holds {told} scales where one, or one for each of {len(value)} rows is wanted")
        scale = scale.reshape(-1, *[1] * (value.ndim - 1))
    return (value.float() * scale).reshape(value.shape).to(dtype)


def _scale_key(key: str, end: str) -> str:
    """The names that a weight's scale goes by: `x.weight_scale`, and ComfyUI's `x.scale_weight`."""
    return f"{key}_scale" if end == "_scale" else f"{key.removesuffix('weight')}scale_weight"


def _transformer_names(keys: Iterable[str], header: Header) -> dict[str, str]:
    """diffusers' name to the file's."""
    prefix = UNET if any(key.startswith(UNET) for key in header.tensors) else ""
    names = {}
    for key in keys:
        module, dot, rest = key.partition(".")
        original = RENAMED.get(module, module) + dot + rest
        names[key] = prefix + original.replace("norm_q.", "q_norm.").replace("norm_k.", "k_norm.")
    return names


def _vae_names(keys: Iterable[str]) -> dict[str, str]:
    """diffusers' name to the file's, for every version: the original code counts through what diffusers groups in blocks."""
    keys = list(keys)
    numbers = {side: _numbers(side, keys) for side in STEPS}
    return {key: LTX_VAE + _vae_name(key, numbers) for key in keys}


def _numbers(side: str, keys: list[str]) -> dict[str, int]:
    """The beginning of a block's name here to its number in the original code. The middle is first in a decoder, last in an encoder."""
    blocks = "down_blocks" if side == "encoder" else "up_blocks"
    count = 1 + max(int(found[1]) for key in keys if (found := re.match(rf"{side}\.{blocks}\.(\d+)\.", key)))
    parts = [f"{side}.{blocks}.{n}.{step}" for n in range(count) for step in STEPS[side]]
    middle = f"{side}.mid_block."
    there = [part for part in ([middle, *parts] if side == "decoder" else [*parts, middle]) if any(key.startswith(part) for key in keys)]
    return {part: number for number, part in enumerate(there)}


def _vae_name(key: str, numbers: dict[str, dict[str, int]]) -> str:
    if key in STATISTICS:
        return STATISTICS[key]
    for ours, theirs in EMBEDDERS.items():
        key = theirs + key.removeprefix(ours) if key.startswith(ours) else key
    side = key.partition(".")[0]
    part = max((part for part in numbers[side] if key.startswith(part)), key=len, default="")
    if part:
        blocks, rest = "down_blocks" if side == "encoder" else "up_blocks", key.removeprefix(part)
        rest = f"resnets.{rest}" if part.endswith("resnets.") else rest
        key = f"{side}.{blocks}.{numbers[side][part]}.{rest}"
    for ours, theirs in OF_RESNETS:
        key = key.replace(ours, theirs)
    return key
