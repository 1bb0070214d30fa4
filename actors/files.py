"""Checks of model files and sizes that load no model. The module imports no torch, so that planning stays quick."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .values import ModelError

YAML_WORDS = ("true", "false", "yes", "no", "on", "off", "null")  # which YAML reads as other things than texts


def check_folder(folder: str, kind: str, part: str | None = None) -> Path:
    """The folder of a diffusers checkpoint as a path.

    Args:
        folder: a local path. kind: the word for it in error messages, such as "checkpoint".
        part: file that must be in the folder; None for `model_index.json`.

    Raises:
        ModelError: the folder, the file, or any .safetensors file does not exist.
    """
    path = Path(folder)
    wanted = part or "model_index.json"
    if not path.is_dir():
        raise ModelError(f"{kind} {folder} does not exist; put a diffusers folder there, or correct the path")
    if not (path / wanted).is_file():
        raise ModelError(f"{kind} {folder} has no {wanted}; a folder that diffusers' save_pretrained wrote is wanted")
    if not any(path.rglob("*.safetensors")):
        raise ModelError(f"{kind} {folder} has no .safetensors file; weights in other formats are not loaded")
    return path


def check_size(width: int, height: int, multiple: int) -> None:
    """Raise ModelError unless both sides, in pixels, are multiples of `multiple`."""
    if width % multiple or height % multiple or min(width, height) < multiple:
        near = f"{max(multiple, round(width / multiple) * multiple)}x{max(multiple, round(height / multiple) * multiple)}"
        raise ModelError(f"size {width}x{height} does not fit this model: sides must be multiples of {multiple}, such as {near}")


def check_frames(checkpoint: str, num_frames: int) -> None:
    """Raise ModelError unless num_frames is 1 more than a multiple of the checkpoint's temporal compression ratio.

    LTX-Video would silently make 113 frames where 120 are asked for.
    """
    ratio = temporal_ratio(checkpoint)
    if num_frames < 1 or num_frames % ratio != 1:
        near = max(0, round((num_frames - 1) / ratio)) * ratio + 1
        raise ModelError(f"num_frames {num_frames} does not fit this model: LTX-Video makes {ratio}k+1 frames, such as {near}")


def temporal_ratio(checkpoint: str) -> int:
    """Frames that LTX-Video's VAE makes one latent of, but for the first frame, which has its own."""
    ratio = read_config(checkpoint, "vae").get("temporal_compression_ratio") or 8
    if not isinstance(ratio, int) or ratio < 1:
        raise ModelError(f"vae/config.json of checkpoint {checkpoint}: temporal_compression_ratio {ratio!r} is not a whole number")
    return ratio


def check_upsampler(folder: str, base: str, width: int, height: int) -> Path:
    """The folder of LTX-Video's latent upsampler itself, where it lies in a pipeline's.

    Args:
        base: the checkpoint's folder. width, height: of the clip.

    Raises:
        ModelError: it is none that doubles width and height, it does not fit the checkpoint, or half of the size does not fit the model.
    """
    inner = Path(folder) / "latent_upsampler"
    path = check_folder(str(inner) if inner.is_dir() else folder, "upsampler", part="config.json")
    config = read_json(path / "config.json")
    if config.get("_class_name") != "LTXLatentUpsamplerModel":
        raise ModelError(f"upsampler {folder} is of class {config.get('_class_name')}; one of class LTXLatentUpsamplerModel is wanted")
    if config.get("temporal_upsample") or not config.get("spatial_upsample", True):
        raise ModelError(f"upsampler {folder} makes more frames; one that doubles width and height is wanted")
    reads, makes = config.get("in_channels", 128), read_config(base, "vae").get("latent_channels", 128)
    if reads != makes:
        raise ModelError(f"upsampler {folder} reads latents of {reads} channels, and the checkpoint's VAE makes {makes}")
    check_size(width, height, 64)  # the first pass makes half of it, in multiples of 32
    return path


def in_yaml(name: str) -> str:
    """The name of a file as a line of YAML takes it: in quotes where it would be read as something else, such as a list or a comment."""
    plain = re.fullmatch(r"[^\W\d][\w./ -]*\w|\w[\w./ -]*\.(safetensors|gguf)", name) and name.lower() not in YAML_WORDS
    return name if plain else json.dumps(name, ensure_ascii=False)


def read_config(folder: str, part: str) -> dict[str, Any]:
    return read_json(Path(folder) / part / "config.json")


def read_json(file: Path) -> dict[str, Any]:
    """A configuration. Raises ModelError where the file cannot be read, or holds none."""
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {in_one_line(error)}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file} does not hold a configuration")
    return config


def in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
