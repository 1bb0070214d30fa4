"""List workflows and what they load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.story.errors import InputError
from pipeline.story.settings import Settings
from pipeline.story.workflow import Workflow

from .files import check_files, files_of
from .workflows import Registry


def list_models(registry: Registry) -> list[dict[str, Any]]:
    """One row a registered workflow: what it makes, from which files, and what is wrong with them if anything is."""
    return [_row(workflow, registry.settings) for workflow in registry.all()]


def _row(workflow: Workflow, settings: Settings) -> dict[str, Any]:
    row = {
        "workflow": workflow.name,
        "version": workflow.version,
        "family": workflow.family,
        "makes": makes(workflow),
        "checkpoint": workflow.checkpoint,
        "megabytes": 0.0,
        "state": "ready",
    }
    try:
        files = files_of(workflow, settings)
        check_files(workflow, files)
        folders = [files.checkpoint, *([files.motion_adapter] if files.motion_adapter else [])]
        row["megabytes"] = sum(p.stat().st_size for f in folders for p in Path(f).rglob("*.safetensors")) / 1e6
    except InputError as error:
        row["state"] = str(error).removeprefix(f"workflow {workflow.name}: ")
    return row


def makes(workflow: Workflow) -> str:
    size = f"{workflow.width}x{workflow.height}"
    return size + (f", {workflow.num_frames} frames at {workflow.fps:g} fps" if workflow.num_frames else "")
