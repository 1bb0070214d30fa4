"""Chooses the work that a device does next. The module has no Ray, no clock and no waiting.

One rule serves everything from a 12 GB card to a rack. A device first takes work whose model it holds, or whose model
fits beside the models that it holds; later stages go before earlier ones. On large cards all models therefore stay
resident. On a small card the stages take turns: the keyframe model stays for as long as keyframe requests wait.

A device evicts a model for another one in two cases:
- No work that fits is waiting, and loading the other model here takes no longer than waiting for the devices that hold it.
- Work for a model that no device holds has been passed over more than PATIENCE times.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .nodes import Node
from .specs import ModelSpec, Stored

PATIENCE = 256  # batches that a device may run while work for a model that no device holds is waiting


@dataclass(eq=False)
class Request:
    """One call of a model, from the time it is asked for until its future `result` is settled.

    work: the model's request. parts: field of `work` to its value in the object store; the device fills these fields.
    together: only requests with equal values may share a batch.
    owner: whom the pool blames if the request kills a device.
    order: requests with smaller values go first.
    calls: arguments for the model's `prepare`, one tuple a call; None where the model is to generate.
    alone: the request gets a batch for itself with nothing queued behind it, so that the next death of a device has one cause.
    moved: how many times the pool moved the request to another device, because its device was lost through no fault of its own.
    waits: the request is in the queue.
    """

    spec: ModelSpec
    work: Any
    parts: dict[str, Stored]
    together: Hashable
    owner: Hashable
    order: tuple[int, ...]
    result: asyncio.Future[Any]
    calls: tuple[Any, ...] | None = None
    alone: bool = False
    moved: int = 0
    waits: bool = False

    @property
    def title(self) -> str:
        """Name of the call in Ray's dashboard; requests of one batch share it."""
        return self.spec.title if self.calls is None else f"load {self.spec.title}"

    @property
    def take(self) -> str:
        """Id of the take that the request is for; "" for a text and for loading a model."""
        return getattr(self.work, "take", "")

    def __lt__(self, other: Request) -> bool:
        return self.order < other.order


class Queue:
    """Waiting requests: one lane for each model's key, sorted by `order`."""

    def __init__(self) -> None:
        self.lanes: dict[str, list[Request]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.lanes.values()))

    def __iter__(self) -> Iterator[Request]:
        return (request for lane in self.lanes.values() for request in lane)

    def push(self, request: Request) -> None:
        request.waits = True
        insort(self.lanes.setdefault(request.spec.key, []), request)

    def remove(self, request: Request) -> None:
        request.waits = False
        lane = self.lanes[request.spec.key]
        lane.remove(request)
        if not lane:
            del self.lanes[request.spec.key]

    def take(self, key: str) -> list[Request]:
        """Remove and return the first request of a model's lane, and the requests that may share its batch."""
        first = self.lanes[key][0]
        batch = [first]
        if first.spec.batch_size > 1 and not first.alone and first.calls is None:
            like = (r for r in self.lanes[key][1:] if r.together == first.together and not r.alone and r.calls is None)
            batch += [r for r, _ in zip(like, range(first.spec.batch_size - 1), strict=False)]
        for request in batch:
            self.remove(request)
        return batch

    def clear(self) -> list[Request]:
        all_of_them = list(self)
        for request in all_of_them:
            request.waits = False
        self.lanes.clear()
        return all_of_them


