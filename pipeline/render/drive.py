"""The time on the cluster: devices, models, every stale shot's life, and what a person says meanwhile."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from catalog.store import Catalog
from catalog.writer import Writer
from cluster.metrics import Metrics
from cluster.pool import Pool
from cluster.specs import DeviceLost, ModelBroken, ModelSpec, RequestFailed, Stopped
from cluster.start import cluster
from gates.image import keyframe_hash
from pipeline.plan.history import rows_of
from pipeline.plan.plan import Plan, ShotPlan
from pipeline.story.cluster_profile import ClusterProfile, cluster_profile
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings

from .controls import Controls
from .gate_tasks import warm
from .keyframe_hashes import KeyframeHashes
from .needs import Specs
from .progress import RenderProgress
from .run_log import BEAT_SECONDS, RunLog
from .shot import ShotOutcome, render_shot
from .studio import Studio, Take

LIVE_PER_DEVICE = 4  # shots in flight for each device: enough to fill a batch of stills, few enough to bound frames in memory
LIVE_IN_TURNS = 64  # the same where models take turns: the longer a turn, the fewer the switches
WARM_GATES = 16  # workers of gates that are started beforehand; more come as they are needed
LOOK_SECONDS = 1.0  # between looks at the pool, for the display and the charts


@dataclass
class Lived:
    """What came of it. stopped: a person said so before every shot had ended."""

    outcomes: list[ShotOutcome] = field(default_factory=list)
    takes: int = 0
    stopped: bool = False


def live(plan: Plan, settings: Settings, catalog: Catalog, console: Console, log: RunLog) -> Lived:
    """Let every stale shot of the plan live, until it is accepted or exhausted.

    Raises:
        InputError, ClusterError, NothingCanRun: nothing that was asked for could be rendered; each one sentence.
        KeyboardInterrupt: stopped at once; what was committed stays.
    """
    profile = cluster_profile(settings)
    specs = Specs.of(catalog, profile)
    with cluster(settings.devices, settings.dashboard_port, waits=bool(profile.wait_minutes)) as info:
        told = "logical devices" if info.logical else "GPUs"
        console.print(f"Ray: {info.devices} {told}, {info.cpus} CPUs, dashboard {info.dashboard_url or 'off'}", highlight=False)
        log.devices = info.devices
        pool = Pool(info, profile.options(settings))
        try:
            return asyncio.run(_live(plan, settings, catalog, console, log, pool, specs, profile))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # the loop has taken its handlers away


async def _live(
    plan: Plan,
    settings: Settings,
    catalog: Catalog,
    console: Console,
    log: RunLog,
    pool: Pool,
    specs: Specs,
    profile: ClusterProfile,
) -> Lived:
    lived = Lived()
    async with AsyncExitStack() as stack:
        _stop_at_once_on(signal.SIGINT, signal.SIGTERM)
        await stack.enter_async_context(pool)
        writer = await stack.enter_async_context(Writer(catalog))
        await _prepare(pool, specs, plan)
        progress = stack.enter_context(_progress(console, plan, settings))
        metrics = Metrics()
        for beside in (_beat(writer, log), _look(pool, progress, metrics), Controls(catalog, log.run).follow(pool, progress.line)):
            stack.callback(asyncio.create_task(beside).cancel)
        _stop_politely_on(signal.SIGINT, pool, progress)

        def tell(take: Take) -> None:
            lived.takes += 1
            progress.take(take.row)
            _measure(metrics, take.row)

        def ended(outcome: ShotOutcome) -> None:
            lived.outcomes.append(outcome)
            progress.shot(outcome.outcome)
            metrics.shot(outcome.outcome)

        studio = Studio(log.run, pool, catalog, writer, specs, tell, KeyframeHashes(_known_keyframes(catalog, plan)))
        urgent_first = sorted(plan.stale, key=lambda s: -s.shot.priority)
        await let_live(urgent_first, studio, ended, lambda: live_limit(pool, specs, profile))
        lived.stopped = pool.stopping and len(lived.outcomes) < len(plan.stale)
    return lived


def live_limit(pool: Pool, specs: Specs, profile: ClusterProfile) -> int:
    """How many shots may be under way at once, with the devices that there are now."""
    each = profile.live_shots_per_device or (LIVE_IN_TURNS if pool.takes_turns(specs.models.values()) else LIVE_PER_DEVICE)
    return each * max(1, len(pool.fleet.posts))


async def let_live(shots: Iterable[ShotPlan], studio: Studio, ended: Callable[[ShotOutcome], None], limit: Callable[[], int]) -> None:
    """Every shot's life, begun in order, at most `limit()` at once. Once the pool stops, no other begins."""
    room, alive = asyncio.Event(), 0
    gc.freeze()  # what was imported stays: to look through it for garbage again and again takes 5 % of the driver's time

    async def one(plan: ShotPlan) -> None:
        nonlocal alive
        with suppress(Stopped):
            ended(await render_shot(plan, studio))
        alive -= 1
        room.set()

    try:
        async with asyncio.TaskGroup() as group:
            for plan in shots:
                while alive >= limit():
                    room.clear()
                    await room.wait()
                if studio.pool.stopping:
                    break
                alive += 1
                group.create_task(one(plan))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the first fault is the cause; the others were cancelled for it
    finally:
        gc.unfreeze()  # C++ libraries complain where it is left behind at the end


