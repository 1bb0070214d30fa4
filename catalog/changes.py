"""What came into a table since a version of it: read from the table's log, without a look at older rows."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .commit import LOG, entry
from .schema import TABLES
from .store import Catalog


def rows_since(catalog: Catalog, name: str, version: int, until: int, columns: list[str]) -> list[dict[str, Any]] | None:
    """The rows that commits after `version`, up to `until`, have added.

    Compacting a table adds no rows, and is passed over.

    Returns:
        None where an entry of the log, or a data file that it names, is gone by now: then nobody can tell.
    """
    found: list[dict[str, Any]] = []
    schema = pa.schema([TABLES[name].schema.field(column) for column in columns])
    try:
        for number in range(version + 1, until + 1):
            for line in catalog.place.read(f"{name}/{LOG}/{entry(number)}").splitlines():
                added = json.loads(line).get("add")
                if added and added["dataChange"]:
                    with catalog.place.files.open_input_file(f"{name}/{added['path']}") as file:
                        table = pq.read_table(file, columns=columns)
                    found += table.cast(schema).to_pylist(maps_as_pydicts="strict")
    except FileNotFoundError:
        return None
    return found
