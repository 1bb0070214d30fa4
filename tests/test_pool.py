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

from cluster.pool import BREAKER, Pool
from cluster.specs import DeviceLost, ModelBroken, ModelSpec, NothingCanRun, PoolOptions, RequestFailed, Stopped, Stored
from cluster.start import ClusterError, ClusterInfo, cluster


@dataclass(frozen=True)
class Ask:
    number: int
    sleep: float = 0.0
    die: str = ""
    fail: str = ""
    extra: Any = None


FAULTS = {"arithmetic": ArithmeticError, "memory": MemoryError}


class Model:
    """Stands for a model: tells which process ran it, and with whom."""

    def __init__(self, name: str, memory_bytes: int | None = None):
        self.name, self.memory_bytes = name, memory_bytes

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
                raise FAULTS[ask.fail]("no picture today")
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
        async with Pool(info, PoolOptions(**options)) as pool:
            return await asyncio.wait_for(story(pool), 90)

    return asyncio.run(inside())


async def all_up(pool: Pool) -> list[int]:
    """Process ids, once every device is there."""
    while not all(post.up for post in pool.fleet.posts):  # noqa: ASYNC110 - the pool has no event for it
        await asyncio.sleep(0.05)
    return [post.pid for post in pool.fleet.posts]


def double(value: int) -> int:
    return value * 2


def broken_disk() -> None:
    raise OSError(28, "No space left on device")


def test_results_go_back_to_who_asked_and_by_reference_to_tasks(info):
    async def story(pool: Pool):
        async def one(n: int) -> tuple[int, int]:
            receipt, part = await pool.submit(ONE, Ask(n))
            assert receipt["number"] == n and isinstance(part, Stored)
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
        blockers = [pool.submit(ONE, Ask(n, sleep=0.5), priority=(9,)) for n in range(2)]
        stills = [pool.submit(STILLS, Ask(n), together="red" if n % 2 else "blue") for n in range(8)]
        return (await asyncio.gather(*blockers, *stills))[2:]

    receipts = [r for r, _ in run(info, story)]
    assert {r["batch"] for r in receipts} == {4}


def test_each_device_tells_what_it_executes_and_for_which_takes(info):
    @dataclass(frozen=True)
    class Made(Ask):
        take: str = ""

    model = ModelSpec("m", Model, ("m",), stage="clip", name="mine@1")

    async def story(pool: Pool):
        await all_up(pool)
        before = pool.stats().each
        asked = asyncio.gather(pool.submit(model, Made(1, sleep=1.0, take="E90/SH0010/clip/v001")), pool.submit(STILLS, Ask(2, sleep=1.0)))
        while pool.stats().busy < 2:  # noqa: ASYNC110 - the pool has no event for it
            await asyncio.sleep(0.01)
        during = pool.stats().each
        await asked
        return before, during, pool.stats().each

    before, during, after = run(info, story)
    assert [(d.up, d.doing, d.seconds) for d in (*before, *after)] == [(True, (), None)] * 4
    assert sorted(d.doing for d in during) == [(("clip mine@1", "E90/SH0010/clip/v001"),), (("stills", ""),)]
    assert all(d.up and d.seconds is not None and d.device.endswith(d.node) for d in during)


def test_later_stages_go_first(info):
    async def story(pool: Pool):
        await all_up(pool)
        await asyncio.gather(*(pool.submit(ONE, Ask(n, sleep=0.2)) for n in range(2)))
        first = [asyncio.create_task(pool.submit(ONE, Ask(n, sleep=0.3))) for n in range(2)]
        await asyncio.sleep(0.1)
        low = [pool.submit(ONE, Ask(10 + n, sleep=0.05), priority=(1,)) for n in range(4)]
        high = [pool.submit(ONE, Ask(20 + n, sleep=0.05), priority=(2,)) for n in range(4)]
        done = await asyncio.gather(*low, *high, *first)
        return sorted((r for r, _ in done), key=lambda r: r["at"])

    numbers = [r["number"] for r in run(info, story) if r["number"] >= 10]
    assert max(numbers.index(n) for n in (20, 21, 22, 23)) < max(numbers.index(n) for n in (10, 11, 12, 13))
    assert numbers[0] >= 20


