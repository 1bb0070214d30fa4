"""One run: claim the episode, render every stale shot on the cluster's devices, and record how the run ended."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalog.care import compact
from catalog.place import Place
from catalog.store import Catalog, CatalogError
from cluster.pool import Pool
from cluster.start import check_devices
from pipeline.plan.plan import Plan
from pipeline.plan.resolve import StagePlan
from pipeline.registry.workflows import Registry
from pipeline.story.cluster_profile import ClusterProfile, cluster_profile
from pipeline.story.errors import InputError, NotProven, StorageError

from .context import Context
from .drive import drive, live_limit, studio_for
from .needs import ModelNeeds
from .run_log import RunLog
from .shot import ShotOutcome

SPARE_BYTES = 8 * 2**20  # free disk space for tables and logs, in addition to the media
MANY_FILES = 256  # A table with more data files is compacted: every run adds files, and readers open all of them.


@dataclass(frozen=True)
class Rendered:
    """plan: the plan that was rendered. outcomes: how each of its stale shots ended. takes: number of takes that were made."""

    plan: Plan
    outcomes: list[ShotOutcome] = field(default_factory=list)
    takes: int = 0


def render_stale(planned: Callable[[], Plan], here: Context, log: RunLog) -> Rendered:
    """Claim the episode, and render every stale shot until it is accepted or exhausted.

    Args:
        planned: makes the plan. It is called after the claim, because another driver may have rendered the episode meanwhile.

    Raises:
        InputError, ClusterError, NothingCanRun: nothing could be rendered. Each message is one sentence.
        StorageError, CatalogError: media or rows cannot be written.
        MediaDamaged: a stored file is not what its name promises.
        KeyboardInterrupt: the run was stopped, by Ctrl-C, a signal or `tower cancel`. The takes that were recorded stay.
    """
    check_devices(here.settings.devices)  # before a run is recorded
    with log.claimed():
        plan = planned()
        log.plan = plan
        record_judgements(plan, here.catalog)
        rendered = Rendered(plan)
        if plan.stale:
            profile = cluster_profile(here.settings)
            needs = ModelNeeds.of(here.catalog, profile)
            pool = _devices(here, profile, log)

            async def render_shots() -> Rendered:
                async with studio_for(plan, here, log, pool, needs) as studio:
                    urgent_first = sorted(plan.stale, key=lambda s: -s.shot.priority)
                    outcomes = await drive(urgent_first, studio, lambda: live_limit(pool, needs, profile))
                return Rendered(plan, outcomes, studio.watcher.takes)

            rendered = _run(render_shots())
        if len(rendered.outcomes) < len(plan.stale):  # stopped: `drive` gives no outcome for the shots that were left
            raise KeyboardInterrupt
    done = sum(o.outcome == "accepted" for o in rendered.outcomes)
    here.catalog.append("runs", [log.row("finished", accepted=done, exhausted=len(rendered.outcomes) - done)])
    _tidy(here.catalog)
    return rendered


def record_judgements(plan: Plan, catalog: Catalog) -> None:
    """Record the verdicts that changed with a gate profile or a declaration since the takes were judged."""
    if plan.judgements:
        catalog.append_later("judgements", plan.judgements)


def _devices(here: Context, profile: ClusterProfile, log: RunLog) -> Pool:
    """Join or start a cluster; gives a pool over its devices."""
    info = here.ray()
    kind = "logical devices" if info.logical else "GPUs"
    here.console.print(f"Ray: {info.devices} {kind}, {info.cpus} CPUs, dashboard {info.dashboard_url or 'off'}", highlight=False)
    log.devices = info.devices
    return Pool(info, profile.options(here.settings))


def _run(work: Coroutine[Any, Any, Rendered]) -> Rendered:
    try:
        return asyncio.run(work)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)  # the event loop has removed its own handlers


def require_proven(plan: Plan, registry: Registry, allow_experimental: bool) -> dict[str, str]:
    """Refuse workflows that are not proven. Returns the status of every workflow that is about to render, by name@version.

    Raises:
        NotProven: a workflow is not proven, and `allow_experimental` is False.
    """
    found: dict[str, str] = {}
    for ready in {stage.ready.name: stage.ready for s in plan.stale for stage in s.on_devices}.values():
        standing = registry.standing(ready.workflow)
        found[ready.name] = standing.status
        if not standing.may_render and not allow_experimental:
            raise NotProven(
                f"{plan.file}: workflow {ready.name} is {standing.status}, not proven: {standing.why}; "
                f"`tower benchmark` and `tower workflows promote` prove it, --allow-experimental renders with it as it is"
            )
    return found


def _tidy(catalog: Catalog) -> None:
    """Join the small data files of the tables that grow with every commit. It only saves time, so a failure is ignored."""
    for name in ("takes", "runs", "judgements"):
        try:
            if len(catalog.dataset(name).files) > MANY_FILES:  # type: ignore[attr-defined]
                compact(catalog, [name])
        except CatalogError:
            return


def writable(folder: Path) -> Path:
    """The folder, made if it does not exist.

    Raises:
        InputError: no file can be written in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(f"folder {folder} cannot be written: {error.strerror}") from error
    return folder


def check_disk_room(plan: Plan, place: Place) -> None:
    """Check that a local disk has room for one take of every stage of the stale shots.

    A still counts as 3/5 of its raw size (uint8 RGB), a clip as 1/20.

    Raises:
        StorageError: the disk has less room.
    """
    if not place.is_local:
        return

    def likely(stage: StagePlan) -> int:
        flow, frames = stage.workflow, stage.workflow.num_frames or stage.frames
        raw = flow.width * flow.height * 3 * (frames or 1)
        return raw // 20 if frames else raw * 3 // 5

    needed, free = (
        sum(likely(stage) for s in plan.stale for stage in s.stages) + SPARE_BYTES * bool(plan.stale),
        shutil.disk_usage(place.uri).free,
    )
    if free < needed:
        raise StorageError(
            f"the disk of {place} has {free / 1e6:.0f} MB free; about {needed / 1e6:.0f} MB are needed for {len(plan.stale)} shots"
        )
