"""How well work is spread: Tower beside a plain script and beside Ray Data, and what its driver costs.

    python -m benchmarks.orchestration              everything, about 25 minutes on two cores
    python -m benchmarks.orchestration --quick      fewer shots, 8 devices only: three minutes
    python -m benchmarks.orchestration --only scale against card rate memory frames kills

Devices are logical: their models sleep as models take (a still 0.2 s, a clip 1 s, both ± 20 %), a fifth of all takes is
rejected, and every contender makes exactly the same takes. Tower's figures are those of its whole driver, with every row
committed. `ideal` is a bare loop over the same takes, divided by the devices. `benchmarks.chaos` kills things.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.table import Table

from catalog.store import Catalog
from catalog.writer import Writer
from cluster.pool import Pool
from cluster.specs import PoolOptions, PoolStats
from cluster.start import cluster
from pipeline.registry.open_catalog import open_catalog
from pipeline.render.drive import LIVE_IN_TURNS, LIVE_PER_DEVICE, warm_gates
from pipeline.story.settings import load_settings

from .baselines import ideal, ray_data, ray_data_gates_inside, sequential
from .driver import bare_shots_a_second, memory_growth, shots_a_second, spilled_bytes
from .hollow import HollowSpecs, hollow_gates, live_hollow
from .stand_ins import cpu_name
from .work import Work

SAMPLE = 10  # shots of the bare loops, whose seconds are scaled to all
MODEL_SECONDS = 1.5  # to import what a hollow model needs, in a new process beside eight others on two cores
NEARLY = 0.96  # of the ideal, where a work of 200 shots has a long end
PARTS = ("scale", "against", "card", "rate", "memory", "frames", "kills")


@dataclass(frozen=True)
class Figure:
    """One figure. least, most: what is promised of it, if anything is."""

    what: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None

    @property
    def holds(self) -> bool:
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)


@dataclass
class Told:
    """What one run of Tower over a work did."""

    seconds: float
    ready: float  # when the last device was up, seconds since 1970
    takes: list[tuple[float, float, int, str]] = field(default_factory=list)  # begin, end, process, take
    stats: PoolStats | None = None


def tower(
    work: Work, devices: int, live: int = LIVE_PER_DEVICE, options: PoolOptions | None = None, disturb: Any = None, **models: Any
) -> Told:
    """The whole driver over the work: from devices that are up, with their models built, to the last row."""

    async def story(info: Any, folder: Path) -> Told:
        specs, ends = HollowSpecs(work, folder / "takes.log", **models), list[Any]()
        catalog = Catalog.open(folder / "catalog")
        async with Pool(info, options) as pool, Writer(catalog) as writer:
            while not all(p.up for p in pool.fleet.posts):  # noqa: ASYNC110 - the pool has no event for it
                await asyncio.sleep(0.05)
            await asyncio.gather(warm_gates(pool), *(pool.prepare(spec) for spec in [*specs.models.values(), specs.texts]))
            before, began = pool.stats(), time.time()
            disturbing = asyncio.create_task(disturb(pool)) if disturb else None
            await live_hollow(work, specs, pool, catalog, writer, live, ends.append)
            told = Told(time.time() - began, began, stats=pool.stats())
            if disturbing:
                disturbing.cancel()
        assert told.stats
        told.stats = replace(told.stats, switches=told.stats.switches - before.switches)
        assert set(ends) == {"accepted"} and len(ends) == work.shots, "a shot was lost"
        lines = [line.split() for line in (folder / "takes.log").read_text().splitlines()]
        told.takes = [(float(b), float(e), int(pid), take) for b, e, pid, take in lines]
        return told

    with tempfile.TemporaryDirectory(prefix="tower-hollow-") as folder, hollow_gates(), cluster(devices) as info:
        return asyncio.run(story(info, Path(folder)))


def scale(quick: bool) -> Iterator[Figure]:
    """Shares of the ideal, as devices become many."""
    for devices, shots, least in ((8, 800, 0.98), (16, 1600, 0.97), (64, 6400, 0.96)) if not quick else ((8, 80, None),):
        work = Work(shots)
        bare = _bare(work, devices)
        told = tower(work, devices)
        yield Figure(f"{devices} devices, {shots} shots with rejects: share of the ideal", bare / told.seconds, "of 1", least)
        yield Figure(f"{devices} devices: busy between warm-up and the last wave", busy_share(told, devices), "of 1", least and 0.98)
        first: dict[int, float] = {}
        for begin, _, pid, _ in told.takes:
            first[pid] = min(begin, first.get(pid, begin))
        yield Figure(f"{devices} devices: all busy after the last was up", max(first.values()) - told.ready, "s", None, least and 2.0)


def busy_share(told: Told, devices: int) -> float:
    """Of all devices' time from when each has begun to when work no longer suffices for all."""
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for begin, end, pid, _ in told.takes:
        first[pid], last[pid] = min(begin, first.get(pid, begin)), max(end, last.get(pid, end))
    start, stop = max(first.values()), min(last.values())
    busy = sum(max(0.0, min(end, stop) - max(begin, start)) for begin, end, _, _ in told.takes)
    return busy / (stop - start) / devices