def test_a_killed_device_is_replaced_and_only_its_own_request_is_told(info, tmp_path):
    async def story(pool: Pool):
        before = await all_up(pool)
        asks = [Ask(n, sleep=0.6 if n == 3 else 0.1, die=str(tmp_path / "died") if n == 3 else "") for n in range(8)]
        results = await asyncio.gather(*(pool.submit(ONE, a) for a in asks), return_exceptions=True)
        return before, await all_up(pool), results

    before, after, results = run(info, story)
    assert (tmp_path / "died").exists() and len(set(before) - set(after)) == 1
    assert [n for n, r in enumerate(results) if isinstance(r, DeviceLost)] == [3]
    assert [r[0]["number"] for r in results if isinstance(r, tuple)] == [0, 1, 2, 4, 5, 6, 7]


def test_what_waits_behind_a_dying_request_is_moved_and_not_blamed(info, tmp_path):
    """More waits than there are devices, so the next request lies on the device already when the one before it kills it."""

    async def story(pool: Pool):
        await all_up(pool)
        asks = [Ask(n, sleep=0.6 if n in (2, 5) else 0.1, die=str(tmp_path / "died") if n in (2, 5) else "") for n in range(16)]
        return await asyncio.gather(*(pool.submit(ONE, a, owner=a.number) for a in asks), return_exceptions=True)

    results = run(info, story)
    assert [n for n, r in enumerate(results) if isinstance(r, DeviceLost)] == [2, 5]
    assert not [r for r in results if isinstance(r, BaseException) and not isinstance(r, DeviceLost)]


def test_in_a_batch_only_the_one_that_kills_is_found(info, tmp_path):
    async def story(pool: Pool):
        asks = [Ask(n, sleep=0.2, die=str(tmp_path / "died") if n == 2 else "") for n in range(4)]
        return await asyncio.gather(*(pool.submit(STILLS, a, owner=a.number) for a in asks), return_exceptions=True)

    results = run(info, story)
    assert [n for n, r in enumerate(results) if isinstance(r, DeviceLost)] == [2]
    assert all(r[0]["batch"] == 1 for r in results if isinstance(r, tuple)), "after a death each of them runs by itself"


def test_a_device_that_died_while_it_was_idle_is_blamed_on_nobody(info):
    async def story(pool: Pool):
        for pid in await all_up(pool):
            os.kill(pid, signal.SIGKILL)
        return await asyncio.gather(*(pool.submit(ONE, Ask(n)) for n in range(4)))

    assert [r["number"] for r, _ in run(info, story)] == [0, 1, 2, 3]


def test_one_poisonous_shot_does_not_stop_its_model_for_others(info, tmp_path):
    async def story(pool: Pool):
        for _ in range(BREAKER + 1):
            with pytest.raises(DeviceLost):
                await pool.submit(ONE, Ask(1, sleep=0.6, die=str(tmp_path / "died")), owner="SH0010")
        return (await pool.submit(ONE, Ask(2), owner="SH0020"))[0]["number"]

    assert run(info, story) == 2


def test_a_call_that_hangs_is_ended_and_told(info):
    async def story(pool: Pool):
        with pytest.raises(DeviceLost, match="did not end in time"):
            await pool.submit(ONE, Ask(1, sleep=60))
        return (await pool.submit(ONE, Ask(2)))[0]["number"]

    assert run(info, story, call_seconds=10.0) == 2


def test_what_waits_behind_a_sick_device_is_moved(info):
    async def story(pool: Pool):
        await all_up(pool)
        asks = [Ask(n, sleep=0.2, fail="memory" if n == 1 else "") for n in range(12)]
        return await asyncio.gather(*(pool.submit(ONE, a, owner=a.number) for a in asks), return_exceptions=True)

    results = run(info, story)
    assert [n for n, r in enumerate(results) if isinstance(r, RequestFailed)] == [1]
    assert sum(isinstance(r, tuple) for r in results) == 11


def test_models_that_do_not_fit_together_take_turns_and_others_stay(info):
    """12 GB: two models of 5 GB stay together; one of 9 GB takes turns with them."""
    small, more, big = (ModelSpec(name, Model, (name, gb * 10**9), memory_bytes=gb * 10**9) for name, gb in (("small", 5), ("more", 5), ("big", 9)))

    async def story(pool: Pool):
        switches = []
        for spec in (small, more, small, more, big, small):
            await pool.submit(spec, Ask(1))
            switches.append(pool.stats().switches)
        return switches, pool.takes_turns([small, more]), pool.takes_turns([small, more, big])

    assert run(info, story, devices=1, device_memory={"": 12 * 10**9}) == ([0, 0, 0, 0, 2, 3], False, True)


