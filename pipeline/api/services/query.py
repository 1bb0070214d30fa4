"""A person's SQL over the catalog: it reads, within limits of time, memory and rows, and nothing else.

A query runs in a process of its own. The engine looks at its limits between steps, and one step can be `repeat('x', 1000000000)`.
So the system bounds the process too: its processor time, its memory, and the files that it may write, which are none.
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from threading import BoundedSemaphore, Timer
from typing import Any

import duckdb
import pyarrow as pa

from catalog.place import Place
from catalog.schema import TABLES, VERSION
from catalog.store import Catalog, CatalogError
from catalog.views import VIEWS
from pipeline import PROJECT
from pipeline.story.errors import InputError

from .errors import Busy

SECONDS = 10.0
CPU_SECONDS = 20  # processor time of the process
WALL_SECONDS = 40.0  # for the whole process, whose imports take seconds on a busy machine
ROWS = 10_000
MEMORY = "512MB"
BYTES = 8_000_000  # of an answer's text
TOO_LONG = f"the query took longer than {SECONDS:.0f} s; ask for less, such as one episode"
LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,  # no file and no network: read_csv, COPY, ATTACH, INSTALL
    "allow_community_extensions": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,  # a name in FROM is a table, and never a variable of this process
    "memory_limit": MEMORY,
    "threads": 1,
    "temp_directory": "",
}
ADDRESS_SPACE = 3 * 2**30  # bytes of the process
LIMITS = {resource.RLIMIT_AS: ADDRESS_SPACE, resource.RLIMIT_CPU: CPU_SECONDS, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CORE: 0}
QUERIES = 2  # at once; a third would wait on a thread that other requests need
AT_ONCE = BoundedSemaphore(QUERIES)
SECRET = "TOWER_DESK_TOKEN"  # no query has a use for it


@dataclass(frozen=True)
class Answer:
    """columns: names. rows: as many as were asked for. truncated: whether there are more."""

    columns: list[str]
    rows: list[list[Any]]
    truncated: bool


def query(catalog: Catalog, sql: str, most: int) -> Answer:
    """Run one SELECT.

    Args:
        most: rows to give, ROWS at most.

    Raises:
        InputError: it is no single SELECT, is wrong, takes longer than SECONDS, or needs more than MEMORY.
        Busy: QUERIES run already.
    """
    if not AT_ONCE.acquire(blocking=False):
        raise Busy(f"{QUERIES} queries run already; ask again in a moment")
    try:
        told = _asked(catalog, sql, most)
    finally:
        AT_ONCE.release()
    if "error" in told:
        raise InputError(told["error"])
    return Answer(**told)


def _asked(catalog: Catalog, sql: str, most: int) -> dict[str, Any]:
    """What a process of its own answers: an answer's fields, or "error"."""
    asked = json.dumps({"place": catalog.place.uri, "sql": sql, "most": min(most, ROWS)})
    command = [sys.executable, "-m", "pipeline.api.services.query"]
    env = {name: value for name, value in os.environ.items() if name != SECRET}
    try:
        done = subprocess.run(
            command, input=asked.encode(), capture_output=True, timeout=WALL_SECONDS, cwd=PROJECT, env=env, check=False
        )  # fmt: skip
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise InputError(TOO_LONG) from error
    except ValueError as error:  # the system has ended it: its processor time or its address space was spent
        raise InputError(f"the query needed more than {MEMORY} of memory, or more than {SECONDS:.0f} s; ask for less") from error


def _run(place: str, sql: str, most: int) -> Answer:
    """In a process of its own."""
    for limit, most_of_it in LIMITS.items():
        resource.setrlimit(limit, (most_of_it, most_of_it))
    catalog = Catalog(Place.of(place), VERSION)
    with duckdb.connect(config=LOCKED) as connection:
        _check(connection, sql)
        connection.execute("SET TimeZone = 'UTC'")
        for name in TABLES:
            connection.register(name, catalog.dataset(name))
        connection.execute(VIEWS)
        connection.execute("SET lock_configuration = true")
        timer = Timer(SECONDS, connection.interrupt)
        timer.start()
        try:
            columns, rows = _first(connection.sql(sql), most + 1)
        except duckdb.InterruptException as error:
            raise InputError(TOO_LONG) from error
        except (duckdb.Error, pa.ArrowException, OverflowError, OSError, ValueError) as error:
            raise InputError(f"query: {_line(error)}") from error
        finally:
            timer.cancel()
    kept = _bounded([[_plain(value) for value in row] for row in rows[:most]])
    return Answer(columns, kept, len(rows) > len(kept))


def _check(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    try:
        statements = connection.extract_statements(sql)
    except (duckdb.Error, ValueError) as error:
        raise InputError(f"query: {_line(error)}") from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise InputError("query: one SELECT is wanted; the catalog is only read here")


def _first(found: duckdb.DuckDBPyRelation, most: int) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the columns, and the first rows. By way of Arrow: without it, times with a zone need a package that is not among ours."""
    reader = found.to_arrow_reader(1000)
    rows: list[tuple[Any, ...]] = []
    for batch in reader:
        rows += zip(*(column.to_pylist(maps_as_pydicts="lossy") for column in batch.columns), strict=True)
        if len(rows) >= most:
            break
    return reader.schema.names, rows[:most]


def _plain(value: Any) -> Any:
    """The value as JSON has it: what JSON has no word for becomes text."""
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _bounded(rows: list[list[Any]]) -> list[list[Any]]:
    """The first rows, whose JSON is not longer than BYTES."""
    size = 0
    for number, row in enumerate(rows):
        size += len(json.dumps(row))
        if size > BYTES:
            return rows[:number]
    return rows


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:500]


def _main() -> None:
    try:
        told = _run(**json.load(sys.stdin)).__dict__
    except (InputError, CatalogError) as error:
        told = {"error": str(error)}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    _main()
