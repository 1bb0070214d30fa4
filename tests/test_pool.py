"""The pool, on real Ray and without any model."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.pool import BREAKER, DeviceLost, ModelBroken, ModelSpec, Part, Pool, RequestFailed
from cluster.start import ClusterError, ClusterInfo, cluster


@dataclass(frozen=True)
class Ask:
    number: int
    sleep: float = 0.0
    die: str = ""
    fail: bool = False
    extra: Any = None


class Model:
    """Stands for a model: tells which process ran it, and with whom."""

    def __init__(self, name: str):
        self.name = name

    def prepare(self, word: str) -> None:
        if word != "good":
            raise ValueError(f"{word} does not fit")

    def generate(self, asks: list[Ask]) -> tuple[list[dict[str, Any]], list[Any]]:
        for ask in asks:
            time.sleep(ask.sleep)
            if ask.die:
                Path(ask.die).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if ask.fail:
                raise ArithmeticError("no picture today")
        receipts = [{"number": a.number, "pid": os.getpid(), "batch": len(asks), "model": self.name, "at": time.time()} for a in asks]
        return receipts, [a.extra if a.extra is not None else a.number * 10 for a in asks]


ONE = ModelSpec("one", Model, ("one",))
STILLS = ModelSpec("stills", Model, ("stills",), batch_size=4)


@pytest.fixture(scope="module")
def info():
    with cluster(devices=2) as found:
        yield found


def run(info: ClusterInfo, story, **options) -> Any:
    async def inside() -> Any:
        async with Pool(info, **options) as pool:
            return await asyncio.wait_for(story(pool), 90)

    return asyncio.run(inside())


def double(value: int) -> int:
    return value * 2


def broken_disk() -> None:
    raise OSError(28, "No space left on device")


def test_results_go_back_to_who_asked_and_by_reference_to_tasks(info):
    async def story(pool: Pool):
        async def one(n: int) -> tuple[int, int]:
            receipt, part = await pool.submit(ONE, Ask(n))
            assert receipt["number"] == n and isinstance(part, Part)
            return n, await pool.cpu(double, part)

        return await asyncio.gather(*(one(n) for n in range(20)))

    assert run(info, story) == [(n, n * 20) for n in range(20)]


def test_values_reach_requests_without_passing_through_the_driver(info):
    async def story(pool: Pool):
        _, part = await pool.submit(ONE, Ask(7))
        _, filled = await pool.submit(ONE, Ask(1), {"extra": part})
        return await pool.cpu(double, filled)

    assert run(info, story) == 140


def test_stills_are_batched_and_only_with_their_like(info):
    async def story(pool: Pool):
        blockers = [pool.submit(ONE, Ask(n, sleep=0.5), priority=9) for n in range(2)]
        stills = [pool.submit(STILLS, Ask(n), together="red" if n % 2 else "blue") for n in range(8)]
        return (await asyncio.gather(*blockers, *stills))[2:]

    receipts = [r for r, _ in run(info, story)]
    assert {r["batch"] for r in receipts} == {4}


def test_later_stages_go_first(info):
    async def story(pool: Pool):
        await asyncio.gather(*(pool.submit(ONE, Ask(n, sleep=0.2)) for n in range(2)))
        first = [asyncio.create_task(pool.submit(ONE, Ask(n, sleep=0.3))) for n in range(2)]
        await asyncio.sleep(0.1)
        low = [pool.submit(ONE, Ask(10 + n, sleep=0.05), priority=1) for n in range(4)]
        high = [pool.submit(ONE, Ask(20 + n, sleep=0.05), priority=2) for n in range(4)]
        done = await asyncio.gather(*low, *high, *first)
        return sorted((r for r, _ in done), key=lambda r: r["at"])

    numbers = [r["number"] for r in run(info, story)][2:]
    assert max(numbers.index(n) for n in (20, 21, 22, 23)) < max(numbers.index(n) for n in (10, 11, 12, 13))
    assert numbers[0] >= 20


def test_a_killed_device_is_replaced_and_only_its_own_request_is_told(info, tmp_path):
    async def story(pool: Pool):
        before = await pool.pids()
        asks = [Ask(n, sleep=0.1, die=str(tmp_path / "died") if n == 3 else "") for n in range(8)]
        results = await asyncio.gather(*(pool.submit(ONE, a) for a in asks), return_exceptions=True)
        return before, await pool.pids(), results

    before, after, results = run(info, story)
    assert (tmp_path / "died").exists() and len(set(before) - set(after)) == 1
    assert [n for n, r in enumerate(results) if isinstance(r, DeviceLost)] == [3]
    assert [r[0]["number"] for r in results if isinstance(r, tuple)] == [0, 1, 2, 4, 5, 6, 7]


def test_a_model_that_kills_every_device_is_refused(info, tmp_path):
    async def story(pool: Pool):
        for n in range(BREAKER):
            with pytest.raises(DeviceLost):
                await pool.submit(ONE, Ask(n, die=str(tmp_path / "died")))
        with pytest.raises(ModelBroken, match="killed 3 devices"):
            await pool.submit(ONE, Ask(9))
        receipt, _ = await pool.submit(STILLS, Ask(1))
        return receipt["model"]

    assert run(info, story) == "stills"


def test_a_model_that_raises_says_so_and_goes_on(info):
    async def story(pool: Pool):
        with pytest.raises(RequestFailed, match="no picture today") as failure:
            await pool.submit(ONE, Ask(1, fail=True))
        assert failure.value.kind == "ArithmeticError"
        return (await pool.submit(ONE, Ask(2)))[0]["number"]

    assert run(info, story) == 2


def test_prepare_finds_a_bad_file_before_any_request(info):
    async def story(pool: Pool):
        await pool.prepare(ONE, ("good",))
        with pytest.raises(RequestFailed, match="bad does not fit"):
            await pool.prepare(ONE, ("bad",))

    run(info, story)


def test_with_one_resident_model_stages_take_turns(info):
    """A 12 GB card: work for the model that is loaded goes first, so models are not swapped for every request."""

    async def story(pool: Pool):
        asks = [pool.submit((ONE, STILLS)[n % 2], Ask(n, sleep=0.02), together=n) for n in range(24)]
        return sorted((r for r, _ in await asyncio.gather(*asks)), key=lambda r: r["at"])

    order: dict[int, list[str]] = {}
    for receipt in run(info, story, resident=1):
        order.setdefault(receipt["pid"], []).append(receipt["model"])
    for models in order.values():
        assert sum(a != b for a, b in itertools.pairwise(models)) <= 2, models


def test_a_tasks_own_error_arrives_as_itself(info):
    async def story(pool: Pool):
        with pytest.raises(OSError) as full:
            await pool.cpu(broken_disk)
        return full.value.errno

    assert run(info, story) == 28


def test_a_cpu_task_that_crashes_its_worker_is_told_and_the_next_one_runs(info):
    async def story(pool: Pool):
        with pytest.raises(DeviceLost, match="CPU task was lost"):
            await pool.cpu(os.abort)
        return await pool.cpu(double, 21)

    assert run(info, story) == 42


def test_gates_run_while_every_device_is_busy(info):
    """Devices hold no CPU: with two devices on two cores, CPU tasks must not wait for them."""

    async def story(pool: Pool):
        busy = [asyncio.create_task(pool.submit(ONE, Ask(n, sleep=6))) for n in range(2)]
        await asyncio.sleep(0.5)
        answer = await asyncio.wait_for(pool.cpu(double, 21), 5)
        assert not any(b.done() for b in busy)
        await asyncio.gather(*busy)
        return answer

    assert run(info, story) == 42


def test_a_cancelled_request_leaves_the_queue(info):
    async def story(pool: Pool):
        busy = [asyncio.create_task(pool.submit(ONE, Ask(n, sleep=0.5))) for n in range(2)]
        await asyncio.sleep(0.1)
        unwanted = asyncio.create_task(pool.submit(ONE, Ask(5)))
        await asyncio.sleep(0.1)
        unwanted.cancel()
        await asyncio.gather(*busy, unwanted, return_exceptions=True)
        return pool.waiting

    assert run(info, story) == []


def test_ray_inside_ray_is_refused(info):
    with pytest.raises(ClusterError, match="already running"), cluster():
        pass
