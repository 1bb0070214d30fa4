"""What a gate's task does with a take: stores it, judges what it has stored, and answers without a pixel. In this process, without Ray."""

from __future__ import annotations

import pickle
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog.media import MediaDamaged, MediaStore
from catalog.place import Place
from gates.decode import read_video
from gates.still import Undecodable, read_still
from gates.video import Expectation
from pipeline.plan.guides import Guide
from pipeline.render.gate_tasks import Standard, judge_clip, judge_given, judge_keyframe, keyframe_part, read_keyframe
from pipeline.render.video_file import write_clip

from .planted import ANIME, ANOTHER, FPS, FRAMES, GOOD, HEIGHT, WIDTH, png

ANY = Standard(ANIME)
CLIP = Expectation(FRAMES, FPS, WIDTH, HEIGHT, "h264", "yuv420p")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.of(tmp_path / "catalog")


def still(place: Place, image: np.ndarray = GOOD[0]):
    return MediaStore(place).put(png(image), ".png")


def files(place: Place) -> list[str]:
    return sorted(str(p.relative_to(place.folder)) for p in place.folder.rglob("*") if p.is_file())


def test_a_still_is_stored_as_png_and_judged_at_its_own_size(place):
    began = time.monotonic()
    judged = judge_keyframe(GOOD[0], "", WIDTH, HEIGHT, place, ANY)
    assert (judged.verdict.outcome, judged.width, judged.height, judged.frames) == ("pass", WIDTH, HEIGHT, 1)
    assert files(place) == [judged.media.path] and judged.media.path.endswith(".png")
    data = MediaStore(place).read(judged.media.path, judged.media.digest)
    assert data.startswith(b"\x89PNG") and (read_still(data).image == GOOD[0]).all() and judged.media.bytes == len(data)
    assert 0 <= judged.encode_seconds <= judged.seconds <= time.monotonic() - began


def test_a_still_of_another_size_or_with_values_that_are_no_numbers_is_rejected_and_kept(place):
    small = judge_keyframe(GOOD[0], "", WIDTH + 8, HEIGHT, place, ANY)
    assert small.verdict.failures == ("wrong_size",) and (small.width, small.height) == (WIDTH, HEIGHT)
    broken = judge_keyframe(GOOD[0], "latents", WIDTH, HEIGHT, place, ANY)
    assert broken.verdict.outcome == "fail" and broken.verdict.measures["non_finite"] == 1
    assert files(place) == [small.media.path], "equal pixels are one file, also of rejected takes"


def test_what_a_shot_declares_reaches_both_gates(place):
    dark = (GOOD * 0.09).astype(np.uint8)
    night = Standard(ANIME, ("night",))
    assert "black" in judge_keyframe(dark[0], "", WIDTH, HEIGHT, place, ANY).verdict.failures
    assert judge_keyframe(dark[0], "", WIDTH, HEIGHT, place, night).verdict.failures == ()
    keyframe = still(place, dark[0])
    assert "black" in judge_clip(dark, "", keyframe, CLIP, place, ANY).verdict.failures
    assert "black" not in judge_clip(dark, "", keyframe, CLIP, place, night).verdict.failures


def test_a_persons_still_is_judged_in_the_workflows_size(place, tmp_path):
    mine = tmp_path / "mine.png"
    Image.fromarray(GOOD[0]).resize((2 * WIDTH, 3 * HEIGHT)).save(mine)
    began = time.monotonic()
    judged = judge_given(mine, WIDTH, HEIGHT, place, ANY)
    assert (judged.verdict.failures, judged.width, judged.height) == ((), WIDTH, HEIGHT)
    assert read_still(MediaStore(place).read(judged.media.path, judged.media.digest)).image.shape == (HEIGHT, WIDTH, 3)
    assert judged.verdict.measures["non_finite"] == 0 and 0 <= judged.encode_seconds <= judged.seconds <= time.monotonic() - began
    mine.write_bytes(b"no picture")
    with pytest.raises(Undecodable):
        judge_given(mine, WIDTH, HEIGHT, place, ANY)


def test_a_frame_of_a_persons_clip_is_judged_as_a_still_and_one_that_is_gone_is_told(place, tmp_path):
    write_clip(tmp_path / "mine.mp4", GOOD, FPS)
    judged = judge_given(tmp_path / "mine.mp4", WIDTH, HEIGHT, place, ANY, frame=20)
    stored = read_still(MediaStore(place).read(judged.media.path, judged.media.digest)).image
    assert np.abs(stored.astype(int) - GOOD[20]).mean() < np.abs(stored.astype(int) - GOOD[0]).mean()
    with pytest.raises(Undecodable, match=f"fewer than the {FRAMES + 1} frames that it had"):
        judge_given(tmp_path / "mine.mp4", WIDTH, HEIGHT, place, ANY, frame=FRAMES)


