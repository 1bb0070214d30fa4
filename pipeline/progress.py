"""Progress: live bars with a guess at the end on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

QUIET_SECONDS = 30.0  # without a terminal, at most this long without a line


class RenderProgress:
    """Follows takes. `total` shots go through both stages; takes beyond the first are retries."""

    def __init__(self, console: Console, keyframes: int, clips: int):
        self.console, self.totals = console, {"keyframe": keyframes, "clip": clips}
        self.done = {"keyframe": 0, "clip": 0}
        self.rejected, self.started, self.spoke = 0, time.monotonic(), time.monotonic()
        self.bars: Progress | None = None
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> RenderProgress:
        if self.console.is_terminal:
            self.bars = Progress(
                TextColumn("{task.description:9}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self.console,
            )
            for stage, total in self.totals.items():
                self.tasks[stage] = self.bars.add_task(f"{stage}s", total=total, note="")
            self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bars:
            self.bars.stop()

    def take(self, row: dict[str, Any]) -> None:
        """A take was recorded."""
        stage = row["stage"]
        if row.get("prompt_cut"):
            cut = row["prompt_cut"]
            self.line(f"{row['take']}: the prompt was cut; its encoder did not see the last {len(cut)} characters, from {cut[:40]!r} on")
        if row["outcome"] == "accepted":
            self.done[stage] = min(self.totals[stage], self.done[stage] + 1)
        else:
            self.rejected += 1
            why = ", ".join(row["labels"]) if row["labels"] else row.get("error", "")
            self.line(f"{row['take']} {row['outcome']}: {why}")
        if self.bars:
            self.bars.update(self.tasks[stage], completed=self.done[stage], note=f"{self.rejected} not accepted" if self.rejected else "")
        elif row["outcome"] == "accepted" or time.monotonic() - self.spoke > QUIET_SECONDS:
            self.line(
                f"{row['take']} {row['outcome']} ({self.done['keyframe']}/{self.totals['keyframe']} keyframes, "
                f"{self.done['clip']}/{self.totals['clip']} clips, {time.monotonic() - self.started:.0f} s)"
            )

    def line(self, text: str) -> None:
        self.spoke = time.monotonic()
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
