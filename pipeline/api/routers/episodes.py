"""Episodes: submit, check, list, plan, the board, one shot, the finished files."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from threading import BoundedSemaphore
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from catalog.media import digest_in
from pipeline.api.desk import Desk
from pipeline.api.guard import JSON, kind_of
from pipeline.api.problems import Problem
from pipeline.api.services import episodes
from pipeline.api.services.as_json import as_json
from pipeline.api.services.controls import ask_render
from pipeline.api.services.delivery import delivery
from pipeline.api.services.events import Hub
from pipeline.api.services.media import local_file
from pipeline.api.services.submit import Submitted, Upload, submit, temporary, validate
from pipeline.plan.plan import as_rows

from .asked import ActionName, EpisodeId, OfDesk, OfHub, ShotId
from .files import File

router = APIRouter(tags=["episodes"])
JSON_TYPE = "application/json"
YAML = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/plain", "application/octet-stream")
REPORT_WIDTH = 480  # pixels of a report's clips; each width would be a file of its own on the desk's disk
FILES = 500  # files that come with an episode
UPLOADS = 4  # at once: each may fill the disk by as much as the guard lets through
AT_ONCE = BoundedSemaphore(UPLOADS)
EXAMPLE = """\
id: E02
title: The pier
width: 768
height: 512
fps: 24
keyframe_workflow: sd15_keyframe_demo
clip_workflow: ltx_video_2b_demo
sequences:
  - id: S010
    shots:
      - {id: SH0010, frames: 48, action: a girl with pink hair walking right by the sea}
"""
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {"type": "string"}, "example": EXAMPLE},
            "application/json": {"schema": {"type": "object"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["story"],
                    "properties": {
                        "story": {"type": "string", "format": "binary", "description": "the episode's file, YAML or JSON"},
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "files that it names"},
                    },
                }
            },
        },
    }
}
By = Annotated[str, Query(max_length=100, description="who submits it; the service's user, if not given")]


@router.get("/episodes", response_model=list[dict[str, Any]])
async def list_all(desk: OfDesk, hub: OfHub) -> Response:
    """Every episode that was submitted or rendered, the latest first."""
    told = await desk.kept.soon("listing", episodes.listing_at(desk, hub), lambda: as_json(episodes.listing(desk, hub)))
    return Response(told, media_type=JSON_TYPE)


@router.post("/episodes", status_code=201, openapi_extra=BODY)
async def submit_one(request: Request, desk: OfDesk, by: By = "") -> dict[str, Any]:
    """Submit an episode, alone (YAML or JSON) or with the files that it names (multipart). It is checked as `tower plan` does it."""
    async with _uploaded(request, desk) as upload:
        found = await run_in_threadpool(submit, upload, desk.catalog, desk.settings, desk.folder, by or getuser())
    await run_in_threadpool(desk.tables.look)
    return _told(found)


@router.post("/episodes/validate", openapi_extra=BODY)
async def validate_one(request: Request, desk: OfDesk) -> dict[str, Any]:
    """Check an episode and all that it names, with the sentences of the command line; nothing is kept."""
    async with _uploaded(request, desk) as upload:
        return _told(await run_in_threadpool(validate, upload, desk.catalog, desk.settings, desk.folder))


def _told(found: Submitted) -> dict[str, Any]:
    minutes = [found.plan.gpu_minutes(shot) for shot in found.plan.stale]
    return {
        "episode": found.episode.id,
        "title": found.episode.title,
        "shots": len(found.plan.shots),
        "stale": len(found.plan.stale),
        "gpu_minutes": None if None in minutes else sum(m for m in minutes if m is not None),
        "digest": found.digest,
        "notes": found.notes,
    }


@asynccontextmanager
async def _uploaded(request: Request, desk: Desk) -> AsyncIterator[Upload]:
    """What a request brings. Its files lie in a folder of their own for as long as they are looked at."""
    if not AT_ONCE.acquire(blocking=False):
        raise Problem(503, f"{UPLOADS} episodes are being submitted already; try again in a moment", {"retry-after": "5"})
    try:
        with temporary(desk.folder) as folder:
            yield await _received(request, folder)
    finally:
        AT_ONCE.release()


async def _received(request: Request, folder: Path) -> Upload:
    kind = kind_of(request.headers)
    if kind == "multipart/form-data":
        return await _parts(request, folder)
    if kind != "application/json" and kind not in YAML:
        raise Problem(415, f"an episode is application/yaml, application/json or multipart/form-data, not {kind or 'nothing'}")
    (folder / "story").write_bytes(await request.body())
    return Upload(_name(kind == "application/json"), folder / "story", {})


async def _parts(request: Request, folder: Path) -> Upload:
    async with request.form(max_files=FILES + 1, max_fields=10) as form:
        story = form.get("story")
        if not isinstance(story, UploadFile):
            raise Problem(422, "story: the episode's file is missing")
        if (story.size or 0) > JSON:
            raise Problem(413, f"story: the episode's file has more than {JSON / 1e6:.0f} MB")
        await run_in_threadpool(_copy, story, folder / "story")
        brought: dict[str, Path] = {}
        for number, file in enumerate(form.getlist("files")):
            if not isinstance(file, UploadFile) or not file.filename:
                raise Problem(422, "files: each is a file with its name")
            if file.filename in brought:
                raise Problem(422, f"files: {file.filename} comes twice")
            brought[file.filename] = folder / str(number)
            await run_in_threadpool(_copy, file, brought[file.filename])
        return Upload(_name((story.filename or "").endswith(".json")), folder / "story", brought)


def _name(is_json: bool) -> str:
    return "episode.json" if is_json else "episode.yaml"


def _copy(file: UploadFile, to: Path) -> None:
    with to.open("wb") as out:
        shutil.copyfileobj(file.file, out)


@router.get("/episodes/{episode}")
async def board(episode: EpisodeId, request: Request, desk: OfDesk, hub: OfHub) -> Response:
    """The board: sequences, shots and how far each is, what runs now, what happened last."""
    kept = await _board(desk, hub, episode)
    if request.headers.get("if-none-match") == kept.tag:
        return Response(status_code=304, headers={"etag": kept.tag})
    return Response(kept.body, media_type=JSON_TYPE, headers={"etag": kept.tag, "cache-control": "no-cache"})


@dataclass(frozen=True)
class _Bytes:
    body: bytes
    tag: str


async def _board(desk: Desk, hub: Hub, episode: str) -> _Bytes:
    """The board as bytes, made once for all who ask as long as nothing changes."""

    def make() -> _Bytes:
        body = as_json(episodes.board_of(desk, hub, episode))
        return _Bytes(body, f'"{episodes.tag(body)}"')

    return await desk.kept.soon(("board", episode), episodes.board_at(desk, hub, episode), make)


@router.get("/episodes/{episode}/story", response_class=File, responses={200: {"content": {"application/yaml": {}}}})
def story(episode: EpisodeId, desk: OfDesk) -> File:
    """The episode's file as it was written."""
    found = episodes.story_of(desk, episode)
    path = found.files[found.name]
    file = local_file(desk.catalog.place, path, digest_in(path), desk.folder)
    return File(file, media_type="application/yaml", filename=f"{episode}{Path(found.name).suffix}")


