"""Render an episode: plan, start the pool, let every stale shot live, assemble."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import signal
import socket
import uuid
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from catalog.store import Catalog, Writer
from catalog.views import takes_of
from cluster.pool import ModelBroken, ModelSpec, Pool, RequestFailed
from cluster.start import ClusterInfo, cluster
from gates.image import keyframe_hash

from .assemble import assemble, link_takes
from .episode import Episode, load_episode
from .errors import InputError, StorageError
from .plan import Plan, ShotPlan, font_of, make_plan, select
from .progress import RenderProgress
from .settings import Settings
from .sheet import contact_sheet
from .shot import ShotOutcome, render_shot
from .studio import Studio, encoder_of, spec_of

LIVE_PER_DEVICE = 4  # shots in flight for each device: enough to fill a batch of stills, few enough to bound frames in memory
SPARE_BYTES = 8 * 2**20  # room on the disk for tables and logs, beside the media


@dataclass(frozen=True)
class Summary:
    """What a run did; `summary.json` holds the same."""

    run: str
    episode: str
    outcomes: list[ShotOutcome]
    rendered: int
    takes: int
    folder: Path
    movie: Path | None

    @property
    def exhausted(self) -> list[ShotOutcome]:
        return [o for o in self.outcomes if o.outcome != "accepted"]


def render(file: Path, out: Path, settings: Settings, console: Console, only: Iterable[str] = (), fresh: bool = False) -> Summary:
    """Render what is stale of an episode, then assemble it.

    Raises:
        InputError, StorageError, ClusterError, CatalogError: each with one sentence; nothing half-written is left.
    """
    episode = load_episode(file)
    folder = _writable(out / episode.id)
    catalog = Catalog.open(_writable(settings.catalog_root))
    try:
        plan = select(make_plan(episode, file, settings, catalog, fresh), only)
    except OSError as error:
        raise InputError(f"{error.filename or file} cannot be read: {error.strerror or error}") from error
    _room_for(plan, catalog.root)
    run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    outcomes = [_accepted(s) for s in plan.shots if not s.stale]
    console.print(f"{episode.id}: {len(plan.shots)} shots, {len(plan.stale)} to render", highlight=False)
    made = 0
    if plan.stale:
        fresh_outcomes, made = _on_cluster(plan, settings, catalog, console, run)
        outcomes += fresh_outcomes
    order = [s.shot.id for s in plan.shots]
    outcomes.sort(key=lambda o: order.index(o.shot))
    try:
        return _finish(episode, file, plan, outcomes, catalog, folder, run, made, bool(only))
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error


def _on_cluster(plan: Plan, settings: Settings, catalog: Catalog, console: Console, run: str) -> tuple[list[ShotOutcome], int]:
    with cluster(settings.devices, settings.dashboard_port) as info:
        kind = "logical devices" if info.logical else "GPUs"
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray replaced it; a scheduler's polite stop is an interruption
        console.print(f"Ray: {info.devices} {kind}, {info.cpus} CPUs, dashboard {info.dashboard_url or 'off'}", highlight=False)
        return asyncio.run(_render_stale(plan, settings, catalog, console, run, info))


async def _render_stale(
    plan: Plan, settings: Settings, catalog: Catalog, console: Console, run: str, info: ClusterInfo
) -> tuple[list[ShotOutcome], int]:
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(Pool(info, settings.resident_models))
        writer = await stack.enter_async_context(Writer(catalog))
        await _prepare(pool, plan)
        await writer.add("runs", _run_row(plan, run, "started", info))
        progress = stack.enter_context(RenderProgress(console, sum(s.accepted_keyframe is None for s in plan.stale), len(plan.stale)))
        count = 0

        def tell(what: str, value: Any) -> None:
            nonlocal count
            if what == "take":
                count += 1
                progress.take(value.row)

        known = {s.shot.id: keyframe_hash(s.accepted_keyframe["measures"]) for s in plan.shots if s.accepted_keyframe}
        studio = Studio(run, pool, catalog, writer, tell, known)
        try:
            outcomes = await _bounded(plan.stale, studio, LIVE_PER_DEVICE * info.devices)
        except BaseException as error:
            event = "interrupted" if isinstance(error, asyncio.CancelledError | KeyboardInterrupt) else "failed"
            await asyncio.shield(_last_words(writer, _run_row(plan, run, event, info) | {"error": str(error) or None}))
            raise
        done = sum(o.outcome == "accepted" for o in outcomes)
        await writer.add("runs", _run_row(plan, run, "finished", info) | {"accepted": done, "exhausted": len(outcomes) - done})
        return outcomes, count


async def _bounded(shots: list[ShotPlan], studio: Studio, limit: int) -> list[ShotOutcome]:
    """All shots, at most `limit` alive at once, in the episode's order."""
    todo, outcomes = iter(shots), []

    async def worker() -> None:
        for plan in todo:
            outcomes.append(await render_shot(plan, studio))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(limit, len(shots))):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the first fault is the cause; the others were cancelled for it
    return outcomes


async def _prepare(pool: Pool, plan: Plan) -> None:
    """Load every model and LoRA that the plan needs, before the first picture: a bad one stops the run here."""
    for spec, calls, name in _needed(plan):
        try:
            await pool.prepare(spec, *calls)
        except (RequestFailed, ModelBroken) as error:
            raise InputError(f"workflow {name}: {error}") from error


