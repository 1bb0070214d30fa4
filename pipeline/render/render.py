"""One run: claim what is to be rendered, let every stale shot live on the cluster's devices, and record how it ended."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalog.care import compact
from catalog.place import Place
from catalog.store import Catalog, CatalogError
from cluster.pool import Pool
from cluster.start import cluster
from pipeline.plan.plan import Plan, ShotPlan
from pipeline.registry.workflows import Registry
from pipeline.story.cluster_profile import ClusterProfile, cluster_profile
from pipeline.story.errors import InputError, StorageError

from .context import Context
from .drive import drive, live_limit, studio_for
from .needs import ModelNeeds
from .run_log import RunLog
from .shot import ShotOutcome

SPARE_BYTES = 8 * 2**20  # room on the disk for tables and logs, beside the media
MANY_FILES = 256  # live data files of the table of takes: every run adds some, and every reader opens all of them


@dataclass(frozen=True)
class Rendered:
    """The plan that was followed, how each of its stale shots ended, and how many takes were made."""

    plan: Plan
    outcomes: list[ShotOutcome] = field(default_factory=list)
    takes: int = 0


def render_stale(planned: Callable[[], Plan], here: Context, log: RunLog) -> Rendered:
    """Claim the episode and let every stale shot live, until it is accepted or exhausted.

    Args:
        planned: makes the plan. It is made once the episode is ours: until then another driver may have rendered.

    Raises:
        InputError, ClusterError, NothingCanRun: nothing that was asked for could be rendered; each one sentence.
        KeyboardInterrupt: stopped, by a signal or a person; what was committed stays.
    """
    with log.claimed():
        plan = log.plan = planned()
        rendered = already_rendered(plan, here)
        if plan.stale:
            profile = cluster_profile(here.settings)
            needs = ModelNeeds.of(here.catalog, profile)
            with _devices(here, profile, log) as pool:

                async def live() -> Rendered:
                    async with studio_for(plan, here, log, pool, needs) as studio:
                        urgent_first = sorted(plan.stale, key=lambda s: -s.shot.priority)
                        outcomes = await drive(urgent_first, studio, lambda: live_limit(pool, needs, profile))
                    return Rendered(plan, outcomes, studio.watcher.takes)

                rendered = _run(live())
        if len(rendered.outcomes) < len(plan.stale):  # a person stopped it before every shot had ended
            raise KeyboardInterrupt
    done = sum(o.outcome == "accepted" for o in rendered.outcomes)
    here.catalog.append("runs", [log.row("finished", accepted=done, exhausted=len(rendered.outcomes) - done)])
    _tidy(here.catalog)
    return rendered


def already_rendered(plan: Plan, here: Context) -> Rendered:
    """Where nothing is rendered, verdicts may have changed all the same, with a profile or a declaration: they are recorded."""
    if plan.judgements:
        here.catalog.append("judgements", plan.judgements)
    return Rendered(plan)


@contextmanager
def _devices(here: Context, profile: ClusterProfile, log: RunLog) -> Iterator[Pool]:
    """The cluster, joined or started, and a pool over its devices."""
    settings = here.settings
    with cluster(settings.devices, settings.dashboard_port, waits=bool(profile.wait_minutes)) as info:
        told = "logical devices" if info.logical else "GPUs"
        here.console.print(f"Ray: {info.devices} {told}, {info.cpus} CPUs, dashboard {info.dashboard_url or 'off'}", highlight=False)
        log.devices = info.devices
        yield Pool(info, profile.options(settings))


def _run(work: Coroutine[Any, Any, Rendered]) -> Rendered:
    try:
        return asyncio.run(work)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the loop has taken its handlers away


def statuses(plan: Plan, here: Context, allow_experimental: bool) -> dict[str, str]:
    """Status of every workflow that is about to render, by name@version.

    Raises:
        InputError: one of them is not proven, and that was not allowed.
    """
    registry = Registry(here.catalog, here.settings)
    found: dict[str, str] = {}
    for ready in {stage.ready.name: stage.ready for s in plan.stale for stage in s.on_devices}.values():
        standing = registry.standing(ready.workflow)
        found[ready.name] = standing.status
        if not standing.may_render and not allow_experimental:
            raise InputError(
                f"{plan.file}: workflow {ready.name} is {standing.status}, not proven: {standing.why}; "
                f"`tower benchmark` and `tower workflows promote` prove it, --allow-experimental renders with it as it is"
            )
    return found


def _tidy(catalog: Catalog) -> None:
    """Join small files of the tables that grow with every commit, once there are many. Nothing depends on it."""
    for name in ("takes", "runs", "judgements"):
        try:
            if len(catalog.dataset(name).files) > MANY_FILES:  # type: ignore[attr-defined]
                compact(catalog, [name])
        except CatalogError:
            return


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
        flows = [stage.workflow for stage in shot.stages]
        return sum(w.width * w.height * (w.num_frames // 4 if w.num_frames else 3) for w in flows) * 3 // 5

    needed, free = sum(likely(s) for s in plan.stale) + SPARE_BYTES * bool(plan.stale), shutil.disk_usage(place.uri).free
    if free < needed:
        raise StorageError(
            f"the disk of {place} has {free / 1e6:.0f} MB free; about {needed / 1e6:.0f} MB are needed for {len(plan.stale)} shots"
        )
