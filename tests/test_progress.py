"""What a person sees of a render, on a terminal and in a log. Time is told, not waited for."""

from __future__ import annotations

import io
import itertools
import json
import re
from typing import Any

import pytest
from rich.console import Console

from benchmarks.soak import MARKS, TAKE
from cluster.specs import PoolStats
from pipeline.render.progress import LINES, RenderProgress
from pipeline.story.stages import NEEDED


class Seen:
    """A render's progress, and what it has written."""

    def __init__(self, shots: int = 3, seconds: dict[str, float] | None = None, log_seconds: float = 30.0, width: int = 0):
        self.file, self.now, self.number = io.StringIO(), 0.0, 0
        self.console = Console(file=self.file, force_terminal=bool(width), width=width or 200, color_system=None, legacy_windows=False)
        self.progress = RenderProgress(self.console, {"keyframe": shots, "clip": shots}, seconds, log_seconds, clock=lambda: self.now)
        self.busy_seconds = 0.0

    def take(self, stage: str, outcome: str = "accepted", labels: list[str] | None = None, device: float = 2.0, **more: Any) -> str:
        self.number += 1
        take = f"E90/SH{self.number:04}/{stage}/v001"
        self.progress.take({"take": take, "stage": stage, "outcome": outcome, "labels": labels or [], "device_seconds": device, **more})
        return take

    def tick(self, seconds: float = 1.0, paused: bool = False, devices: int = 2, **running: int) -> None:
        self.now += seconds
        self.busy_seconds += seconds * devices
        self.progress.pool(PoolStats(devices, devices, self.busy_seconds, self.busy_seconds, {"clip": 4}, running, 0, 0, 0, 0.0, paused))

    @property
    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()

    def screen(self) -> str:
        """The table, as it stands on the terminal."""
        with self.console.capture() as capture:
            self.console.print(self.progress._table())
        return capture.get()


def finding(label: str, measure: str = "motion", value: float = 0.02) -> dict[str, Any]:
    return {"label": label, "measure": measure, "value": value, "threshold": 0.1, "outcome": "fail", "frames": [], "text": ""}


def test_with_a_line_for_every_take_each_take_is_told_in_the_form_that_other_programs_read():
    seen = Seen(shots=1, log_seconds=0)
    with seen.progress:
        seen.take("keyframe", "rejected", ["empty", "blur"])
        seen.now = 5.4
        seen.take("keyframe")
        seen.tick(100)
        seen.take("clip", "error", error="DeviceLost: gone")
        seen.take("clip")
    assert seen.lines == [
        "E90/SH0001/keyframe/v001 rejected: empty, blur",
        "E90/SH0002/keyframe/v001 accepted (1/1 keyframes, 0/1 clips, 5 s)",
        "E90/SH0003/clip/v001 error: DeviceLost: gone",
        "E90/SH0004/clip/v001 accepted (1/1 keyframes, 1/1 clips, 105 s)",
    ]
    assert len(TAKE.findall("\n".join(seen.lines))) == 4
    assert [bool(re.search(MARKS["rendered"], line)) for line in seen.lines] == [False, False, False, True]


def test_a_log_gets_one_line_an_interval_and_the_first_and_the_last_accepted_take():
    seen = Seen(shots=50)
    with seen.progress:
        for second in range(100):
            seen.tick(clip=2)
            seen.take("keyframe" if second < 50 else "clip")
    told = seen.lines
    assert told[0] == "E90/SH0001/keyframe/v001 accepted (1/50 keyframes, 0/50 clips, 1 s)"
    assert told[-2] == "E90/SH0100/clip/v001 accepted (50/50 keyframes, 50/50 clips, 100 s)"
    assert all("/50 keyframes (" in line and "/50 clips (" in line for line in told[1:-2])
    assert told[1].startswith(
        "29/50 keyframes (0 running, 0 rejected), 0/50 clips (2 running, 0 rejected); 2 of 2 devices busy, 100 % of the time; 30 s gone"
    )
    assert "50/50 clips" in told[-1] and len(told) == 6


def test_a_million_rejections_make_no_million_lines_and_none_is_hushed_up():
    seen = Seen(shots=10**6)
    with seen.progress:
        for _ in range(3):
            for _ in range(1000):
                seen.take("clip", "rejected", ["frozen"])
            seen.tick(31)
    told = sum(" rejected: frozen" in line for line in seen.lines)
    untold = sum(int(n) for n in re.findall(r"; (\d+) more not accepted", seen.file.getvalue()))
    assert told == 3 * LINES and told + untold == 3000
    assert len(seen.lines) <= told + 4


