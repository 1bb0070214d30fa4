"""How an episode ended: what a run says at its end, and writes into `summary.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from catalog.standing import Row
from pipeline.story.stages import STAGES


@dataclass(frozen=True)
class Result:
    """How a shot ended, with the rows of the takes that decide it, by their stage."""

    shot: str
    outcome: str
    why: str
    takes: dict[str, Row]

    @property
    def last(self) -> Row | None:
        """Of the last stage that was accepted."""
        return next((self.takes[stage] for stage in reversed(STAGES) if stage in self.takes), None)


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
