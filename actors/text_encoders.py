"""Text encoders and their tokenizers, loaded from a diffusers folder or from a checkpoint in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from safetensors import safe_open
from transformers import AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

from .files import in_one_line, read_config
from .folders import variant_of_part
from .values import ModelError, ModelFiles

CLASSES = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection, "T5EncoderModel": T5EncoderModel}
# Where a checkpoint in one file has its text encoders, and whether in the names of OpenCLIP.
PLACES = (
    {"text_encoder": ("cond_stage_model.transformer.", False)},
    {"text_encoder": ("conditioner.embedders.0.transformer.", False), "text_encoder_2": ("conditioner.embedders.1.model.", True)},
)
# What older files hold beside an encoder's weights: 0, 1, 2 …, and the scale of a contrast that only training needs.
NOT_WEIGHTS = ("position_ids", "logit_scale")


def class_of(folder: Path, part: str) -> Any:
    """The class of a text encoder, by its configuration. Raises ModelError where it is none that Tower loads."""
    config = read_config(str(folder), part)
    kind = str(config.get("model_type", ""))
    told = {"t5": "T5EncoderModel", "clip": "CLIPTextModel", "clip_text_model": "CLIPTextModel"}.get(kind, "")
    name = next(iter(config.get("architectures") or [told]))
    if name not in CLASSES:  # another encoder would load as the nearest class without a complaint, and be wrong
        raise ModelError(f"{part} of checkpoint {folder} is of class {name or kind or 'nobody knows'}; known are {', '.join(CLASSES)}")
    return CLASSES[name]


def load_text_encoder(files: ModelFiles, part: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A tokenizer and its text encoder.

    Args:
        part: `text_encoder`, or `text_encoder_2` of SDXL.

    Raises:
        ModelError: they cannot be loaded, or tensors are missing or have no place.
    """
    folder = Path(files.folder)
    cls = class_of(folder, part)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder / part.replace("text_encoder", "tokenizer"), local_files_only=True)
        if files.base and cls is not T5EncoderModel:  # T5 is never in a checkpoint's file
            encoder, found = _from_file(cls, Path(files.checkpoint), folder, part, dtype)
        else:
            how: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "variant": variant_of_part(folder / part)}
            encoder, found = cls.from_pretrained(folder / part, dtype=dtype, output_loading_info=True, **how)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{part} of checkpoint {files.checkpoint} cannot be loaded: {in_one_line(error)}") from error
    for kind, says in (("missing_keys", "lacks"), ("unexpected_keys", "has no place for")):
        keys = sorted(key for key in found[kind] if not key.endswith(NOT_WEIGHTS))
        if keys:  # transformers would fill up what is missing with random numbers, and pass over what has no place
            raise ModelError(f"{part} of checkpoint {files.checkpoint} {says} {len(keys)} tensors, such as {keys[0]}")
    return tokenizer, encoder.eval()  # eval: T5's dropout would make each call's embeddings different


def _from_file(cls: Any, file: Path, base: Path, part: str, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    config = cls.config_class.from_pretrained(base / part, local_files_only=True)
    with safe_open(file, "pt") as tensors:
        names = list(tensors.keys())
        prefix, open_clip = next(
            (place[part] for place in PLACES if part in place and any(n.startswith(place[part][0]) for n in names)), ("", False)
        )
        if not prefix:
            raise ModelError(f"checkpoint {file} has no {part}")
        state = {name: tensors.get_tensor(name) for name in names if name.startswith(prefix)}
    plain = {name.removeprefix(prefix): value for name, value in state.items()}
    state = _of_open_clip(cls(config), state, prefix) if open_clip else plain
    return cls.from_pretrained(None, config=config, state_dict=state, dtype=dtype, output_loading_info=True)


def _of_open_clip(encoder: Any, state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """OpenCLIP's tensors by the names that transformers has for them."""
    converted = convert_open_clip_checkpoint(encoder, state, prefix)
    known = sum(3 if ".in_proj_" in name else 1 for name in state if not name.endswith(NOT_WEIGHTS))
    if len(converted) != known:
        raise ModelError(f"its text encoder has {known} tensors, of which {len(converted)} have a known name")
    return converted
