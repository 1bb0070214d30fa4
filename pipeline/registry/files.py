"""Names to files on this machine: model folders, LoRAs, pictures; and the cheap checks of them."""

from __future__ import annotations

from pathlib import Path

from actors.files import check_folder, check_size
from actors.values import Lora, ModelError, ModelFiles
from pipeline import PROJECT
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings
from pipeline.story.workflow import Workflow

DEMO = PROJECT / "actors" / "demo"


def files_of(workflow: Workflow, settings: Settings) -> ModelFiles:
    """The workflow's paths on this machine."""
    loras = tuple(lora_file(f"workflow {workflow.name}: loras", settings, x.file, x.weight) for x in workflow.loras)
    adapter = str(model_path(settings, workflow.motion_adapter)) if workflow.motion_adapter else None
    return ModelFiles(str(model_path(settings, workflow.checkpoint)), adapter, loras, workflow.dtype)


def model_path(settings: Settings, name: str) -> Path:
    """`demo:NAME` is in actors/demo; anything else starts from the models folder, and stays in it."""
    if name.startswith("demo:"):
        return inside(DEMO, name.removeprefix("demo:"), "model path")
    return inside(settings.models_dir, name, "model path")


def lora_file(where: str, settings: Settings, name: str, weight: float) -> Lora:
    path = model_path(settings, name)
    if not path.is_file():
        raise InputError(f"{where}: file {path} does not exist")
    if path.suffix != ".safetensors":
        raise InputError(f"{where}: file {path.name} is not a .safetensors file")
    return Lora(str(path), weight)


def check_files(workflow: Workflow, files: ModelFiles) -> None:
    """The cheap checks: folders, sizes and frame counts. Loading finds the rest, still before anything renders."""
    field = "checkpoint"
    try:
        check_folder(files.checkpoint, "checkpoint")
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


def state_of_files(workflow: Workflow, settings: Settings) -> str:
    """`ready` and how large its models are, or what is missing; nothing is loaded."""
    try:
        files = files_of(workflow, settings)
        check_files(workflow, files)
    except InputError as error:
        return str(error).removeprefix(f"workflow {workflow.name}: ")
    folders = [files.checkpoint, *([files.motion_adapter] if files.motion_adapter else [])]
    megabytes = sum(p.stat().st_size for folder in folders for p in Path(folder).rglob("*.safetensors")) / 1e6
    return f"ready, {megabytes:,.1f} MB"


def inside(folder: Path, name: str, what: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(f"{what} {name!r} leads outside {folder}; only paths inside it are read")
    return path
