"""Takes: what they are, their media, single frames, filmstrips, the gates' curves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from catalog.standing import Row
from pipeline.api.desk import Desk
from pipeline.api.problems import Problem
from pipeline.api.services import media
from pipeline.api.services.episodes import file_row, take_of, take_row
from pipeline.api.services.shots import drawn
from pipeline.story.stages import MOVING

from .asked import TAKE, EpisodeId, OfDesk, ShotId, StageName, Version
from .files import File

router = APIRouter(tags=["takes"])
T = TypeVar("T")
FOR_EVER = {"cache-control": "private, max-age=31536000, immutable"}  # a take is never overwritten
JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}}}
KINDS = {".png": "image/png", ".mp4": "video/mp4"}


@router.get(TAKE, response_model=dict[str, Any])
async def take(episode: EpisodeId, shot: ShotId, stage: StageName, version: Version, desk: OfDesk) -> Response:
    """A take: how it was made, its measures, what the gates say, what people said."""
    name = f"{episode}/{shot}/{stage}/{version}"
    return Response(await _known(take_of(desk, name), name), media_type="application/json")


@router.get(f"{TAKE}/media", response_class=File, responses={200: {"content": {"video/mp4": {}, "image/png": {}}}})
async def file(episode: EpisodeId, shot: ShotId, stage: StageName, version: Version, desk: OfDesk, download: bool = False) -> File:
    """The take's file as it was judged; parts of it by Range."""
    row = await _with_file(desk, episode, shot, stage, version)
    path = await run_in_threadpool(_file, desk, row)
    name = f"{episode}-{shot}-{stage}-{version}{path.suffix}" if download else None
    return File(path, media_type=KINDS[path.suffix], filename=name, headers=FOR_EVER)


@router.get(f"{TAKE}/frames/{{number}}.jpg", response_class=Response, responses=JPEG)
async def frame(
    episode: EpisodeId,
    shot: ShotId,
    stage: StageName,
    version: Version,
    number: Annotated[int, InPath(ge=0, le=10_000_000, description="counted from 0")],
    desk: OfDesk,
    width: Annotated[int | None, Query(ge=16, le=4096, description="pixels; the take's own, if not given")] = None,
) -> Response:
    """One frame, exact. A keyframe has one, number 0."""
    row = await _with_file(desk, episode, shot, stage, version)
    try:
        return await _picture(desk, row, ("frame", number, width), lambda path: media.frame_jpeg(path, number, width))
    except IndexError as error:
        raise Problem(404, str(error)) from error


@router.get(f"{TAKE}/filmstrip.jpg", response_class=Response, responses=JPEG)
async def filmstrip(
    episode: EpisodeId,
    shot: ShotId,
    stage: StageName,
    version: Version,
    desk: OfDesk,
    frames: Annotated[int, Query(ge=1, le=40, description="how many")] = 8,
    height: Annotated[int, Query(ge=16, le=512, description="pixels")] = 90,
) -> Response:
    """Frames side by side, evenly spread over the clip."""
    row = await _with_file(desk, episode, shot, stage, version)
    return await _picture(desk, row, ("strip", frames, height), lambda path: media.strip_jpeg(path, frames, height))


@router.get(f"{TAKE}/curves")
async def curves(episode: EpisodeId, shot: ShotId, stage: StageName, version: Version, desk: OfDesk) -> dict[str, Any]:
    """The gate's curves of a clip: a value for each frame, the threshold, the frames of its faults."""
    row = await _with_file(desk, episode, shot, stage, version)
    if stage not in MOVING:
        return {"frames": 1, "fps": None, "curves": []}
    found, frames, fps = await run_in_threadpool(lambda: media.curves(_file(desk, row)))
    judged = await _known(take_row(desk, row["take"]), row["take"])
    return {"frames": frames, "fps": fps, "curves": drawn(judged, found)}


async def _known(asked: Awaitable[T | None], name: str) -> T:
    found = await asked
    if found is None:
        raise Problem(404, f"there is no take {name}")
    return found


async def _with_file(desk: Desk, episode: str, shot: str, stage: str, version: str) -> Row:
    """What the file of a take needs."""
    name = f"{episode}/{shot}/{stage}/{version}"
    row = await _known(file_row(desk, name), name)
    if not row["media_path"]:
        raise Problem(404, f"take {name} has no file: {row['error']}")
    return row


def _file(desk: Desk, row: Row) -> Path:
    return media.local_file(desk.catalog.place, row["media_path"], row["media"], desk.folder)


async def _picture(desk: Desk, row: Row, what: tuple[Any, ...], make: Callable[[Path], bytes]) -> Response:
    """A picture of a take's file, made once for all who ask as long as the file is as it was."""
    at = media.stamp(desk.catalog.place, row["media_path"], desk.folder)
    picture = await desk.frames.soon((row["media_path"], *what), at, lambda: make(_file(desk, row)))
    return Response(picture, media_type="image/jpeg", headers=FOR_EVER)
