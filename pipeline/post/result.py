"""The result of a run, which `summary.json` also holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from catalog.standing import Row
from pipeline.story.stages import STAGES


@dataclass(frozen=True)
class Result:
    """How a shot ended.

    outcome: accepted or exhausted. why: the reason, if exhausted. takes: stage to the row of its accepted take.
    """

    shot: str
    outcome: str
    why: str
    takes: dict[str, Row]

    @property
    def last(self) -> Row | None:
        """The row of the last stage that was accepted; None if no stage was."""
        return next((self.takes[stage] for stage in reversed(STAGES) if stage in self.takes), None)


@dataclass(frozen=True)
class Summary:
    """What a run did.

    rendered: number of shots that were stale. takes: number of takes that the run made. movie: None if not all shots are accepted.
    changed: whether anything in the folder is another than before.
    """

    run: str
    episode: str
    outcomes: list[Result]
    rendered: int
    takes: int
    folder: Path
    movie: Path | None
    changed: bool

    @property
    def exhausted(self) -> list[Result]:
        return [o for o in self.outcomes if o.outcome != "accepted"]
