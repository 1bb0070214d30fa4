"""Nodes that join, leave, differ and fall silent: several raylets on this machine, on loopback."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster

from cluster.nodes import ACCELERATOR, nodes
from cluster.pool import Pool
from cluster.specs import DeviceLost, ModelSpec, NothingCanRun, PoolOptions
from cluster.start import ClusterInfo

from .test_pool import ONE, Ask

HEAD = "127.0.0.2"  # loopback, but not the address that Ray takes for this machine's own and replaces
INFO = ClusterInfo(0, 2, True, "", 1)


HEALTH = {"health_check_period_ms": 500, "health_check_timeout_ms": 1500, "health_check_failure_threshold": 3}  # Ray's own: 65 s


@dataclass
class Machines:
    """A cluster whose head has CPUs only; nodes with GPUs are added by tests."""

    cluster: Any
    numbers: Any = field(default_factory=lambda: itertools.count(3))

    def add(self, gpus: int = 1, accelerator: str = "", cpus: int = 1) -> Any:
        labels = {ACCELERATOR: accelerator} if accelerator else {}
        address = f"127.0.0.{next(self.numbers)}"
        return self.cluster.add_node(num_cpus=cpus, num_gpus=gpus, labels=labels, node_ip_address=address, object_store_memory=100 * 2**20)

    def drain(self, node: Any, seconds: float) -> None:
        """What a cloud's notice of preemption becomes in Ray."""
        ok, why = GcsClient(address=self.cluster.address).drain_node(node.node_id, 2, "spot notice", int((time.time() + seconds) * 1000))
        assert ok, why

    def silence(self, node: Any) -> list[psutil.Process]:
        """Nobody there answers any more, and no connection breaks: a cut link. Gives what must be ended in the end."""
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        mute = [raylet, *raylet.children(recursive=True)]
        for process in mute:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        return mute


@pytest.fixture(scope="module")
def cluster():
    head = {"num_cpus": 2, "num_gpus": 0, "node_ip_address": HEAD, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head | {"_system_config": HEALTH})
    os.environ.pop("RAY_ADDRESS", None)
    ray.init(address=cluster.address, _node_ip_address=HEAD, log_to_driver=False, logging_level="ERROR")
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def machines(cluster):
    try:
        yield Machines(cluster)
    finally:
        for node in list(cluster.worker_nodes):
            cluster.remove_node(node, allow_graceful=False)


def run(story: Any, **options: Any) -> Any:
    async def inside() -> Any:
        async with Pool(INFO, PoolOptions(**options)) as pool:
            return await asyncio.wait_for(story(pool), 120)

    return asyncio.run(inside())


async def until(what: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.1)


def test_nodes_that_join_are_used_and_one_that_leaves_costs_only_what_ran_on_it(machines):
    first = machines.add()

    async def story(pool: Pool) -> Any:
        asks = [asyncio.create_task(pool.submit(ONE, Ask(n, sleep=0.25), owner=n)) for n in range(80)]
        await until(lambda: pool.stats().busy == 1)
        machines.add()  # Ray sets a signal handler, so not in a thread
        await until(lambda: pool.stats().busy == 2)
        begun = [t.done() for t in asks].count(True)
        await asyncio.to_thread(machines.cluster.remove_node, first, False)
        results = await asyncio.gather(*asks, return_exceptions=True)
        return begun, results, [p.node.id for p in pool.fleet.posts]

    begun, results, left = run(story)
    assert begun < 70
    assert [r[0]["number"] for r in results] == list(range(80)), "what ran there was moved, and nobody was told"
    assert len(left) == 1 and left != [first.node_id]


def test_a_notice_of_preemption_lets_what_runs_end_and_begins_nothing_there(machines):
    spot, _ = machines.add(), machines.add()

    async def story(pool: Pool) -> Any:
        await until(lambda: pool.stats().devices == 2)
        there = {p.node.id: p.pid for p in pool.fleet.posts}
        asks = [asyncio.create_task(pool.submit(ONE, Ask(n, sleep=0.4))) for n in range(24)]
        await until(lambda: pool.stats().busy == 2)
        await asyncio.to_thread(machines.drain, spot, 60)
        await until(lambda: pool.stats().devices == 1)
        told = time.time()
        receipts = [r for r, _ in await asyncio.gather(*asks)]
        return told, [r["at"] for r in receipts if r["pid"] == there[spot.node_id]], receipts, pool.fleet.restarts

    told, there, receipts, restarts = run(story)
    assert len(receipts) == 24 and there and max(there) <= told and restarts == 0


