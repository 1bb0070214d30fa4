"""What has changed in the catalog: the versions of its tables, looked at a few times a second."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from deltalake import DeltaTable

from catalog.place import Place

WATCHED = ("takes", "judgements", "reviews", "runs", "controls", "stories", "workflows", "promotions", "benchmarks")
LOOK_SECONDS = 0.5  # between two looks at a folder
LOOK_SECONDS_BUCKET = 3.0  # the same in a bucket, where each look is a request for each table

Versions = tuple[int, ...]


class Tables:
    """The versions of the tables in WATCHED. `seen` is what the latest look found."""

    def __init__(self, place: Place):
        self.place = place
        self.lock = Lock()
        self.seen: Versions = tuple(DeltaTable(place.table(name)).version() for name in WATCHED)

    @property
    def seconds(self) -> float:
        return LOOK_SECONDS if self.place.is_local else LOOK_SECONDS_BUCKET

    def look(self) -> Versions:
        """Look for commits that came since the latest look."""
        with self.lock:
            self.seen = tuple(self._newest(name, version) for name, version in zip(WATCHED, self.seen, strict=True))
            return self.seen

    def of(self, *names: str) -> Versions:
        """The seen versions of these tables alone."""
        return tuple(self.seen[WATCHED.index(name)] for name in names)

    def _newest(self, name: str, version: int) -> int:
        while self._there(f"{name}/_delta_log/{version + 1:020}.json"):
            version += 1
        return version

    def _there(self, path: str) -> bool:
        if self.place.is_local:
            return os.path.exists(f"{self.place.uri}/{path}")
        return self.place.files.get_file_info(path).type.name == "File"


@dataclass
class _Kept:
    at: Versions | None  # None: nothing was made yet
    value: Any
    lock: Lock = field(default_factory=Lock)


class Kept:
    """Values that follow from tables, each computed once for each version of these tables. A cache: it may be emptied at any time."""

    def __init__(self, tables: Tables, most: int = 256):
        self.tables, self.most = tables, most
        self.entries: dict[Hashable, _Kept] = {}
        self.lock = Lock()

    def of(self, key: Hashable, names: tuple[str, ...], make: Callable[[], Any]) -> Any:
        """The value of `key`, made again if one of the tables has changed. Callers at the same time share one making."""
        with self.lock:
            entry = self.entries.pop(key, None) or _Kept(None, None)
            self.entries[key] = entry  # the latest that was asked for is the last to go
            while len(self.entries) > self.most:
                self.entries.pop(next(iter(self.entries)))
        if (now := self.tables.of(*names)) == entry.at:
            return entry.value
        with entry.lock:
            if (now := self.tables.of(*names)) != entry.at:
                entry.value = make()
                entry.at = now
            return entry.value
