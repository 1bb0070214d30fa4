"""What came into a table since a version of it: read from the table's log, without a look at older rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .commit import LOG, entry
from .schema import TABLES
from .store import Catalog


@dataclass(frozen=True)
class Added:
    """A data file with new rows, and how many. first, last: least and greatest id of an episode in it; "" where the log names none."""

    path: str
    rows: int
    first: str
    last: str

    @property
    def episode(self) -> str:
        """The only episode that has rows in the file; "" where there may be others."""
        return self.first if self.first == self.last else ""

    def may_have(self, episode: str) -> bool:
        return not self.first or self.first <= episode <= self.last


def added_by(log_entry: bytes) -> list[Added] | None:
    """The data files with new rows that an entry of a log adds: none for a compaction. None where rows were taken out of the table."""
    actions = [json.loads(line) for line in log_entry.splitlines()]
    adds = [action["add"] for action in actions if "add" in action]
    if not adds and any("remove" in action for action in actions):
        return None
    return [_added(add) for add in adds if add["dataChange"]]


def _added(add: dict[str, Any]) -> Added:
    told = json.loads(add["stats"] or "{}")
    first, last = (told.get(bound, {}).get("episode", "") for bound in ("minValues", "maxValues"))
    return Added(add["path"], told.get("numRecords", 0), first, last)


def table_since(
    catalog: Catalog,
    name: str,
    version: int,
    until: int,
    columns: Sequence[str] | None = None,
    episode: str | None = None,
    most: int | None = None,
) -> pa.Table | None:
    """The rows that commits after `version`, up to `until`, have added, in the order of the commits.

    Compacting a table adds no rows, and is passed over.

    Args:
        columns: only these. episode: only its rows. most: rows that are read at most.

    Returns:
        None where nobody can tell, or there are more: rows were taken out, or an entry of the log or a data file is gone by now.
    """
    schema = TABLES[name].schema
    if columns is not None:
        schema = pa.schema([schema.field(column) for column in columns])
    files: list[Added] = []
    tables = [schema.empty_table()]
    try:
        for number in range(version + 1, until + 1):
            added = added_by(catalog.place.read(f"{name}/{LOG}/{entry(number)}"))
            if added is None:
                return None
            files += [file for file in added if episode is None or file.may_have(episode)]
        if most is not None and sum(file.rows for file in files) > most:
            return None
        for file in files:
            with catalog.place.files.open_input_file(f"{name}/{file.path}") as data:
                tables.append(pq.read_table(data, columns=schema.names, page_checksum_verification=True).cast(schema))
    except FileNotFoundError:
        return None
    found = pa.concat_tables(tables)
    return found if episode is None else found.filter(pc.field("episode") == episode)


def rows_since(
    catalog: Catalog, name: str, version: int, until: int, columns: Sequence[str], most: int | None = None
) -> list[dict[str, Any]] | None:
    """`table_since`, as rows."""
    found = table_since(catalog, name, version, until, columns, most=most)
    return None if found is None else found.to_pylist(maps_as_pydicts="strict")
