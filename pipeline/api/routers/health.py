"""Health, readiness, the doctor, models, the cluster at this moment, and the token."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from catalog.migrate import tower_version
from catalog.store import CatalogError
from pipeline.api.guard import COOKIE, same
from pipeline.api.problems import Problem
from pipeline.doctor.doctor import examine
from pipeline.doctor.model_files import check_models
from pipeline.registry.workflows import Registry
from pipeline.render.live import living_now
from pipeline.story.cluster_profile import cluster_profile

from .asked import OfDesk

router = APIRouter(tags=["health"])
COOKIE_SECONDS = 30 * 24 * 3600


class Health(BaseModel):
    status: str = "ok"
    version: str


class Ready(BaseModel):
    ready: bool
    why: str = Field(description="what is missing; empty where nothing is")


class Token(BaseModel):
    token: Annotated[str, Field(max_length=1000)]


@router.get("/health")
async def health() -> Health:
    """Whether the service lives."""
    return Health(version=tower_version())


@router.get("/ready", responses={503: {"model": Ready}})
def ready(desk: OfDesk, response: Response) -> Ready:
    """Whether the catalog can be read now."""
    try:
        desk.catalog.dataset("stories")
    except CatalogError as error:
        response.status_code = 503
        return Ready(ready=False, why=str(error))
    return Ready(ready=True, why="")


@router.post("/token", status_code=204)
def take_token(token: Token, desk: OfDesk, response: Response) -> None:
    """Let this browser's pictures and clips through: they are asked for without headers, so the token goes into a cookie."""
    if not desk.token or not same(token.token, desk.token):
        raise Problem(401, "this is not the token that the desk was started with" if desk.token else "this desk needs no token")
    response.set_cookie(COOKIE, token.token, max_age=COOKIE_SECONDS, httponly=True, samesite="strict")


@router.get("/doctor")
def doctor(desk: OfDesk) -> list[dict[str, Any]]:
    """What this machine, or the cluster, can run, and what to do about what is missing."""
    return [asdict(notice) for notice in examine(desk.settings)]


@router.get("/models")
def models(desk: OfDesk) -> list[dict[str, Any]]:
    """Whether the files of every workflow are whole and fit, on this machine or on every node of the cluster."""
    registry = Registry(desk.catalog, desk.settings)
    found = [asdict(row) for row in check_models(registry, registry.all(), cluster_profile(desk.settings))]
    registry.digests.save()
    return found


@router.get("/cluster")
def cluster(desk: OfDesk) -> list[dict[str, Any]]:
    """What the renders that run now do: devices, queues, the time left."""
    return [asdict(live) for live in living_now(desk.catalog)]