async def _prepare(pool: Pool, specs: Specs, plan: Plan) -> None:
    """Load every model and LoRA that the plan needs, before the first picture: a bad one stops the run here."""

    async def load(spec: ModelSpec, calls: list[tuple[Any, ...]], name: str) -> None:
        try:
            await pool.prepare(spec, *calls)
        except (RequestFailed, ModelBroken) as error:
            raise InputError(f"workflow {name}: {error}") from error

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(warm_gates(pool))
            for spec, calls, name in _needed(specs, plan):
                group.create_task(load(spec, calls, name))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def warm_gates(pool: Pool) -> None:
    """Workers for the gates, started while models load."""
    with suppress(DeviceLost):
        await asyncio.gather(*(pool.cpu(warm, name="gates start") for _ in range(min(pool.info.cpus, WARM_GATES))))


def _needed(specs: Specs, plan: Plan) -> list[tuple[ModelSpec, list[tuple[Any, ...]], str]]:
    needed: dict[str, tuple[ModelSpec, list[tuple[Any, ...]], str]] = {}
    for shot in plan.stale:
        for stage in (shot.keyframe, shot.clip):
            if stage is shot.keyframe and (shot.accepted_keyframe or shot.given_keyframe):
                continue
            if stage is shot.clip and shot.until == "keyframe":
                continue
            encoder, spec = specs.encoder(stage), specs.model(stage)
            needed.setdefault(encoder.key, (encoder, [], stage.workflow.name))
            calls = needed.setdefault(spec.key, (spec, [], stage.workflow.name))[1]
            if stage.loras and (stage.loras,) not in calls:
                calls.append((stage.loras,))
    return list(needed.values())


def _progress(console: Console, plan: Plan, settings: Settings) -> RenderProgress:
    keyframes = sum(s.accepted_keyframe is None for s in plan.stale)
    clips = sum(s.until == "clip" for s in plan.stale)
    known: dict[str, list[float]] = {"keyframe": [], "clip": []}
    for shot in plan.stale:
        for stage in (shot.keyframe, shot.clip):
            if (seconds := plan.costs.seconds(stage.ready)) is not None:
                known[stage.stage].append(seconds)
    means = {stage: sum(all_of_it) / len(all_of_it) for stage, all_of_it in known.items() if all_of_it}
    return RenderProgress(console, keyframes, clips, means, settings.log_seconds)


def _known_keyframes(catalog: Catalog, plan: Plan) -> dict[str, int]:
    kept = {s.accepted_keyframe.take: s.shot.id for s in plan.shots if s.accepted_keyframe}
    rows = rows_of(catalog, list(kept), "take, measures")
    return {kept[take]: keyframe_hash(row["measures"]) for take, row in rows.items()}


def _measure(metrics: Metrics, row: dict[str, Any]) -> None:
    workflow = f"{row['workflow']}@{row['workflow_version']}"
    seconds = {part: row.get(f"{part}_seconds") for part in ("queue", "device", "gate")}
    metrics.take(row["stage"], workflow, row["outcome"], row["labels"], seconds)


async def _beat(writer: Writer, log: RunLog) -> None:
    """Signs of life, for drivers on other machines."""
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        await writer.add("runs", log.row("alive"))


async def _look(pool: Pool, progress: RenderProgress, metrics: Metrics) -> None:
    while True:
        stats = pool.stats()
        progress.pool(stats)
        metrics.pool(stats)
        await asyncio.sleep(LOOK_SECONDS)


def _stop_at_once_on(*signals: signal.Signals) -> None:
    """Devices are ended, nothing half-done is recorded. A scheduler's SIGTERM leaves seconds, less than a clip takes."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task
    for number in signals:
        loop.add_signal_handler(number, task.cancel)


def _stop_politely_on(number: signal.Signals, pool: Pool, progress: RenderProgress) -> None:
    """The first time, finish what executes and commit it; the second time, stop at once."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task

    def stop() -> None:
        busy = pool.stats().busy
        pool.stop()
        progress.line(f"stopping: {busy} devices finish what they are at, and those takes are recorded; Ctrl-C again stops at once")
        loop.add_signal_handler(number, task.cancel)

    loop.add_signal_handler(number, stop)