@router.get("/episodes/{episode}/plan")
def plan(episode: EpisodeId, desk: OfDesk) -> dict[str, Any]:
    """What a render would render, why, and about how many GPU-minutes that takes."""
    made = episodes.plan_of(desk, episode)
    minutes = [made.gpu_minutes(shot) for shot in made.stale]
    return {
        "episode": episode,
        "stale": len(made.stale),
        "gpu_minutes": sum(m for m in minutes if m is not None),
        "unknown": minutes.count(None),
        "shots": as_rows(made, made.shots),
    }


@router.get("/episodes/{episode}/shots")
async def shots(episode: EpisodeId, desk: OfDesk, hub: OfHub) -> list[dict[str, Any]]:
    """The shots of the episode, in its order, as the board has them."""
    told = json.loads((await _board(desk, hub, episode)).body)
    return [shot | {"sequence": sequence["sequence"]} for sequence in told["sequences"] for shot in sequence["shots"]]


@router.get("/episodes/{episode}/shots/{shot}", response_model=dict[str, Any])
async def shot_page(episode: EpisodeId, shot: ShotId, desk: OfDesk, hub: OfHub) -> Response:
    """One shot: all its takes, what people said, what a retake may change."""
    told = episodes.shot_of(desk, await episodes.opened(desk, episode), hub.live_of(episode), shot)
    return Response(told, media_type=JSON_TYPE)


@router.post("/episodes/{episode}/{action}", status_code=202)
def control(episode: EpisodeId, action: ActionName, desk: OfDesk) -> dict[str, Any]:
    """Pause the render of the episode, or let it go on, wherever it was begun."""
    row = ask_render(desk, episode, action)
    return {"run": row["run"], "action": row["action"]}


@router.get("/episodes/{episode}/delivery")
def delivered(episode: EpisodeId, desk: OfDesk) -> dict[str, Any]:
    """What can be downloaded, and whether it is of today."""
    url = f"/episodes/{episode}"
    found = delivery(desk.catalog, episodes.episode_of(desk, episode), desk.folder / "out" / episode)
    sheets = [f"{url}/contact_sheet/{number}.png" for number in range(1, len(found.pop("sheets")) + 1)]
    return found | {"movie": f"{url}/movie" if found["movie"] else None, "contact_sheet": sheets, "report": f"{url}/report.html"}


@router.get("/episodes/{episode}/movie", response_class=File, responses={200: {"content": {"video/mp4": {}}}})
def movie(episode: EpisodeId, desk: OfDesk, download: bool = False) -> File:
    """The episode as a file; parts of it by Range."""
    return _file(desk, episode, "episode.mp4", "video/mp4", f"{episode}.mp4" if download else None)


@router.get("/episodes/{episode}/contact_sheet/{page}.png", response_class=File, responses={200: {"content": {"image/png": {}}}})
def contact_sheet(episode: EpisodeId, page: Annotated[int, InPath(ge=1, le=100_000, description="from 1")], desk: OfDesk) -> File:
    """A page of the contact sheet, from 1 on."""
    sheets = delivery(desk.catalog, episodes.episode_of(desk, episode), desk.folder / "out" / episode)["sheets"]
    if not 1 <= page <= len(sheets):
        raise Problem(404, f"the contact sheet of {episode} has {len(sheets)} pages")
    return _file(desk, episode, sheets[page - 1], "image/png", None)


@router.get("/episodes/{episode}/report.html", response_class=File, responses={200: {"content": {"text/html": {}}}})
def report(episode: EpisodeId, desk: OfDesk) -> File:
    """The report as one file to keep and to mail: `tower report` writes the same."""
    return File(episodes.report_of(desk, episode, REPORT_WIDTH), media_type="text/html", filename=f"{episode}-report.html")


def _file(desk: Desk, episode: str, name: str, kind: str, download: str | None) -> File:
    path = desk.folder / "out" / episode / name
    if not path.is_file():
        raise Problem(404, f"there is no {name} of {episode} yet; a render of the whole episode writes it")
    headers = {"cache-control": "no-cache"}
    return File(path, media_type=kind, filename=download, headers=headers)
