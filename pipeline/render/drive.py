"""Load the models, then render many shots at once. Beside the shots: heartbeats, the display, requests to pause and resume."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from catalog.store import Catalog
from catalog.writer import Writer
from cluster.metrics import Metrics
from cluster.pool import Pool
from cluster.specs import DeviceLost, ModelBroken, ModelSpec, RequestFailed, Stopped
from gates.image import keyframe_hash
from pipeline.plan.history import rows_of
from pipeline.plan.plan import Plan, ShotPlan
from pipeline.story.cluster_profile import ClusterProfile
from pipeline.story.errors import InputError

from .context import Context
from .controls import Controls
from .gate_tasks import warm
from .keyframe_hashes import KeyframeHashes
from .live import live_of, shown_live
from .needs import ModelNeeds, identity_of, text_loras
from .process import BEAT_SECONDS
from .progress import RenderProgress
from .run_log import RunLog
from .shot import ShotOutcome, render_shot
from .studio import Studio
from .watcher import Display, Watcher

LIVE_PER_DEVICE = 4  # shots in flight for each device: enough to fill a batch of stills, few enough to bound frames in memory
LIVE_IN_TURNS = 64  # the same where models take turns on a device: more shots give longer turns and fewer switches
WARM_GATES = 16  # gate workers that start while models load; Ray starts more when they are needed
LOOK_SECONDS = 1.0  # between updates of the display and of Ray's metrics


async def drive(shots: Iterable[ShotPlan], studio: Studio, limit: Callable[[], int]) -> list[ShotOutcome]:
    """Render the shots, started in order, at most `limit()` of them at once. Gives the outcomes of the shots that ended.

    Once the pool is stopping, no further shot is started.
    """
    outcomes: list[ShotOutcome] = []
    room, alive = asyncio.Event(), 0
    gc.freeze()  # imported modules are never garbage; scanning them would take 5 % of the driver's time

    async def one(plan: ShotPlan) -> None:
        nonlocal alive
        with suppress(Stopped):
            outcomes.append(await render_shot(plan, studio))
            studio.watcher.shot(outcomes[-1].outcome, [stage.stage for stage in plan.stages])
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
        raise errors.exceptions[0] from None  # the first error is the cause: it cancelled the other tasks
    finally:
        gc.unfreeze()  # C++ libraries complain if objects are still frozen at exit
    return outcomes


@asynccontextmanager
async def studio_for(plan: Plan, here: Context, log: RunLog, pool: Pool, needs: ModelNeeds) -> AsyncIterator[Studio]:
    """A studio with its models loaded. While it is open, the tasks beside the shots run: heartbeats, display, pause and resume.

    Raises:
        InputError: a model or a LoRA cannot be loaded. Nothing is rendered then.
    """
    # Until the models are loaded there is nothing that is worth finishing.
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)  # nohup has told it to be ignored
    _stop_at_once_on(signal.SIGINT, signal.SIGTERM, *hangup)
    async with pool, Writer(here.catalog) as writer:
        await _load(pool, needs, plan)
        with _progress(here, plan) as progress:
            display = Display(progress, Metrics())
            beside = _beat(writer, log), _look(pool, display), Controls(here.catalog, log.run).follow(pool, progress.line)
            async with shown_live(here.catalog.place, log.run, lambda: live_of(log, display)):
                with _beside(*beside):
                    _stop_politely_on(signal.SIGINT, pool, progress)
                    hashes = KeyframeHashes(_known_keyframes(here.catalog, plan))
                    yield Studio(log.run, pool, here.catalog, writer, needs, display, hashes)


def live_limit(pool: Pool, needs: ModelNeeds, profile: ClusterProfile) -> int:
    """How many shots may be in flight at once, with the devices of this moment."""
    each = profile.live_shots_per_device or (LIVE_IN_TURNS if pool.takes_turns(needs.models.values()) else LIVE_PER_DEVICE)
    return each * max(1, len(pool.fleet.posts))


@contextmanager
def _beside(*work: Any) -> Iterator[None]:
    """Run coroutines during a `with` block; cancel them at its end."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


