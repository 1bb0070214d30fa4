"""What a render does at this moment: a small file in the catalog's place, which any process may read.

The file is no record. The driver writes it again and again, and removes it at the end. A killed driver leaves it there; readers pass
over the files of dead runs, and a later run removes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from catalog.place import Place
from catalog.standing import Row
from catalog.store import Catalog
from cluster.specs import DeviceStats
from pipeline.story.stages import STAGES

from .run_log import RunLog, living_runs
from .watcher import Display

FOLDER = "live"  # in the catalog's place
DISK_SECONDS = 1.0  # between two versions of the file on a disk
BUCKET_SECONDS = 5.0  # the same in a bucket
STALE = timedelta(seconds=60)  # a file that is older says nothing about now
LEFT = timedelta(hours=1)  # a file that is older was left by a killed driver


@dataclass(frozen=True)
class LiveStage:
    """One stage's results (done, of total), its requests (running, waiting), and its takes that were not accepted."""

    done: int
    total: int
    running: int
    waiting: int
    rejected: int
    failed: int


@dataclass(frozen=True)
class LiveWork:
    """what: the call as Ray's dashboard names it. take: the take that it is for; "" for a text, and for loading a model."""

    take: str
    what: str


@dataclass(frozen=True)
class LiveDevice:
    """A device, and what it executes since then; since is None where it executes nothing."""

    device: str
    node: str
    up: bool
    doing: tuple[LiveWork, ...]
    since: datetime | None


@dataclass(frozen=True)
class Live:
    """A run at one moment.

    eta_seconds: None while unknown. waiting: keyframe, clip and prompt, to requests that wait for a device.
    shots: of each shot that is being made, what happens to it, such as `clip v002 waits`, `clip v002`, `gate 2`.
    gpu_minutes: of the takes that this run has recorded.
    """

    run: str
    episode: str
    at: datetime
    paused: bool
    eta_seconds: float | None
    stages: dict[str, LiveStage]
    devices: tuple[LiveDevice, ...]
    shots: dict[str, str]
    waiting: dict[str, int]
    gpu_minutes: float


FILE = TypeAdapter(Live)


def living_now(catalog: Catalog, episode: str | None = None) -> list[Live]:
    """What the runs that live now say of themselves, of one episode or of all. A run whose file is missing, strange or old is left out.

    Raises:
        CatalogError: the table of runs cannot be read.
    """
    return said_by(catalog.place, living_runs(catalog, episode))


def said_by(place: Place, runs: Sequence[Row]) -> list[Live]:
    """`living_now`, of these runs. runs: a row of each, which names it."""
    found = []
    for row in runs:
        with suppress(OSError, ValidationError):
            live = FILE.validate_json(place.read(_path(row["run"])))
            if live.run == row["run"] and datetime.now(UTC) - live.at < STALE:
                found.append(live)
    return found


def live_of(log: RunLog, display: Display) -> Live:
    """The run as its display knows it now."""
    progress, stats, now = display.progress, display.progress.stats, datetime.now(UTC)
    each = stats.each if stats else ()
    executing = {take for device in each for _, take in device.doing}
    return Live(
        run=log.run,
        episode=log.plan.episode.id,
        at=now,
        paused=bool(stats and stats.paused),
        eta_seconds=progress.eta.shown,
        stages={
            stage: LiveStage(
                progress.done[stage],
                progress.totals[stage],
                progress.requests("running", stage),
                progress.requests("waiting", stage),
                progress.rejected[stage],
                progress.failed[stage],
            )
            for stage in STAGES
        },
        devices=tuple(_device(device, now) for device in each),
        shots={take.split("/")[1]: _said(take, step, take in executing) for take, step in display.steps.items()},
        waiting={stage: progress.requests("waiting", stage) for stage in (*STAGES, "prompt")},
        gpu_minutes=sum(progress.eta.spent.values()) / 60,
    )


def _device(stats: DeviceStats, now: datetime) -> LiveDevice:
    since = None if stats.seconds is None else now - timedelta(seconds=stats.seconds)
    return LiveDevice(stats.device, stats.node, stats.up, tuple(LiveWork(take, what) for what, take in stats.doing), since)


def _said(take: str, step: str, executing: bool) -> str:
    if step != "waits":
        return step
    _, _, stage, attempt = take.split("/")
    return f"{stage} {attempt}" if executing else f"{stage} {attempt} waits"


@asynccontextmanager
async def shown_live(place: Place, run: str, now: Callable[[], Live]) -> AsyncIterator[None]:
    """While this is open, the run's file says what it does; at the end the file is removed. No fault of the storage is an error."""
    loop, path = asyncio.get_running_loop(), _path(run)
    thread = ThreadPoolExecutor(1)  # a single one: the file is removed after its last version was written

    async def show() -> None:
        await loop.run_in_executor(thread, _sweep, place)
        while True:
            await loop.run_in_executor(thread, _write, place, path, FILE.dump_json(now()))
            await asyncio.sleep(DISK_SECONDS if place.is_local else BUCKET_SECONDS)

    task = asyncio.create_task(show())
    try:
        yield
    finally:
        task.cancel()
        await loop.run_in_executor(thread, _remove, place, path)
        thread.shutdown(wait=False)


def _path(run: str) -> str:
    return f"{FOLDER}/{run}.json"


def _write(place: Place, path: str, data: bytes) -> None:
    with suppress(OSError):
        place.show(path, data)


def _remove(place: Place, path: str) -> None:
    with suppress(OSError):
        place.remove(path)


def _sweep(place: Place) -> None:
    """Remove what killed drivers have left."""
    with suppress(OSError):
        for info in place.infos(FOLDER):
            if info.mtime and datetime.now(UTC) - info.mtime > LEFT:
                place.remove(info.path)
