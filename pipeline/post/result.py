"""How an episode ended: what a run says at its end, and writes into `summary.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from catalog.registry import Row


@dataclass(frozen=True)
class Result:
    """How a shot ended, with the rows of the takes that decide it."""

    shot: str
    outcome: str
    why: str
    keyframe: Row | None
    clip: Row | None


@dataclass(frozen=True)
class Summary:
    """What a run did; `summary.json` holds the same."""

    run: str
    episode: str
    outcomes: list[Result]
    rendered: int
    takes: int
    folder: Path
    movie: Path | None

    @property
    def exhausted(self) -> list[Result]:
        return [o for o in self.outcomes if o.outcome != "accepted"]
