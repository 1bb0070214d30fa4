"""A first workflow for a checkpoint: the settings of a shipped one of its family, with the checkpoint in its place."""

from __future__ import annotations

import json
import re
from pathlib import Path

from actors.files import in_yaml
from actors.folders import identify_folder
from actors.headers import read_header
from actors.identify import Found, elsewhere, identify
from actors.values import ModelError
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings
from pipeline.story.workflow import WORKFLOWS

from .fit import check_base

# Family to the workflow whose settings are taken.
TEMPLATES = {"stable_diffusion": "sd15_keyframe", "stable_diffusion_xl": "sdxl_keyframe", "ltx_video": "ltx_video_2b"}


def starter(path: Path, name: str, base: str, settings: Settings) -> str:
    """The text of a workflow file for a checkpoint.

    Args:
        path: file or diffusers folder. name: of the workflow. base: for a single file, the diffusers folder beside it as a workflow
            would write it; "" takes the one of the same architecture in TOWER_MODELS_DIR.

    Raises:
        InputError: Tower cannot use the file, it is no checkpoint, it does not lie in TOWER_MODELS_DIR, or no base is there for it.
    """
    found = _identified(path)
    if found.kind != "checkpoint":
        use = f"; a workflow or a character names it: {found.use}" if found.use else ""
        raise InputError(f"{path} is of kind {found.kind}, and a workflow is made for a checkpoint{use}")
    if found.faults:
        raise InputError(f"{path}: {found.faults[0]}")
    checkpoint = _in_models(path, settings)
    lines = [f"checkpoint: {in_yaml(checkpoint)}"]
    if path.is_file():
        lines.append(f"base: {in_yaml(base or _base_for(path, found, settings))}")
    text = (WORKFLOWS / f"{TEMPLATES[found.family]}.yaml").read_text()
    told = f"Starts from the settings of {TEMPLATES[found.family]}, for {checkpoint} ({found.architecture}); change what does not suit it."
    text = text.partition("\n")[2]  # without the line for editors, whose path is the shipped file's
    described = f"description: {json.dumps(told, ensure_ascii=False)}"
    for field, line in (("name", f"name: {name}"), ("version", "version: 1"), ("description", described)):
        text = _with(text, field, line)
    return _with(text, "checkpoint", "\n".join(lines))


def _with(text: str, field: str, line: str) -> str:
    """The text with another line for a field."""
    return re.sub(rf"^{field}: .*$", lambda _: line, text, count=1, flags=re.M)


def _identified(path: Path) -> Found:
    try:
        return identify_folder(path) if path.is_dir() else identify(read_header(path))
    except ModelError as error:
        raise InputError(str(error)) from error


def _in_models(path: Path, settings: Settings) -> str:
    folder = settings.models_dir.expanduser().resolve()
    if not path.resolve().is_relative_to(folder):
        raise InputError(f"{path} does not lie in TOWER_MODELS_DIR, which is {folder}; move it there, or name another folder")
    return str(path.resolve().relative_to(folder))


def _base_for(path: Path, found: Found, settings: Settings) -> str:
    """The first diffusers folder of the same architecture and version in TOWER_MODELS_DIR."""
    for folder in sorted(index.parent for index in settings.models_dir.glob("*/model_index.json")):
        try:
            other = identify_folder(folder, elsewhere(found))
            check_base(path, found, folder, other)
        except ModelError:
            continue
        if not other.faults:
            return folder.name
    raise InputError(
        f"a checkpoint in one file needs a base for its configurations and tokenizer, and no diffusers folder of {found.architecture} "
        f"is in {settings.models_dir}; put one there, or give --base"
    )