def test_a_clip_that_must_end_in_a_picture_is_judged_against_it(place, tmp_path):
    for name, frame, labels in (("end", GOOD[-1], ()), ("other", ANOTHER[0], ("wrong_last_frame",))):
        Image.fromarray(frame).resize((2 * WIDTH, 2 * HEIGHT)).save(tmp_path / f"{name}.png")
        last = Guide(tmp_path / f"{name}.png", "", FRAMES - 1, 1, None, 1.0)
        assert judge_clip(GOOD, "", still(place), CLIP, place, ANY, last).verdict.failures == labels


def test_a_clip_that_must_end_as_a_persons_clip_does_is_judged_against_the_last_frame_of_it(place, tmp_path):
    mine = np.concatenate([np.repeat(ANOTHER[:1], 4, axis=0), np.repeat(GOOD[-1:], 4, axis=0)])
    write_clip(tmp_path / "mine.mp4", mine, FPS)
    last = Guide(tmp_path / "mine.mp4", "", FRAMES - 8, 8, 0, 1.0)
    assert "wrong_last_frame" not in judge_clip(GOOD, "", still(place), CLIP, place, ANY, last).verdict.failures


def test_a_clip_is_stored_as_the_file_that_was_judged(place):
    keyframe, began = still(place), time.monotonic()
    judged = judge_clip(GOOD, "", keyframe, CLIP, place, ANY)
    assert (judged.verdict.outcome, judged.width, judged.height, judged.frames) == ("pass", WIDTH, HEIGHT, FRAMES)
    assert files(place) == sorted([keyframe.path, judged.media.path]) and judged.media.path.endswith(".mp4")
    frames, fps = read_video(place.folder / judged.media.path)
    assert frames.shape == GOOD.shape and fps == FPS
    assert np.abs(frames.astype(int) - GOOD).mean() < 4, "the frames, save what the codec loses"
    assert 0 < judged.encode_seconds < judged.seconds <= time.monotonic() - began


@pytest.mark.parametrize(
    ("label", "expect", "frames", "finite"),
    [
        ("wrong_frame_count", replace(CLIP, frames=FRAMES + 1), GOOD, True),
        ("wrong_size", replace(CLIP, width=WIDTH + 2), GOOD, True),
        ("wrong_first_frame", CLIP, ANOTHER, True),
        ("noise", CLIP, GOOD, False),
    ],
)
def test_a_clip_that_is_not_what_was_asked_for_is_rejected_and_kept(place, label, expect, frames, finite):
    judged = judge_clip(frames, "" if finite else "latents", still(place), expect, place, ANY)
    if finite:
        assert label in judged.verdict.failures
    else:
        assert judged.verdict.outcome == "fail" and judged.verdict.measures["non_finite"] == 1
    assert judged.media.path in files(place)


def test_a_clip_keeps_its_workflows_rate(place):
    odd = replace(CLIP, fps=Fraction(24000, 1001))
    judged = judge_clip(GOOD, "", still(place), odd, place, ANY)
    assert judged.verdict.outcome == "pass" and read_video(place.folder / judged.media.path)[1] == Fraction(24000, 1001)


def test_a_keyframe_is_read_in_the_clips_size_and_a_damaged_one_is_never_used(place):
    keyframe = still(place)
    (part,) = keyframe_part(keyframe, WIDTH // 2, HEIGHT // 2, place)
    assert part.shape == (HEIGHT // 2, WIDTH // 2, 3)
    assert (read_keyframe(keyframe, WIDTH, HEIGHT, place) == GOOD[0]).all()
    (place.folder / keyframe.path).write_bytes(png(ANOTHER[0]))
    for use in (lambda: keyframe_part(keyframe, WIDTH, HEIGHT, place), lambda: judge_clip(GOOD, "", keyframe, CLIP, place, ANY)):
        with pytest.raises(MediaDamaged, match="promises"):
            use()
    assert files(place) == [keyframe.path], "and nothing is stored that was judged by it"


def test_a_standard_travels_with_its_profile_pickled_once_and_read_once():
    night, hold = Standard(ANIME, ("night",)), Standard(ANIME, ("hold",))
    there = [pickle.loads(pickle.dumps(one)) for one in (night, hold)]
    assert there == [night, hold]
    assert there[0].profile is there[1].profile, "a worker reads a profile once"
    first, second = (one.__reduce__()[1][0] for one in (night, hold))
    assert first is second, "a driver writes a profile once"
    other = replace(ANIME, name="other")
    assert pickle.loads(pickle.dumps(Standard(other))).profile == other
