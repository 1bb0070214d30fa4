"""The load certificate of a model: what of its files is in it, and how it samples. Kept with every take."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from .folders import weight_files
from .headers import read_header
from .values import ModelError

# Of a scheduler's configuration, what decides the noise.
NOISE = (
    "prediction_type", "beta_schedule", "beta_start", "beta_end", "num_train_timesteps", "timestep_spacing", "steps_offset",
    "rescale_betas_zero_snr", "use_karras_sigmas", "algorithm_type", "shift", "shift_terminal", "use_dynamic_shifting",
    "stochastic_sampling", "invert_sigmas",
)  # fmt: skip
MOST_ERROR = 1e-3  # of a LoRA's change against what its file says, where the type of its matrices is no coarser


def of_model(pipe: Any, schedulers: list[Any]) -> dict[str, Any]:
    """Parts of a pipeline, and what decides the noise of its schedulers.

    Args:
        schedulers: one for each pass that samples.
    """
    return {"parts": of_modules(pipe.components), "noise": [noise_of(scheduler) for scheduler in schedulers]}


def of_modules(modules: dict[str, Any]) -> dict[str, Any]:
    """Of each module its class, number of tensors (LoRAs aside), type, and a digest of its configuration."""
    return {
        name: {
            "class": type(module).__name__,
            "tensors": len([key for key in module.state_dict() if "lora_" not in key]),
            "dtype": str(next(module.parameters()).dtype).removeprefix("torch."),
            "config": config_digest(module.config),
        }
        for name, module in sorted(modules.items())
        if isinstance(module, torch.nn.Module)
    }


def noise_of(scheduler: Any) -> dict[str, Any]:
    return {"class": type(scheduler).__name__} | {name: scheduler.config[name] for name in NOISE if name in scheduler.config}


def config_digest(config: Any) -> str:
    """The first 12 characters of a digest, of what the configuration says and not of where it was read."""
    told = config.to_diff_dict() if hasattr(config, "to_diff_dict") else dict(config)
    plain = {key: value for key, value in told.items() if not key.startswith("_") and key != "transformers_version"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:12]


def lora_error(made: torch.Tensor, said: torch.Tensor) -> float:
    """How far a module's change is from what the file says, relative to its size."""
    made, said = made.detach(), said.detach()
    size = float(said.norm())
    return float((made - said).norm()) / size if size else float(made.norm())


def check_error(file: str, module: str, error: float, dtype: torch.dtype) -> None:
    """Raises ModelError where a change is further from the file's than rounding to the type explains."""
    if not error <= max(MOST_ERROR, torch.finfo(dtype).eps):
        raise ModelError(f"LoRA {file}: {module} would change by {error:.2g} of its size more or less than the file says")


def check_all_used(folder: Path, name: str, part: torch.nn.Module) -> None:
    """Raises ModelError where the weights of a part of a folder hold tensors that have no place in the model. Loaders pass them over."""
    held = [key for file in weight_files(folder / name) for key in read_header(file).tensors]
    places = part.state_dict().keys()
    if len(held) > len(places):  # older files have other names for some, so that names alone would not tell
        lost = sorted(set(held) - places)
        raise ModelError(f"checkpoint {folder} has {len(held)} tensors of its {name}, where {len(places)} have a place, such as {lost[0]}")


def written(certificate: dict[str, Any]) -> str:
    return json.dumps(certificate, sort_keys=True, separators=(",", ":"))
