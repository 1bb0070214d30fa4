"""Tells what a diffusers folder is, from its configurations and the headers of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .architectures import BY_WIDTH, LTX, LTX_SIZES, SD
from .files import in_yaml, read_config, read_json
from .headers import read_header
from .identify import LTX_VERSIONS, Found
from .values import ModelError

WEIGHTS = ("diffusion_pytorch_model", "model")  # names of weight files, without variant, shard and ending
DENOISERS = ("unet", "transformer")
# Pipelines that a family can load, by their class in model_index.json.
CLASSES = {
    "StableDiffusionPipeline": "stable_diffusion", "StableDiffusionXLPipeline": "stable_diffusion_xl",
    "LTXPipeline": "ltx_video", "LTXImageToVideoPipeline": "ltx_video",
    "LTXConditionPipeline": "ltx_video",
}  # fmt: skip
PASSED_OVER = ("safety_checker", "feature_extractor", "image_encoder")  # in published folders; Tower never loads them


def identify_folder(folder: Path, elsewhere: tuple[str, ...] = ()) -> Found:
    """What a diffusers folder holds, and what it lacks.

    Args:
        elsewhere: parts of a checkpoint whose weights lie in another file; here their configurations alone are asked for.

    Raises:
        ModelError: it is no diffusers folder, or a configuration cannot be read.
    """
    if (folder / "model_index.json").is_file():
        return _pipeline(folder, elsewhere)
    if (folder / "config.json").is_file():
        return _component(folder)
    raise ModelError(f"{folder} is no diffusers folder: it has no model_index.json and no config.json")


def _pipeline(folder: Path, elsewhere: tuple[str, ...]) -> Found:
    index = read_json(folder / "model_index.json")
    if index.get("_class_name") == "LTXLatentUpsamplePipeline":
        return _upsampler(folder.name, [fault for _, _, fault in [_weights(folder / "latent_upsampler")] if fault])
    wanted = parts_of(index)
    found = [_weights(folder / name) for name in wanted if name not in ("scheduler", "tokenizer", "tokenizer_2", *elsewhere)]
    faults = [fault for _, _, fault in found if fault]
    faults += [f"it lacks {name}/config.json" for name in elsewhere if not (folder / name / "config.json").is_file()]
    faults += [f"it lacks {name}/" for name in wanted if not (folder / name).is_dir() and name in ("scheduler", "tokenizer", "tokenizer_2")]
    notes = [note for _, note, _ in found if note]
    denoiser = next((name for name in DENOISERS if name in wanted), None)
    config = _config(folder, denoiser)
    kind = str(index.get("_class_name", "a pipeline without a class"))
    architecture = _architecture(config)
    latents, reads = _config(folder, "vae").get("latent_channels"), config.get("in_channels")
    if denoiser == "unet" and isinstance(latents, int) and reads != latents:
        faults.append(
            f"its UNet reads {reads} channels where its VAE makes {latents}: it is for inpainting or editing, and draws no prompt"
        )
    if (folder / "scheduler" / "scheduler_config.json").is_file():
        notes += _scheduler(read_json(folder / "scheduler" / "scheduler_config.json"))
    extra = [name for name in PASSED_OVER if (folder / name).is_dir()]
    notes += [f"{' and '.join(extra)}: never loaded"] if extra else []
    if kind not in CLASSES:
        faults.append(f"Tower has no family for {kind}")
    family = CLASSES.get(kind, "")
    use = f"checkpoint: {in_yaml(folder.name)}" if not faults else ""
    return Found("checkpoint", architecture, tuple(wanted), tuple(dict.fromkeys(notes)), tuple(faults), (), family, use)


def _upsampler(name: str, faults: list[str]) -> Found:
    return Found("latent upsampler", LTX, (), (), tuple(faults), (), "ltx_video", f"upsampler: {in_yaml(name)}" if not faults else "")


def _config(folder: Path, part: str | None) -> dict[str, Any]:
    return read_config(str(folder), part) if part and (folder / part / "config.json").is_file() else {}


def _component(folder: Path) -> Found:
    config = read_json(folder / "config.json")
    name = str(config.get("_class_name") or next(iter(config.get("architectures") or []), "a configuration"))
    _, note, fault = _weights(folder)
    faults = [fault] if fault else []
    if name == "MotionAdapter":
        longest = config.get("motion_max_seq_length", 32)
        use = f"motion_adapter: {in_yaml(folder.name)}" if not faults else ""
        return Found(
            "motion module", f"AnimateDiff for {SD}", (), (f"makes up to {longest} frames", note), tuple(faults), (), "animatediff", use
        )
    if name == "LTXLatentUpsamplerModel":
        return _upsampler(folder.name, faults)
    return Found(name, _architecture(config), (), (note,) if note else (), (*faults, "a part of a checkpoint, and no whole one"))


def ltx_version(folder: Path) -> str:
    """Of the VAE that a folder's configuration describes, as `identify` tells it of a file."""
    config = read_config(str(folder), "vae")
    later = "LTXVideo095DownBlock3D" in config.get("down_block_types", ())
    return LTX_VERSIONS[2 if later else 1 if config.get("timestep_conditioning") else 0]


