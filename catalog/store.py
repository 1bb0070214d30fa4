"""The catalog: open it, add rows, read them back."""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from .commit import check_writable, commit, dataset, lost_commit, seal_new, write_data
from .damage import table_problems
from .media import MediaStore
from .migrate import NewerCatalog, migrate
from .place import Place, PlaceError
from .schema import TABLES

COMMIT_TRIES = 12  # attempts at one commit, when other drivers commit at the same time
INTERRUPTED = "KeyboardInterrupt"  # in what DuckDB makes of the exception
KEPT_COMMITS = 32  # commits after which an open table is opened again; see `Catalog.written`


class CatalogError(RuntimeError):
    """The catalog cannot be opened, read or written. The message is one sentence."""


@dataclass(frozen=True)
class Catalog:
    """Delta tables in one place, and the media beside them."""

    place: Place
    was_version: int  # schema version before `open` migrated the catalog; 0 for a new catalog
    # Table name to (open table, commits made with it). Tables stay open for KEPT_COMMITS commits: reading a log again costs
    # more than a commit, but every commit adds to the memory that an open table holds.
    written: dict[str, tuple[DeltaTable, int]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, where: Path | str | Place) -> Catalog:
        """Open a catalog; create it or migrate it first where needed. All tables exist afterwards, so writers need not create them.

        Raises:
            CatalogError: no catalog can be there, it is damaged, cannot be reached, or a newer Tower wrote it.
        """
        place = _place(where)
        try:
            place.make()
            was_version = migrate(place)
            lost = {name: version for name in TABLES if (version := lost_commit(place, name)) is not None}
        except NewerCatalog as error:
            raise CatalogError(str(error)) from error
        except (OSError, DeltaError, pa.ArrowException, ValueError) as error:
            raise CatalogError(f"catalog {place} cannot be opened: {_damage(place) or _line(error)}") from error
        for name, version in lost.items():
            raise CatalogError(f"catalog {place} has lost commit {version} of {name}; `tower catalog repair` puts it back")
        return cls(place, was_version)

    @classmethod
    def find(cls, where: Path | str | Place) -> Catalog | None:
        """Open a catalog if it exists; None if it does not. Raises as `open`."""
        place = _place(where)
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
        """Add rows in one commit: all of them or none. On return they are safe on disk. Returns the table's new version.

        A commit that loses a race with another driver is tried again.

        Raises:
            CatalogError: a column is unknown, the catalog cannot be written, or COMMIT_TRIES commits lost their race.
        """
        schema = TABLES[name].schema
        table = pa.Table.from_pylist([_known(row, schema) for row in rows], schema=schema)
        try:
            check_writable(self.place, name)
            file = write_data(self.place, name, table.to_batches(), schema)
            for attempt in itertools.count(1):
                try:
                    return self._commit(name, [file])
                except CommitFailedError as error:
                    if attempt == COMMIT_TRIES:
                        raise CatalogError(f"{name}: {COMMIT_TRIES} commits lost their race; too many drivers write at once") from error
                    time.sleep(random.uniform(0.05, 0.2) * 2 ** min(attempt, 5))
        except (OSError, DeltaError) as error:
            raise CatalogError(f"catalog {self.place} cannot be written: {_damage(self.place) or _line(error)}") from error
        raise AssertionError("the loop ends by itself")

    def _commit(self, name: str, actions: list[Any]) -> int:
        """One attempt at a commit. After a failure the table is not kept open, so the next one reads its log again."""
        if name in self.written:
            table, commits = self.written.pop(name)
        else:
            seal_new(self.place, name)
            table, commits = DeltaTable(self.place.table(name)), 0
        version = commit(self.place, name, table, actions)
        if commits < KEPT_COMMITS:
            self.written[name] = table, commits + 1
        return version

    def append_later(self, name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """`append`, with times that are later than those of all rows in the table. Returns the rows with their times.

        Whoever reads them takes the later word. A clock that is behind would date a word before one that it answers, and
        nobody would hear it. So the time is this machine's, or the newest time in the table and a microsecond, whichever is
        later (as Lamport's clocks do it).
        """
        newest = max((row["at"] for row in self.rows(name, columns=["at"])), default=datetime.min.replace(tzinfo=UTC))
        at = max(datetime.now(UTC), newest + timedelta(microseconds=1)) if rows else newest
        dated = [row | {"at": at} for row in rows]
        self.append(name, dated)
        return dated

    def rows(
        self, name: str, episode: str | None = None, columns: list[str] | None = None, version: int | None = None
    ) -> list[dict[str, Any]]:
        """Rows of a table, oldest first.

        Args:
            episode: only rows of this episode. columns: only these columns. version: an older version of the table.
        """
        table = self.table(name, episode, columns, version)
        if "at" in table.column_names:
            table = table.sort_by("at")
        return table.to_pylist(maps_as_pydicts="strict")

    def table(self, name: str, episode: str | None = None, columns: list[str] | None = None, version: int | None = None) -> pa.Table:
        """`rows` as they are in memory, in no order."""
        try:
            chosen = None if episode is None else pc.field("episode") == episode
            return self.dataset(name, version).to_table(filter=chosen, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error

    def dataset(self, name: str, version: int | None = None) -> ds.Dataset:
        """The live rows of a table, for any engine that reads Arrow."""
        try:
            return dataset(DeltaTable(self.place.table(name), version=version), self.place, name, TABLES[name].schema)
        except TableNotFoundError as error:
            raise CatalogError(f"catalog {self.place} has no table {name}") from error
        except (OSError, DeltaError, pa.ArrowException, ValueError) as error:
            raise self._unreadable(error) from error

    def sql(self, query: str, tables: Iterable[str], views: str = "", given: dict[str, pa.Table] | None = None, **values: Any) -> pa.Table:
        """Run a DuckDB query over the live tables.

        Args:
            tables: names of the tables that the query reads.
            views: SQL statements to run before the query.
            given: more tables for the query, by name.
            values: parameters of the query, `$name` in its text.
        """
        with database() as connection:
            for name in tables:
                connection.register(name, self.dataset(name))
            for name, table in (given or {}).items():
                connection.register(name, table)
            try:
                if views:
                    connection.execute(views)
                return connection.sql(query, params=values or None).to_arrow_table()
            except (duckdb.IOException, duckdb.InvalidInputException, OSError, pa.ArrowException) as error:
                if INTERRUPTED in str(error):  # a signal came while DuckDB asked Python for rows
                    raise KeyboardInterrupt from error
                raise self._unreadable(error) from error

    def _unreadable(self, error: BaseException) -> CatalogError:
        return CatalogError(f"catalog {self.place} cannot be read: {_damage(self.place) or _line(error)}")


def database(**settings: Any) -> duckdb.DuckDBPyConnection:
    """An empty database in memory, which can reach no file and no network. Its clock is UTC."""
    connection = duckdb.connect(config={"enable_external_access": False, "allow_community_extensions": False} | settings)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _place(where: Path | str | Place) -> Place:
    try:
        return Place.of(where)
    except PlaceError as error:
        raise CatalogError(f"catalog {where} cannot be opened: {error}") from error


def _damage(place: Place) -> str | None:
    """The first damage in the files of tables, and what to do about it; None where the files are whole.

    Error messages of the engines name bytes and offsets, and never a remedy.
    """
    try:
        found = next((p for p in table_problems(place) if p.harmful), None)
    except OSError:  # nothing can be read at all, which the engine's message says too
        return None
    return f"{found.what}; `tower catalog repair` mends what can be mended" if found else None


def _known(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    unknown = set(row) - set(schema.names)
    if unknown:
        raise CatalogError(f"no such column: {', '.join(sorted(unknown))}")
    return row


def _line(error: BaseException) -> str:
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    return text[:300] or type(error).__name__
