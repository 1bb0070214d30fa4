"""Find the files on this machine that workflows and episodes name, and check them without loading them."""

from __future__ import annotations

import errno
from pathlib import Path

from actors.animate_files import adapter_config, check_fit, check_ip_adapter, check_length
from actors.architectures import BY_WIDTH, SD, SDXL
from actors.families import FAMILIES, Family
from actors.files import check_folder, check_size
from actors.folders import identify_folder, opened
from actors.headers import read_header
from actors.identify import Found, identify
from actors.lora_keys import MOTION, keys_of
from actors.values import Embedding, Lora, ModelError, ModelFiles
from pipeline import PROJECT
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings
from pipeline.story.workflow import Workflow
from pipeline.story.yaml_values import shortened

DEMO = PROJECT / "actors" / "demo"


def files_of(workflow: Workflow, settings: Settings) -> ModelFiles:
    """Paths of the workflow's model files on this machine.

    Raises:
        InputError: a path leads outside its folder, or a LoRA or an embedding is missing, or for another family.
    """
    where, motion = f"workflow {workflow.name}: loras", workflow.kind.motion_adapter
    loras = tuple(lora_file(where, settings, x.file, x.weight, motion) for x in workflow.loras)
    for lora in loras:
        if wrong := misfit(lora.file, workflow.kind):
            raise InputError(f"{where}: LoRA {lora.file} {wrong}")
    named = (workflow.checkpoint, workflow.motion_adapter, workflow.base, workflow.vae, workflow.ip_adapter, workflow.image_encoder)
    checkpoint, adapter, base, vae, ip_adapter, encoder = (str(model_path(settings, name)) if name else None for name in named)
    assert checkpoint
    embeddings = tuple(_embedding(workflow, settings, word, name) for word, name in workflow.embeddings.items())
    return ModelFiles(checkpoint, adapter, loras, workflow.dtype, base, vae, workflow.vae_dtype, embeddings, ip_adapter, encoder)


def _embedding(workflow: Workflow, settings: Settings, word: str, name: str) -> Embedding:
    path, where = model_path(settings, name), f"workflow {workflow.name}: embeddings: {word}"
    try:
        found = identify(read_header(path))
    except ModelError as error:
        raise InputError(f"{where}: {error}") from error
    if not found.kind.startswith("embedding"):
        raise InputError(f"{where}: {path} is of kind {found.kind}, and no embedding")
    if wrong := of_another_family(found.architecture, workflow.kind):
        raise InputError(f"{where}: {path} {wrong}")
    return Embedding(word, str(path))


def misfit(lora: str, family: Family) -> str:
    """What keeps a LoRA file from a family, in words; "" where nothing does."""
    return of_another_family(keys_of(lora).architecture, family)


def of_another_family(architecture: str, family: Family) -> str:
    """What keeps a file of that architecture from a family; "" where nothing does. Of a width that nobody publishes, loading tells."""
    known = {one.architecture for one in FAMILIES.values()} | {*BY_WIDTH.values()}
    other = architecture in known - {family.architecture}
    return f"is for {architecture}, and family {family.name} is {family.architecture}" if other else ""


def model_path(settings: Settings, name: str) -> Path:
    """Path of a model: `demo:NAME` lies in actors/demo, any other name in TOWER_MODELS_DIR.

    Raises:
        InputError: the name leads outside that folder.
    """
    if name.startswith("demo:"):
        return inside(DEMO, name.removeprefix("demo:"), "model path")
    return inside(settings.models_dir, name, "model path")


def lora_file(where: str, settings: Settings, name: str, weight: float, motion: bool = False) -> Lora:
    """A LoRA of a workflow or a character.

    Args:
        where: who names it, for the error message. motion: whether it may change motion modules.

    Raises:
        InputError: the file is missing, is no LoRA, or would lose a part.
    """
    path = model_path(settings, name)
    if not path.is_file():
        raise InputError(f"{where}: file {path} does not exist")
    if path.suffix != ".safetensors":
        raise InputError(f"{where}: file {path.name} is not a .safetensors file")
    try:
        keys = keys_of(str(path))
    except ModelError as error:
        raise InputError(f"{where}: {error}") from error
    if keys.motion and not motion:
        raise InputError(f"{where}: LoRA {path.name} does not fit: {MOTION}")
    return Lora(str(path), weight)


