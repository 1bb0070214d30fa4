"""List workflows and what they load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import InputError
from .plan import check_files, files_of
from .settings import Settings
from .workflow import WORKFLOWS, load_workflow


def list_models(settings: Settings) -> list[dict[str, Any]]:
    """One row a workflow: what it makes, from which files, and what is wrong with them if anything is."""
    return [_row(path.stem, settings) for path in sorted(WORKFLOWS.glob("*.yaml"))]


def _row(name: str, settings: Settings) -> dict[str, Any]:
    workflow = load_workflow(name, "tower models")
    makes = f"{workflow.width}x{workflow.height}" + (
        f", {workflow.num_frames} frames at {workflow.fps:g} fps" if workflow.num_frames else ""
    )
    row = {
        "workflow": name,
        "version": workflow.version,
        "family": workflow.family,
        "makes": makes,
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
        row["state"] = str(error).removeprefix(f"workflow {name}: ")
    return row
