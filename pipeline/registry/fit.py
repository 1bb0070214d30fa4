"""Check whether model files are whole and fit their workflow, by their headers and configurations. Nothing is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from actors.animate_files import adapter_config, check_fit, check_ip_adapter, check_windows
from actors.architectures import ALL, SD, SDXL
from actors.families import Family
from actors.files import check_folder, check_size, check_upsampler, read_config, read_json
from actors.folders import identify_folder, ltx_version, opened
from actors.headers import prediction_of, read_header
from actors.identify import Found, elsewhere, identify
from actors.lora_keys import MOTION, keys_of
from actors.values import Embedding, Lora, ModelError, ModelFiles
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings
from pipeline.story.workflow import Workflow

from .files import files_of, model_path

SCALING = 0.18215  # of a VAE's latents, where a configuration does not tell


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file. field: of the workflow file. file: path of the file or folder. told: a sentence."""

    field: str
    file: str
    told: str


def check_files(workflow: Workflow, files: ModelFiles) -> None:
    """Check folders, sizes and frame counts without loading a model. A run loads all models before it renders, and finds other faults then.

    Raises:
        InputError: a check failed.
    """
    first = next(faults(workflow, files), None)
    if first:
        raise InputError(f"workflow {workflow.name}: {first.field}: {first.told}")


def faults(workflow: Workflow, files: ModelFiles) -> Iterator[Fault]:
    """What is wrong with each of the workflow's files, and where they are sound, what does not fit together."""
    sound = True
    for fault in _told(_by_themselves(workflow.kind, files)):
        sound = sound and fault.field not in ("checkpoint", "motion_adapter")
        yield fault
    if sound:
        yield from _told(_together(workflow, files))


Checks = Iterator[tuple[str, str, Callable[[], object]]]  # field, file, and what raises ModelError


def _told(checks: Checks) -> Iterator[Fault]:
    for field, file, check in checks:
        try:
            check()
        except ModelError as error:
            yield Fault(field, file, str(error))


def _by_themselves(kind: Family, files: ModelFiles) -> Checks:
    folder = files.folder
    if kind.stage == "finish":
        yield "checkpoint", files.checkpoint, lambda: check_upscaler(Path(files.checkpoint))
        return
    if files.base:
        yield "checkpoint", files.checkpoint, lambda: check_single_file(Path(files.checkpoint))
    yield "checkpoint", folder, lambda: check_checkpoint(check_folder(folder, "base" if files.base else "checkpoint"), kind, _beside(files))
    if vae := files.vae:
        yield "vae", vae, lambda: check_vae(Path(vae))
    if adapter := files.motion_adapter:
        yield "motion_adapter", adapter, lambda: adapter_config(adapter)
    for lora in files.loras:
        yield "loras", lora.file, partial(check_lora, lora, kind)
    for embedding in files.embeddings:
        yield "embeddings", embedding.file, partial(check_embedding, embedding, kind)


def _together(workflow: Workflow, files: ModelFiles) -> Checks:
    kind, folder, frames = workflow.kind, files.folder, workflow.num_frames or 0
    if scale := workflow.scale:
        yield "scale", files.checkpoint, lambda: check_scale(Path(files.checkpoint), scale)
    if files.base:
        yield "checkpoint", files.checkpoint, lambda: _check_pair(files)
        yield "prediction_type", files.checkpoint, lambda: check_prediction(Path(files.checkpoint), workflow.prediction_type)
    yield "width, height", files.checkpoint, lambda: check_size(workflow.width, workflow.height, kind.size_multiple)
    if vae := files.vae:
        yield "vae", vae, lambda: check_latents(Path(vae), folder)
    if check_length := kind.check_length:
        yield "num_frames", files.checkpoint, lambda: check_length(folder, frames)
    if adapter := files.motion_adapter:
        config = adapter_config(adapter)
        longest, context, overlap = config.get("motion_max_seq_length", 32), workflow.context_length, workflow.context_overlap
        yield "motion_adapter", adapter, lambda: check_fit(adapter, config, folder)
        yield "num_frames", adapter, lambda: check_windows(frames, longest, context, overlap)
    if upsampler := files.upsampler:
        yield "upsampler", upsampler, lambda: check_upsampler(upsampler, folder, workflow.width, workflow.height)
    if (ip_adapter := files.ip_adapter) and (encoder := files.image_encoder):
        yield "ip_adapter", ip_adapter, lambda: check_ip_adapter(ip_adapter, encoder, folder)


