"""A finish that is not its clip, flickers or is no sharper than Lanczos is found; the same drawing at four times the size is let through."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from actors.demo.train import scenes
from benchmarks.finish_gate import FAULTS, FPS, HEIGHT, WIDTH, enlarged, reduced
from gates.rules import judge
from gates.verdict import Verdict
from gates.video import Expectation, judge_video
from pipeline.render.video_file import write_clip
from pipeline.story.gate_profile import load_profile

FINISH = load_profile("finish")
LABELS = {"source_flicker": "flicker", "source_sharper": "blur"}


@cache
def drawn() -> np.ndarray:
    """A walk and its night: uint8 RGB (12, 256, 384, 3)."""
    return scenes.clip(scenes.Scene("day", "city", "red", "pink", "wide", "walk right", 7), range(0, 120, 10), HEIGHT, WIDTH)


def verdict(folder: Path, finish: np.ndarray, source: np.ndarray, fps: Fraction = FPS) -> Verdict:
    write_clip(folder / "source.mp4", source, FPS)
    write_clip(folder / "finish.mp4", finish, fps)
    expect = Expectation(len(source), FPS, WIDTH, HEIGHT, "h264", "yuv420p", source=folder / "source.mp4")
    return judge_video(folder / "finish.mp4", expect, FINISH)


def test_the_drawing_at_its_full_size_is_a_good_finish_of_itself(tmp_path):
    found = verdict(tmp_path, drawn(), reduced(drawn()))
    assert (found.outcome, found.findings, found.not_looked) == ("pass", (), ())


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_by_the_measure_that_is_meant_for_it(tmp_path, name):
    measure, make = FAULTS[name]
    found = verdict(tmp_path, make(drawn(), reduced(drawn())), reduced(drawn()))
    assert found.outcome == "fail" and measure in {f.measure for f in found.findings}
    assert LABELS.get(measure, "unlike_source") in found.failures


def test_a_dropped_frame_another_rate_and_another_size_are_told(tmp_path):
    source = reduced(drawn())
    assert "wrong_frame_count" in verdict(tmp_path, drawn()[:-1], source).failures
    assert "wrong_fps" in verdict(tmp_path, drawn(), source, Fraction(12)).failures
    assert "wrong_size" in verdict(tmp_path, enlarged(source)[:, :-2], source).failures


def test_the_worst_frame_is_named(tmp_path):
    made = drawn().copy()
    made[7] = made[7][:, ::-1]
    (found,) = [f for f in verdict(tmp_path, made, reduced(drawn())).findings if f.measure == "source_ssim"]
    assert found.frames == (7,)


def test_stored_measures_give_the_same_verdict_again(tmp_path):
    found = verdict(tmp_path, enlarged(reduced(drawn())), reduced(drawn()))
    again = judge("video", found.measures, FINISH)
    assert again.failures == found.failures == ("blur",)


def test_the_command_line_judges_a_finish_beside_its_clip(tmp_path, here):
    write_clip(tmp_path / "clip.mp4", reduced(drawn()), FPS)
    for name, frames in (("good", drawn()), ("soft", enlarged(reduced(drawn())))):
        write_clip(tmp_path / f"{name}.mp4", frames, FPS)
    asked = ("gate", "video", "--profile", "finish", "--source", "clip.mp4")
    assert here(*asked, "good.mp4").code == 0
    soft = here(*asked, "soft.mp4")
    assert soft.code == 1 and "blur" in soft.out
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    broken = here(*asked, "good.mp4")
    assert broken.code == 1 and "what it was made from" in broken.out