def _bare(work: Work, devices: int) -> float:
    with cluster(1):
        return ideal(work, devices, SAMPLE).total


def against(quick: bool) -> Iterator[Figure]:
    """The same work as a plain script and with Ray Data, on 8 devices.

    Promised are 2.5 and 1.3 times, or, where not even the ideal is so far ahead of Ray Data, nearly as much as the ideal.
    """
    shots = 40 if quick else 200
    for rejected, words, promised in ((0.2, "with rejects", 2.5), (0.0, "without rejects", 1.3)):
        work = Work(shots, rejected)
        best = _bare(work, 8)
        yield Figure(f"{shots} shots {words}: the ideal", best, "s")
        mine = tower(work, 8).seconds
        yield Figure(f"{shots} shots {words}: Tower", mine, "s")
        yield Figure(f"{shots} shots {words}: a plain script, one device", sequential(work, SAMPLE).total, "s")
        contenders: list[tuple[str, Callable[..., Any], float | None]] = [
            ("Ray Data, two pools, rounds", ray_data, promised),
            ("Ray Data, gates inside one actor a device", ray_data_gates_inside, None),
        ]
        for name, contender, least in contenders:
            ray.init(address="local", num_cpus=8, num_gpus=8, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
            trial = contender(work, 8)
            ray.shutdown()
            yield Figure(f"{shots} shots {words}: {name}", trial.after_first, "s")
            yield Figure(f"{shots} shots {words}: {name}, with its start", trial.total, "s")
            bound = trial.after_first / best
            yield Figure(f"{shots} shots {words}: {name}, times the ideal's seconds", bound, "times")
            least = None if least is None or quick else min(least, NEARLY * bound)
            yield Figure(f"{shots} shots {words}: {name}, times Tower's seconds", trial.after_first / mine, "times", least)


def card(quick: bool) -> Iterator[Figure]:
    """One 12 GB device and three models of which two never fit together: stages take turns."""
    shots = 40 if quick else 100
    gb = 10**9
    memory, load = {"keyframe": 4 * gb, "clip": 9 * gb}, {"keyframe": 0.5, "clip": 1.0}
    told = tower(Work(shots), 1, LIVE_IN_TURNS, PoolOptions(device_memory={"": 11 * gb}), memory=memory, load=load)
    assert told.stats
    yield Figure(f"12 GB, {shots} shots: switches a 100 shots", told.stats.switches * 100 / shots, "")
    yield Figure(f"12 GB, {shots} shots: share of time lost to them", told.stats.switch_seconds / told.seconds, "of 1")
    yield Figure(f"12 GB, {shots} shots: share of the ideal", Work(shots).device_seconds() / told.seconds, "of 1")


def rate(quick: bool) -> Iterator[Figure]:
    """Hollow shots a second: what the driver could feed."""
    shots = 1000 if quick else 6000
    yield Figure("bare Ray: 2 actor calls and 2 tasks a shot, nothing else", bare_shots_a_second(shots), "shots/s")
    pace = shots_a_second(shots)
    yield Figure("no-op shots through the whole driver, rows committed", pace.shots, "shots/s", 300)
    yield Figure("processor time of the driver", pace.driver, "ms a shot")
    yield Figure("processor time of the driver, its devices, gates and Ray", pace.all_of_it, "ms a shot")


def memory(quick: bool) -> Iterator[Figure]:
    shots = 3000 if quick else 100_000
    yield Figure(f"driver's memory, from 1,000 to {shots:,} shots", memory_growth(shots) / 1e6, "MB more", None, 50)


def frames(quick: bool) -> Iterator[Figure]:
    yield Figure("spilled with clips of 121x768x512, default settings", spilled_bytes(10 if quick else 60) / 1e6, "MB", None, 0)


def kills(quick: bool) -> Iterator[Figure]:
    """What the death of a device costs: its executing take, and the start of another."""
    shots, count = (40, 2) if quick else (200, 10)

    starts: list[float] = []

    async def kill_some(pool: Pool) -> None:
        for n in range(count):
            await asyncio.sleep(2.0)
            busy = [p for p in pool.fleet.posts if p.batches and p.up]
            os.kill(busy[n % len(busy)].pid, signal.SIGKILL)
        await asyncio.sleep(4.0)
        starts.extend(p.up_since - p.asked for p in pool.fleet.posts if p.life)

    calm, disturbed = tower(Work(shots), 8), tower(Work(shots), 8, disturb=kill_some)
    assert disturbed.stats
    dead = disturbed.stats.restarts
    start = sum(starts) / max(1, len(starts))
    yield Figure("a new actor's start, its model apart", start, "s")
    lost = (_idle(disturbed, 8) - _idle(calm, 8)) / dead
    yield Figure(f"8 devices, {dead} killed while they executed: device-seconds lost a kill", lost, "s", None, start + 1.2 + MODEL_SECONDS)


def _idle(told: Told, devices: int) -> float:
    """Device-seconds in which no take was made that counts."""
    return devices * told.seconds - sum(end - begin for begin, end, *_ in told.takes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    os.environ.pop("RAY_ADDRESS", None)
    console = Console(width=150)
    console.print(f"{cpu_name()}, {os.cpu_count()} cores, Ray {ray.__version__}, Python {platform.python_version()}", highlight=False)
    began, made = datetime.now(UTC), []
    for part in options.only:
        for figure in globals()[part](options.quick):
            made.append(figure)
            promised = f"≥ {figure.least:g}" if figure.least is not None else f"≤ {figure.most:g}" if figure.most is not None else ""
            console.print(f"{figure.what}: {figure.value:.3f} {figure.unit} {promised} {'' if figure.holds else 'MISSED'}", highlight=False)
    table = Table("what", "measured", "unit", "promised", "", box=None)
    for f in made:
        promised = f"≥ {f.least:g}" if f.least is not None else f"≤ {f.most:g}" if f.most is not None else ""
        table.add_row(f.what, f"{f.value:.3f}", f.unit, promised, "" if f.holds else "MISSED")
    console.print(table)
    if not options.quick:
        record("orchestration", began, made)
    sys.exit(0 if all(f.holds for f in made) else 1)


def record(job: str, began: datetime, made: list[Figure]) -> None:
    head = {"job": job, "run": f"{job}-{began:%Y%m%d}-{uuid.uuid4().hex[:6]}", "at": began, "device": cpu_name(), "cores": os.cpu_count()}
    rows = [head | {"what": f.what.strip(), "value": f.value, "unit": f.unit, "least": f.least, "most": f.most} for f in made]
    open_catalog(load_settings()).append("measurements", rows)


if __name__ == "__main__":
    main()
