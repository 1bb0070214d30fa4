"""Rows in memory, for whoever asks of them again and again: as a database with views, and as a catalog of one episode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from .schema import TABLES
from .store import Catalog, database
from .views import READ, VIEWS


class Memory:
    """A database with views that stays open: to open one and to create the views takes longer than most queries. Threads take turns.

    Args:
        views: SQL statements that create them. schemas: of the tables that they read, by name.
    """

    def __init__(self, views: str, schemas: Mapping[str, pa.Schema]):
        self.connection, self.lock = database(threads=1), Lock()
        for name, schema in schemas.items():
            self.connection.register(name, schema.empty_table())
        self.connection.execute(views)

    def ask(self, tables: Mapping[str, pa.Table], *queries: str, **values: Any) -> list[pa.Table]:
        """The answer to each query over these rows. values: parameters of the queries, `$name` in their text."""
        with self.lock:
            for name, table in tables.items():
                self.connection.register(name, table)
            return [self.connection.sql(query, params=values or None).to_arrow_table() for query in queries]


@dataclass(frozen=True, kw_only=True)
class EpisodeCatalog(Catalog):
    """A catalog in which some tables are read from memory, and have the rows of one episode alone."""

    memory: Mapping[str, pa.Table]

    def dataset(self, name: str, version: int | None = None) -> ds.Dataset:
        if name in self.memory and version is None:
            return ds.dataset(self.memory[name])
        return super().dataset(name, version)

    def sql(self, query: str, tables: Iterable[str], views: str = "", given: dict[str, pa.Table] | None = None, **values: Any) -> pa.Table:
        if views != VIEWS or not self.memory.keys() >= set(tables):
            return super().sql(query, tables, views, given, **values)
        (found,) = _all_views().ask({name: self.memory[name] for name in tables} | (given or {}), query, **values)
        return found


@cache
def _all_views() -> Memory:
    return Memory(VIEWS, {name: TABLES[name].schema for name in READ})
