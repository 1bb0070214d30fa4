"""An IP-Adapter: the keyframe read by CLIP and attended to beside the prompt, so that a clip that moves more still looks like it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import IPAdapterAttnProcessor, IPAdapterAttnProcessor2_0
from safetensors.torch import load_file
from transformers import CLIPVisionModelWithProjection

from .animate_files import check_ip_adapter
from .files import in_one_line
from .folders import variant_of_part
from .ip_keys import IMAGE, PLACES
from .values import ModelError


def add_ip_adapter(pipe: Any, file: str, encoder: str, checkpoint: str, dtype: torch.dtype, device: str) -> None:
    """Give a pipeline an IP-Adapter and the image encoder that it reads the keyframe through.

    Args:
        checkpoint: diffusers folder with the configuration of its UNet.

    Raises:
        ModelError: one of them cannot be loaded, they do not fit each other or the checkpoint, or a tensor of the file has no place.
    """
    from transformers import CLIPImageProcessorPil  # only here: older releases have none, and run everything else

    check_ip_adapter(file, encoder, checkpoint)
    reader = _image_encoder(encoder, dtype).to(device)
    size = reader.config.image_size
    # Always PIL's own resizing: transformers would take torchvision's where that is installed, and the pixels would be others.
    pipe.register_modules(image_encoder=reader, feature_extractor=CLIPImageProcessorPil(size=size, crop_size=size))
    tensors = load_file(file)
    parts = {
        prefix.rstrip("."): {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        for prefix in (IMAGE, PLACES)
    }
    try:
        pipe.load_ip_adapter(parts, subfolder="", weight_name="", image_encoder_folder=None, local_files_only=True)
    except Exception as error:
        raise ModelError(f"IP-Adapter {file} does not fit this checkpoint: {in_one_line(error)}") from error
    _check_all_used(pipe.unet, file, sum(value.numel() for value in tensors.values()))


def _image_encoder(folder: str, dtype: torch.dtype) -> Any:
    try:
        how: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "variant": variant_of_part(Path(folder))}
        encoder, told = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=dtype, output_loading_info=True, **how)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"image encoder {folder} cannot be loaded: {in_one_line(error)}") from error
    missing = sorted(told["missing_keys"])
    if missing:  # transformers would fill them with random numbers
        raise ModelError(f"image encoder {folder} lacks {len(missing)} tensors, such as {missing[0]}")
    return encoder.eval()


def _check_all_used(unet: Any, file: str, held: int) -> None:
    """Raise ModelError unless all of the file is in the UNet: the loader passes over what has no place, and leaves empty what is missing.

    Args:
        held: numbers in the file. Not its tensors, since the loader splits some.
    """
    places = [p for p in unet.attn_processors.values() if isinstance(p, (IPAdapterAttnProcessor, IPAdapterAttnProcessor2_0))]
    made = [value for part in (unet.encoder_hid_proj, *places) for value in part.state_dict().values()]
    wanted = sum(value.numel() for value in made)
    if held != wanted or any(value.is_meta for value in made):
        raise ModelError(f"IP-Adapter {file} does not fit this checkpoint: it has {held:,} numbers, and {wanted:,} have a place")
