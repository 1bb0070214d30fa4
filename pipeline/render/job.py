"""Jobs: renders that outlive whoever started them, told in one way wherever they run."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from catalog.standing import Row
from catalog.store import Catalog
from pipeline.story.stages import in_use

from .live import Live, living_now
from .order import Order

State = Literal["queued", "running", "paused", "succeeded", "failed", "stopped"]
# Exit codes of `tower render`; any other is a failure. A shell says 143 where SIGTERM came before the render could catch it.
ENDS: dict[int, State] = {0: "succeeded", 3: "succeeded", 130: "stopped", 143: "stopped"}
LOG_BYTES = 256 * 2**10  # most of a log that is read at once

NEWEST = """
    SELECT job, run, stale, accepted, exhausted FROM runs WHERE job IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY job ORDER BY "at" DESC) = 1
"""


@dataclass(frozen=True)
class Job:
    """A render as a job.

    run: the newest run that it began; None before. ended: None while it lives. message: why it failed, or what is to be known.
    done, total: results of the last stage. eta_seconds: of the run. All three are None while unknown.
    """

    job: str
    episode: str
    state: State
    run: str | None
    started: datetime | None
    ended: datetime | None
    message: str
    done: int | None
    total: int | None
    eta_seconds: float | None
    cancellable: bool


@dataclass(frozen=True)
class End:
    """How a job ended, as its own process or its cluster tells."""

    state: State
    at: datetime | None
    message: str = ""


class Jobs(Protocol):
    """Starts renders as jobs, and tells of them. Everything is read anew at each call, so any process may ask."""

    def start(self, order: Order) -> Job:
        """Start a render.

        Raises:
            InputError, StorageError, ClusterError: it cannot start, or the episode is being rendered.
        """
        ...

    def list(self, episode: str | None = None) -> Sequence[Job]:
        """The jobs of one episode or of all, newest first."""
        ...

    def find(self, job: str) -> Job:
        """Raises InputError or ClusterError where there is no such job."""
        ...

    def log(self, job: str, offset: int = 0) -> tuple[str, int]:
        """A part of what the job has printed, from that byte on, and the offset of what follows. "" where nothing follows yet."""
        ...

    def stop(self, job: str) -> Job:
        """Stop a job as Ctrl-C stops a render, and wait until it has ended. One that has ended stays as it ended."""
        ...


class Facts:
    """What the catalog knows of jobs: the newest row of each job's runs, and what living runs say."""

    def __init__(self, catalog: Catalog):
        """Raises CatalogError where the table of runs cannot be read."""
        self.newest: dict[str, Row] = {row["job"]: row for row in catalog.sql(NEWEST, ("runs",)).to_pylist()}
        self.live: dict[str, Live] = {live.run: live for live in living_now(catalog)}

    def job(self, name: str, episode: str, started: datetime | None, end: End | None) -> Job:
        """A job. end: None while it lives; then the catalog tells how far it is."""
        row = self.newest.get(name)
        live = self.live.get(row["run"]) if row else None
        last = live.stages[in_use(stage for stage, told in live.stages.items() if told.total)[-1]] if live else None
        exhausted = (row["exhausted"] or 0) if row else 0
        message = end.message if end else ""
        if end and end.state == "succeeded" and exhausted:
            message = f"{exhausted} shots exhausted" if exhausted > 1 else "1 shot exhausted"
        return Job(
            job=name,
            episode=episode,
            state=end.state if end else "queued" if row is None else "paused" if live and live.paused else "running",
            run=row["run"] if row else None,
            started=started,
            ended=end.at if end else None,
            message=message,
            done=last.done if last else row["accepted"] if row else None,
            total=last.total if last else row["stale"] if row else None,
            eta_seconds=live.eta_seconds if live else None,
            cancellable=end is None,
        )


def log_part(data: bytes, offset: int) -> tuple[str, int]:
    """The text of a part of a log that begins at an offset in bytes, and the offset of what follows.

    A letter whose last bytes are not there yet is left for the next part.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text = decoder.decode(data)
    return text, offset + len(data) - len(decoder.getstate()[0])


def reason(lines: Sequence[str], first: bool = False) -> str:
    """Why a render failed: its last error or the last shot that is exhausted, among the lines that it printed.

    Args:
        first: without such a line, the first line is the reason, as in Ray's messages, and not the last one, as in a traceback.
    """
    said = [line.strip() for line in lines if line.strip()] or [""]
    told = [line for line in said if line.startswith("error: ") or " exhausted: " in line]
    return (told or said[:1])[-1] if first else (told or said)[-1]
