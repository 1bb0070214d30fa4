"""Decisions about workflows: promote, deprecate, archive, alias. Each is a row that is never removed.

A promotion needs a benchmark; a deprecation and an archival need a reason.
"""

from __future__ import annotations

from datetime import UTC, datetime
from getpass import getuser
from typing import Any

from catalog.standing import Row, figures, name_of, pair, shortfalls
from pipeline.story.errors import InputError
from pipeline.story.workflow import Workflow

from .workflows import Registry


def promote(registry: Registry, ref: str, evidence: str, by: str) -> Row:
    """Promote a version to proven. The benchmark must be of the settings, model files and libraries that this machine has now.

    Args:
        ref: the version, as `Registry.resolve` takes it. evidence: the benchmark's id. by: who decides; "" is the current user.

    Raises:
        InputError: the benchmark does not exist, is of something else, does not meet its suite's demands, or is worse than
            the benchmark of a version that was promoted before. The message gives the numbers.
    """
    workflow = registry.resolve(ref, "promote")
    name = workflow.title
    digest = registry.prepare(workflow).digest
    rows = registry.cells.get(evidence)
    if rows is None:
        mine = [b for b, r in registry.cells.items() if (r[0]["workflow"], r[0]["version"]) == (workflow.name, workflow.version)]
        raise InputError(f"promote {name}: there is no benchmark {evidence}; of {name} there are {', '.join(mine) or 'none'}")
    if (rows[0]["workflow"], rows[0]["version"]) != (workflow.name, workflow.version):
        raise InputError(f"promote {name}: benchmark {evidence} is of {name_of(rows[0])}")
    if rows[0]["digest"] != digest:
        raise InputError(f"promote {name}: benchmark {evidence} was of other model files or libraries; run it again")
    suite = registry.suites.get(rows[0]["suite"])
    if suite is None or suite[0] != rows[0]["suite_digest"]:
        raise InputError(f"promote {name}: suite {rows[0]['suite']} is not as it was for benchmark {evidence}; run it again")
    short = shortfalls(figures(rows), suite[1])
    if short:
        raise InputError(f"promote {name}: benchmark {evidence} does not suffice: {'; '.join(short)}")
    _not_worse(registry, workflow, rows)
    return _record(registry, "promote", workflow, by=by, digest=digest, evidence=evidence)


def _not_worse(registry: Registry, workflow: Workflow, rows: list[Row]) -> None:
    """Refuse a version that is worse on the same cells than a version that was promoted before."""
    for row in registry.ledger:
        if row["action"] != "promote" or row["workflow"] != workflow.name or row["version"] == workflow.version:
            continue
        cells = registry.cells.get(row["evidence"], [])
        if cells and cells[0]["suite_digest"] == rows[0]["suite_digest"]:
            pairing = pair(rows, cells)
            if pairing.is_worse:
                raise InputError(
                    f"promote {workflow.title}: {name_of(row)} is better on the same cells: "
                    f"{pairing.only_old} pass only there, {pairing.only_new} only here (p {pairing.p:.3f})"
                )


def retire(registry: Registry, action: str, ref: str, why: str, by: str, evidence: str = "") -> Row:
    """Deprecate or archive a version, with the reason.

    Raises:
        InputError: no reason is given, or the benchmark does not exist.
    """
    workflow = registry.resolve(ref, action)
    if not why.strip():
        raise InputError(f"{action} {ref}: say --why; a reason is what the next person needs")
    if evidence and evidence not in registry.cells:
        raise InputError(f"{action} {ref}: there is no benchmark {evidence}")
    return _record(registry, action, workflow, by=by, why=why, evidence=evidence or None)


def alias(registry: Registry, other: str, ref: str, by: str) -> Row:
    """Let a name stand for a workflow, or for one version of it. A later alias of the same name replaces this one.

    Raises:
        InputError: a workflow has that name.
    """
    if other in registry.versions:
        raise InputError(f"alias {other}: a workflow has that name")
    workflow = registry.resolve(ref, f"alias {other}")
    return _record(registry, "alias", workflow, by=by, alias=other, version=workflow.version if "@" in ref else None)


def _record(registry: Registry, action: str, workflow: Workflow, by: str, **more: Any) -> Row:
    row = {"at": datetime.now(UTC), "action": action, "workflow": workflow.name, "version": workflow.version, "by": by or getuser()} | more
    registry.catalog.append_later("promotions", [row])
    return row
