"""Migrations: add to an older catalog the tables, columns and properties that it lacks, before anything is written to it."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import pyarrow as pa
from deltalake import DeltaTable, Field
from deltalake.exceptions import DeltaError, TableNotFoundError

from .commit import NO_HOOKS, check_writable, commit, dataset, seal_new, write_data
from .place import Place
from .schema import MIGRATIONS, TABLES, VERSION, Table

TRIES = 6  # attempts for each table, since several drivers may open an old catalog at once


class NewerCatalog(RuntimeError):
    """The catalog was written by a newer Tower."""


def migrate(place: Place) -> int:
    """Bring the catalog to VERSION, or create it. Returns the version that it had before (0 for a new one).

    Raises:
        NewerCatalog: the catalog's version is higher than VERSION.
    """
    had = found_version(place)
    if had > VERSION:
        raise NewerCatalog(f"catalog {place} has version {had}, this Tower knows versions up to {VERSION}; use the Tower that wrote it")
    if had == VERSION:
        return had
    for table in TABLES.values():
        check_writable(place, table.name)
        _try(partial(_bring, place, table))
        if place.is_local:
            place.flush(table.name)  # the engine makes a table's folders, and flushes none
        seal_new(place, table.name)
    row = {"version": VERSION, "at": datetime.now(UTC), "tower": tower_version(), "host": socket.gethostname()}
    file = write_data(place, "migrations", pa.Table.from_pylist([row], schema=MIGRATIONS.schema).to_batches(), MIGRATIONS.schema)
    _try(lambda: commit(place, "migrations", DeltaTable(place.table("migrations")), [file]))
    return had


def _try(work: Callable[[], object]) -> None:
    """Do the work, again where another driver migrates the same table at this moment."""
    for attempt in range(TRIES):
        try:
            work()
            return
        except DeltaError:
            if attempt == TRIES - 1:
                raise
            time.sleep(random.uniform(0.05, 0.2) * 2**attempt)


def found_version(place: Place) -> int:
    """The catalog's version; 0 where there is no catalog. Versions 1 and 2 kept no record, so their columns decide."""
    try:
        table = dataset(DeltaTable(place.table("migrations")), place, "migrations", MIGRATIONS.schema)
        return max(table.to_table(columns=["version"])["version"].to_pylist())
    except TableNotFoundError:
        pass
    except ValueError:
        return 0  # the table exists, but its first row is not written yet
    try:
        return 2 if "profile" in _names(DeltaTable(place.table("takes"))) else 1
    except TableNotFoundError:
        return 0


def _bring(place: Place, table: Table) -> None:
    """Create the table, or add the columns and properties that it lacks. Old rows are null in new columns."""
    try:
        delta = DeltaTable(place.table(table.name))
    except TableNotFoundError:
        where, properties = place.table(table.name), dict[str, str | None](table.properties)
        DeltaTable.create(where, table.schema, "ignore", name=table.name, description=table.doc, configuration=properties)
        return
    have = _names(delta)
    lacking = [f for f in table.schema if f.name not in have]
    if lacking:
        delta.alter.add_columns([Field.from_arrow(f) for f in lacking], post_commithook_properties=NO_HOOKS)
    if not table.properties.items() <= delta.metadata().configuration.items():
        delta.alter.set_table_properties(table.properties)


def _names(table: DeltaTable) -> list[str]:
    return [field.name for field in table.schema().fields]


def tower_version() -> str:
    try:
        return version("tower")
    except PackageNotFoundError:
        return "unknown"
