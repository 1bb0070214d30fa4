"""Events: what comes into the catalog, told as it comes to everybody who listens.

An event's id is the versions of the tables: what a catalog knows and no service has to remember. A listener that was cut off names the
last id that it saw, and any service, also one that was started anew, reads from the tables what came since. An event may come twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import pyarrow as pa

from catalog.changes import rows_since
from catalog.standing import Row
from catalog.store import Catalog, CatalogError
from pipeline.api.tables import WATCHED, Kept, Tables, Versions
from pipeline.render.live import Live, said_by
from pipeline.render.process import may_be_running
from pipeline.render.run_log import unended_runs

from . import says
from .as_json import as_json

PING_SECONDS = 15.0  # so that proxies keep a quiet stream open
KEPT = 2000  # events that slow listeners may be behind, and that are told at once
FAR = 200  # commits; who is further behind reads everything anew
UNREADABLE = (CatalogError, OSError, ValueError, pa.ArrowException)
TOLD = {
    "takes": ["take", "run", "at", "episode", "shot", "stage", "attempt", "outcome", "labels", "findings", "error"],
    "reviews": ["take", "at", "episode", "verdict", "note", "by", "first_frame"],
    "runs": ["run", "event", "at", "episode", "shots", "stale", "accepted", "exhausted", "error", "job"],
    "stories": ["episode", "at", "by", "title"],
}
NAMES = {"takes": "take", "reviews": "review", "runs": "run", "stories": "story"}


@dataclass(frozen=True)
class Event:
    """name: take, review, run, story, live, change (of another table), reset (all must be read anew). episode: None for all."""

    id: str
    name: str
    episode: str | None
    data: str

    @cached_property
    def encoded(self) -> bytes:
        return f"id: {self.id}\nevent: {self.name}\ndata: {self.data}\n\n".encode()


def reset(versions: Versions) -> Event:
    return Event(as_id(versions), "reset", None, "{}")


def encoded(events: Sequence[Event], episode: str | None) -> bytes:
    """Those of an episode, or all, as lines of the protocol."""
    return b"".join(event.encoded for event in events if episode is None or event.episode in (None, episode))


def mark(versions: Versions) -> bytes:
    """Lines that tell where the listener is, and nothing else."""
    return f"id: {as_id(versions)}\n\n".encode()


def as_id(versions: Versions) -> str:
    return ".".join(map(str, versions))


def from_id(text: str) -> Versions | None:
    """The versions in an id; None where it is none of ours."""
    parts = text.split(".")
    if len(parts) != len(WATCHED) or not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        return None
    return tuple(map(int, parts))


def between(catalog: Catalog, before: Versions, now: Versions) -> list[Event]:
    """What came in between, oldest first. The last event has the id of `now`, those before it that of `before`."""
    if any(old > new for old, new in zip(before, now, strict=True)) or sum(now) - sum(before) > FAR:
        return [reset(now)]
    found: list[tuple[Any, str, str | None, dict[str, Any]]] = []
    others = []
    for name, old, new in zip(WATCHED, before, now, strict=True):
        if new != old and name not in TOLD:
            others.append(name)
        elif new != old:
            rows = rows_since(catalog, name, old, new, TOLD[name], most=KEPT)
            if rows is None:
                return [reset(now)]
            found += [(row["at"], NAMES[name], row["episode"], _data(name, row)) for row in rows if row.get("event") != "alive"]
    told = [(kind, episode, data) for _, kind, episode, data in sorted(found, key=lambda f: f[0])]
    if others:
        told.append(("change", None, {"tables": others}))
    return [Event(as_id(before if number < len(told) else now), kind, of, _json(data)) for number, (kind, of, data) in enumerate(told, 1)]


def _data(name: str, row: dict[str, Any]) -> dict[str, Any]:
    if name == "stories":
        return row
    text, tone = {"takes": says.take, "reviews": says.review, "runs": says.run}[name](row)
    return row | {"text": text, "tone": tone, "shot": says.shot(row)}


def _json(data: Any) -> str:
    return as_json(data).decode()


class Hub:
    """Watches the catalog once for all listeners.

    live: what the runs that live now say of themselves. living: a row of each of these runs.
    """

    def __init__(self, catalog: Catalog, tables: Tables):
        self.catalog, self.tables = catalog, tables
        self.events: deque[Event] = deque(maxlen=KEPT)
        self.count = 0  # of all events so far
        self.came = asyncio.Event()
        self.told = tables.seen.versions
        self.live: list[Live] = []
        self.living: list[Row] = []
        self.runs: list[Row] = []  # those without an end, as of a version of their table
        self.runs_at: Versions = ()
        self.missed = Kept(most=8)
        self.thread = ThreadPoolExecutor(1, "desk-hub")  # its own: pictures that are being made must not delay a look
        self.listeners = 0

    def live_of(self, episode: str) -> Live | None:
        """What the run says that renders the episode now; None also where it has said nothing yet."""
        return next((one for one in self.live if one.episode == episode), None)

    def renders(self, episode: str) -> bool:
        """Whether somebody renders the episode now."""
        return any(row["episode"] == episode for row in self.living)

    async def watch(self) -> None:
        """Look for changes until cancelled. A catalog that cannot be read now is looked at again."""
        while True:
            with suppress(*UNREADABLE):
                await self.look()
            await asyncio.sleep(self.tables.seconds)

    async def look(self) -> None:
        """Tell listeners what came since the last look."""
        self.told, self.living, live, events = await asyncio.get_running_loop().run_in_executor(self.thread, self._look)
        gone = {one.episode for one in self.live} - {one.episode for one in live}
        if live != self.live:
            events += [Event(as_id(self.told), "live", one.episode, _json(one)) for one in live]
            events += [Event(as_id(self.told), "live", episode, "null") for episode in gone]
            self.live = live
        if events:
            self.events += events
            self.count += len(events)
            self.came.set()
            self.came = asyncio.Event()

    def _look(self) -> tuple[Versions, list[Row], list[Live], list[Event]]:
        now = self.tables.look().versions
        try:
            events = between(self.catalog, self.told, now) if now != self.told else []
        except UNREADABLE:  # whoever reads everything anew is told what is wrong
            events = [reset(now)]
        if (at := self.tables.of("runs")) != self.runs_at:
            self.runs, self.runs_at = unended_runs(self.catalog), at
        living = [row for row in self.runs if may_be_running(row)]
        return now, living, said_by(self.catalog.place, living), events

    async def listen(self, after: str, episode: str | None) -> AsyncIterator[bytes]:
        """Events of an episode, or of all, as lines of the protocol.

        The listener gets an id only when it has all that came until then: it may be cut off at any byte.

        Args:
            after: the last id that the listener saw; "" for a new one.
        """
        self.listeners += 1
        try:
            position, told = self.count, self.told
            yield b"retry: 2000\n\n"
            yield (encoded(await self._missed(after, told), episode) if after else b"") + mark(told)
            said = time.monotonic()
            while True:
                came, new, position = self.came, self._after(position), self.count
                lines = encoded(new, episode)
                if not lines and time.monotonic() - said >= PING_SECONDS:
                    lines = mark(self.told)
                if lines:
                    yield lines
                    said = time.monotonic()
                with suppress(TimeoutError):
                    async with asyncio.timeout(said + PING_SECONDS - time.monotonic()):
                        await came.wait()
        finally:
            self.listeners -= 1

    async def _missed(self, after: str, now: Versions) -> list[Event]:
        """What came since an id. Listeners that were cut off together share one reading."""
        before = from_id(after)
        if before is None:
            return [reset(now)]
        try:
            return await self.missed.soon(before, now, lambda: between(self.catalog, before, now))
        except UNREADABLE:
            return [reset(now)]

    def _after(self, position: int) -> list[Event]:
        behind = self.count - position
        if behind > len(self.events):
            return [reset(self.told)]
        return list(islice(reversed(self.events), behind))[::-1]
