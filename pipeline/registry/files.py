"""Find the files on this machine that workflows and episodes name."""

from __future__ import annotations

import errno
from pathlib import Path

from actors.values import Embedding, Lora, ModelFiles
from pipeline import PROJECT
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings
from pipeline.story.workflow import Workflow
from pipeline.story.yaml_values import shortened

DEMO = PROJECT / "actors" / "demo"


def files_of(workflow: Workflow, settings: Settings) -> ModelFiles:
    """Paths of the workflow's model files on this machine, whether anything is there or not.

    Raises:
        InputError: a path leads outside its folder.
    """

    def path(name: str) -> str:
        return str(model_path(settings, name))

    def maybe(name: str | None) -> str | None:
        return path(name) if name else None

    return ModelFiles(
        checkpoint=path(workflow.checkpoint),
        motion_adapter=maybe(workflow.motion_adapter),
        loras=tuple(Lora(path(x.file), x.weight) for x in workflow.loras),
        dtype=workflow.dtype,
        base=maybe(workflow.base),
        vae=maybe(workflow.vae),
        vae_dtype=workflow.vae_dtype,
        embeddings=tuple(Embedding(word, path(name)) for word, name in workflow.embeddings.items()),
        ip_adapter=maybe(workflow.ip_adapter),
        image_encoder=maybe(workflow.image_encoder),
        upsampler=maybe(workflow.upsampler),
    )


def model_path(settings: Settings, name: str) -> Path:
    """Path of a model: `demo:NAME` lies in actors/demo, any other name in TOWER_MODELS_DIR.

    Raises:
        InputError: the name leads outside that folder.
    """
    if name.startswith("demo:"):
        return inside(DEMO, name.removeprefix("demo:"), "model path")
    return inside(settings.models_dir, name, "model path")


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
