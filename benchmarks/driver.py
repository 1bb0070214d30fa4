"""What Tower's driver costs: hollow shots a second, its memory, and whether frames overflow the object store."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray._private.internal_api import memory_summary

from catalog.store import Catalog
from catalog.writer import Writer
from cluster.pool import Pool
from cluster.start import cluster
from pipeline.render.drive import LIVE_PER_DEVICE

from .hollow import HollowSpecs, hollow_gates, live_hollow
from .work import Work

DEVICES = 2  # of shots that take no time: two can swallow more than any driver can send
LIVE = 100  # shots under way for each of them: a take waits a quarter of a second for its row, and others go on meanwhile
WARM = 300  # shots before anything is measured: workers start, modules are imported
FRAMES = 121 * 768 * 512 * 3


def bare_shots_a_second(shots: int) -> float:
    """Ray by itself: 2 actor calls and 2 tasks a shot, small values, `shots` of them with as many under way."""

    @ray.remote(num_gpus=1, num_cpus=0)
    class Device:
        @ray.method(num_returns=2)
        def run(self, packed: bytes) -> tuple[bytes, None]:
            return packed, None

    made: Any = Device

    @ray.remote(num_cpus=1)
    def gate(packed: bytes) -> bytes:
        return packed

    async def story() -> float:
        devices, packed, room = [made.remote() for _ in range(DEVICES)], b"x" * 500, asyncio.Semaphore(DEVICES * LIVE)

        async def shot(n: int) -> None:
            async with room:
                for _ in range(2):
                    answer, _ = devices[n % DEVICES].run.remote(packed)
                    await answer
                    await gate.remote(packed)

        await asyncio.gather(*(shot(n) for n in range(WARM)))
        began = time.monotonic()
        await asyncio.gather(*(shot(n) for n in range(shots)))
        return shots / (time.monotonic() - began)

    with cluster(DEVICES):
        return asyncio.run(story())


def _hollow(story: Callable[[Pool, Catalog, Writer], Any], devices: int = DEVICES) -> Any:
    async def inside(info: Any, folder: str) -> Any:
        catalog = Catalog.open(folder)
        async with Pool(info) as pool, Writer(catalog) as writer:
            return await story(pool, catalog, writer)

    with tempfile.TemporaryDirectory(prefix="tower-hollow-") as folder, hollow_gates(), cluster(devices) as info:
        return asyncio.run(inside(info, folder))


@dataclass(frozen=True)
class Pace:
    """shots: a second. driver, all_of_it: processor milliseconds a shot, of the driver, and of every process of its Ray too."""

    shots: float
    driver: float
    all_of_it: float


def shots_a_second(shots: int) -> Pace:
    """Hollow shots through the whole driver, every take's row committed."""

    async def story(pool: Pool, catalog: Catalog, writer: Writer) -> Pace:
        work, ends = Work(shots, rejected=0.0, pace=0.0), list[Any]()
        specs = HollowSpecs(work)
        await live_hollow(Work(WARM, rejected=0.0, pace=0.0), specs, pool, catalog, writer, LIVE, ends.append)
        began, spent = time.monotonic(), _processor_seconds()
        await live_hollow(work, specs, pool, catalog, writer, LIVE, ends.append)
        seconds, spent_now = time.monotonic() - began, _processor_seconds()
        assert catalog.dataset("takes").count_rows() == 2 * (shots + WARM), "a row was lost"
        each = {pid: (now - spent.get(pid, 0.0)) * 1000 / shots for pid, now in spent_now.items()}
        return Pace(shots / seconds, each[os.getpid()], sum(each.values()))

    return _hollow(story)


def _processor_seconds() -> dict[int, float]:
    """Of this process and its Ray's, by process id."""
    spent = {}
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            spent[process.pid] = sum(process.cpu_times()[:2])
    return spent


def memory_growth(shots: int) -> int:
    """Bytes that the driver's resident memory grows by, from its 1,000th shot to its last."""

    async def story(pool: Pool, catalog: Catalog, writer: Writer) -> int:
        work, marks, count = Work(shots, rejected=0.0, pace=0.0), {}, 0

        def ended(_: Any) -> None:
            nonlocal count
            count += 1
            if count in (1000, shots):
                marks[count] = psutil.Process().memory_info().rss

        await live_hollow(work, HollowSpecs(work), pool, catalog, writer, LIVE, ended)
        return marks[shots] - marks[1000]

    return _hollow(story)


def spilled_bytes(shots: int) -> int:
    """What Ray wrote to the disk, with clips as large as LTX-Video's and devices faster than any."""

    async def story(pool: Pool, catalog: Catalog, writer: Writer) -> int:
        work = Work(shots, rejected=0.0, pace=0.05)
        specs = HollowSpecs(work, frames={"keyframe": 0, "clip": FRAMES})
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, pool.frame_bytes)
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        await live_hollow(work, specs, pool, catalog, writer, LIVE_PER_DEVICE, lambda _: None)
        watching.cancel()
        assert most >= FRAMES, "no frames were ever in flight"
        told = await asyncio.to_thread(memory_summary, ray.get_runtime_context().gcs_address, stats_only=True)
        found = re.search(r"Spilled (\d+) MiB", told)
        return int(found.group(1)) * 2**20 if found else 0

    return _hollow(story)