def _beside(files: ModelFiles) -> tuple[str, ...]:
    """The parts of the base whose weights lie in the checkpoint's file."""
    try:
        return elsewhere(identify(read_header(Path(files.checkpoint)))) if files.base else ()
    except ModelError:
        return ()  # the file's own fault is told already


def _check_pair(files: ModelFiles) -> None:
    file, folder = Path(files.checkpoint), Path(files.folder)
    check_base(file, identify(read_header(file)), folder, identify_folder(folder, _beside(files)))


def check_prediction(file: Path, wanted: str) -> None:
    """Raises ModelError where the markers or metadata of a checkpoint's file say another prediction type than the workflow."""
    told = prediction_of(read_header(file)).get("prediction_type")
    if told and wanted not in ("checkpoint", told):
        raise ModelError(f"{wanted}, and {file} says of itself that it is of {told}; leave prediction_type out")


def lora_of(where: str, settings: Settings, name: str, weight: float) -> Lora:
    """A character's LoRA. Raises InputError where the file is missing, is none, would lose a part, or moves clips."""
    lora = Lora(str(model_path(settings, name)), weight)
    try:
        if keys_of(existing(lora.file)).motion:
            raise ModelError(f"LoRA {lora.file} does not fit: {MOTION}")
    except ModelError as error:
        raise InputError(f"{where}: {error}") from error
    return lora


def existing(lora: str) -> str:
    """The path. Raises ModelError where there is no such file."""
    path = Path(lora)
    if not path.is_file():
        raise ModelError(f"file {path} does not exist")
    if path.suffix != ".safetensors":
        raise ModelError(f"file {path.name} is not a .safetensors file")
    return lora


def check_lora(lora: Lora, family: Family) -> None:
    """Raises ModelError where the file is missing or no LoRA, a part of it would be lost, or it is for another family."""
    keys = keys_of(existing(lora.file))
    if keys.motion and not family.motion_adapter:
        raise ModelError(f"LoRA {lora.file} does not fit: {MOTION}")
    if wrong := misfit(lora.file, family):
        raise ModelError(f"LoRA {lora.file} {wrong}")


def misfit(lora: str, family: Family) -> str:
    """What keeps a LoRA file from a family, in words; "" where nothing does."""
    return of_another_family(keys_of(lora).architecture, family)


def of_another_family(architecture: str, family: Family) -> str:
    """What keeps a file of that architecture from a family; "" where nothing does. Of a width that nobody publishes, loading tells."""
    other = architecture in ALL and architecture != family.architecture
    return f"is for {architecture}, and family {family.name} is {family.architecture}" if other else ""


def check_embedding(embedding: Embedding, family: Family) -> None:
    """Raises ModelError where the file is none, or for another family."""
    try:
        found = identify(read_header(Path(embedding.file)))
    except ModelError as error:
        raise ModelError(f"{embedding.word}: {error}") from error
    if not found.kind.startswith("embedding"):
        raise ModelError(f"{embedding.word}: {embedding.file} is of kind {found.kind}, and no embedding")
    if wrong := of_another_family(found.architecture, family):
        raise ModelError(f"{embedding.word}: {embedding.file} {wrong}")


