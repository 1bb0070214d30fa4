"""Progress: what a person sees of a render. A table that updates itself on a terminal; log lines elsewhere."""

from __future__ import annotations

import json
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.story.stages import MANY, STAGES, StageName, in_use

LINES = 20  # messages in one log interval (rejections, cut prompts); more are only counted
SHOWN = 5  # latest rejections in the table
SHORT = 55  # characters of findings that fit into 80 columns beside a take's id
TRUSTED = 5  # earlier runs' costs weigh as much as this many accepted results of this run
# The estimate first assumes that all devices are busy. The devices' measured use weighs as much as this assumption after
# SETTLING seconds, plus the time of SETTLING_RESULTS results.
SETTLING = 60.0
SETTLING_RESULTS = 5
SMOOTHING = 15.0  # time constant in seconds: after this time, the shown estimate has gone 63 % of the way to a new one


class Eta:
    """Estimates the seconds left, from the device seconds of results in earlier runs and in this run.

    The shown estimate is smoothed, so that it does not jump.
    """

    def __init__(self, seconds: Mapping[str, float]):
        self.history = dict(seconds)
        self.spent: dict[str, float] = dict.fromkeys(STAGES, 0.0)  # device seconds of all takes, also of rejected ones
        self.devices, self.worked = 0, 0.0
        self.shown: float | None = None

    def cost(self, stage: str, accepted: int) -> float | None:
        """Device seconds for one accepted result; None if no run, this one included, has had a result."""
        if stage in self.history:
            return (self.history[stage] * TRUSTED + self.spent[stage]) / (TRUSTED + accepted)
        return self.spent[stage] / accepted if accepted else None

    def left(self, wanted: Mapping[str, int], accepted: Mapping[str, int]) -> float | None:
        """Seconds left, not smoothed: the work left in device seconds, over the average number of busy devices.

        Args:
            wanted: stage to results still to come. accepted: stage to accepted results of this run.

        Returns:
            None if there is no device yet, or if the cost of a stage is unknown.
        """
        costs: dict[str, float | None] = {stage: self.cost(stage, accepted[stage]) for stage in STAGES if wanted[stage]}
        known = {stage: cost for stage, cost in costs.items() if cost is not None}
        if not self.devices or len(known) < len(costs):
            return None
        settling = SETTLING + SETTLING_RESULTS * max(known.values(), default=0.0)
        used = (self.devices * settling + sum(self.spent.values())) / (settling + self.worked)
        return sum(wanted[stage] * cost for stage, cost in known.items()) / used

    def step(self, seconds: float, now: float | None) -> None:
        """Update the shown estimate.

        Args:
            seconds: time since the last step. now: the latest result of `left`.
        """
        self.worked += seconds
        if now is None or self.shown is None:
            self.shown = now if now is not None else self.shown
            return
        expected = max(0.0, self.shown - seconds)
        slow = min(SMOOTHING, max(1.0, expected / 4))  # near the end, new estimates are followed faster
        self.shown = expected + (now - expected) * -math.expm1(-seconds / slow)


