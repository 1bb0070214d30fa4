"""The log of a run: rows in the catalog's table of runs. The rows of a run that has not ended are also its claim on the episode."""

from __future__ import annotations

import asyncio
import json
import platform
import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from catalog.standing import Row
from catalog.store import Catalog
from pipeline.plan.plan import Plan
from pipeline.story.errors import InputError

from .process import may_be_running, process_columns

OVER = ("finished", "interrupted", "failed", "refused")  # events that end a run

# The newest row of each run that has not ended. A table of years of runs has a row for each minute of each, so it is not read whole.
NOT_OVER = f"""
    SELECT run, episode, event, "at", job, host, pid, pid_space, process_started FROM runs
    WHERE ($episode IS NULL OR episode = $episode) AND run NOT IN (SELECT run FROM runs WHERE event IN {OVER})
    QUALIFY row_number() OVER (PARTITION BY run ORDER BY "at" DESC) = 1
    ORDER BY "at"
"""


@dataclass
class RunLog:
    """One run of one driver over one episode."""

    catalog: Catalog
    plan: Plan
    allow_experimental: bool
    statuses: dict[str, str]  # name@version of every workflow that renders, to its status
    run: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}")
    devices: int | None = None
    job: str | None = None  # that the run is part of

    def claim(self) -> None:
        """Claim the episode by recording that the run started. If two drivers try, the driver whose row was committed first goes on.

        Raises:
            InputError: another driver renders this episode now.
        """
        committed = self.catalog.append("runs", [self.row("started")])
        others = living(self.catalog.rows("runs", self.plan.episode.id, version=committed - 1))
        if others:
            self.catalog.append("runs", [self.row("refused")])
            raise InputError(taken(self.plan.episode.id, others[0]))

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Claim the episode for the length of a `with` block. An error that ends the block is recorded.

        Raises:
            InputError: another driver renders this episode now.
        """
        self.claim()
        try:
            yield
        except BaseException as error:
            event = "interrupted" if _is_an_interruption(error) else "failed"
            with suppress(Exception):  # the run is failing already; its own error matters more than this row
                self.catalog.append("runs", [self.row(event, error=str(error) or None)])
            raise

    def row(self, event: str, **more: Any) -> Row:
        """A row of the table of runs; `more` adds or replaces columns."""
        versions = {name: version(name) for name in ("tower", "torch", "diffusers", "ray")} | {"python": platform.python_version()}
        return (
            {
                "run": self.run,
                "event": event,
                "at": datetime.now(UTC),
                "episode": self.plan.episode.id,
                "episode_file": str(self.plan.file),
                "episode_digest": self.plan.file_digest,
                "shots": len(self.plan.shots),
                "stale": len(self.plan.stale),
                "devices": self.devices,
                "versions": json.dumps(versions),
                "allow_experimental": self.allow_experimental,
                "workflows": self.statuses,
                "job": self.job,
            }
            | process_columns()
            | more
        )


def _is_an_interruption(error: BaseException) -> bool:
    """Whether a person or a scheduler ended the run. While Ray starts, its own handler turns SIGTERM into an exit."""
    stopped = isinstance(error, SystemExit) and error.code == signal.SIGTERM
    return stopped or isinstance(error, asyncio.CancelledError | KeyboardInterrupt)


def living_runs(catalog: Catalog, episode: str | None = None) -> list[Row]:
    """The runs that live now, of one episode or of all: the newest row of each, with the columns of NOT_OVER.

    Raises:
        CatalogError: the table of runs cannot be read.
    """
    return [row for row in unended_runs(catalog, episode) if may_be_running(row)]


def unended_runs(catalog: Catalog, episode: str | None = None) -> list[Row]:
    """The newest row of each run that has recorded no end, whether its driver lives or not. Raises as `living_runs`."""
    return catalog.sql(NOT_OVER, ("runs",), episode=episode).to_pylist()


def living(rows: Sequence[Row]) -> list[Row]:
    """The latest row of every run that has not ended and whose driver may still be running."""
    latest: dict[str, Row] = {}
    for row in rows:
        latest[row["run"]] = row
    over = {row["run"] for row in rows if row["event"] in OVER}
    return [row for run, row in latest.items() if run not in over and may_be_running(row)]


def taken(episode: str, row: Row) -> str:
    """The sentence for whoever would render the episode too. row: of the run that renders it."""
    since = f"{row['at']:%H:%M:%S} UTC"
    where = f"process {row['pid']} on {row['host']}"
    return f"episode {episode} is being rendered by run {row['run']} ({where}, last sign of life {since}); wait for it, or stop it"
