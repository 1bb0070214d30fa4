"""The registry told for people and programs: a list, one version in full, what differs between two, why a version has its status."""

from __future__ import annotations

import json
from typing import Any

from catalog.standing import Row
from pipeline.story.workflow import Workflow

from .fit import state_of_files
from .workflows import Registry


def listing(registry: Registry) -> list[dict[str, Any]]:
    """Every registered version: the status that holds here and now, what it makes, and whether its files are here."""
    other = {target: name for name, target in registry.aliases.items()}
    rows = []
    for workflow in registry.all():
        standing = registry.standing(workflow)
        name = workflow.title
        rows.append(
            {
                "workflow": name,
                "status": standing.status,
                "makes": workflow.makes,
                "files": state_of_files(workflow, registry.settings),
                "alias": other.get(name) or other.get(workflow.name) or "",
                "why": standing.why,
            }
        )
    registry.digests.save()
    return rows


def details(registry: Registry, workflow: Workflow) -> dict[str, Any]:
    """Everything that a version is: settings, files, libraries, digests, status."""
    row, standing = registry.versions[workflow.name][workflow.version], registry.standing(workflow)
    return {
        "workflow": workflow.title,
        "status": standing.status,
        "why": standing.why,
        "registered": row["at"],
        "by": row["by"],
        "source": row["source"],
        "settings_digest": row["settings_digest"],
        "digest": row["digest"],
        "models": row["models"],
        "libraries": row["libraries"],
        "settings": json.loads(row["settings"]),
    }


def differences(registry: Registry, a: Workflow, b: Workflow, names: tuple[str, str] = ("a", "b")) -> list[dict[str, Any]]:
    """What differs between two versions: settings, model files, libraries. names: what the two are called in the rows."""
    one, two = details(registry, a), details(registry, b)
    rows = []
    for part in ("settings", "models", "libraries"):
        was, now = one[part], two[part]
        differ = [key for key in was | now if was.get(key) != now.get(key)]
        rows += [{"what": f"{part}.{key}", names[0]: was.get(key), names[1]: now.get(key)} for key in differ]
    return rows


def explained(registry: Registry, workflow: Workflow) -> dict[str, Any]:
    """The status, and the rows of the ledger and of benchmarks that it is derived from."""
    standing = registry.standing(workflow)
    cells: list[Row] = [row for name in standing.evidence for row in registry.cells.get(name, [])]
    ledger = [r for r in registry.ledger if (r["workflow"], r["version"]) == (workflow.name, workflow.version) and r["action"] != "alias"]
    return {"status": standing.status, "why": standing.why, "ledger": ledger, "cells": cells}
