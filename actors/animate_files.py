"""What AnimateDiff needs beside a checkpoint, checked without loading it: planning asks for it, and so does the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .architectures import BY_WIDTH
from .files import check_folder, read_config, read_json
from .folders import identify_folder
from .headers import read_header
from .identify import identify
from .ip_keys import ip_keys
from .motion_keys import motion_keys
from .values import ModelError

CLIP_WIDTHS = {"projection_dim": 512, "hidden_size": 768}  # what transformers takes where a configuration does not tell


def adapter_config(path: str) -> dict[str, Any]:
    """The configuration of a motion adapter: of its folder, or what the keys of its file tell.

    Raises:
        ModelError: it is missing, is something else, or is not whole.
    """
    if Path(path).is_file() or (path.endswith(".safetensors") and not Path(path).is_dir()):
        return _config_of_file(Path(path))
    folder = check_folder(path, "motion adapter", part="config.json")
    found = identify_folder(folder)
    if found.kind != "motion module" or found.faults:
        why = found.faults[0] if found.kind == "motion module" else f"it is none: its kind is {found.kind}"
        raise ModelError(f"motion adapter {path}: {why}")
    return read_json(folder / "config.json")


def _config_of_file(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ModelError(f"motion adapter {file} does not exist; put the file there, or correct the path")
    header = read_header(file)
    found, keys = identify(header), motion_keys(header)
    if found.kind != "motion module" or keys is None:
        raise ModelError(f"motion adapter {file} is none: its tensors are of kind {found.kind}")
    if found.faults:
        raise ModelError(f"motion adapter {file}: {found.faults[0]}")
    return keys.config


def check_fit(path: str, config: dict[str, Any], checkpoint: str) -> None:
    """Raise ModelError unless a motion adapter of that configuration has a module for each block of the checkpoint's UNet.

    Args:
        checkpoint: diffusers folder with the UNet's configuration.
    """
    unet = read_config(checkpoint, "unet")
    for what, own, its in (
        ("blocks of width", config.get("block_out_channels"), unet.get("block_out_channels")),
        ("layers a block", _each(config, "motion_layers_per_block"), _each(unet, "layers_per_block")),
    ):
        if list(own or []) != list(its or []):
            told = f"{what} {_told(own)}, and the UNet's {_told(its)}"
            raise ModelError(f"motion adapter {path} does not fit the UNet of {checkpoint}: {told}")


def _each(config: dict[str, Any], name: str) -> list[int]:
    value = config.get(name, 2)
    return [value] * len(config.get("block_out_channels") or []) if isinstance(value, int) else list(value)


def _told(values: Any) -> str:
    return ", ".join(map(str, values or ["are not told"]))


def check_windows(num_frames: int, longest: int, context: int | None = None, overlap: int = 0) -> None:
    """Raise ModelError unless a motion adapter makes that many frames.

    Args:
        longest: its motion_max_seq_length. context, overlap: frames of a window, and those that it shares with the next; None for one
            window that holds the whole clip.
    """
    if context is None:
        if not 2 <= num_frames <= longest:
            told = f"it makes 2 to {longest} frames, and more only with a context_length"
            raise ModelError(f"num_frames {num_frames} does not fit this motion adapter: {told}")
        return
    if not 2 <= context <= longest:
        raise ModelError(f"context_length {context} does not fit this motion adapter: it makes 2 to {longest} frames at once")
    if overlap >= context:
        raise ModelError(f"context_overlap {overlap} is not less than context_length {context}")
    # Where the last window is not a whole step away, diffusers divides its frames by another weight than it multiplied them by.
    step = context - overlap
    if num_frames < context or (num_frames - context) % step:
        near = context + step * max(0, round((num_frames - context) / step))
        told = f"{context} + {step}k frames do, such as {near}"
        raise ModelError(f"num_frames {num_frames} does not fit windows of {context} that share {overlap}: {told}")


def check_ip_adapter(file: str, encoder: str, checkpoint: str) -> None:
    """Raise ModelError unless an IP-Adapter fits the image encoder and the checkpoint's UNet.

    Args:
        file: of the adapter. encoder: folder of CLIP's vision model. checkpoint: diffusers folder with the UNet's configuration.
    """
    if not Path(file).is_file():
        raise ModelError(f"IP-Adapter {file} does not exist; put the file there, or correct the path")
    header = read_header(Path(file))
    keys = ip_keys(header)
    if keys is None:
        raise ModelError(f"IP-Adapter {file} is none: its tensors are of kind {identify(header).kind}")
    if keys.faults:
        raise ModelError(f"IP-Adapter {file}: {keys.faults[0]}")
    text = read_config(checkpoint, "unet").get("cross_attention_dim")
    if keys.text_width != text:
        what = BY_WIDTH.get(keys.text_width, "a UNet")
        raise ModelError(f"IP-Adapter {file} is for {what}, with text of width {keys.text_width}; the UNet of {checkpoint} reads {text}")
    config = read_json(check_folder(encoder, "image encoder", part="config.json") / "config.json")
    if "CLIPVisionModelWithProjection" not in (config.get("architectures") or []):
        raise ModelError(f"image encoder {encoder} is none: a folder of transformers' CLIPVisionModelWithProjection is wanted")
    width = config.get(keys.encoders_width, CLIP_WIDTHS[keys.encoders_width])
    if keys.image_width != width:
        told = f"its {keys.encoders_width} is {width}, and {keys.image_width} is wanted"
        raise ModelError(f"image encoder {encoder} does not fit IP-Adapter {file}: {told}")
