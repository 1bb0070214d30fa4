"""Jobs: renders that outlive the service."""

from __future__ import annotations

from dataclasses import asdict
from threading import Lock
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from pipeline.api.problems import Problem
from pipeline.api.services.controls import ask_render
from pipeline.api.services.episodes import checked_out, plan_of
from pipeline.plan.plan import select
from pipeline.registry.workflows import Registry
from pipeline.render.order import Order
from pipeline.render.render import require_proven

from .asked import ActionName, JobId, OfDesk, OfEpisode

router = APIRouter(tags=["jobs"])
Name = Annotated[str, Field(pattern=r"^(SH[0-9]{4,6}|S[0-9]{3,5})$")]
OVER = ("succeeded", "failed", "stopped")
STARTING = Lock()  # of two starts at the same time, the second sees the job of the first


class Render(BaseModel):
    """What to render: what is stale, unless more is asked for."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"episode": "E01"}]})

    episode: Annotated[str, Field(pattern=r"^E[0-9]{2,4}$")]
    only: Annotated[list[Name], Field(max_length=10_000, description="only these shots or sequences; all, if empty")] = []
    fresh: Annotated[bool, Field(description="render again even what is accepted, with the same seeds")] = False
    new_seeds: Annotated[bool, Field(description="as fresh, with seeds that no take has had")] = False
    allow_experimental: Annotated[bool, Field(description="render with workflows that are not proven too")] = False


@router.post("/jobs", status_code=202)
def start(render: Render, desk: OfDesk) -> dict[str, Any]:
    """Start a render. What would stop it at once is told here, and nothing is started."""
    plan = select(plan_of(desk, render.episode), render.only)
    require_proven(plan, Registry(desk.catalog, desk.settings), render.allow_experimental)
    file = checked_out(desk, render.episode)
    order = Order(file, desk.folder / "out", tuple(render.only), render.fresh, render.new_seeds, render.allow_experimental)
    with STARTING:
        if any(job.state not in OVER for job in desk.jobs.list(render.episode)):
            raise Problem(409, f"episode {render.episode} is being rendered; wait for it, or cancel it")
        return asdict(desk.jobs.start(order))


@router.get("/jobs")
def listing(desk: OfDesk, episode: OfEpisode = None) -> list[dict[str, Any]]:
    """The jobs of an episode or of all, the newest first."""
    return [asdict(job) for job in desk.jobs.list(episode)]


@router.get("/jobs/{job}")
def show(job: JobId, desk: OfDesk) -> dict[str, Any]:
    """How far a job is, as the catalog tells it."""
    return asdict(desk.jobs.find(job))


@router.get("/jobs/{job}/log", response_class=PlainTextResponse)
def log(job: JobId, desk: OfDesk, offset: Annotated[int, Query(ge=0, le=2**53, description="in bytes")] = 0) -> PlainTextResponse:
    """What the job has printed from a byte on; the header X-Offset says where to go on."""
    text, following = desk.jobs.log(job, offset)
    return PlainTextResponse(text, headers={"x-offset": str(following)})


@router.post("/jobs/{job}/cancel", status_code=202)
def cancel(job: JobId, desk: OfDesk) -> dict[str, Any]:
    """Stop a job. Its takes stay, and another render goes on from there."""
    return asdict(desk.jobs.stop(job))


@router.post("/jobs/{job}/{action}", status_code=202)
def control(job: JobId, action: ActionName, desk: OfDesk) -> dict[str, Any]:
    """Let a job begin nothing more, or let it go on."""
    ask_render(desk, desk.jobs.find(job).episode, action)
    return asdict(desk.jobs.find(job))
