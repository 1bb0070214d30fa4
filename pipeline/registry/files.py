"""Find the files on this machine that workflows and episodes name, and check them without loading them."""

from __future__ import annotations

import errno
from pathlib import Path

from actors.families import Family
from actors.files import check_folder, check_size
from actors.folders import identify_folder, opened
from actors.headers import read_header
from actors.identify import Found, identify
from actors.lora_keys import keys_of
from actors.values import Lora, ModelError, ModelFiles
from pipeline import PROJECT
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings
from pipeline.story.workflow import Workflow
from pipeline.story.yaml_values import shortened

DEMO = PROJECT / "actors" / "demo"


def files_of(workflow: Workflow, settings: Settings) -> ModelFiles:
    """Paths of the workflow's model files on this machine.

    Raises:
        InputError: a path leads outside its folder, or a LoRA is missing.
    """
    loras = tuple(lora_file(f"workflow {workflow.name}: loras", settings, x.file, x.weight) for x in workflow.loras)
    adapter = str(model_path(settings, workflow.motion_adapter)) if workflow.motion_adapter else None
    base = str(model_path(settings, workflow.base)) if workflow.base else None
    return ModelFiles(str(model_path(settings, workflow.checkpoint)), adapter, loras, workflow.dtype, base)


def model_path(settings: Settings, name: str) -> Path:
    """Path of a model: `demo:NAME` lies in actors/demo, any other name in TOWER_MODELS_DIR.

    Raises:
        InputError: the name leads outside that folder.
    """
    if name.startswith("demo:"):
        return inside(DEMO, name.removeprefix("demo:"), "model path")
    return inside(settings.models_dir, name, "model path")


def lora_file(where: str, settings: Settings, name: str, weight: float) -> Lora:
    path = model_path(settings, name)
    if not path.is_file():
        raise InputError(f"{where}: file {path} does not exist")
    if path.suffix != ".safetensors":
        raise InputError(f"{where}: file {path.name} is not a .safetensors file")
    try:
        keys_of(str(path))
    except ModelError as error:
        raise InputError(f"{where}: {error}") from error
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
        field = "width, height"
        check_size(workflow.width, workflow.height, workflow.kind.size_multiple)
        field = "num_frames"
        if workflow.kind.check_length:
            workflow.kind.check_length(files.checkpoint, workflow.num_frames or 0)
        field = "motion_adapter"
        if files.motion_adapter:
            check_folder(files.motion_adapter, "motion adapter", part="config.json")
    except ModelError as error:
        raise InputError(f"workflow {workflow.name}: {field}: {error}") from error


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
    folders = [files.checkpoint, *([files.motion_adapter] if files.motion_adapter else [])]
    megabytes = sum(p.stat().st_size for folder in folders for p in opened(Path(folder))) / 1e6
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