@dataclass(eq=False)
class Seat:
    """A device's place in the pool. The seat stays when its actor is replaced.

    most: most models that may be resident at once; None for no limit.
    memory: bytes that models may take; None for no limit.
    resident: key of each model on the device to the bytes that it needs, least recently used first.
    passed_over: batches that ran here while work for a model that no device holds was waiting.
    """

    number: int
    node: Node
    most: int | None = None
    memory: int | None = None
    resident: OrderedDict[str, int] = field(default_factory=OrderedDict)
    passed_over: int = 0

    def could_ever(self, spec: ModelSpec, need: int) -> bool:
        """Whether this device could run the model if it held no other. need: bytes."""
        return self.node.suits(spec.labels) and (self.memory is None or need <= self.memory)

    def evictions(self, key: str, need: int) -> list[str]:
        """Keys of the models to evict before this model may run: the least recently used ones, until there is room. need: bytes."""
        kept = OrderedDict((k, n) for k, n in self.resident.items() if k != key)
        evicted = []
        while kept and self._is_full(len(kept) + 1, sum(kept.values()) + need):
            evicted.append(kept.popitem(last=False)[0])
        return evicted

    def _is_full(self, models: int, bytes_: int) -> bool:
        return (self.most is not None and models > self.most) or (self.memory is not None and bytes_ > self.memory)

    def place(self, key: str, need: int, gone: Iterable[str]) -> None:
        """Record that the device holds this model, as the most recently used one, and no longer the models in `gone`."""
        for other in gone:
            self.resident.pop(other, None)
        self.resident[key] = need
        self.resident.move_to_end(key)


@dataclass
class Learned:
    """What calls have shown of each model, by the model's key.

    memory: bytes that the model needs. seconds: of one batch. load: seconds of loading.
    """

    memory: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    load: dict[str, float] = field(default_factory=dict)

    def need(self, spec: ModelSpec, seat: Seat) -> int:
        """Bytes that the model needs: the measured value if it has run, else `spec.memory_bytes`.

        A model of unknown size counts as large as the device's memory, so that it runs there alone.
        """
        known = self.memory.get(spec.key, spec.memory_bytes)
        return (seat.memory or 0) if known is None else known

    def note(self, key: str, seconds: float, load: float, memory: int | None) -> None:
        """Record one call. The latest time counts half, so that one odd call is soon forgotten; memory only grows.

        Args:
            seconds: of the batch. load: seconds of loading. Values of 0 are ignored.
            memory: bytes that the model needed; None where nothing was measured.
        """
        for what, value in ((self.seconds, seconds), (self.load, load)):
            if value > 0:
                what[key] = (what.get(key, value) + value) / 2
        if memory:
            self.memory[key] = max(memory, self.memory.get(key, 0))


def choose(
    seat: Seat, queue: Queue, seats: Collection[Seat], learned: Learned, allowed: Collection[str], behind: bool = False
) -> str | None:
    """Key of the model whose first request this device runs next; None where the device should wait. Updates `seat.passed_over`.

    Args:
        seats: all devices that take work, `seat` included.
        allowed: keys of the models that may be sent work now.
        behind: the device executes a batch, and the next one would wait there: only models that the device holds may be chosen.
    """
    able = [lane for key, lane in queue.lanes.items() if key in allowed and seat.could_ever(lane[0].spec, learned.need(lane[0].spec, seat))]
    fitting = [lane for lane in able if not seat.evictions(lane[0].spec.key, learned.need(lane[0].spec, seat))]
    others = [lane for lane in able if lane not in fitting]
    starving = [lane for lane in others if not _holders(lane[0].spec.key, seats)]
    if not (starving and fitting):
        seat.passed_over = 0
    may_run = [lane for lane in fitting if not behind or (lane[0].spec.key in seat.resident and not lane[0].alone)]
    if may_run and not (starving and seat.passed_over >= PATIENCE):
        seat.passed_over += bool(starving)
        return _foremost(may_run)
    if behind:
        return None
    worth_a_switch = [lane for lane in (starving or others) if _is_worth_a_switch(lane, seats, learned)]
    return _foremost(worth_a_switch) if worth_a_switch else None


def _foremost(lanes: list[list[Request]]) -> str:
    return min(lane[0] for lane in lanes).spec.key


def _holders(key: str, seats: Collection[Seat]) -> int:
    return sum(key in s.resident for s in seats)


def _is_worth_a_switch(lane: list[Request], seats: Collection[Seat], learned: Learned) -> bool:
    """Whether the devices that hold the lane's model need at least as long for its requests as this device needs to load it."""
    spec = lane[0].spec
    holders = _holders(spec.key, seats)
    if not holders:
        return True
    seconds = learned.seconds.get(spec.key, 0.0) * len(lane) / spec.batch_size / holders
    return seconds >= learned.load.get(spec.key, 0.0)
