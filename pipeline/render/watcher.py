"""Watchers of a running render: one only counts takes, one also shows progress and feeds Ray's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from catalog.standing import name_of
from pipeline.story.stages import STAGES

from .take import Take

if TYPE_CHECKING:
    from cluster.metrics import Metrics

    from .progress import RenderProgress


class Watcher:
    """Counts takes; the base class of watchers that do more."""

    def __init__(self) -> None:
        self.takes = 0

    def step(self, take: str, step: str) -> None:
        """What happens to a take from now on: `waits` (for a device, then on it), `gate 1`, `gate 2`; "" once it is over."""

    def take(self, take: Take) -> None:
        """A take was recorded."""
        self.takes += 1

    def shot(self, outcome: str, stages: Sequence[str]) -> None:
        """A shot ended: accepted or exhausted. stages: that it goes through."""

    def pool(self, stats: Any) -> None:
        """The pool's new statistics; about once a second."""


class Display(Watcher):
    """Shows progress on the terminal or in a log, and feeds Ray's metrics.

    steps: id of each take that is being made, to its step.
    """

    def __init__(self, progress: RenderProgress, metrics: Metrics):
        super().__init__()
        self.progress, self.metrics = progress, metrics
        self.steps: dict[str, str] = {}

    def step(self, take: str, step: str) -> None:
        if step:
            self.steps[take] = step
        else:
            self.steps.pop(take, None)

    def take(self, take: Take) -> None:
        super().take(take)
        row = take.row
        self.progress.take(row)
        seconds = {part: row.get(f"{part}_seconds") for part in ("queue", "device", "gate")}
        self.metrics.take(row["stage"], name_of(row), row["outcome"], row["labels"], seconds)

    def shot(self, outcome: str, stages: Sequence[str]) -> None:
        self.progress.shot(outcome, stages)
        self.metrics.shot(outcome)

    def pool(self, stats: Any) -> None:
        self.progress.pool(stats)
        self.metrics.pool(stats, ("prompt", *STAGES))