def test_memory_that_was_measured_counts_more_than_what_was_told(info):
    liar, other = ModelSpec("liar", Model, ("liar", 11 * 10**9), memory_bytes=10**9), ModelSpec("other", Model, ("other", 10**9))

    async def story(pool: Pool):
        for spec in (liar, other, liar):
            await pool.submit(spec, Ask(1))
        return pool.stats().switches, pool.learned.memory["liar"]

    assert run(info, story, devices=1, device_memory={"": 11_500_000_000}) == (2, 11 * 10**9)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ModelSpec("huge", Model, ("huge",), memory_bytes=40 * 10**9, lighter="do with less"), ("huge needs a device with 40.0 GB", "device 0 on", "12.0 GB", "; do with less")),
        (ModelSpec("picky", Model, ("picky",), labels=(("ray.io/accelerator-type", "H100"),)), ("picky needs a device on a node with ray.io/accelerator-type=H100", "device 1 on")),
    ],
)  # fmt: skip
def test_work_that_nothing_can_ever_run_fails_within_seconds_and_says_why(info, spec, words):
    async def story(pool: Pool):
        await all_up(pool)
        with pytest.raises(NothingCanRun) as refused:
            await asyncio.wait_for(pool.submit(spec, Ask(1)), 15)
        return str(refused.value)

    told = run(info, story, device_memory={"": 12 * 10**9})
    assert all(word in told for word in words), told


def test_a_paused_pool_begins_nothing_and_goes_on(info):
    async def story(pool: Pool):
        running = asyncio.create_task(pool.submit(ONE, Ask(1, sleep=0.5)))
        await asyncio.sleep(0.2)
        pool.pause()
        waiting = asyncio.create_task(pool.submit(ONE, Ask(2)))
        await running
        await asyncio.sleep(0.5)
        assert not waiting.done() and pool.stats().paused and pool.stats().waiting == {"": 1}
        pool.resume()
        return (await waiting)[0]["number"]

    assert run(info, story) == 2


def test_a_stopped_pool_finishes_what_executes_and_begins_nothing(info):
    async def story(pool: Pool):
        tasks = [asyncio.create_task(pool.submit(ONE, Ask(n, sleep=0.5))) for n in range(8)]
        await asyncio.sleep(0.2)
        pool.stop()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(Stopped):
            await pool.submit(ONE, Ask(9))
        return results

    results = run(info, story)
    done = [r for r in results if isinstance(r, tuple)]
    assert 1 <= len(done) <= 4 and all(isinstance(r, Stopped) for r in results if not isinstance(r, tuple))


def test_large_results_wait_until_earlier_ones_are_judged(info):
    async def story(pool: Pool):
        await all_up(pool)
        clips = ModelSpec("clips", Model, ("clips",), result_bytes=int(pool.frame_cap / 2.5))
        tasks = [asyncio.create_task(pool.submit(clips, Ask(n))) for n in range(4)]
        first = await asyncio.gather(*tasks[:2])
        await asyncio.sleep(0.5)
        assert not tasks[2].done(), "two of these fill the room"
        for _, part in first:
            pool.release(part)
        for _, part in await asyncio.gather(*tasks[2:]):
            pool.release(part)
        return pool.frame_bytes

    assert run(info, story) == 0


def test_a_model_that_kills_every_device_is_refused(info, tmp_path):
    async def story(pool: Pool):
        for n in range(BREAKER):
            with pytest.raises(DeviceLost):
                await pool.submit(ONE, Ask(n, sleep=0.6, die=str(tmp_path / "died")), owner=n)
        with pytest.raises(ModelBroken, match=r"killed 3 devices in a row; the last one: .*(exit|connection)"):
            await pool.submit(ONE, Ask(9))
        receipt, _ = await pool.submit(STILLS, Ask(1))
        return receipt["model"]

    assert run(info, story) == "stills"


def test_a_model_that_raises_says_so_and_goes_on(info):
    async def story(pool: Pool):
        with pytest.raises(RequestFailed, match="no picture today") as failure:
            await pool.submit(ONE, Ask(1, fail="arithmetic"))
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
        return list(pool.queue)

    assert run(info, story) == []


def test_ray_inside_ray_is_refused(info):
    with pytest.raises(ClusterError, match="already running"), cluster():
        pass
