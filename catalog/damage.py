"""Finds damage in the files of tables, without opening the catalog."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from .place import Place
from .schema import TABLES

ENTRY = re.compile(r"[0-9]{20}\.json$")
READERS = 8  # data files that are read at once


@dataclass(frozen=True)
class Problem:
    """One damaged or unneeded file.

    kind: "missing" and "corrupt": a media file that a take needs. "orphan": a media file of no take. "unfinished": what a
        write of media left that never ended. "table": a log entry or data file of a table that is not whole.
    path: relative to the catalog. what: the problem in words.
    """

    kind: Literal["missing", "corrupt", "orphan", "unfinished", "table"]
    path: str
    what: str


def table_problems(place: Place) -> Iterator[Problem]:
    """Yield log entries that are not whole, and live data files that are missing or cannot be read.

    The data files of a table are only read where all of its log entries are whole.
    """
    for name in TABLES:
        entries = list(_bad_entries(place, name))
        yield from entries
        if not entries:
            yield from _bad_data(place, name)


def _bad_entries(place: Place, name: str) -> Iterator[Problem]:
    folder = pafs.FileSelector(f"{name}/_delta_log", allow_not_found=True)
    for info in place.files.get_file_info(folder):
        if ENTRY.search(info.path):
            with place.files.open_input_stream(info.path) as file:
                text = file.read().decode(errors="replace")
            try:
                whole = bool(text.strip()) and all(isinstance(json.loads(line), dict) for line in text.splitlines())
            except ValueError:
                whole = False
            if not whole:
                yield Problem("table", info.path, f"log entry {info.path} is not whole: that commit never ended, or the disk lost it")


def _bad_data(place: Place, name: str) -> Iterator[Problem]:
    try:
        live = DeltaTable(place.table(name)).get_add_actions().column("path").to_pylist()
    except TableNotFoundError:
        return
    except (DeltaError, OSError, ValueError) as error:
        yield Problem("table", f"{name}/_delta_log", f"the log of {name} cannot be read: {' '.join(str(error).split())[:200]}")
        return
    with ThreadPoolExecutor(READERS) as readers:
        for path, why in zip(live, readers.map(lambda p: _data_damage(place, f"{name}/{p}"), live), strict=True):
            if why:
                yield Problem("table", f"{name}/{path}", f"data file {name}/{path} {why}")


def _data_damage(place: Place, path: str) -> str | None:
    try:
        with place.files.open_input_file(path) as file:
            pq.ParquetFile(file).read()
    except FileNotFoundError:
        return "is missing"
    except (pa.ArrowException, OSError) as error:
        return f"cannot be read: {' '.join(str(error).split())[:120]}"
    return None
