"""Takes: what they are, their media, single frames, filmstrips, the gates' curves."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from catalog.standing import Row
from pipeline.api.desk import Desk
from pipeline.api.problems import Problem
from pipeline.api.services import media
from pipeline.api.services.episodes import statuses, take_rows
from pipeline.api.services.shots import drawn, takes_of_shot
from pipeline.plan.history import rows_of

from .asked import TAKE, EpisodeId, OfDesk, ShotId, StageName, Version
from .files import File

router = APIRouter(tags=["takes"])
FOR_EVER = {"cache-control": "private, max-age=31536000, immutable"}  # a take is never overwritten
JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}}}
KINDS = {".png": "image/png", ".mp4": "video/mp4"}


@router.get(TAKE)
def take(episode: EpisodeId, shot: ShotId, stage: StageName, version: Version, desk: OfDesk) -> dict[str, Any]:
    """A take: how it was made, its measures, what the gates say, what people said."""
    name = f"{episode}/{shot}/{stage}/{version}"
    found = next((t for t in takes_of_shot(desk.catalog, episode, shot, statuses(desk)) if t["take"] == name), None)
    if found is None:
        raise Problem(404, f"there is no take {name}")
    return found


@router.get(f"{TAKE}/media", response_class=File, responses={200: {"content": {"video/mp4": {}, "image/png": {}}}})
def file(episode: EpisodeId, shot: ShotId, stage: StageName, version: Version, desk: OfDesk, download: bool = False) -> File:
    """The take's file as it was judged; parts of it by Range."""
    path = _file(desk, _row(desk, episode, shot, stage, version))
    name = f"{episode}-{shot}-{stage}-{version}{path.suffix}" if download else None
    return File(path, media_type=KINDS[path.suffix], filename=name, headers=FOR_EVER)


@router.get(f"{TAKE}/frames/{{number}}.jpg", response_class=Response, responses=JPEG)
def frame(
    episode: EpisodeId,
    shot: ShotId,
    stage: StageName,
    version: Version,
    number: Annotated[int, Path(ge=0, le=10_000_000, description="counted from 0")],
    desk: OfDesk,
    width: Annotated[int | None, Query(ge=16, le=4096, description="pixels; the take's own, if not given")] = None,
) -> Response:
    """One frame, exact. A keyframe has one, number 0."""
    path = _file(desk, _row(desk, episode, shot, stage, version))
    try:
        return Response(media.frame_jpeg(path, number, width), media_type="image/jpeg", headers=FOR_EVER)
    except IndexError as error:
        raise Problem(404, str(error)) from error


@router.get(f"{TAKE}/filmstrip.jpg", response_class=Response, responses=JPEG)
def filmstrip(
    episode: EpisodeId,
    shot: ShotId,
    stage: StageName,
    version: Version,
    desk: OfDesk,
    frames: Annotated[int, Query(ge=1, le=40, description="how many")] = 8,
    height: Annotated[int, Query(ge=16, le=512, description="pixels")] = 90,
) -> Response:
    """Frames side by side, evenly spread over the clip."""
    path = _file(desk, _row(desk, episode, shot, stage, version))
    return Response(media.strip_jpeg(path, frames, height), media_type="image/jpeg", headers=FOR_EVER)


@router.get(f"{TAKE}/curves")
def curves(episode: EpisodeId, shot: ShotId, stage: StageName, version: Version, desk: OfDesk) -> dict[str, Any]:
    """The gate's curves of a clip: a value for each frame, the threshold, the frames of its faults."""
    row = _row(desk, episode, shot, stage, version)
    if stage != "clip":
        return {"frames": 1, "fps": None, "curves": []}
    found, frames, fps = media.curves(_file(desk, row))
    return {"frames": frames, "fps": fps, "curves": drawn(row, found)}


def _row(desk: Desk, episode: str, shot: str, stage: str, version: str) -> Row:
    name = f"{episode}/{shot}/{stage}/{version}"
    row = take_rows(desk, episode).get(name) or rows_of(desk.catalog, [name]).get(name)
    if row is None:
        raise Problem(404, f"there is no take {name}")
    if not row["media_path"]:
        raise Problem(404, f"take {name} has no file: {row['error']}")
    return row


def _file(desk: Desk, row: Row) -> Any:
    return media.local_file(desk.catalog.place, row["media_path"], row["media"], desk.folder)