async def _load(pool: Pool, needs: ModelNeeds, plan: Plan) -> None:
    """Load every model and LoRA that the plan needs, before the first take.

    Raises:
        InputError: a model or a LoRA cannot be loaded.
    """

    async def load(spec: ModelSpec, calls: list[tuple[Any, ...]], name: str) -> None:
        try:
            await pool.prepare(spec, *calls)
        except (RequestFailed, ModelBroken) as error:
            raise InputError(f"workflow {name}: {error}") from error

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(warm_gates(pool))
            for spec, calls, name in _needed(needs, plan):
                group.create_task(load(spec, calls, name))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def warm_gates(pool: Pool) -> None:
    """Start CPU workers for the gates while models load, so that the first verdict does not wait for them."""
    with suppress(DeviceLost):
        await asyncio.gather(*(pool.cpu(warm, name="gates start") for _ in range(min(pool.info.cpus, WARM_GATES))))


def _needed(needs: ModelNeeds, plan: Plan) -> list[tuple[ModelSpec, list[tuple[Any, ...]], str]]:
    """For each workflow and text encoder: its spec, what it must prepare, and the workflow that an error message names."""
    needed: dict[str, tuple[ModelSpec, list[tuple[Any, ...]], str]] = {}
    for stage in (stage for shot in plan.stale for stage in shot.on_devices):
        spec = needs.model(stage)
        if stage.workflow.kind.generative:
            encoder = needs.encoder(stage)
            texts = needed.setdefault(encoder.key, (encoder, [], stage.workflow.name))[1]
            if (loras := text_loras(stage)) and (loras,) not in texts:
                texts.append((loras,))
        identity = identity_of(stage)
        calls = needed.setdefault(identity, (spec, [], stage.workflow.name))[1]
        if (call := (identity, stage.workflow.settings(), stage.loras)) not in calls:
            calls.append(call)
    return list(needed.values())


def _progress(here: Context, plan: Plan) -> RenderProgress:
    wanted: dict[str, int] = {}
    known: dict[str, list[float]] = {}
    for shot in plan.stale:
        for stage in shot.todo:
            wanted[stage.stage] = wanted.get(stage.stage, 0) + 1
        for stage in shot.stages:
            if (seconds := plan.costs.seconds(stage.ready)) is not None:
                known.setdefault(stage.stage, []).append(seconds)
    means = {stage: sum(seconds) / len(seconds) for stage, seconds in known.items()}
    return RenderProgress(here.console, wanted, means, here.settings.log_seconds)


def _known_keyframes(catalog: Catalog, plan: Plan) -> dict[str, int]:
    """Shot id to the perceptual hash (64 bits) of its accepted keyframe."""
    kept = {s.accepted[0].take: s.shot.id for s in plan.shots if s.accepted}
    rows = rows_of(catalog, list(kept), "take, measures")
    # A keyframe that a person approved may have no hash: no gate could read it.
    return {kept[take]: keyframe_hash(row["measures"]) for take, row in rows.items() if "hash_high" in (row["measures"] or {})}


async def _beat(writer: Writer, log: RunLog) -> None:
    """Record heartbeats. Drivers on other machines see from them that this run has not died."""
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        await writer.add("runs", log.row("alive"))


async def _look(pool: Pool, watcher: Watcher) -> None:
    """Pass the pool's statistics to the watcher, again and again."""
    while True:
        watcher.pool(pool.stats())
        await asyncio.sleep(LOOK_SECONDS)


def _stop_at_once_on(*signals: signal.Signals) -> None:
    """On these signals, cancel the run. Takes in flight end without a row, and the next render makes them again.

    A scheduler kills the process seconds after SIGTERM: too soon for a clip to be finished.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task
    for number in signals:
        loop.add_signal_handler(number, task.cancel)


def _stop_politely_on(number: signal.Signals, pool: Pool, progress: RenderProgress) -> None:
    """On the first signal, finish and record the takes that are executing. On the second signal, cancel the run."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task

    def stop() -> None:
        busy = pool.stats().busy
        pool.stop()
        progress.line(f"stopping: {busy} devices finish what they are at, and those takes are recorded; Ctrl-C again stops at once")
        loop.add_signal_handler(number, task.cancel)

    loop.add_signal_handler(number, stop)
