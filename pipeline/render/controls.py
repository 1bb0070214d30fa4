"""Pause and resume a running render. A person's request is a row in the catalog, so it reaches a driver on any machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from getpass import getuser
from typing import Literal

from catalog.standing import Row
from catalog.store import Catalog, CatalogError
from cluster.pool import Pool
from pipeline.story.errors import InputError

from .run_log import living_runs

POLL_SECONDS = 2.0


class Controls:
    """The driver's side: reads the requests to its run."""

    def __init__(self, catalog: Catalog, run: str):
        self.catalog, self.run = catalog, run

    async def follow(self, pool: Pool, tell: Callable[[str], None]) -> None:
        """Pause or resume the pool, as the latest request says, until cancelled. `tell` prints a line for each change."""
        while True:
            row = await asyncio.to_thread(self._latest)
            if row and (row["action"] == "pause") != pool.paused:
                (pool.pause if row["action"] == "pause" else pool.resume)()
                tell(f"paused by {row['by']}: what executes ends, nothing begins" if pool.paused else f"resumed by {row['by']}")
            await asyncio.sleep(POLL_SECONDS)

    def _latest(self) -> Row | None:
        try:
            requests = [r for r in self.catalog.rows("controls") if r["run"] == self.run]
        except CatalogError:
            return None  # a storage fault must not stop the render; the next poll tries again
        return requests[-1] if requests else None


def say(catalog: Catalog, episode: str, action: Literal["pause", "resume"], by: str = "") -> Row:
    """Record a request to the driver that renders this episode. Gives its row.

    Args:
        by: who asks; "" is the current user.

    Raises:
        InputError: no driver renders the episode now.
    """
    runs = living_runs(catalog, episode)
    if not runs:
        raise InputError(f"nobody renders episode {episode} now; `tower render` begins, and goes on where it was")
    row = {"at": datetime.now(UTC), "run": runs[-1]["run"], "episode": episode, "action": action, "by": by or getuser()}
    catalog.append_later("controls", [row])
    return row
