"""Render an episode: plan, claim it, start the pool, let every stale shot live, assemble."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from catalog.care import compact
from catalog.media import MediaDamaged
from catalog.place import Place
from catalog.registry import Row
from catalog.store import Catalog, CatalogError
from pipeline.plan.plan import Plan, ShotPlan, make_plan, select
from pipeline.post.deliver import Summary, deliver
from pipeline.registry.open_catalog import open_catalog
from pipeline.registry.workflows import Registry
from pipeline.story.episode import Episode, load_episode
from pipeline.story.errors import InputError, StorageError
from pipeline.story.settings import Settings

from .drive import Lived, live
from .run_log import RunLog
from .shot import ShotOutcome

SPARE_BYTES = 8 * 2**20  # room on the disk for tables and logs, beside the media
MANY_FILES = 256  # live data files of the table of takes: every run adds some, and every reader opens all of them


@dataclass(frozen=True)
class Order:
    """What was asked for."""

    file: Path
    out: Path
    only: tuple[str, ...] = ()
    fresh: bool = False
    allow_experimental: bool = False


def render(order: Order, settings: Settings, console: Console) -> Summary:
    """Render what is stale of an episode, then assemble it.

    Raises:
        InputError, StorageError, ClusterError, CatalogError: each with one sentence; nothing half-written is left.
    """
    episode = load_episode(order.file)
    folder = writable(order.out / episode.id)
    place = settings.place
    if place.is_local:
        writable(place.folder)
    catalog = open_catalog(settings)
    try:
        return _render(order, episode, folder, catalog, settings, console)
    except MediaDamaged as damaged:  # found when its bytes were read: what it was made from is all there
        console.print(f"{damaged}; it is set aside, and its take renders again", highlight=False, soft_wrap=True)
        catalog.media.set_aside(damaged.path)
        return _render(replace(order, fresh=False), episode, folder, catalog, settings, console)


def _render(order: Order, episode: Episode, folder: Path, catalog: Catalog, settings: Settings, console: Console) -> Summary:
    def planned() -> Plan:
        try:
            return select(make_plan(episode, order.file, settings, catalog, order.fresh), order.only)
        except OSError as error:
            raise InputError(f"{error.filename or order.file} cannot be read: {error.strerror or error}") from error

    plan = planned()
    console.print(f"{episode.id}: {len(plan.shots)} shots, {len(plan.stale)} to render", highlight=False)
    log = RunLog(catalog, plan, order.allow_experimental, statuses(plan, catalog, settings, order.allow_experimental))
    outcomes: list[ShotOutcome] = []
    made = 0
    if plan.stale:
        room_for(plan, catalog.place)
        plan, outcomes, made = render_stale(planned, settings, catalog, console, log)
    elif plan.judgements:
        catalog.append("judgements", plan.judgements)
    outcomes += [_accepted(s) for s in plan.shots if not s.stale]
    order_of = {s.shot.id: i for i, s in enumerate(plan.shots)}
    outcomes.sort(key=lambda o: order_of[o.shot])
    try:
        return deliver(episode, order.file, plan, outcomes, catalog, folder, log.run, made, bool(order.only))
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error


def statuses(plan: Plan, catalog: Catalog, settings: Settings, allow_experimental: bool) -> dict[str, str]:
    """Status of every workflow that is about to render, by name@version.

    Raises:
        InputError: one of them is not proven, and that was not allowed.
    """
    registry = Registry(catalog, settings)
    found: dict[str, str] = {}
    stages = [stage for s in plan.stale for stage in ((s.clip,) if s.accepted_keyframe or s.given_keyframe else (s.keyframe, s.clip))]
    for ready in {stage.ready.name: stage.ready for stage in stages}.values():
        standing = registry.standing(ready.workflow)
        found[ready.name] = standing.status
        if not standing.may_render and not allow_experimental:
            raise InputError(
                f"{plan.file}: workflow {ready.name} is {standing.status}, not proven: {standing.why}; "
                f"`tower benchmark` and `tower workflows promote` prove it, --allow-experimental renders with it as it is"
            )
    return found


def render_stale(
    planned: Callable[[], Plan], settings: Settings, catalog: Catalog, console: Console, log: RunLog
) -> tuple[Plan, list[ShotOutcome], int]:
    """Claim the episode and let every stale shot live; gives the plan that was followed, how each ended, and how many takes were made.

    Args:
        planned: makes the plan. It is made once the episode is ours: until then another driver may have rendered.
    """
    log.claim()
    try:
        plan = log.plan = planned()
        if plan.judgements:
            catalog.append("judgements", plan.judgements)
        lived = live(plan, settings, catalog, console, log) if plan.stale else Lived()
        if lived.stopped:
            raise KeyboardInterrupt
    except BaseException as error:
        event = "interrupted" if isinstance(error, asyncio.CancelledError | KeyboardInterrupt) else "failed"
        _last_words(catalog, log.row(event, error=str(error) or None))
        raise
    done = sum(o.outcome == "accepted" for o in lived.outcomes)
    catalog.append("runs", [log.row("finished", accepted=done, exhausted=len(lived.outcomes) - done)])
    _tidy(catalog)
    return plan, lived.outcomes, lived.takes


def _last_words(catalog: Catalog, row: Row) -> None:
    try:
        catalog.append("runs", [row])
    except Exception:  # noqa: BLE001 - the run is failing already; its own error matters more than this row
        return


def _tidy(catalog: Catalog) -> None:
    """Join small files of the tables that grow with every commit, once there are many. Nothing depends on it."""
    for name in ("takes", "runs", "judgements"):
        try:
            if len(catalog.dataset(name).files) > MANY_FILES:  # type: ignore[attr-defined]
                compact(catalog, [name])
        except CatalogError:
            return


def _accepted(plan: ShotPlan) -> ShotOutcome:
    assert plan.accepted_keyframe
    return ShotOutcome(plan.shot.id, "accepted", plan.accepted_keyframe.take, plan.accepted_clip.take if plan.accepted_clip else None)


def writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(f"folder {folder} cannot be written: {error.strerror}") from error
    return folder


def room_for(plan: Plan, place: Place) -> None:
    """Ask for the room that one take of everything stale may need: H.264 and PNG of drawings stay under a fifth of raw."""

    if not place.is_local:
        return

    def likely(shot: ShotPlan) -> int:
        w, k = shot.clip.workflow, shot.keyframe.workflow
        return (w.width * w.height * (w.num_frames or 1) // 4 + k.width * k.height * 3) * 3 // 5

    needed, free = sum(likely(s) for s in plan.stale) + SPARE_BYTES * bool(plan.stale), shutil.disk_usage(place.uri).free
    if free < needed:
        raise StorageError(
            f"the disk of {place} has {free / 1e6:.0f} MB free; about {needed / 1e6:.0f} MB are needed for {len(plan.stale)} shots"
        )