def _architecture(config: dict[str, Any]) -> str:
    """By the denoiser's configuration."""
    name = config.get("_class_name", "")
    if name == "UNet2DConditionModel":
        width = config.get("cross_attention_dim")
        return BY_WIDTH.get(width if isinstance(width, int) else 0, f"a UNet that attends to text of width {width}")
    if name == "LTXVideoTransformer3DModel":
        width = config.get("num_attention_heads", 32) * config.get("attention_head_dim", 64)
        size = LTX_SIZES.get((config.get("num_layers", 28), width))
        return f"{LTX} {size}" if size else f"{LTX} of {config.get('num_layers')} layers of width {width}"
    return str(name)


def _scheduler(config: dict[str, Any]) -> list[str]:
    told = [str(config.get("_class_name", "no scheduler class"))]
    told += [f"{name} {config[name]}" for name in ("prediction_type", "beta_schedule", "shift") if name in config]
    flags = (("rescale_betas_zero_snr", "zero terminal SNR"), ("use_dynamic_shifting", "dynamic shifting"))
    told += [words for name, words in flags if config.get(name)]
    return [f"scheduler: {', '.join(told)}"]


def _weights(folder: Path) -> tuple[list[Path], str, str]:
    """The weight files that would be opened, a note on them, and what is wrong with them."""
    if not folder.is_dir():
        return [], "", f"it lacks {folder.name}/"
    names, note = weight_names((f.name for f in folder.iterdir()), lambda index: read_json(folder / index))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        return [], "", f"{folder.name}/ lacks {len(missing)} of its {len(names)} shards, such as {missing[0]}"
    if names:
        return _sound(folder, [folder / name for name in names], f"{folder.name}/ {note}" if note else "")
    others = [f.name for f in folder.iterdir() if f.suffix in (".bin", ".ckpt", ".pt", ".pth")]
    why = f"only {others[0]}, and Tower loads safetensors alone" if others else "no weights"
    return [], "", f"{folder.name}/ has {why}"


def weight_names(there: Iterable[str], read_index: Callable[[str], dict[str, Any]]) -> tuple[list[str], str]:
    """Of the names of files in a part's folder, those of the weights that a loader would open, and a note on them.

    A plain file comes before shards, which count by their index, and these before a variant such as `fp16`.

    Args:
        read_index: gives the contents of an index of shards by its name.
    """
    every = sorted(there)
    weights = [name for name in every if name.endswith(".safetensors") and name.split(".")[0] in WEIGHTS]
    plain = [name for name in weights if name.count(".") == 1]
    indices = sorted((name for name in every if ".safetensors.index" in name and name.endswith(".json")), key=len)  # a variant's is longer
    variants = [name for name in weights if name.count(".") == 2]
    if plain:
        return plain[:1], ""
    if indices:
        shards = sorted(set(read_index(indices[0]).get("weight_map", {}).values()))
        return shards, f"in {len(shards)} shards"
    return variants[:1], f"only as variant {variants[0].split('.')[1]}" if variants else ""


def parts_of(index: dict[str, Any]) -> list[str]:
    """The parts that a model_index.json names, without those that are never loaded."""
    return [name for name, told in index.items() if isinstance(told, list) and told[0] is not None and name not in PASSED_OVER]


def _parts(folder: Path) -> list[Path]:
    """The folders of a checkpoint's parts, without those that are never loaded."""
    return [part for part in sorted(folder.iterdir()) if part.is_dir() and part.name not in PASSED_OVER]


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a part of a checkpoint that a loader would open."""
    return _weights(folder)[0]


def variant_of(folder: Path) -> str | None:
    """The variant that a part of a checkpoint is in, text encoders aside; None where all have a plain file."""
    parts = [part for part in _parts(folder) if not part.name.startswith(("scheduler", "tokenizer", "text_encoder"))]
    return next((variant for part in parts if (variant := variant_of_part(part))), None)


def variant_of_part(folder: Path) -> str | None:
    """The variant, such as "fp16", of a part's weights, or of a model's that is by itself, where the plain file is missing; else None."""
    names = [file.name for file in _weights(folder)[0]]
    return next((name.split(".")[1].split("-")[0] for name in names if name.count(".") == 2), None)


def opened(folder: Path) -> list[Path]:
    """The weight files that a loader would open: of a folder no second copy in another variant, and no part that is never loaded."""
    if folder.is_file():
        return [folder]
    return [file for part in [folder, *_parts(folder)] for file in _weights(part)[0]]


def _sound(folder: Path, files: list[Path], note: str) -> tuple[list[Path], str, str]:
    for file in files:
        try:
            read_header(file)
        except ModelError as error:
            return files, note, str(error)
    return files, note, ""
