"""What has changed in the catalog: the versions of its tables, looked at a few times a second, and what follows from them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from deltalake import DeltaTable

from catalog.changes import added_by
from catalog.commit import LOG, entry
from catalog.place import Place

WATCHED = ("takes", "judgements", "reviews", "runs", "controls", "stories", "workflows", "promotions", "benchmarks")
LOOK_SECONDS = 0.5  # between two looks at a folder
LOOK_SECONDS_BUCKET = 3.0  # the same in a bucket, where each look is a request for each table

Versions = tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """What a look found.

    versions: of the tables in WATCHED. whole: table to the version of the latest commit that may be of any episode.
    touched: (table, episode) to the version of the latest commit with rows of this episode alone.
    """

    versions: Versions
    whole: Mapping[str, int]
    touched: Mapping[tuple[str, str], int]

    def at(self, episode: str, names: tuple[str, ...]) -> Versions:
        """Of each table, the version of the latest commit that may be of the episode."""
        return tuple(max(self.whole[name], self.touched.get((name, episode), 0)) for name in names)


class Tables:
    """The versions of the tables in WATCHED."""

    def __init__(self, place: Place):
        self.place = place
        self.lock = Lock()
        versions = tuple(DeltaTable(place.table(name)).version() for name in WATCHED)
        self.seen = Seen(versions, dict(zip(WATCHED, versions, strict=True)), {})
        self.prepare: Callable[[Seen], None] = lambda seen: None  # called before anybody sees a change

    @property
    def seconds(self) -> float:
        return LOOK_SECONDS if self.place.is_local else LOOK_SECONDS_BUCKET

    def look(self) -> Seen:
        """Look for commits that came since the latest look."""
        with self.lock:
            whole, touched = dict(self.seen.whole), dict(self.seen.touched)
            versions = tuple(self._newest(name, at, whole, touched) for name, at in zip(WATCHED, self.seen.versions, strict=True))
            if versions != self.seen.versions:
                seen = Seen(versions, whole, touched)
                self.prepare(seen)
                self.seen = seen  # at once, so that nobody sees a commit's mark without its version
            return self.seen

    def of(self, *names: str) -> Versions:
        """The seen versions of these tables alone."""
        return tuple(self.seen.versions[WATCHED.index(name)] for name in names)

    def at(self, episode: str, *names: str) -> Versions:
        """The versions of these tables that an episode's rows follow from: commits of other episodes do not count."""
        return self.seen.at(episode, names)

    def _newest(self, name: str, version: int, whole: dict[str, int], touched: dict[tuple[str, str], int]) -> int:
        while (text := self._entry(name, version + 1)) is not None:
            version += 1
            added = added_by(text)
            for episode in {file.episode for file in added} if added is not None else {""}:
                if episode:
                    touched[name, episode] = version
                else:
                    whole[name] = version
        if self.place.is_local and not os.path.exists(self._path(name, version)):  # the log was cleaned while nobody looked
            version = whole[name] = DeltaTable(self.place.table(name)).version()
        return version

    def _entry(self, name: str, version: int) -> bytes | None:
        """An entry of a table's log; None where it is not there."""
        try:
            if self.place.is_local:
                with open(self._path(name, version), "rb") as file:
                    return file.read()
            return self.place.read(f"{name}/{LOG}/{entry(version)}")
        except FileNotFoundError:
            return None

    def _path(self, name: str, version: int) -> str:
        return f"{self.place.uri}/{name}/{LOG}/{entry(version)}"


NOTHING = object()  # was made yet


@dataclass
class _Kept:
    at: Hashable = NOTHING
    value: Any = None
    asked: float = 0.0  # when, by the monotonic clock
    lock: Lock = field(default_factory=Lock)


class Kept:
    """Values, each computed once for each state of what it follows from. A cache: it may be emptied at any time.

    Args:
        workers: the threads that `soon` computes in; None for those that all share.
    """

    def __init__(self, most: int = 256, workers: ThreadPoolExecutor | None = None):
        self.most, self.workers = most, workers
        self.entries: dict[Hashable, _Kept] = {}
        self.lock = Lock()
        self.making: dict[Hashable, asyncio.Future[Any]] = {}

    def of(self, key: Hashable, at: Hashable, make: Callable[[], Any]) -> Any:
        """The value of `key`, made again if `at` is another than when it was made. Callers at the same time share one making."""
        entry = self._entry(key)
        with entry.lock:
            if at != entry.at:
                entry.value = make()
                entry.at = at
            entry.asked = time.monotonic()
            return entry.value

    async def soon(self, key: Hashable, at: Hashable, make: Callable[[], Any]) -> Any:
        """`of`, for the event loop: what is there is given at once, and those who wait hold no thread."""
        entry = self.entries.get(key)
        if entry and entry.at == at:
            entry.asked = time.monotonic()
            return entry.value
        if (key, at) not in self.making:
            task = asyncio.get_running_loop().run_in_executor(self.workers, self.of, key, at, make)
            self.making[key, at] = task
            task.add_done_callback(lambda done: self._made((key, at), done))
        return await asyncio.shield(self.making[key, at])

    def asked_within(self, seconds: float) -> list[Any]:
        """The keys whose values somebody has got in these seconds."""
        least = time.monotonic() - seconds
        with self.lock:
            return [key for key, entry in self.entries.items() if entry.at is not NOTHING and entry.asked >= least]

    def put(self, key: Hashable, at: Hashable, value: Any) -> None:
        """Keep a value that was made already."""
        entry = self.entries.get(key)
        if entry:  # else it has made room for others
            with entry.lock:
                entry.at, entry.value = at, value

    def _made(self, which: Hashable, done: asyncio.Future[Any]) -> None:
        del self.making[which]
        if not done.cancelled():
            done.exception()  # whoever waited was told; if all have gone, nobody need be

    def _entry(self, key: Hashable) -> _Kept:
        with self.lock:
            entry = self.entries.pop(key, None) or _Kept()
            self.entries[key] = entry  # the latest that was asked for is the last to go
            while len(self.entries) > self.most:
                self.entries.pop(next(iter(self.entries)))
            return entry
