"""Motion modules: diffusers' MotionAdapter from its folder, or from one file in the layout of the original code or of diffusers."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import MotionAdapter
from safetensors.torch import load_file

from .animate_files import adapter_config
from .files import in_one_line
from .folders import variant_of_part
from .headers import read_header
from .motion_keys import MotionKeys, motion_keys
from .values import ModelError


def load_adapter(path: str, dtype: torch.dtype) -> MotionAdapter:
    """The motion adapter of a file or folder.

    Raises:
        ModelError: it cannot be loaded, or a tensor of it has no place.
    """
    adapter_config(path)
    try:
        if Path(path).is_file():
            return _of_file(Path(path)).to(dtype)
        how = {"local_files_only": True, "use_safetensors": True, "variant": variant_of_part(Path(path))}
        return MotionAdapter.from_pretrained(path, dtype=dtype, **how)
    except ModelError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"motion adapter {path} cannot be loaded: {in_one_line(error)}") from error


def _of_file(file: Path) -> MotionAdapter:
    keys = motion_keys(read_header(file))
    assert keys  # adapter_config has seen to it
    tensors = load_file(file)
    with torch.device("meta"):  # no time is spent on random weights
        adapter = MotionAdapter(**keys.config)
    adapter.load_state_dict({name: _tensor(file, keys, name, tensors) for name in keys.names}, strict=True, assign=True)
    return adapter.eval()


def _tensor(file: Path, keys: MotionKeys, name: str, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """The file's own values, positional encodings too: another model's are not computed anew.

    Raises:
        ModelError: both attentions of a block have their own encoding, which diffusers cannot say.
    """
    first, *others = (tensors[key] for key in keys.names[name])
    if any(not torch.equal(first, other) for other in others):
        raise ModelError(f"motion adapter {file} cannot be loaded: {' and '.join(keys.names[name])} differ, and have to be one")
    return first
