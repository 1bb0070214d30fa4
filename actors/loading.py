"""Loads checkpoints from local safetensors files. Every fault is reported at loading, before it can cost a render."""

from __future__ import annotations

import inspect
import platform
import resource
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL

from .certificate import check_all_used
from .files import check_folder, in_one_line, read_json
from .folders import variant_of
from .headers import prediction_of, read_header
from .ltx_file import load_ltx_parts
from .single_file import load_parts
from .vae import load_vae
from .values import ClipSettings, KeyframeSettings, ModelError, ModelFiles

warnings.filterwarnings("ignore", message=".*should be kept in float32.*")
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()

# Parts of published folders that are never loaded. Prompts are encoded elsewhere, and a safety checker would black pictures
# that the gates then reject, seed after seed.
NOT_LOADED = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "safety_checker", "feature_extractor", "image_encoder")
SCHEDULERS: dict[str, tuple[Any, dict[str, Any]] | None] = {
    "checkpoint": None,
    "ddim": (diffusers.DDIMScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "lcm": (diffusers.LCMScheduler, {}),
    "dpmpp_2m_karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True, "algorithm_type": "dpmsolver++"}),
}


def best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(device: str) -> str:
    """The hardware's own name, such as the GPU's or the CPU's model name; for receipts."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return f"{platform.processor() or platform.machine()} CPU"


def dtype_for(setting: str, device: str, on_gpu: str) -> torch.dtype:
    """The type that a setting names. "auto" is float32 on a CPU, and the type named `on_gpu` on a GPU."""
    automatic = on_gpu if device.startswith("cuda") else "float32"
    return getattr(torch, automatic if setting == "auto" else setting)


def load_pipeline(cls: Any, files: ModelFiles, dtype: torch.dtype, device: str, **parts: Any) -> Any:
    """Load a diffusers pipeline from local files onto the device, without its text encoder.

    Args:
        cls: class of the pipeline. parts: components to use in place of the checkpoint's own.

    Raises:
        ModelError: the checkpoint is none of that class.
    """
    folder, path = files.checkpoint, check_folder(files.folder, "checkpoint")
    index = read_json(path / "model_index.json")
    if files.base:
        load = load_ltx_parts if (path / "transformer").is_dir() else load_parts
        parts = load(Path(folder), path, dtype) | parts
    if files.vae:
        parts["vae"] = load_vae(Path(files.vae), path, dtype)
    unloaded = dict.fromkeys(name for name in NOT_LOADED if name in index and name not in parts)
    try:
        pipe = cls.from_pretrained(
            path, dtype=dtype, local_files_only=True, use_safetensors=True, variant=variant_of(path), **unloaded, **parts
        )  # type: ignore[attr-defined]
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise ModelError(f"checkpoint {folder} cannot be loaded as {cls.__name__}: {in_one_line(error)}") from error
    pipe.set_progress_bar_config(disable=True)
    if files.base and (told := prediction_of(read_header(Path(folder)))):
        pipe.scheduler = _told(pipe.scheduler, told)
    if isinstance(pipe.vae, AutoencoderKL):
        pipe.vae.to(dtype=_vae_type(pipe, files.vae_dtype, dtype))
    for name, part in pipe.components.items():
        lacking = [key for key, value in part.state_dict().items() if value.is_meta] if isinstance(part, torch.nn.Module) else []
        if lacking:
            raise ModelError(f"checkpoint {folder} lacks {len(lacking)} tensors of its {name}, such as {lacking[0]}")
        if isinstance(part, torch.nn.Module) and name not in parts:  # those that were handed over have been checked
            check_all_used(path, name, part)
    return pipe.to(device)


def _told(scheduler: Any, told: dict[str, Any]) -> Any:
    """The scheduler, of whose configuration a file tells some by itself. Its class need not read them: the workflow may name another."""
    had = dict(scheduler.config)
    had["_use_default_values"] = [name for name in had.get("_use_default_values", ()) if name not in told]
    return type(scheduler).from_config(had | told)


def _vae_type(pipe: Any, wanted: str | None, dtype: torch.dtype) -> torch.dtype:
    """The type that pictures are decoded in. SDXL's own VAE overflows in float16, and its configuration says so."""
    overflows = isinstance(pipe, diffusers.StableDiffusionXLPipeline) and pipe.vae.config.force_upcast
    if wanted is not None and wanted != "auto":
        return getattr(torch, wanted)
    return torch.float32 if overflows and dtype == torch.float16 else dtype


def set_scheduler(pipe: Any, settings: KeyframeSettings | ClipSettings) -> None:
    """Give the pipeline the scheduler that the settings name, with their betas, spacing and prediction type.

    Raises:
        ModelError: there is no such scheduler, or it would pass over one of these.
    """
    if settings.scheduler not in SCHEDULERS:
        raise ModelError(f"scheduler {settings.scheduler!r} is not known; it is one of {', '.join(SCHEDULERS)}")
    cls, extra = SCHEDULERS[settings.scheduler] or (type(pipe.scheduler), {})
    if settings.beta_schedule != "checkpoint":
        extra = extra | {"beta_schedule": settings.beta_schedule, "trained_betas": None}
    if settings.prediction_type != "checkpoint":
        extra = extra | {"prediction_type": settings.prediction_type}
    if settings.rescale_betas_zero_snr:  # a model that was trained so is sampled from the very end of the noise
        extra = extra | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if settings.timestep_spacing != "checkpoint":
        extra = extra | {"timestep_spacing": settings.timestep_spacing}
    had, known = pipe.scheduler.config, inspect.signature(cls.__init__).parameters
    told = [*extra, *(["rescale_betas_zero_snr"] if had.get("rescale_betas_zero_snr") else [])]
    if unread := next((name for name in told if name not in known and name != "trained_betas"), None):
        raise ModelError(f"scheduler {cls.__name__} does not read {unread}; name another scheduler in the workflow, such as euler")
    pipe.scheduler = cls.from_config(had, **extra)  # type: ignore[attr-defined]


def as_given(scheduler: Any) -> Any:
    """A flow scheduler that visits the timesteps that it is given: no shift, no stretch to a last value, nothing that depends on size.

    A distilled model's noise levels are its own. Schedulers of checkpoints before LTX-Video 0.9.5 would shift them once more.
    """
    return type(scheduler).from_config(scheduler.config, shift=1.0, shift_terminal=None, use_dynamic_shifting=False)


def generator(seed: int) -> torch.Generator:
    """A random generator on the CPU, whatever the model's device is, so that a seed gives the same noise everywhere."""
    return torch.Generator("cpu").manual_seed(seed)


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """torch's own generators, of the CPU and of the device, start from the seed; afterwards they are as they were."""
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        yield


def to_uint8(values: torch.Tensor) -> tuple[np.ndarray, bool]:
    """Convert float 0..1 (..., channels, height, width) to uint8 (..., height, width, channels).

    Also returns whether every value was finite. This is checked before the cast, since a NaN is black after it.
    """
    finite = bool(torch.isfinite(values).all())
    clean = torch.nan_to_num(values.float()).clamp(0, 1)
    return (clean * 255).round().to(torch.uint8).movedim(-3, -1).contiguous().cpu().numpy(), finite


def reset_peak_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_bytes() -> int:
    """Most GPU memory in use since `reset_peak_memory`; without a GPU, the most that the process ever used."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
