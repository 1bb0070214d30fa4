"""The one writer of a driver: gathers rows, commits them together, and tells each caller when its row is safe on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from .store import Catalog

# Seconds for which rows are gathered into one commit. Shots wait for their rows, so the time is short. When many rows
# come, it is longer, so that a commit has more rows.
GATHER_FEW, GATHER_MANY = 0.05, 0.25
MANY = 16  # after a commit of more rows than this, the next one gathers for GATHER_MANY

Waiting = tuple[str, dict[str, Any], "asyncio.Future[None]"]


class Writer:
    """Use as an async context manager; leaving it commits the rows that still wait."""

    def __init__(self, catalog: Catalog):
        self.catalog = catalog
        self.queue: asyncio.Queue[Waiting | None] = asyncio.Queue()

    async def __aenter__(self) -> Writer:
        self.task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.queue.put_nowait(None)
        await self.task

    async def add(self, name: str, row: dict[str, Any]) -> None:
        """Add a row; return when it is committed. Raises CatalogError where the commit failed."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((name, row, done))
        await done

    async def _run(self) -> None:
        open_, many = True, False
        while open_:
            items = [await self.queue.get()]
            if items[0] is not None:
                await asyncio.sleep(GATHER_MANY if many else GATHER_FEW)
            while not self.queue.empty():
                items.append(self.queue.get_nowait())
            open_, many = None not in items, len(items) > MANY
            await self._commit([i for i in items if i is not None])

    async def _commit(self, items: list[Waiting]) -> None:
        for name in dict.fromkeys(i[0] for i in items):
            batch = [i for i in items if i[0] == name]
            settle = await asyncio.to_thread(_outcome, partial(self.catalog.append, name, [i[1] for i in batch]))
            for _, _, done in batch:
                if not done.cancelled():
                    settle(done)


def _outcome(work: Callable[[], object]) -> Callable[[asyncio.Future[None]], None]:
    """Do the work. Returns a function that gives its success or its error to a future."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - goes to every caller that waits for a row
        failure = error
        return lambda done: done.set_exception(failure)
    return lambda done: done.set_result(None)
