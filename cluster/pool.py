"""The pool: one actor pinned to each device, holding models, fed with requests.

This is the one place where devices become Ray actors. An actor runs one call at a time; the pool
chooses what that is: work whose model is already on the device first, then later stages first. Stills
are batched across whoever waits. A device that dies is replaced, and only the requests that were
executing on it are told.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from .start import ClusterError, ClusterInfo

START_SECONDS = 120  # for an actor to answer; longer means that nothing can run it
BREAKER = 3  # devices that a model may kill in a row, without one success, before it is refused


class DeviceLost(RuntimeError):
    """The device died while it was executing this request."""


class RequestFailed(RuntimeError):
    """The model raised. `kind` is the exception's class name."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


class ModelBroken(RuntimeError):
    """This model killed every device that ran it; nothing more is sent to it."""


@dataclass(frozen=True)
class ModelSpec:
    """A model as the pool knows it: how to build it, and how many requests it takes at once.

    factory(*args) must give an object with `generate(requests) -> (receipts, results)`, lists of one each.
    """

    key: str
    factory: Callable[..., Any]
    args: tuple[Any, ...]
    batch_size: int = 1


@dataclass(frozen=True)
class Part:
    """One item of a list that lies in the object store. The driver holds this, never the value."""

    ref: ray.ObjectRef
    index: int = 0


class Device:
    """The Ray actor: holds models, least recently used out first where only some may stay."""

    def __init__(self, threads: int, resident: int | None):
        if threads:  # before any model imports torch: logical devices share the machine's cores
            os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
        self.models: OrderedDict[str, Any] = OrderedDict()
        self.resident = resident

    def pid(self) -> int:
        return os.getpid()

    def prepare(self, spec: ModelSpec, *calls: tuple[Any, ...]) -> tuple[tuple[str, str] | None, list[str]]:
        """Build the model, and call its `prepare` with each of `calls`. What went wrong, or None; and what is resident."""
        try:
            model = self._model(spec)
            for args in calls:
                model.prepare(*args)
        except Exception as error:  # noqa: BLE001 - travels as data: not every exception survives pickling
            return (type(error).__name__, str(error)), list(self.models)
        return None, list(self.models)

    @ray.method(num_returns=2)
    def run(self, spec: ModelSpec, requests: list[Any], slots: list[tuple[int, str, int]], *values: Any) -> tuple[Any, Any]:
        """Fill each request's slots with items of the resolved values, and generate."""
        try:
            filled: list[dict[str, Any]] = [{} for _ in requests]
            for (request, name, index), value in zip(slots, values, strict=True):
                filled[request][name] = value[index]
            complete = [replace(r, **f) if f else r for r, f in zip(requests, filled, strict=True)]
            receipts, results = self._model(spec).generate(complete)
            if not len(receipts) == len(results) == len(requests):
                raise ValueError(f"{spec.key} gave {len(results)} results for {len(requests)} requests")
            return ("done", receipts, list(self.models)), results
        except Exception as error:  # noqa: BLE001 - as above
            return ("failed", (type(error).__name__, str(error)), list(self.models)), None

    def _model(self, spec: ModelSpec) -> Any:
        if spec.key not in self.models:
            while self.resident and len(self.models) >= self.resident:
                self.models.popitem(last=False)
                _release_memory()
            self.models[spec.key] = spec.factory(*spec.args)
        self.models.move_to_end(spec.key)
        return self.models[spec.key]


def _release_memory() -> None:
    import gc
    import sys

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


# One more try for a worker that was lost; what crashes a decoder would crash it every time.
@ray.remote(num_cpus=1, max_retries=1)
def _task(function: Callable[..., Any], indices: list[int | None], *values: Any) -> Any:
    return function(*(v if i is None else v[i] for v, i in zip(values, indices, strict=True)))


@dataclass
class _Slot:
    """A device's place in the pool: the place stays, its actor may be replaced."""

    number: int
    actor: Any = None
    resident: set[str] = field(default_factory=set)