def test_work_goes_where_its_labels_say(machines):
    machines.add(accelerator="H100")
    machines.add(accelerator="L4")
    clips = ModelSpec("clips", ONE.factory, ("clips",), labels=((ACCELERATOR, "in(H100,H200)"),))

    async def story(pool: Pool) -> Any:
        await until(lambda: pool.stats().devices == 2)
        pids = {p.node.accelerator: p.pid for p in pool.fleet.posts}
        made = await asyncio.gather(*(pool.submit((clips, ONE)[n % 2], Ask(n, sleep=0.1), priority=(1 - n % 2,)) for n in range(20)))
        with pytest.raises(NothingCanRun, match="clips needs a device on a node with"):
            h100 = next(n for n in machines.cluster.worker_nodes if n.node_id in {x.id for x in nodes() if x.accelerator == "H100"})
            await asyncio.to_thread(machines.cluster.remove_node, h100, True)
            await asyncio.gather(*(pool.submit(clips, Ask(n)) for n in range(2)))
        return pids, [(r["model"], r["pid"]) for r, _ in made]

    pids, made = run(story)
    assert {pid for model, pid in made if model == "clips"} == {pids["H100"]}
    assert pids["L4"] in {pid for model, pid in made if model == "one"}


LARGE = 1_000_000  # bytes: more than Ray sends along with an answer, so they stay where they were made
GO = "go"  # name of the file that lets the CPU tasks of a test end


def make(folder: Path, name: str) -> str:
    """A CPU task that tells where it began, and ends when it may."""
    (folder / f"{name} {os.getpid()}").touch()
    end = time.monotonic() + 120
    while not (folder / GO).exists() and time.monotonic() < end:
        time.sleep(0.05)
    return name


def judge(_: bytes, folder: Path, name: str) -> str:
    return make(folder, name)


async def made(pool: Pool, folder: Path, number: int) -> str:
    """Answer of a task that needs nothing."""
    return await pool.cpu(make, folder, str(number))


async def judged(pool: Pool, folder: Path, number: int) -> str:
    """Answer of a task that needs frames, which lie where a device has made them; "lost" where they went with the machine."""
    _, frames = await pool.submit(ONE, Ask(number, extra=bytes(LARGE)))
    try:
        return await pool.cpu(judge, frames, folder, str(number))
    except DeviceLost:
        return "lost"


@pytest.mark.parametrize("answer", [made, judged])
def test_cpu_tasks_on_a_machine_that_falls_silent_are_run_elsewhere(machines, tmp_path, answer):
    machines.add()
    cut = machines.add(cpus=2)
    mute: list[psutil.Process] = []
    raylet = psutil.Process(cut.all_processes["raylet"][0].process.pid)

    def there() -> set[str]:
        pids = {p.pid for p in raylet.children(recursive=True)}
        return {name for name, pid in (file.name.split() for file in tmp_path.iterdir()) if int(pid) in pids}

    async def story(pool: Pool) -> Any:
        await until(lambda: pool.stats().devices == 2)
        asks = [asyncio.create_task(answer(pool, tmp_path, n)) for n in range(12)]  # more than there are CPUs, so all machines get some
        await until(there)
        begun = there()
        mute.extend(machines.silence(cut))
        (tmp_path / GO).touch()
        return begun, await asyncio.gather(*asks)

    try:
        begun, answers = run(story)
    finally:
        for process in mute:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    assert begun, "the machine was not at any task when it fell silent"
    assert all(a in (str(n), "lost") for n, a in enumerate(answers)), answers
    assert answers.count("lost") < (12 if answer is judged else 1), "frames that lay elsewhere were judged"
