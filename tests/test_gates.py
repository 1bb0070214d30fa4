"""Planted faults fail with their label; good pictures pass."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from actors.demo.train import scenes
from gates.image import judge_image
from gates.verdict import Finding
from gates.video import ClipExpectation, VideoThresholds, judge_video
from pipeline.video_file import write_clip

GOOD = scenes.clip(scenes.Scene("day", "sea", "red", "pink", "wide", "walk right", 7), range(0, 121, 3))
EXPECT = ClipExpectation(len(GOOD), Fraction(24), 96, 64)


def judged(
    tmp_path: Path, frames: np.ndarray, expect: ClipExpectation = EXPECT, keyframe: np.ndarray | None = GOOD[0], fps: int = 24, **limits
):
    file = tmp_path / "clip.mp4"
    write_clip(file, frames, Fraction(fps))
    return judge_video(file, expect, keyframe, VideoThresholds(**limits))


@pytest.mark.parametrize("seed", range(12))
def test_drawn_scenes_of_every_kind_pass_both_gates(tmp_path, seed):
    scene = scenes.sample(500 + seed)
    frames = scenes.clip(scene, range(0, 121, 3))
    assert judge_image(frames[0], 96, 64).outcome == "pass"
    assert judged(tmp_path, frames, keyframe=frames[0]).labels == ()


def planted() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    black = GOOD.copy()
    black[5:9] = 0
    return {
        "black": black,
        "empty": np.full_like(GOOD, 120),
        "noise": rng.integers(0, 256, GOOD.shape, dtype=np.uint8),
        "frozen": np.repeat(GOOD[:1], len(GOOD), axis=0),
        "over_exposed": np.clip(GOOD.astype(int) + 160, 0, 255).astype(np.uint8),
        "wrong_first_frame": scenes.clip(scenes.Scene("night", "city", "blue", "black", "close", "pan left", 3), range(0, 121, 3)),
    }


@pytest.mark.parametrize("label", planted())
def test_a_planted_fault_is_found_in_a_clip(tmp_path, label):
    assert label in judged(tmp_path, planted()[label]).labels


@pytest.mark.parametrize("label", ["empty", "noise"])
def test_a_planted_fault_is_found_in_a_still(label):
    assert label in judge_image(planted()[label][0], 96, 64).labels


def test_black_white_and_wrongly_sized_stills_fail():
    assert "black" in judge_image(np.zeros((64, 96, 3), np.uint8), 96, 64).labels
    assert "over_exposed" in judge_image(np.full((64, 96, 3), 255, np.uint8), 96, 64).labels
    assert judge_image(GOOD[0], 64, 96).labels == ("wrong_size",)


def test_mild_noise_that_still_shows_a_picture_fails_too(tmp_path):
    noisy = np.clip(GOOD + np.random.default_rng(1).normal(0, 25, GOOD.shape), 0, 255).astype(np.uint8)
    assert "noise" in judged(tmp_path, noisy).labels


def test_another_figure_in_the_same_place_is_a_wrong_first_frame(tmp_path):
    other = scenes.clip(scenes.Scene("day", "sea", "green", "black", "wide", "walk right", 7), range(0, 121, 3))
    assert "wrong_first_frame" in judged(tmp_path, other).labels


def test_a_blink_is_motion_enough(tmp_path):
    frames = np.repeat(GOOD[:1], len(GOOD), axis=0)
    scene = scenes.Scene("day", "sea", "red", "pink", "close", "still", 7)
    frames = np.stack([scenes.draw(scene, 38 if 10 <= i < 14 else 0) for i in range(len(frames))])
    assert judged(tmp_path, frames, keyframe=frames[0]).labels == ()


def test_a_slow_drift_under_the_frame_threshold_is_not_frozen(tmp_path):
    wide = scenes.draw(scenes.Scene("day", "city", "red", "pink", "wide", "still", 7), 0, 64, 160)
    frames = np.stack([wide[:, i : i + 96] for i in np.linspace(0, 8, len(GOOD)).astype(int)])
    assert judged(tmp_path, frames, keyframe=frames[0]).labels == ()


@pytest.mark.parametrize(
    ("label", "frames", "expect", "fps"),
    [
        ("wrong_frame_count", GOOD[:-1], EXPECT, 24),
        ("wrong_fps", GOOD, EXPECT, 25),
        ("wrong_size", GOOD[:, :48], EXPECT, 24),
        ("wrong_codec", GOOD, ClipExpectation(len(GOOD), Fraction(24), 96, 64, codec="hevc"), 24),
    ],
)
def test_the_container_must_be_exact(tmp_path, label, frames, expect, fps):
    assert judged(tmp_path, frames, expect, fps=fps).labels == (label,)


def test_a_damaged_a_truncated_and_an_empty_file_are_undecodable(tmp_path):
    file = tmp_path / "clip.mp4"
    write_clip(file, GOOD, Fraction(24))
    whole = file.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"not a video" * 100):
        file.write_bytes(data)
        assert judge_video(file, EXPECT, GOOD[0]).labels[0] in ("undecodable", "wrong_frame_count")


def test_frames_at_uneven_times_are_undecodable(tmp_path):
    file = tmp_path / "clip.mp4"
    with av.open(str(file), "w") as out:
        stream = out.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i, frame in enumerate(GOOD):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = i if i < 20 else i + 30
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    assert judge_video(file, EXPECT, GOOD[0]).labels == ("undecodable",)


def test_each_threshold_decides_its_own_label(tmp_path):
    """Take a measure away, and its fault goes through: the check is what finds it."""
    assert "frozen" not in judged(tmp_path, planted()["frozen"], still=0.0, reach=0.0).labels
    assert "black" not in judged(tmp_path, planted()["black"], black_frames=99).labels
    assert "noise" not in judged(tmp_path, planted()["noise"], flat=0.0).labels
    assert "empty" not in judged(tmp_path, planted()["empty"], contrast=0.0).labels
    assert (
        "wrong_first_frame"
        not in judged(
            tmp_path, planted()["wrong_first_frame"], first_frame_ssim=-1.0, first_frame_delta_e=999.0, first_frame_tile_delta_e=999.0
        ).labels
    )


def test_labels_are_a_closed_list():
    with pytest.raises(ValueError, match="not a gate label"):
        Finding("ugly", 1, 0)


def test_the_container_keeps_every_frame_in_order(tmp_path):
    from gates.decode import decode

    file = tmp_path / "clip.mp4"
    write_clip(file, GOOD, Fraction(24))
    back = decode(file).frames
    nearest = [int(np.argmin([np.abs(b.astype(int) - g.astype(int)).mean() for g in GOOD])) for b in back]
    assert nearest == list(range(len(GOOD)))
