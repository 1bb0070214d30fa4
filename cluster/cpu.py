"""CPU tasks: sends them, waits for them, and sends them again when their node may be lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from .specs import DeviceLost, Stored, pack, unpack

TRIES = 3  # of a task in `run_all`


@ray.remote
def cpu_task(packed: bytes, *values: Any) -> Any:
    """Run a function on a worker.

    Args:
        packed: (function, its arguments, keeps). Arguments from the object store are `InStore`. keeps: whether the result
            stays in the object store.
        values: lists that Ray fetches from the object store for the `InStore` arguments.
    """
    function, args, keeps = unpack(packed)
    result = function(*(values[a.value][a.index] if isinstance(a, InStore) else a for a in args))
    return (b"", result) if keeps else pack(result)


@dataclass(frozen=True)
class InStore:
    """Placeholder for an argument from the object store: item `index` of the list at position `value` among `values`."""

    value: int
    index: int


class CpuTasks:
    """The CPU tasks of one driver that have not ended."""

    def __init__(self) -> None:
        self.waiting: set[asyncio.Future[Any]] = set()

    async def run(self, function: Callable[..., Any], args: tuple[Any, ...], name: str) -> Any:
        """Run the function as a CPU task and return its result.

        Args:
            args: a `Stored` argument reaches the function as its value. name: of the task in Ray's dashboard.

        Raises:
            DeviceLost: the task or an argument was lost with its node. Exceptions of the function are raised as they are.
        """
        packed, _ = await self._done(function, args, name, keeps=False)
        (value,) = unpack(packed)
        return value

    async def keep(self, function: Callable[..., Any], args: tuple[Any, ...], name: str) -> Stored:
        """Run the function as a CPU task and leave its result in the object store. Returns a reference to it. Raises as `run`."""
        _, kept = await self._done(function, args, name, keeps=True)
        return Stored(kept)

    def send_again(self) -> None:
        """Send all tasks once more, because a node is gone and any task may have been there.

        Where a network link was cut, Ray gives a task up only when TCP does, minutes later. Running a task twice does no
        harm: files that tasks store are named by their contents.
        """
        waiting, self.waiting = self.waiting, set()
        for wait in waiting:
            wait.cancel()

    async def _done(self, function: Callable[..., Any], args: tuple[Any, ...], name: str, keeps: bool) -> tuple[bytes, Any]:
        """Send a CPU task, and send it once more each time `send_again` is called.

        Returns the packed result of the first call that succeeds, and the reference to what that call keeps in the object store.
        """
        calls: dict[asyncio.Future[bytes], Any] = {}
        while True:
            answer, kept = _send(function, args, name, keeps)
            calls[call := asyncio.wrap_future(answer.future())] = kept
            call.add_done_callback(_hear)
            waiting: asyncio.Future[Any] = asyncio.shield(call) if len(calls) == 1 else asyncio.ensure_future(_first([*calls]))
            self.waiting.add(waiting)
            try:
                await waiting
                return next((c.result(), kept) for c, kept in calls.items() if c.done() and c.exception() is None)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if waiting in self.waiting or (task and task.cancelling()):
                    raise  # the caller was cancelled; `send_again` cancels only the wait
            except RayTaskError as error:
                if isinstance(error.cause, RayError):  # an argument was lost with the node that held it
                    raise DeviceLost(f"a CPU task's input was lost ({type(error.cause).__name__})") from error
                raise error.cause from None
            except RayError as error:
                raise DeviceLost(f"a CPU task was lost ({type(error).__name__})") from error
            finally:
                self.waiting.discard(waiting)


async def run_all(calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]], name: str, at_once: int, done: Callable[[], None]) -> None:
    """Run many CPU tasks, such that each is run again where its node is lost, TRIES times at most.

    Args:
        calls: functions and their arguments. at_once: how many are sent at a time. done: is called as each ends.

    Raises:
        DeviceLost: a task was lost with its node again and again. The first exception of a function is raised as it is.
    """
    tasks, places = CpuTasks(), asyncio.Semaphore(at_once)

    async def one(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        async with places:
            for left in reversed(range(TRIES)):
                try:
                    await tasks.run(function, args, name)
                    return done()
                except DeviceLost:
                    if not left:
                        raise

    try:
        async with asyncio.TaskGroup() as group:
            for function, args in calls:
                group.create_task(one(function, args))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _send(function: Callable[..., Any], args: tuple[Any, ...], name: str, keeps: bool) -> tuple[ray.ObjectRef, Any]:
    parts, positions = [a for a in args if isinstance(a, Stored)], itertools.count()
    packed = pack(function, [InStore(next(positions), a.index) if isinstance(a, Stored) else a for a in args], keeps)
    # `_remote` is called because `options().remote()` makes a class for every call. It ignores the decorator's options.
    # max_retries=1: a task may lose its worker once. A file that crashes the decoder would crash it at every retry.
    options = {"num_cpus": 1, "max_retries": 1, "num_returns": 2 if keeps else 1, "name": name or None}
    sent = cpu_task._remote(args=(packed, *(part.ref for part in parts)), **options)
    return (sent[0], sent[1]) if keeps else (sent, None)


def _hear(call: asyncio.Future[Any]) -> None:
    """Retrieve a call's exception: if nobody waits for the call any more, asyncio would log the exception as never retrieved."""
    if not call.cancelled():
        call.exception()


async def _first(calls: Sequence[asyncio.Future[Any]]) -> Any:
    """Result of the first call that succeeds. If the newest call fails first, its error is raised.

    Older calls are not waited for then, because they may hang on a machine that was cut off.
    """
    pending = set(calls)
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        good = next((call for call in done if call.exception() is None), None)
        if good or calls[-1].done():
            return (good or calls[-1]).result()
