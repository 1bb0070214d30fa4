"""Rows of episodes in memory: read once, then brought up to date by what came into the tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

import pyarrow as pa

from catalog.changes import table_since
from catalog.store import Catalog

from .tables import WATCHED, Seen, Tables

NAMES = ("takes", "judgements", "reviews", "runs")
OPEN = 8  # episodes whose rows are kept
FAR = 200  # commits; whoever is further behind reads the table anew
PIECES = 64  # of a table in memory, before they are joined


@dataclass
class _Episode:
    rows: dict[str, tuple[int, pa.Table]] = field(default_factory=dict)  # name to a version of the table, and the rows up to it
    lock: Lock = field(default_factory=Lock)


class Rows:
    """A cache: it may be emptied at any time."""

    def __init__(self, catalog: Catalog, tables: Tables):
        self.catalog, self.tables = catalog, tables
        self.episodes: dict[str, _Episode] = {}
        self.lock = Lock()

    def of(self, episode: str, seen: Seen | None = None) -> dict[str, pa.Table]:
        """The episode's rows in each of the tables NAMES, as of a look at the tables, or later; the latest, if none is given.

        Raises:
            CatalogError: a table cannot be read.
        """
        with self.lock:
            kept = self.episodes.pop(episode, None) or _Episode()
            self.episodes[episode] = kept  # the latest that was asked for is the last to go
            if len(self.episodes) > OPEN:
                self.episodes.pop(next(iter(self.episodes)))
        with kept.lock:
            for name in NAMES:
                self._bring(kept, name, episode, seen or self.tables.seen)
            return {name: rows for name, (_, rows) in kept.rows.items()}

    def _bring(self, kept: _Episode, name: str, episode: str, seen: Seen) -> None:
        now = seen.versions[WATCHED.index(name)]
        version, rows = kept.rows.get(name, (-1, None))
        if rows is not None and max(seen.at(episode, (name,))) > version:
            new = table_since(self.catalog, name, version, now, episode=episode) if now - version <= FAR else None
            rows = pa.concat_tables([rows, new]) if new is not None else None
        if rows is None:
            rows = self.catalog.table(name, episode, version=now)
        if rows.num_columns and rows.column(0).num_chunks > PIECES:
            rows = rows.combine_chunks()
        kept.rows[name] = max(now, version), rows