def _needed(plan: Plan) -> list[tuple[ModelSpec, list[tuple[Any, ...]], str]]:
    needed: dict[str, tuple[ModelSpec, list[tuple[Any, ...]], str]] = {}
    for shot in plan.stale:
        for stage in (shot.keyframe, shot.clip):
            if stage is shot.keyframe and (shot.accepted_keyframe or shot.given_keyframe):
                continue
            encoder, spec = encoder_of(stage), spec_of(stage)
            needed.setdefault(encoder.key, (encoder, [], stage.workflow.name))
            calls = needed.setdefault(spec.key, (spec, [], stage.workflow.name))[1]
            if stage.loras and (stage.loras,) not in calls:
                calls.append((stage.loras,))
    return list(needed.values())


async def _last_words(writer: Writer, row: dict[str, Any]) -> None:
    try:
        await writer.add("runs", row)
    except Exception:  # noqa: BLE001 - the run is failing already; its own error matters more than this row
        return


def _finish(
    episode: Episode,
    file: Path,
    plan: Plan,
    outcomes: list[ShotOutcome],
    catalog: Catalog,
    folder: Path,
    run: str,
    made: int,
    partial: bool,
) -> Summary:
    """Write what a person looks at: the movie where all shots are there, the sheet and the summary always."""
    history = takes_of(catalog, episode.id)
    counts = {s.shot.id: sum(len(history.get((s.shot.id, stage), [])) for stage in ("keyframe", "clip")) for s in plan.shots}
    link_takes(folder / "shots", {o.shot: {"keyframe": o.keyframe, "clip": o.clip} for o in outcomes}, catalog.media)
    contact_sheet(episode, outcomes, counts, catalog.media, folder / "contact_sheet.png")
    movie: Path | None = folder / "episode.mp4"
    if partial or any(o.outcome != "accepted" for o in outcomes):
        (folder / "episode.mp4").unlink(missing_ok=True)  # an older one would look like this run's
        movie = None
    else:
        assemble(episode, {o.shot: o.clip for o in outcomes if o.clip}, catalog.media, font_of(episode, file), folder / "episode.mp4")
    summary = Summary(run, episode.id, outcomes, len(plan.stale), made, folder, movie)
    _write_json(folder / "summary.json", _summary_json(summary, episode, counts))
    return summary


def _summary_json(summary: Summary, episode: Episode, counts: dict[str, int]) -> dict[str, Any]:
    def take(row: dict[str, Any] | None) -> dict[str, Any] | None:
        keys = ("take", "workflow", "workflow_version", "workflow_digest", "seed", "prompt", "media", "media_path", "device_seconds", "run")
        return {k: row[k] for k in keys} if row else None

    return {
        "run": summary.run,
        "episode": episode.id,
        "title": episode.title,
        "shots": len(summary.outcomes),
        "accepted": len(summary.outcomes) - len(summary.exhausted),
        "exhausted": len(summary.exhausted),
        "rendered_shots": summary.rendered,
        "takes_this_run": summary.takes,
        "movie": summary.movie.name if summary.movie else None,
        "frames": episode.total_frames if summary.movie else None,
        "fps": episode.fps,
        "width": episode.width,
        "height": episode.height,
        "outcomes": [
            {
                "shot": o.shot,
                "outcome": o.outcome,
                "why": o.why,
                "takes": counts[o.shot],
                "keyframe": take(o.keyframe),
                "clip": take(o.clip),
            }
            for o in summary.outcomes
        ],
    }


def _accepted(plan: ShotPlan) -> ShotOutcome:
    return ShotOutcome(plan.shot.id, "accepted", plan.accepted_keyframe, plan.accepted_clip)


def _run_row(plan: Plan, run: str, event: str, info: ClusterInfo) -> dict[str, Any]:
    versions = {name: version(name) for name in ("tower", "torch", "diffusers", "ray")} | {"python": platform.python_version()}
    return {
        "run": run,
        "event": event,
        "at": datetime.now(UTC),
        "episode": plan.episode.id,
        "episode_file": str(plan.file),
        "episode_digest": plan.file_digest,
        "shots": len(plan.shots),
        "stale": len(plan.stale),
        "devices": info.devices,
        "host": socket.gethostname(),
        "versions": json.dumps(versions),
    }


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(f"folder {folder} cannot be written: {error.strerror}") from error
    return folder


def _room_for(plan: Plan, root: Path) -> None:
    """Ask for the room that one take of everything stale may need: H.264 and PNG of drawings stay under a fifth of raw."""

    def likely(shot: ShotPlan) -> int:
        w, k = shot.clip.workflow, shot.keyframe.workflow
        return (w.width * w.height * (w.num_frames or 1) // 4 + k.width * k.height * 3) * 3 // 5

    needed, free = sum(likely(s) for s in plan.stale) + SPARE_BYTES * bool(plan.stale), shutil.disk_usage(root).free
    if free < needed:
        raise StorageError(
            f"the disk of {root} has {free / 1e6:.0f} MB free; about {needed / 1e6:.0f} MB are needed for {len(plan.stale)} shots"
        )


def _write_json(path: Path, value: Any) -> None:
    part = path.with_suffix(".part")
    try:
        part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