def check_files(workflow: Workflow, files: ModelFiles) -> None:
    """Check folders, sizes and frame counts without loading a model. A run loads all models before it renders, and finds other faults then.

    Raises:
        InputError: a check failed.
    """
    field = "checkpoint"
    try:
        found = check_checkpoint(check_folder(files.folder, "base" if files.base else "checkpoint"), workflow.kind)
        if files.base:
            check_single_file(Path(files.checkpoint), found)
        field = "vae"
        if files.vae:
            check_vae(Path(files.vae))
        field = "width, height"
        check_size(workflow.width, workflow.height, workflow.kind.size_multiple)
        field = "num_frames"
        if workflow.kind.check_length:
            workflow.kind.check_length(files.checkpoint, workflow.num_frames or 0)
        field = "motion_adapter"
        if files.motion_adapter:
            config = adapter_config(files.motion_adapter)
            check_fit(files.motion_adapter, config, files.folder)
            field = "num_frames"
            longest = config.get("motion_max_seq_length", 32)
            check_length(workflow.num_frames or 0, longest, workflow.context_length, workflow.context_overlap)
        field = "ip_adapter"
        if files.ip_adapter and files.image_encoder:
            check_ip_adapter(files.ip_adapter, files.image_encoder, files.folder)
    except ModelError as error:
        raise InputError(f"workflow {workflow.name}: {field}: {error}") from error


def check_vae(path: Path) -> None:
    """Raises ModelError where there is no VAE of Stable Diffusion: a file, or a folder that is one or has one."""
    if path.is_file():
        found = identify(read_header(path))
        if found.kind != "VAE" or found.unknown or f"{SD} or {SDXL}" != found.architecture:
            raise ModelError(f"{path} is of kind {found.kind} for {found.architecture or 'nothing that is known'}")
    else:
        check_folder(str(path if (path / "config.json").is_file() else path / "vae"), "VAE", part="config.json")


def check_single_file(file: Path, base: Found) -> None:
    """Raises ModelError where the file is no whole checkpoint, or of another architecture than the folder beside it."""
    found = identify(read_header(file))
    if found.kind not in ("checkpoint", "unknown"):
        raise ModelError(f"checkpoint {file} is none: its tensors are of kind {found.kind}")
    if found.faults or found.unknown:
        why = found.faults[0] if found.faults else f"{len(found.unknown)} of its keys belong to nothing, such as {found.unknown[0]}"
        raise ModelError(f"checkpoint {file}: {why}")
    if found.architecture != base.architecture:
        raise ModelError(f"checkpoint {file} is {found.architecture}, and its base is {base.architecture}")


def check_checkpoint(folder: Path, family: Family) -> Found:
    """What the folder is. Raises ModelError where the folder lacks something, or its pipeline is none that the family can load."""
    found = identify_folder(folder)
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


def inside(folder: Path, name: str, what: str) -> Path:
    """The path that `name` means in `folder`.

    Args:
        what: what the path is for, for the error message.

    Raises:
        InputError: the path leads outside the folder, or no file can have that name.
    """
    try:
        path = (folder / name).resolve()
        outside = not path.is_relative_to(folder.resolve())
        path.lstat()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a circle of links; ValueError: a NUL, or half a character
        if not isinstance(error, OSError) or error.errno not in (errno.ENOENT, errno.ENOTDIR):
            why = getattr(error, "strerror", None) or error
            raise InputError(f"{what} {shortened(name)!r} is not a name that can be read: {why}") from error
    if outside:
        raise InputError(f"{what} {name!r} leads outside {folder}; only paths inside it are read")
    return path
