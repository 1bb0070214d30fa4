"""Which work a device does next. The one rule, from a 12 GB card to a rack; no Ray, no clock, nothing that waits.

Work whose model is on the device, or fits beside what is there, goes first, later stages before earlier ones. So on big
cards everything stays resident, and on a small one stages take turns by themselves: the still's model stays for as long as
stills wait. A model makes room for another only where nothing else can run, and waiting for a device that has the other
would take longer than the switch; or where the other has been passed over too often.
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

PATIENCE = 256  # batches that a device may run while other work waits for a model that no device holds


@dataclass(eq=False)
class Request:
    """One thing to be run, until its future is settled. order: smaller goes first.

    alone: nothing runs with it or waits behind it, so that if the device dies again, it is known by whom.
    moved: how often it was taken to another device because its own was lost without its doing. waits: it is in the queue.
    """

    spec: ModelSpec
    work: Any
    parts: dict[str, Stored]
    together: Hashable
    owner: Hashable
    order: tuple[int, ...]
    result: asyncio.Future[Any]
    calls: tuple[Any, ...] | None = None  # to prepare the model with, where nothing is to be generated
    alone: bool = False
    moved: int = 0
    waits: bool = False

    def __lt__(self, other: Request) -> bool:
        return self.order < other.order


class Queue:
    """Requests that wait, a lane for each model, each lane in order."""

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
        """The lane's first request, and those that may share its batch."""
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
    """A device's place in the pool: the place stays, its actor may be replaced.

    memory: bytes that models may take; None for no limit. resident: models there and the bytes that each needs, least
    recently used first.
    """

    number: int
    node: Node
    most: int | None = None
    memory: int | None = None
    resident: OrderedDict[str, int] = field(default_factory=OrderedDict)
    passed_over: int = 0  # batches since work first waited for a model that nobody holds

    def could_ever(self, spec: ModelSpec, need: int) -> bool:
        return self.node.suits(spec.labels) and (self.memory is None or need <= self.memory)

    def evictions(self, key: str, need: int) -> list[str]:
        """Models that must go before this one may run: the least recently used, until there is room."""
        kept = OrderedDict((k, n) for k, n in self.resident.items() if k != key)
        gone = []
        while kept and self._is_full(len(kept) + 1, sum(kept.values()) + need):
            gone.append(kept.popitem(last=False)[0])
        return gone

    def _is_full(self, models: int, bytes_: int) -> bool:
        return (self.most is not None and models > self.most) or (self.memory is not None and bytes_ > self.memory)

    def place(self, key: str, need: int, gone: Iterable[str]) -> None:
        """The model is there now, and the last to go."""
        for other in gone:
            self.resident.pop(other, None)
        self.resident[key] = need
        self.resident.move_to_end(key)


@dataclass
class Learned:
    """What calls have told of each model: bytes needed, seconds a request, seconds to load."""

    memory: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    load: dict[str, float] = field(default_factory=dict)

    def need(self, spec: ModelSpec, seat: Seat) -> int:
        """Measured if it ever ran, else as told; a model that nobody knows gets a small device for itself."""
        known = self.memory.get(spec.key, spec.memory_bytes)
        return (seat.memory or 0) if known is None else known

    def note(self, key: str, seconds: float, load: float, memory: int | None) -> None:
        """The latest counts half, so that one odd call is soon forgotten."""
        for what, value in ((self.seconds, seconds), (self.load, load)):
            if value > 0:
                what[key] = (what.get(key, value) + value) / 2
        if memory:
            self.memory[key] = max(memory, self.memory.get(key, 0))


def choose(seat: Seat, queue: Queue, seats: Collection[Seat], learned: Learned, allowed: Collection[str]) -> str | None:
    """The model whose first request this device runs next; None where it had better wait.

    Args:
        seats: all that work, this one too. allowed: models that may run just now.
    """
    able = [lane for key, lane in queue.lanes.items() if key in allowed and seat.could_ever(lane[0].spec, learned.need(lane[0].spec, seat))]
    there = [lane for lane in able if not seat.evictions(lane[0].spec.key, learned.need(lane[0].spec, seat))]
    others = [lane for lane in able if lane not in there]
    starving = [lane for lane in others if not _holders(lane[0].spec.key, seats)]
    seat.passed_over = seat.passed_over + 1 if starving and there else 0
    if there and not (starving and seat.passed_over > PATIENCE):
        return _foremost(there)
    worth = [lane for lane in (starving or others) if _is_worth_a_switch(lane, seats, learned)]
    return _foremost(worth) if worth else None


def _foremost(lanes: list[list[Request]]) -> str:
    return min(lane[0] for lane in lanes).spec.key


def _holders(key: str, seats: Collection[Seat]) -> int:
    return sum(key in s.resident for s in seats)


def _is_worth_a_switch(lane: list[Request], seats: Collection[Seat], learned: Learned) -> bool:
    """Whether those who have the model would take longer over what waits than it takes to load it here."""
    spec = lane[0].spec
    holders = _holders(spec.key, seats)
    if not holders:
        return True
    seconds = learned.seconds.get(spec.key, 0.0) * len(lane) / spec.batch_size / holders
    return seconds >= learned.load.get(spec.key, 0.0)