class RenderProgress:
    """Follows a render; to be used as a context manager.

    Args:
        wanted: stage to the number of shots that must go through it.
        seconds: stage to device seconds for one accepted result, from earlier runs; without stages that never ran.
        log_seconds: without a terminal, seconds between lines; 0 is a line for every take.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        console: Console,
        wanted: Mapping[str, int],
        seconds: Mapping[str, float] | None = None,
        log_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.console, self.log_seconds, self.clock = console, log_seconds, clock
        self.totals: dict[str, int] = {stage: wanted.get(stage, 0) for stage in STAGES}
        self.told_stages = in_use(stage for stage, shots in self.totals.items() if shots)
        self.done: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()  # results that will never come: their shots are exhausted
        self.shots: Counter[str] = Counter()
        self.last_rejected: deque[tuple[str, str]] = deque(maxlen=SHOWN)
        self.last_stage: str = STAGES[-1]
        self.stats: Any = None
        self.eta = Eta(seconds or {})
        self.started = self.looked = self.spoke = clock()
        self.told, self.untold = 0, 0
        self.display: Live | None = None

    def __enter__(self) -> RenderProgress:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self.display = Live(get_renderable=self._table, console=self.console, refresh_per_second=4)
            self.display.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.display:
            self.display.stop()
        elif self.log_seconds and (self.untold or self.stats is not None):
            self._log()

    # --- events ----------------------------------------------------------------------------------------------------

    def take(self, row: dict[str, Any]) -> None:
        """A take was recorded."""
        stage, outcome = row["stage"], row["outcome"]
        self.last_stage = stage
        self.eta.spent[stage] += row.get("device_seconds") or 0.0
        if cut := row.get("prompt_cut"):
            self._tell(f"{row['take']}: the prompt was cut; its encoder did not see the last {len(cut)} characters, from {cut[:40]!r} on")
        if outcome == "accepted":
            self.done[stage] = min(self.totals[stage], self.done[stage] + 1)
            if not self.display and (self.log_seconds == 0 or self.done.total() == 1 or not any(self._wanted().values())):
                self.line(f"{row['take']} accepted ({self._counts()}, {self.clock() - self.started:.0f} s)")
            return
        (self.rejected if outcome == "rejected" else self.failed)[stage] += 1
        why = ", ".join(row["labels"]) if row["labels"] else row.get("error") or ""
        self.last_rejected.append((row["take"], _findings(row) or why))
        if not self.display:
            self._tell(f"{row['take']} {outcome}: {why}")

    def shot(self, outcome: str, stages: Sequence[str]) -> None:
        """A shot ended: accepted or exhausted. Must be called directly after `take` with the shot's last take.

        Args:
            stages: that the shot goes through.
        """
        self.shots[outcome] += 1
        if outcome == "exhausted":
            self.lost.update(stages[stages.index(self.last_stage) :])  # the shot's last stage, and all stages after it

    def pool(self, stats: Any) -> None:
        """The pool's new statistics; about once a second."""
        now = self.clock()
        passed, self.looked = now - self.looked, now
        if not stats.paused:
            self.eta.devices = stats.devices or self.eta.devices
            self.eta.step(passed if stats.busy or self.eta.worked else 0.0, self.eta.left(self._wanted(), self.done))
        self.stats = stats
        if not self.display and self.log_seconds and now - self.spoke >= self.log_seconds:
            self._log()

    def requests(self, what: Literal["running", "waiting"], stage: str) -> int:
        """How many requests of a stage run or wait now; the stage of a text is `prompt`."""
        return getattr(self.stats, what).get(stage, 0) if self.stats else 0

    def line(self, text: str) -> None:
        """Print a line; above the table, if there is one."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    # --- output ----------------------------------------------------------------------------------------------------

    def _wanted(self) -> dict[str, int]:
        """Results still to come."""
        return {stage: max(0, self.totals[stage] - self.done[stage] - self.lost[stage]) for stage in STAGES}

    def _counts(self) -> str:
        return ", ".join(f"{self.done[stage]}/{self.totals[stage]} {MANY[stage]}" for stage in self.told_stages)

    def _tell(self, text: str) -> None:
        """Print a line. After LINES lines in one log interval, lines are only counted, so that a log stays readable."""
        self.told += 1
        if self.log_seconds and self.told > LINES:
            self.untold += 1
        else:
            self.line(text)

    def _log(self) -> None:
        """Print the state of the render in one line, and begin a new log interval."""
        stages = ", ".join(self._stage(stage) for stage in self.told_stages)
        untold = f"; {self.untold} more not accepted (or their prompts cut) than told here" if self.untold else ""
        self.line(f"{stages}; {self._devices()}; {self._time()}{untold}")
        self.spoke, self.told, self.untold = self.clock(), 0, 0

    def _stage(self, stage: StageName) -> str:
        counts = {"running": self.requests("running", stage), "rejected": self.rejected[stage], "failed": self.failed[stage]}
        text = ", ".join(f"{n} {what}" for what, n in counts.items() if n or what != "failed")
        return f"{self.done[stage]}/{self.totals[stage]} {MANY[stage]} ({text})"

    def _devices(self) -> str:
        s = self.stats
        if s is None:
            return "no device yet"
        share = f", {100 * s.busy_seconds / s.device_seconds:.0f} % of the time" if s.device_seconds else ""
        prompts = self.requests("running", "prompt") + self.requests("waiting", "prompt")
        more = (f"; {s.restarts} replaced" if s.restarts else "") + (f"; {prompts} prompts to encode" if prompts else "")
        return f"{s.busy} of {s.devices} devices busy{share}{more}"

    def _time(self) -> str:
        gone = f"{_span(self.clock() - self.started)} gone"
        if self.stats and self.stats.paused:
            return f"{gone}, PAUSED"
        if not any(self._wanted().values()):
            return gone
        return gone + (", the time left is not known yet" if self.eta.shown is None else f", about {_span(self.eta.shown)} left")

    def _table(self) -> RenderableType:
        table = Table.grid(padding=(0, 2), expand=True)
        for justify, ratio in (("left", None), ("left", 1), *[("right", None)] * 4):
            table.add_column(justify=justify, ratio=ratio, no_wrap=True)  # type: ignore[arg-type]
        table.add_row("", "", *(Text(word) for word in ("done", "running", "waiting", "rejected")))
        for stage in self.told_stages:
            done, total = self.done[stage], self.totals[stage]
            bar = ProgressBar(max(1, total), done if total else 1, complete_style="green", finished_style="green", style="bright_black")
            counts = f"{done}/{total}", self.requests("running", stage), self.requests("waiting", stage)
            rejected = Text(str(self.rejected[stage]), "red" if self.rejected[stage] else "")
            if self.failed[stage]:
                rejected.append(f" + {self.failed[stage]} failed", "red")
            table.add_row(Text(MANY[stage], "bold"), bar, *map(str, counts), rejected)
        return Group(table, self._facts())

    def _facts(self) -> RenderableType:
        facts = Table.grid(padding=(0, 2), expand=True)
        facts.add_column(no_wrap=True, min_width=len("keyframes"))
        facts.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        facts.add_row(Text("shots", "bold"), self._shots())
        facts.add_row(Text("devices", "bold"), self._devices().replace(" devices", "", 1))
        time_, paused = self._time(), bool(self.stats and self.stats.paused)
        facts.add_row(Text("time", "bold"), Text(time_, "bold reverse" if paused else ""))
        for i, (take, why) in enumerate(list(self.last_rejected)):  # a copy, because rich draws in a thread of its own
            facts.add_row(Text("" if i else "rejected", "bold"), Text.assemble(f"{take}  ", (why, "red")))
        return facts

    def _shots(self) -> str:
        ended = self.shots["accepted"] + self.shots["exhausted"]
        exhausted = f", {self.shots['exhausted']} exhausted" if self.shots["exhausted"] else ""
        return f"{self.shots['accepted']} accepted{exhausted}, {max(0, max(self.totals.values()) - ended)} to go"


def _findings(row: dict[str, Any]) -> str:
    """The failed findings, each with value and threshold: `frozen (motion 0.02, threshold 0.1)`. "" if longer than SHORT."""
    found = [f for f in json.loads(row.get("findings") or "[]") if f["outcome"] == "fail"]
    text = ", ".join(f"{f['label']} ({f['text'] or _number(f)})" for f in found)
    return text if len(text) <= SHORT else ""


def _number(finding: dict[str, Any]) -> str:
    return f"{finding['measure']} {finding['value']:.3g}, threshold {finding['threshold']:.3g}"


def _span(seconds: float) -> str:
    """A duration in its two largest units: 45 s, 12 min 5 s, 1 h 20 min, 3 d 4 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