@dataclass
class _Waiting:
    spec: ModelSpec
    request: Any
    parts: dict[str, Part]
    together: Hashable
    order: tuple[int, int]
    result: asyncio.Future[tuple[Any, Part]]


class Pool:
    """Use as an async context manager, inside `cluster()`.

    Args:
        info: what `cluster()` gave.
        resident: how many models a device may hold at once; None is all of them, 1 suits a small card.
    """

    def __init__(self, info: ClusterInfo, resident: int | None = None):
        self.info, self.resident = info, resident
        self.slots = [_Slot(n) for n in range(info.devices)]
        self.waiting: list[_Waiting] = []
        self.changed = asyncio.Condition()
        self.deaths: Counter[str] = Counter()
        self.count = itertools.count()
        self.servers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Pool:
        for slot in self.slots:
            self._start(slot)
        try:
            # Actor creation that never ends is the silent hang that users report most; bound it.
            await asyncio.wait_for(asyncio.gather(*(self._pid(s) for s in self.slots)), timeout=START_SECONDS)
        except (TimeoutError, RayError) as error:
            self._kill()
            raise ClusterError(f"the devices did not start within {START_SECONDS} s ({type(error).__name__})") from error
        self.servers = [asyncio.create_task(self._serve(slot)) for slot in self.slots]
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self.servers:
            server.cancel()
        await asyncio.gather(*self.servers, return_exceptions=True)
        self._kill()

    async def pids(self) -> list[int]:
        """Process ids of the devices, in order."""
        return list(await asyncio.gather(*(self._pid(s) for s in self.slots)))

    async def _pid(self, slot: _Slot) -> int:
        return await slot.actor.pid.remote()

    async def prepare(self, spec: ModelSpec, *calls: tuple[Any, ...]) -> None:
        """Build a model on the first device, so that a bad file is an error before anything renders."""
        try:
            wrong, resident = await self.slots[0].actor.prepare.remote(spec, *calls)
        except RayError as error:
            raise ModelBroken(f"{spec.key}: the device died while it was loading; it may need more memory than there is") from error
        if wrong:
            raise RequestFailed(*wrong)
        self.slots[0].resident = set(resident)

    async def submit(
        self, spec: ModelSpec, request: Any, parts: dict[str, Part] | None = None, priority: int = 0, together: Hashable = None
    ) -> tuple[Any, Part]:
        """Run one request on some device; gives its receipt and where its result lies.

        Args:
            parts: values for fields of the request that lie in the object store.
            priority: higher first.
            together: only requests with equal values may share a batch.

        Raises:
            DeviceLost, RequestFailed, ModelBroken.
        """
        if not self.slots:
            raise ModelBroken("no device is left, and none could be started in its place")
        if self.deaths[spec.key] >= BREAKER:
            raise ModelBroken(f"{spec.key} killed {BREAKER} devices in a row; it may need more memory than a device has")
        item = _Waiting(spec, request, parts or {}, together, (-priority, next(self.count)), asyncio.get_running_loop().create_future())
        async with self.changed:
            self.waiting.append(item)
            self.waiting.sort(key=lambda w: w.order)
            self.changed.notify_all()
        try:
            return await item.result
        finally:
            if item in self.waiting:  # the caller was cancelled
                self.waiting.remove(item)

    async def cpu(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function as a CPU task; `Part` arguments arrive as their values. Its exceptions are raised here."""
        try:
            return await self.cpu_part(function, *args).ref
        except RayTaskError as error:
            if isinstance(error.cause, RayError):  # its argument was lost with the node that held it
                raise DeviceLost(f"a CPU task's input was lost ({type(error.cause).__name__})") from error
            raise error.cause from None
        except RayError as error:
            raise DeviceLost(f"a CPU task was lost ({type(error).__name__})") from error

    def cpu_part(self, function: Callable[..., Any], *args: Any) -> Part:
        """Like `cpu`, but leaves the value in the object store. The function must return a list to be indexed."""
        indices = [a.index if isinstance(a, Part) else None for a in args]
        return Part(_task.remote(function, indices, *(a.ref if isinstance(a, Part) else a for a in args)))

    async def _serve(self, slot: _Slot) -> None:
        """Feed one device for ever. Whatever goes wrong, the batch hears of it: nobody may wait for nothing."""
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda: self.waiting)
                batch = self._choose(slot)
            try:
                await self._execute(slot, batch)
            except Exception as error:  # noqa: BLE001 - handed to everyone in the batch
                self._fail(batch, RequestFailed(type(error).__name__, str(error)))
            finally:
                self._fail(batch, DeviceLost(f"device {slot.number} stopped"))  # no one is left waiting
            if slot.actor is None and not await self._revive(slot):
                return

    async def _revive(self, slot: _Slot) -> bool:
        """A new actor in a dead one's place, proven to be alive before it is given work."""
        self._start(slot)
        try:
            await asyncio.wait_for(self._pid(slot), START_SECONDS)
            return True
        except (TimeoutError, RayError):
            self.slots.remove(slot)
        if not self.slots:
            self._fail(self.waiting, ModelBroken("no device is left, and none could be started in its place"))
            self.waiting.clear()
        return False

    def _choose(self, slot: _Slot) -> list[_Waiting]:
        """Take the next batch out of the queue: resident models first, then by priority and age."""
        first = next((w for w in self.waiting if w.spec.key in slot.resident), self.waiting[0])
        batch = [w for w in self.waiting if w.spec.key == first.spec.key and w.together == first.together][: first.spec.batch_size]
        for item in batch:
            self.waiting.remove(item)
        return batch

    async def _execute(self, slot: _Slot, batch: list[_Waiting]) -> None:
        spec = batch[0].spec
        places = [(i, name, part.index) for i, w in enumerate(batch) for name, part in w.parts.items()]
        refs = [part.ref for w in batch for part in w.parts.values()]
        try:
            answer, results = slot.actor.run.remote(spec, [w.request for w in batch], places, *refs)
            state, rest, resident = await answer
        except RayTaskError as error:  # an input could not be made, or was lost; the actor's own errors come as data
            lost = isinstance(error.cause, RayError)
            self._fail(batch, DeviceLost(f"an input of {spec.key} was lost ({type(error.cause).__name__})") if lost else error.cause)
            return
        except RayError as error:
            self.deaths[spec.key] += 1
            self._fail(batch, DeviceLost(f"device {slot.number} died while it ran {spec.key} ({type(error).__name__})"))
            slot.actor, slot.resident = None, set()
            return
        slot.resident = set(resident)
        if state == "failed":
            self._fail(batch, RequestFailed(*rest))
            if self._is_sick(rest[0]):  # its next call would fail too, and faster than healthy devices work
                ray.kill(slot.actor)
                slot.actor, slot.resident = None, set()
            return
        self.deaths[spec.key] = 0
        for i, (item, receipt) in enumerate(zip(batch, rest, strict=True)):
            if not item.result.done():
                item.result.set_result((receipt, Part(results, i)))

    @staticmethod
    def _is_sick(kind: str) -> bool:
        """After an error of the accelerator, or when memory ran out, the process is not to be trusted."""
        return kind in ("AcceleratorError", "OutOfMemoryError", "MemoryError")

    def _fail(self, batch: list[_Waiting], error: Exception) -> None:
        for item in batch:
            if not item.result.done():
                item.result.set_exception(error)

    def _start(self, slot: _Slot) -> None:
        # num_cpus=0: a device that held a CPU for life would starve the gates on a small machine.
        # max_restarts=0: Ray would send a retry to the same, perhaps broken, place and blame the wrong take.
        options = {"num_gpus": 1, "num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 1}
        slot.actor = ray.remote(Device).options(**options).remote(self.info.threads_per_device, self.resident)
        slot.resident = set()

    def _kill(self) -> None:
        for slot in self.slots:
            if slot.actor is not None:
                ray.kill(slot.actor)