def check_vae(path: Path) -> None:
    """Raises ModelError where there is no VAE of Stable Diffusion: a file, or a folder that is one or has one."""
    if path.is_file():
        found = identify(read_header(path))
        if found.kind != "VAE" or found.unknown or f"{SD} or {SDXL}" != found.architecture:
            raise ModelError(f"{path} is of kind {found.kind} for {found.architecture or 'nothing that is known'}")
    else:
        check_folder(str(_inner(path)), "VAE", part="config.json")


def _inner(vae: Path) -> Path:
    """The folder of a VAE itself, where it lies in a checkpoint's."""
    return vae / "vae" if (vae / "vae" / "config.json").is_file() else vae


def check_latents(vae: Path, checkpoint: str) -> None:
    """Raises ModelError where the configurations of a VAE's folder and of the checkpoint's own VAE scale latents in another way."""
    if vae.is_dir():
        configs = read_json(_inner(vae) / "config.json"), read_config(checkpoint, "vae")
        mine, its = (config.get("scaling_factor", SCALING) for config in configs)
        if mine != its:
            raise ModelError(f"VAE {vae} is for other checkpoints: its scaling_factor is {mine}, and that of {checkpoint} is {its}")


def check_single_file(file: Path) -> Found:
    """What the file is. Raises ModelError where it is no checkpoint, or a part of it would be lost."""
    found = identify(read_header(file))
    if found.kind not in ("checkpoint", "unknown"):
        raise ModelError(f"checkpoint {file} is none: its tensors are of kind {found.kind}")
    if found.faults or found.unknown:
        why = found.faults[0] if found.faults else f"{len(found.unknown)} of its keys belong to nothing, such as {found.unknown[0]}"
        raise ModelError(f"checkpoint {file}: {why}")
    return found


def check_upscaler(file: Path) -> Found:
    """What the file is. Raises ModelError where it is missing, is no upscaler, or is one that Tower cannot use."""
    found = identify(read_header(file))
    if found.kind != "upscaler":
        raise ModelError(f"checkpoint {file} is of kind {found.kind}, and no upscaler that Tower knows")
    if found.faults:
        raise ModelError(f"checkpoint {file}: {found.faults[0]}")
    return found


def check_scale(file: Path, scale: int) -> None:
    """Raises ModelError where an upscaler makes pictures larger by another factor."""
    found = check_upscaler(file)
    if found.scale != scale:
        raise ModelError(f"{scale}, and checkpoint {file}, a {found.architecture}, makes pictures {found.scale} times as wide and high")


def check_base(file: Path, found: Found, folder: Path, base: Found) -> None:
    """Raises ModelError where the file is of another architecture or version than the folder beside it."""
    if found.architecture != base.architecture:
        raise ModelError(f"checkpoint {file} is {found.architecture}, and its base is {base.architecture}")
    if found.family == "ltx_video" and "VAE" in found.parts and (version := ltx_version(folder)) not in found.notes:
        raise ModelError(f"checkpoint {file} holds a {found.notes[0]}, and its base {folder} describes a {version}")


def check_checkpoint(folder: Path, family: Family, beside: tuple[str, ...] = ()) -> Found:
    """What the folder is.

    Args:
        beside: parts whose weights lie in a file beside the folder.

    Raises:
        ModelError: the folder lacks something, or its pipeline is none that the family can load.
    """
    found = identify_folder(folder, beside)
    if found.faults:
        raise ModelError(f"checkpoint {folder}: {found.faults[0]}")
    if found.family not in (family.name, family.checkpoints):
        raise ModelError(f"checkpoint {folder} is {found.architecture}, for family {found.family} and not for {family.name}")
    return found


def state_of_files(workflow: Workflow, settings: Settings) -> str:
    """`ready` and the size of the model files, or what is missing; text for people. Nothing is loaded."""
    try:
        files = files_of(workflow, settings)
        check_files(workflow, files)
    except InputError as error:
        return str(error).removeprefix(f"workflow {workflow.name}: ")
    megabytes = sum(p.stat().st_size for folder in files.weights for p in opened(Path(folder))) / 1e6
    return f"ready, {megabytes:,.1f} MB"
