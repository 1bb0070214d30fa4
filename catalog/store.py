"""The catalog: open it, add rows, read them back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from .media import MediaStore
from .schema import TABLES

COMMIT_TRIES = 8


class CatalogError(RuntimeError):
    """The catalog cannot be opened, read or written. One sentence."""


@dataclass(frozen=True)
class Catalog:
    """A folder with one Delta table each for runs and takes, and the media beside them."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> Catalog:
        """Open, creating what is missing. Tables are made here, before writers could race to make them."""
        catalog = cls(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
            for name, schema in TABLES.items():
                DeltaTable.create(str(root / name), schema=schema, mode="ignore", name=name)
                catalog._check(name, schema)
        except (OSError, DeltaError) as error:
            raise CatalogError(f"catalog {root} cannot be opened: {_line(error)}") from error
        return catalog

    @property
    def media(self) -> MediaStore:
        return MediaStore(self.root)

    def append(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Add rows in one commit; all of them or none. A lost race with another driver is tried again."""
        table = pa.Table.from_pylist([_known(row, TABLES[name]) for row in rows], schema=TABLES[name])
        for attempt in range(COMMIT_TRIES):
            try:
                write_deltalake(str(self.root / name), table, mode="append")
                return
            except CommitFailedError as error:
                if attempt == COMMIT_TRIES - 1:
                    raise CatalogError(f"{name}: {COMMIT_TRIES} commits lost their race; too many drivers write at once") from error
                time.sleep(random.uniform(0.05, 0.2) * 2**attempt)
            except (OSError, DeltaError) as error:
                raise CatalogError(f"{name} cannot be written: {_line(error)}") from error

    def rows(self, name: str, episode: str | None = None, columns: list[str] | None = None) -> list[dict[str, Any]]:
        """Rows of a table, oldest first; only those of one episode if it is given."""
        try:
            dataset = DeltaTable(str(self.root / name)).to_pyarrow_dataset()
            table = dataset.to_table(filter=None if episode is None else pc.field("episode") == episode, columns=columns)
        except TableNotFoundError:
            return []
        except (OSError, DeltaError, pa.ArrowException) as error:
            raise CatalogError(f"{name} cannot be read: {_line(error)}") from error
        if "at" in table.column_names:
            table = table.sort_by("at")
        return table.to_pylist(maps_as_pydicts="strict")

    def _check(self, name: str, schema: pa.Schema) -> None:
        have = set(DeltaTable(str(self.root / name)).schema().to_arrow().names)  # type: ignore[attr-defined]
        if have != set(schema.names):
            differ = ", ".join(sorted(have ^ set(schema.names)))
            raise CatalogError(f"catalog {self.root}: table {name} has other columns than this version of Tower writes ({differ})")


class Writer:
    """The one writer of a driver: gathers rows, commits them together, and says when each is safe.

    Use as an async context manager; leaving it commits what is left.
    """

    def __init__(self, catalog: Catalog, gather_seconds: float = 0.15):
        self.catalog, self.gather_seconds = catalog, gather_seconds
        self.queue: asyncio.Queue[tuple[str, dict[str, Any], asyncio.Future[None]] | None] = asyncio.Queue()

    async def __aenter__(self) -> Writer:
        self.task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.queue.put_nowait(None)
        await self.task

    async def add(self, name: str, row: dict[str, Any]) -> None:
        """Returns when the row is committed; raises CatalogError when it could not be."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((name, row, done))
        await done

    async def _run(self) -> None:
        open_ = True
        while open_:
            items = [await self.queue.get()]
            if items[0] is not None:
                await asyncio.sleep(self.gather_seconds)
            while not self.queue.empty():
                items.append(self.queue.get_nowait())
            open_ = None not in items
            await self._commit([i for i in items if i is not None])

    async def _commit(self, items: list[tuple[str, dict[str, Any], asyncio.Future[None]]]) -> None:
        for name in dict.fromkeys(i[0] for i in items):
            batch = [i for i in items if i[0] == name]
            settle = await asyncio.to_thread(_outcome, partial(self.catalog.append, name, [i[1] for i in batch]))
            for _, _, done in batch:
                if not done.cancelled():
                    settle(done)


def _outcome(work: Callable[[], None]) -> Callable[[asyncio.Future[None]], None]:
    try:
        work()
    except Exception as error:  # noqa: BLE001 - handed to whoever waits for the row
        failure = error
        return lambda done: done.set_exception(failure)
    return lambda done: done.set_result(None)


def _known(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    unknown = set(row) - set(schema.names)
    if unknown:
        raise CatalogError(f"no such column: {', '.join(sorted(unknown))}")
    return row


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
