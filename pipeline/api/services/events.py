"""Events: what comes into the catalog, told as it comes to everybody who listens.

An event's id is the versions of the tables: what a catalog knows and no service has to remember. A listener that was cut off names the
last id that it saw, and any service, also one that was started anew, reads from the tables what came since. An event may come twice.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from catalog.changes import rows_since
from catalog.store import Catalog, CatalogError
from pipeline.api.tables import WATCHED, Tables, Versions
from pipeline.render.live import living_now

from . import says

PING_SECONDS = 15.0  # so that proxies keep a quiet stream open
KEPT = 2000  # events that slow listeners may be behind
FAR = 500  # commits; who is further behind reads everything anew
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

    def encoded(self) -> bytes:
        return f"id: {self.id}\nevent: {self.name}\ndata: {self.data}\n\n".encode()


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
        return [Event(as_id(now), "reset", None, "{}")]
    found: list[tuple[Any, str, str | None, dict[str, Any]]] = []
    others = []
    for name, old, new in zip(WATCHED, before, now, strict=True):
        if new != old and name not in TOLD:
            others.append(name)
        elif new != old:
            rows = rows_since(catalog, name, old, new, TOLD[name])
            if rows is None:
                return [Event(as_id(now), "reset", None, "{}")]
            found += [(row["at"], NAMES[name], row["episode"], _data(name, row)) for row in rows if row.get("event") != "alive"]
    told = [(kind, episode, data) for _, kind, episode, data in sorted(found, key=lambda f: f[0])]
    if others:
        told.append(("change", None, {"tables": others}))
    return [Event(as_id(before if number < len(told) else now), kind, of, _json(data)) for number, (kind, of, data) in enumerate(told, 1)]


def _data(name: str, row: dict[str, Any]) -> dict[str, Any]:
    if name == "stories":
        return row
    text, tone = {"takes": says.take, "reviews": says.review, "runs": says.run}[name](row)
    shot = row.get("shot") or (row["take"].split("/")[1] if row.get("take") else None)
    return row | {"text": text, "tone": tone, "shot": shot}


def _json(data: Any) -> str:
    return json.dumps(to_jsonable_python(data), separators=(",", ":"), ensure_ascii=False)


class Hub:
    """Watches the catalog once for all listeners."""

    def __init__(self, catalog: Catalog, tables: Tables):
        self.catalog, self.tables = catalog, tables
        self.events: deque[tuple[int, Event]] = deque(maxlen=KEPT)
        self.count = 0
        self.came = asyncio.Event()
        self.live: list[Any] = []
        self.told: Versions = tables.seen
        self.listeners = 0

    async def watch(self) -> None:
        """Look for changes until cancelled. A catalog that cannot be read now is looked at again."""
        while True:
            with suppress(CatalogError, OSError, ValueError):
                await self.look()
            await asyncio.sleep(self.tables.seconds)

    async def look(self) -> None:
        """Tell listeners what came since the last look."""
        now = await asyncio.to_thread(self.tables.look)
        events: list[Event] = []
        if now != self.told:
            events = await asyncio.to_thread(between, self.catalog, self.told, now)
            self.told = now
        live = await asyncio.to_thread(living_now, self.catalog)
        if live != self.live:
            gone = {one.episode for one in self.live} - {one.episode for one in live}
            self.live = live
            events += [Event(as_id(now), "live", one.episode, _json(one)) for one in live]
            events += [Event(as_id(now), "live", episode, "null") for episode in gone]
        for event in events:
            self.count += 1
            self.events.append((self.count, event))
        if events:
            self.came.set()
            self.came = asyncio.Event()

    async def listen(self, after: str, episode: str | None) -> AsyncIterator[bytes]:
        """Events of an episode, or of all, as lines of the protocol.

        Args:
            after: the last id that the listener saw; "" for a new one.
        """
        self.listeners += 1
        try:
            position, told = self.count, self.told
            yield f"retry: 2000\nid: {as_id(told)}\ndata: \n\n".encode()
            if after:
                before = from_id(after)
                missed = [Event(as_id(told), "reset", None, "{}")]
                if before is not None:
                    missed = await asyncio.to_thread(between, self.catalog, before, told)
                for event in missed:
                    if event.episode in (None, episode) or episode is None:
                        yield event.encoded()
            while True:
                came, new, position = self.came, self._after(position), self.count
                for event in new:
                    if event.episode in (None, episode) or episode is None:
                        yield event.encoded()
                try:
                    await asyncio.wait_for(came.wait(), PING_SECONDS)
                except TimeoutError:
                    yield b": nothing new\n\n"
        finally:
            self.listeners -= 1

    def _after(self, position: int) -> list[Event]:
        if self.events and position + 1 < self.events[0][0] and self.count > position:
            return [Event(as_id(self.told), "reset", None, "{}")]
        return [event for number, event in self.events if number > position]