def test_a_cut_prompt_is_told_also_with_an_accepted_take():
    seen = Seen()
    take = seen.take("keyframe", prompt_cut="and a very small dog")
    assert f"{take}: the prompt was cut; its encoder did not see the last 20 characters, from 'and a very small dog' on" in seen.lines


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_each_stage_the_devices_and_the_last_five_rejections_within_its_width(width: int):
    seen = Seen(shots=1000, seconds={"keyframe": 1.0, "clip": 10.0}, width=width)
    for _ in range(7):
        take = seen.take("clip", "rejected", ["frozen"], findings=json.dumps([finding("frozen")]))
    many = [finding(label) for label in ("frozen", "wrong_first_frame", "flicker")]
    long = seen.take("clip", "rejected", [f["label"] for f in many], findings=json.dumps(many))
    lost = seen.take("clip", "error", error="DeviceLost: " + "very long " * 30)
    seen.take("keyframe")
    seen.tick(clip=2)
    screen = seen.screen()
    lines = screen.splitlines()
    assert max(map(len, lines)) <= width
    assert re.search(r"^keyframes .*1/1000 +0 +0 +0$", screen, re.M), screen
    assert re.search(r"^clips .*0/1000 +2 +4 +8 \+ 1 failed$", screen, re.M), screen
    assert "2 of 2 busy" in screen and "0 accepted, 1000 to go" in screen
    shown = [line for line in lines if "/v001" in line]
    assert len(shown) == 5
    assert take in shown[2] and "frozen (motion 0.02, threshold 0.1)" in shown[2]
    assert long in shown[3] and "frozen, wrong_first_frame, flicker" in shown[3], "numbers only where they are short"
    assert lost in shown[4] and "DeviceLost" in shown[4]


def test_a_terminal_is_not_filled_with_rejections_but_notices_stay():
    seen = Seen(width=80)
    with seen.progress:
        seen.take("clip", "rejected", ["frozen"])
        seen.progress.line("paused by mai: what executes ends, nothing begins")
    written = seen.file.getvalue()
    assert "paused by mai" in written
    assert "rejected: frozen" not in written and "frozen" in written


def test_paused_is_shown_plainly_and_the_guess_stands_still():
    seen = Seen(seconds={"keyframe": 5.0, "clip": 50.0}, width=80)
    seen.tick()
    left = seen.progress.eta.shown
    assert "left" in seen.screen() and "PAUSED" not in seen.screen()
    for _ in range(600):
        seen.tick(paused=True)
    assert "PAUSED" in seen.screen() and "left" not in seen.screen()
    seen.tick()
    assert seen.progress.eta.shown == pytest.approx(left, rel=0.1)


def test_the_time_left_comes_from_history_before_anything_is_done():
    seen = Seen(shots=100, seconds={"keyframe": 2.0, "clip": 18.0})
    seen.tick(devices=4)
    assert seen.progress.eta.shown == pytest.approx(100 * 20 / 4, rel=0.05)


def test_without_history_the_time_left_is_unknown_until_each_stage_has_a_result():
    seen = Seen(shots=10, width=80)
    seen.tick()
    seen.take("keyframe", device=3.0)
    seen.tick(5)
    assert "not known yet" in seen.screen()
    seen.take("clip", "rejected", ["frozen"], device=10.0)
    seen.take("clip", device=10.0)
    seen.tick(5)
    work = 9 * 3.0 + 9 * 20.0  # a result has cost what its rejected takes took, too
    assert seen.progress.eta.shown == pytest.approx(work / 2, rel=0.2)


def guesses(history: dict[str, float] | None, cost: float, shots: int = 400, devices: int = 2) -> list[tuple[float, float]]:
    """A whole render: (seconds left, as shown) and what was true, each second. Keyframes are there already."""
    seen = Seen(seconds=history)
    seen.progress = RenderProgress(seen.console, {"clip": shots}, history, clock=lambda: seen.now)
    end, told = shots * cost / devices, []
    while seen.now < end:
        due = int((seen.now + 1) / cost) * devices
        while seen.progress.done["clip"] < min(due, shots):
            seen.take("clip", device=cost)
            seen.progress.shot("accepted", NEEDED)
        seen.tick(devices=devices)
        if seen.progress.eta.shown is not None:
            told.append((seen.progress.eta.shown, end - seen.now))
    return told


@pytest.mark.parametrize("history", [None, {"clip": 3.0}, {"clip": 0.5}, {"clip": 30.0}])
def test_the_time_left_never_jumps_and_is_right_in_the_end(history: dict[str, float] | None):
    told = guesses(history, cost=3.0)
    steps = [abs(b - (a - 1)) for (a, _), (b, _) in itertools.pairwise(told)]
    assert max(step / max(a, 60) for step, (a, _) in zip(steps, told, strict=False)) < 0.15, "of what is shown, in a second"
    shown, true = told[len(told) // 2]
    assert shown == pytest.approx(true, rel=0.25), "half-way, whatever history said"
    assert told[-1][0] < 25


def test_what_is_exhausted_is_waited_for_no_longer():
    seen = Seen(shots=3, seconds={"keyframe": 1.0, "clip": 1.0}, width=80)
    seen.take("keyframe", "rejected", ["empty"])
    seen.progress.shot("exhausted", NEEDED)
    for _ in range(2):
        seen.take("keyframe")
    seen.take("clip")
    seen.progress.shot("accepted", NEEDED)
    seen.take("clip", "rejected", ["frozen"])
    seen.progress.shot("exhausted", NEEDED)
    seen.tick()
    assert "1 accepted, 2 exhausted, 0 to go" in seen.screen()
    assert "left" not in seen.screen()
