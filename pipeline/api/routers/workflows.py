"""Workflows: what works, and on what evidence."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from pipeline.api.desk import Desk
from pipeline.registry.told import details, differences, explained, listing
from pipeline.registry.workflows import Registry
from pipeline.story.workflow import Workflow

from .asked import OfDesk, WorkflowName

router = APIRouter(tags=["workflows"])
TABLES = ("workflows", "promotions", "benchmarks")
Ref = Annotated[str, Query(max_length=80, description="name, name@version, alias, or # and the beginning of a digest")]
Number = Annotated[int, Path(ge=1, le=1_000_000, description="version of a workflow", examples=[1])]


def registry_of(desk: Desk) -> Registry:
    return desk.kept.of("registry", desk.tables.of(*TABLES), lambda: Registry(desk.catalog, desk.settings))


@router.get("/workflows")
def list_all(desk: OfDesk) -> list[dict[str, Any]]:
    """Every registered version: its status here and now, what it makes, whether its files are here."""
    return desk.kept.of("workflows", desk.tables.of(*TABLES), lambda: listing(registry_of(desk)))


@router.get("/workflows/diff")
def diff(a: Ref, b: Ref, desk: OfDesk) -> list[dict[str, Any]]:
    """What differs between two versions: settings, model files, libraries."""
    registry = registry_of(desk)
    return differences(registry, registry.resolve(a, "a"), registry.resolve(b, "b"))


@router.get("/workflows/{name}/{version}")
def show(name: WorkflowName, version: Number, desk: OfDesk) -> dict[str, Any]:
    """Everything that a version is: settings, files, libraries, digests, status."""
    return details(registry_of(desk), _resolved(desk, name, version))


@router.get("/workflows/{name}/{version}/explain")
def explain(name: WorkflowName, version: Number, desk: OfDesk) -> dict[str, Any]:
    """The status, and the rows that it is derived from."""
    return explained(registry_of(desk), _resolved(desk, name, version))


def _resolved(desk: Desk, name: str, version: int) -> Workflow:
    return registry_of(desk).resolve(f"{name}@{version}", "the address")
