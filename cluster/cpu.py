"""CPU tasks: sent, awaited, and sent again where a machine may have taken them along."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from .specs import DeviceLost, Stored, pack, unpack


@ray.remote
def cpu_task(packed: bytes, *values: Any) -> Any:
    """packed: a function, its arguments, `InStore` where they lie in the object store, and whether what it gives stays there too."""
    function, args, keeps = unpack(packed)
    result = function(*(values[a.value][a.index] if isinstance(a, InStore) else a for a in args))
    return (b"", result) if keeps else pack(result)


@dataclass(frozen=True)
class InStore:
    """Stands for an argument that lies in the object store."""

    value: int
    index: int


class CpuTasks:
    """Those of one driver that are under way."""

    def __init__(self) -> None:
        self.waiting: set[asyncio.Future[Any]] = set()

    async def run(self, function: Callable[..., Any], args: tuple[Any, ...], name: str) -> Any:
        """What the function gives.

        Raises:
            DeviceLost: the task, or what it needs, went with its machine. Else what the function raises.
        """
        packed, _ = await self._done(function, args, name, keeps=False)
        (value,) = unpack(packed)
        return value

    async def keep(self, function: Callable[..., Any], args: tuple[Any, ...], name: str) -> Stored:
        """Where what it gives lies, once it does. Raises as `run`."""
        _, kept = await self._done(function, args, name, keeps=True)
        return Stored(kept)

    def send_again(self) -> None:
        """A node is gone, and any task may have been there. Where a link was cut, Ray gives it up only when TCP does, minutes later.

        To do one twice harms nothing: what they store is named by its contents.
        """
        waiting, self.waiting = self.waiting, set()
        for answer in waiting:
            answer.cancel()

    async def _done(self, function: Callable[..., Any], args: tuple[Any, ...], name: str, keeps: bool) -> tuple[bytes, Any]:
        """Of a CPU task, which `send_again` may have sent once more: the first answer that is none of an error, and what it has kept."""
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
                    raise  # it was the caller who was cancelled
            except RayTaskError as error:
                if isinstance(error.cause, RayError):  # its argument was lost with the node that held it
                    raise DeviceLost(f"a CPU task's input was lost ({type(error.cause).__name__})") from error
                raise error.cause from None
            except RayError as error:
                raise DeviceLost(f"a CPU task was lost ({type(error).__name__})") from error
            finally:
                self.waiting.discard(waiting)


def _send(function: Callable[..., Any], args: tuple[Any, ...], name: str, keeps: bool) -> tuple[ray.ObjectRef, Any]:
    parts, places = [a for a in args if isinstance(a, Stored)], itertools.count()
    packed = pack(function, [InStore(next(places), a.index) if isinstance(a, Stored) else a for a in args], keeps)
    # `_remote`, since `options().remote()` makes a class for every call; it takes none of the decorator's options.
    # One more try for a worker that was lost; what crashes a decoder would crash it every time.
    told = {"num_cpus": 1, "max_retries": 1, "num_returns": 2 if keeps else 1, "name": name or None}
    sent = cpu_task._remote(args=(packed, *(part.ref for part in parts)), **told)
    return (sent[0], sent[1]) if keeps else (sent, None)


def _hear(call: asyncio.Future[Any]) -> None:
    """Nobody may wait for it any more, and then asyncio would complain of its error."""
    if not call.cancelled():
        call.exception()


async def _first(calls: Sequence[asyncio.Future[Any]]) -> Any:
    """The first answer that is none of an error; or the newest call's error: an older one may hang on a machine that was cut off."""
    pending = set(calls)
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        good = next((call for call in done if call.exception() is None), None)
        if good or calls[-1].done():
            return (good or calls[-1]).result()
