"""The catalog: open it, add rows, read them back."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from .damage import table_problems
from .media import MediaStore, fsync_folder
from .migrate import NewerCatalog, migrate
from .place import Place
from .schema import TABLES

COMMIT_TRIES = 12
KEPT_COMMITS = 32


class CatalogError(RuntimeError):
    """The catalog cannot be opened, read or written. One sentence."""


@dataclass(frozen=True)
class Catalog:
    """Delta tables in one place, and the media beside them."""

    place: Place
    was_version: int  # before it was opened: 0 for a new catalog
    # Kept open for some commits: to read the log again costs more than one of them, and each adds to what is held.
    written: dict[str, tuple[DeltaTable, int]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, where: Path | str | Place) -> Catalog:
        """Open, creating or upgrading what is there. Tables are made here, before writers could race to make them."""
        place = Place.of(where)
        try:
            if place.is_local:
                place.folder.mkdir(parents=True, exist_ok=True)
            return cls(place, migrate(place))
        except NewerCatalog as error:
            raise CatalogError(str(error)) from error
        except (OSError, DeltaError, pa.ArrowException, ValueError) as error:
            raise CatalogError(f"catalog {place} cannot be opened: {_damage(place) or _line(error)}") from error

    @classmethod
    def find(cls, where: Path | str | Place) -> Catalog | None:
        """Open what is there; None where there is nothing."""
        place = Place.of(where)
        try:
            there = place.files.get_file_info("takes/_delta_log").type.name == "Directory"
        except OSError as error:
            raise CatalogError(f"catalog {place} cannot be reached: {_line(error)}") from error
        return cls.open(place) if there else None

    @property
    def root(self) -> Place:
        return self.place

    @property
    def media(self) -> MediaStore:
        return MediaStore(self.place)

    def append(self, name: str, rows: list[dict[str, Any]]) -> int:
        """Add rows in one commit, safe on disk when this returns; all of them or none. Gives the table's new version.

        A lost race with another driver is tried again.
        """
        schema = TABLES[name].schema
        table = pa.Table.from_pylist([_known(row, schema) for row in rows], schema=schema)
        for attempt in itertools.count(1):
            try:
                delta, commits = self.written.pop(name) if name in self.written else (DeltaTable(self.place.table(name)), 0)
                write_deltalake(delta, table, mode="append")
                if self.place.is_local:
                    _make_durable(self.place.folder / name, delta.version())
                if commits < KEPT_COMMITS:  # as it is after this commit; after a failure it is read anew
                    self.written[name] = delta, commits + 1
                return delta.version()
            except CommitFailedError as error:
                if attempt == COMMIT_TRIES:
                    raise CatalogError(f"{name}: {COMMIT_TRIES} commits lost their race; too many drivers write at once") from error
                time.sleep(random.uniform(0.05, 0.2) * 2 ** min(attempt, 5))
            except (OSError, DeltaError) as error:
                raise CatalogError(f"catalog {self.place} cannot be written: {_damage(self.place) or _line(error)}") from error
        raise AssertionError("the loop ends by itself")

    def rows(
        self, name: str, episode: str | None = None, columns: list[str] | None = None, version: int | None = None
    ) -> list[dict[str, Any]]:
        """Rows of a table, oldest first; only those of one episode, or of an older version of the table, if given."""
        try:
            chosen = None if episode is None else pc.field("episode") == episode
            table = self.dataset(name, version).to_table(filter=chosen, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error
        if "at" in table.column_names:
            table = table.sort_by("at")
        return table.to_pylist(maps_as_pydicts="strict")

    def dataset(self, name: str, version: int | None = None) -> ds.Dataset:
        """The live rows of a table, for any engine that reads Arrow."""
        try:
            return DeltaTable(self.place.table(name), version=version).to_pyarrow_dataset(schema=TABLES[name].schema)
        except TableNotFoundError as error:
            raise CatalogError(f"catalog {self.place} has no table {name}") from error
        except (OSError, DeltaError, pa.ArrowException, ValueError) as error:
            raise self._unreadable(error) from error

    def sql(self, query: str, tables: Iterable[str], views: str = "", given: dict[str, pa.Table] | None = None, **values: Any) -> pa.Table:
        """A query by DuckDB over the live tables.

        Args:
            tables: those that the query reads. views: statements to run first. given: Arrow tables by name.
            values: what stands for $name in the query.
        """
        with duckdb.connect(config={"enable_external_access": False, "allow_community_extensions": False}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for name in tables:
                connection.register(name, self.dataset(name))
            for name, table in (given or {}).items():
                connection.register(name, table)
            try:
                if views:
                    connection.execute(views)
                return connection.sql(query, params=values or None).to_arrow_table()
            except (duckdb.IOException, duckdb.InvalidInputException, OSError, pa.ArrowException) as error:
                raise self._unreadable(error) from error

    def _unreadable(self, error: BaseException) -> CatalogError:
        return CatalogError(f"catalog {self.place} cannot be read: {_damage(self.place) or _line(error)}")


def _make_durable(table: Path, version: int) -> None:
    """Bring a commit from memory to the disk: its data, then its log entry, then both folders."""
    entry = table / "_delta_log" / f"{version:020}.json"
    added = [json.loads(line).get("add") for line in entry.read_text().splitlines()]
    for file in [*(table / a["path"] for a in added if a), entry]:
        with file.open("rb") as data:
            os.fsync(data.fileno())
    fsync_folder(entry.parent)
    fsync_folder(table)


def _damage(place: Place) -> str | None:
    """A reason that a person can act on, if a look at the files finds one: engines name bytes, not what to do."""
    found = next(iter(table_problems(place)), None)
    return f"{found.what}; `tower catalog repair` sets such files aside" if found else None


def _known(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    unknown = set(row) - set(schema.names)
    if unknown:
        raise CatalogError(f"no such column: {', '.join(sorted(unknown))}")
    return row


def _line(error: BaseException) -> str:
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    return text[:300] or type(error).__name__
