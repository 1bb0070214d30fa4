"""Joining clips: exact frames, right order, any size and rate."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from catalog.media import MediaDamaged, MediaStore
from catalog.place import Place
from gates.decode import read_video
from pipeline.post import assemble as module
from pipeline.post.assemble import LONGEST_SECONDS, _prove, _source_frame, assemble, link_takes, timeline
from pipeline.render.video_file import write_clip
from pipeline.story.episode import Episode
from pipeline.story.errors import StorageError
from pipeline.story.letters import built_in
from pipeline.story.title import title_opacity

from .conftest import PROJECT


def episode(*shots: dict, width: int = 64, height: int = 64, fps: object = 24) -> Episode:
    base = {"id": "E01", "title": "t", "width": width, "height": height, "fps": fps, "keyframe_workflow": "k", "clip_workflow": "c"}
    listed = [{"id": f"SH{10 * (i + 1):04d}"} | s for i, s in enumerate(shots)]
    return Episode.model_validate(base | {"sequences": [{"id": "S010", "shots": listed}]})


def clip(store: MediaStore, tmp_path: Path, level: int, frames: int, fps: Fraction | int, width: int = 64, height: int = 64) -> dict:
    """A clip whose frame n is the flat grey `level + n`, to be recognised after encoding."""
    file = tmp_path / f"c{level}.mp4"
    ramp = np.stack([np.full((height, width, 3), min(250, level + n), np.uint8) for n in range(frames)])
    write_clip(file, ramp, Fraction(fps), crf=1)
    media = store.put(file.read_bytes(), ".mp4")
    return {"media": media.digest, "media_path": media.path}


def levels(frames) -> list[int]:
    return [round(float(f.mean())) for f in frames]


def near(found: list[int], wanted: list[int], slack: int = 2) -> bool:
    return len(found) == len(wanted) and all(abs(a - b) <= slack for a, b in zip(found, wanted, strict=True))


def test_clips_of_other_sizes_and_rates_are_joined_exactly(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    story = episode({"frames": 10}, {"frames": 12}, {"frames": 6})
    clips = {
        "SH0010": clip(store, tmp_path, 20, 30, 24, 96, 64),
        "SH0020": clip(store, tmp_path, 80, 8, 8, 48, 80),
        "SH0030": clip(store, tmp_path, 150, 20, 48, 128, 128),
    }
    wanted = [20 + n for n in range(10)] + [80 + n // 3 for n in range(12)] + [150 + 2 * n for n in range(6)]
    assert near(levels(timeline(story, clips, store, None)), wanted)
    assemble(story, clips, store, None, tmp_path / "episode.mp4")
    frames, fps = read_video(tmp_path / "episode.mp4")
    assert frames.shape == (28, 64, 64, 3) and fps == 24 and near(levels(frames), wanted, slack=4)
    assert b"crf=16.0" in (tmp_path / "episode.mp4").read_bytes(), "x264 writes its options into the stream"


@pytest.mark.parametrize(("written", "rate"), [("24000/1001", Fraction(24000, 1001)), (29.97, Fraction(30000, 1001)), (12.5, Fraction(25, 2))])
def test_an_episode_of_a_fractional_rate_is_written_exactly_and_shows_each_frame_once(tmp_path, written, rate):
    store = MediaStore(Place.of(tmp_path))
    story = episode({"frames": 60}, {"frames": 60}, fps=written)
    whole = round(rate)  # such as 24 beside 24000/1001, for which no frame is left out
    clips = {f"SH00{n}0": clip(store, tmp_path, 20 * n, 61, whole if rate != Fraction(25, 2) else rate) for n in (1, 2)}
    assemble(story, clips, store, None, tmp_path / "episode.mp4")
    frames, fps = read_video(tmp_path / "episode.mp4")
    assert fps == rate and near(levels(frames), [20 + n for n in range(60)] + [40 + n for n in range(60)], slack=4)


@pytest.mark.parametrize(("clip_fps", "written"), [(8, "24000/1001"), (Fraction(24000, 1001), 24), (Fraction(30000, 1001), "30000/1001"), (12, 12)])
def test_rates_that_differ_by_the_pull_down_show_each_frame_equally_long(clip_fps, written):
    story = episode({"frames": 48}, fps=written)
    times = [round(float(story.fps / clip_fps))] * 48
    shown = [_source_frame(n, story.shots[0][1], 48, Fraction(clip_fps), story.fps) for n in range(48)]
    assert shown == [n // times[0] for n in range(48)]


def test_a_dissolve_overlaps_and_blends_from_one_shot_to_the_next(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    story = episode({"frames": 8}, {"frames": 8, "transition": {"type": "dissolve", "frames": 3}}, {"frames": 4})
    clips = {f"SH00{n}0": clip(store, tmp_path, level, 1, 24) for n, level in ((1, 40), (2, 200), (3, 100))}
    clips = {k: v for k, v in clips.items()}
    story.sequences[0].shots[0].fit = story.sequences[0].shots[1].fit = story.sequences[0].shots[2].fit = "hold"
    wanted = [40] * 5 + [80, 120, 160] + [200] * 5 + [100] * 4
    assert story.total_frames == len(wanted) == 17
    assert near(levels(timeline(story, clips, store, None)), wanted)


def test_dissolves_one_after_another_and_as_long_as_their_shots(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    dissolve = {"transition": {"type": "dissolve", "frames": 4}, "fit": "hold"}
    story = episode({"frames": 6, "fit": "hold"}, {"frames": 8} | dissolve, {"frames": 4} | dissolve)
    clips = {f"SH00{n}0": clip(store, tmp_path, level, 1, 24) for n, level in ((1, 0), (2, 200), (3, 100))}
    found = levels(timeline(story, clips, store, None))
    assert near(found, [0, 0, 40, 80, 120, 160, 180, 160, 140, 120], slack=3)
    assert len(found) == story.total_frames


def test_hold_keeps_the_last_frame_and_stretch_retimes(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    made = clip(store, tmp_path, 50, 4, 24)
    held = list(timeline(episode({"frames": 8, "fit": "hold"}), {"SH0010": made}, store, None))
    assert near(levels(held), [50, 51, 52, 53, 53, 53, 53, 53])
    stretched = list(timeline(episode({"frames": 8, "fit": "stretch"}), {"SH0010": made}, store, None))
    assert near(levels(stretched), [50, 50, 51, 51, 52, 52, 53, 53])


def test_another_shape_fills_the_picture_without_bars(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    made = clip(store, tmp_path, 200, 2, 24, 96, 32)
    for frame in timeline(episode({"frames": 2}, width=64, height=96), {"SH0010": made}, store, None):
        assert frame.shape == (96, 64, 3) and frame.min() > 180


def test_a_title_is_drawn_and_fades(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    made = clip(store, tmp_path, 60, 1, 24, 192, 128)
    frames = list(
        timeline(episode({"frames": 48, "fit": "hold", "title": "Lanterns"}, width=192, height=128), {"SH0010": made}, store, None)
    )
    assert frames[24].max() > 230 and frames[0].max() < frames[24].max()
    assert title_opacity(24, 48, 24) == 1 and 0 < title_opacity(0, 48, 24) < 0.2 and 0 < title_opacity(47, 48, 24) < 0.2


@pytest.mark.parametrize("turned", [True, False], ids=["turned", "not square"])
def test_a_clip_is_joined_as_a_player_shows_it(tmp_path, turned):
    """Dark above bright, in a file that stores it turned by a right angle, or with pixels that are twice as wide as high."""
    picture = np.concatenate([np.full((32, 128, 3), 40, np.uint8), np.full((32, 128, 3), 200, np.uint8)])
    stored = np.ascontiguousarray(np.rot90(picture, -1)) if turned else np.ascontiguousarray(picture[:, ::2])
    file = tmp_path / "clip.mp4"
    with av.open(str(file), "w") as out:
        stream = out.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = stored.shape[1], stored.shape[0], "yuv420p"
        if turned:
            stream.set_display_rotation(90)
        else:
            stream.codec_context.sample_aspect_ratio = Fraction(2)
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        out.mux(stream.encode(None))
    store = MediaStore(Place.of(tmp_path))
    media = store.put(file.read_bytes(), ".mp4")
    clips = {"SH0010": {"media": media.digest, "media_path": media.path}}
    for frame in timeline(episode({"frames": 3}, width=128, height=64), clips, store, None):
        assert np.abs(frame.astype(int) - picture).mean() < 3


def test_a_title_of_two_lines_is_joined(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    made = clip(store, tmp_path, 60, 1, 24, 192, 128)
    story = episode({"frames": 48, "fit": "hold", "title": "One\u2028two \u6d77"}, width=192, height=128)
    for font in (None, built_in()[-1]):
        assert list(timeline(story, {"SH0010": made}, store, font))[24].max() > 230


def test_an_episode_appears_whole_or_not_at_all(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    story = episode({"frames": 4}, {"frames": 4})
    clips = {"SH0010": clip(store, tmp_path, 20, 8, 24), "SH0020": clip(store, tmp_path, 90, 8, 24)}
    (store.place.folder / clips["SH0020"]["media_path"]).write_bytes(b"damaged")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "episode.mp4").write_bytes(b"the one before")
    with pytest.raises(Exception, match="promises"):
        assemble(story, clips, store, None, tmp_path / "out" / "episode.mp4")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["episode.mp4"]
    assert (tmp_path / "out" / "episode.mp4").read_bytes() == b"the one before"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("an odd disk"), "an odd disk"),
        (av.error.ExternalError(1, "the encoder gave up"), "the encoder gave up"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, error, words):
    store, out = MediaStore(Place.of(tmp_path)), tmp_path / "nowhere" / "episode.mp4"
    story, clips = episode({"frames": 4}), {"SH0010": clip(store, tmp_path, 20, 8, 24)}
    with pytest.raises(StorageError, match=f"^{out} cannot be written: No such file or directory$"):
        assemble(story, clips, store, None, out)

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(module.VideoFile, "write", fails)
    with pytest.raises(StorageError, match=f"^{tmp_path}/episode.mp4 cannot be written: {words}$"):
        assemble(story, clips, store, None, tmp_path / "episode.mp4")


def test_a_movie_that_lacks_a_frame_is_never_put_in_its_place(tmp_path, monkeypatch):
    (tmp_path / "episode.mp4").write_bytes(b"the one before")
    monkeypatch.setattr(module, "timeline", lambda *_: [np.zeros((64, 64, 3), np.uint8)] * 3)
    with pytest.raises(StorageError, match="has 3 frames of 64x64 at 24 fps; 4 of"):
        assemble(episode({"frames": 4}), {}, MediaStore(Place.of(tmp_path)), None, tmp_path / "episode.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["episode.mp4"] and (tmp_path / "episode.mp4").read_bytes() == b"the one before"


def test_what_killed_assemblies_left_is_removed_when_it_is_a_day_old(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    for name, age in ((".part-old", LONGEST_SECONDS + 60), (".part-young", LONGEST_SECONDS - 60), ("kept", 2 * LONGEST_SECONDS)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "episode.mp4").touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    (tmp_path / ".part-mine").touch()
    os.utime(tmp_path / ".part-mine", (1, 1))
    assemble(episode({"frames": 4}), {"SH0010": clip(store, tmp_path, 20, 8, 24)}, store, None, tmp_path / "episode.mp4")
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {".part-young", "kept", "media"}
    assert (tmp_path / ".part-mine").exists(), "that is a file, and no assembly leaves one"
    assert LONGEST_SECONDS == 86_400


@pytest.mark.parametrize("meant", [{"frames": 5}, {"frames": 3}, {"width": 96}, {"height": 64}, {"fps": 25}])
def test_a_movie_that_is_not_what_was_meant_is_never_put_in_its_place(tmp_path, meant):
    store, made = MediaStore(Place.of(tmp_path)), {"frames": 4, "width": 64, "height": 96, "fps": 24}

    def story(frames: int, **more: int) -> Episode:
        return episode({"frames": frames}, **more)

    assemble(story(**made), {"SH0010": clip(store, tmp_path, 20, 8, 24)}, store, None, tmp_path / "episode.mp4")
    _prove(tmp_path / "episode.mp4", story(**made))
    wanted = made | meant
    told = "episode.mp4 has 4 frames of 64x96 at 24 fps; {frames} of {width}x{height} at {fps} were meant".format(**wanted)
    with pytest.raises(StorageError, match=f"^{told}$"):
        _prove(tmp_path / "episode.mp4", story(**wanted))


def test_accepted_media_lie_in_files_named_by_their_shots(tmp_path):
    store = MediaStore(Place.of(tmp_path / "catalog"))

    def take(data: bytes, suffix: str) -> dict:
        media = store.put(data, suffix)
        return {"media": media.digest, "media_path": media.path}

    folder = tmp_path / "out" / "shots"
    both = {"keyframe": take(b"still", ".png"), "clip": take(b"clip", ".mp4")}
    link_takes(folder, {"SH0010": both, "SH0020": both}, store)
    link_takes(folder, {"SH0010": {"keyframe": take(b"other", ".png")}}, store)
    link_takes(folder, {"SH0010": {"keyframe": take(b"other", ".png")}, "SH0030": {"clip": both["clip"]}}, store)
    there = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert there == {"SH0010.png": b"other", "SH0020.png": b"still", "SH0020.mp4": b"clip", "SH0030.mp4": b"clip"}
    (store.place.folder / both["clip"]["media_path"]).write_bytes(b"damaged")
    with pytest.raises(MediaDamaged):
        link_takes(folder, {"SH0020": both}, store)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == there


ENCODE = """
import hashlib, numpy as np, pathlib, sys
from fractions import Fraction
from pipeline.render.video_file import write_clip
from dataclasses import replace
from actors.demo.train import scenes
frames = scenes.clip(replace(scenes.sample(1), motion="walk right"), range(40), 64, 96)
grain = np.random.default_rng(1).integers(-6, 7, frames.shape)
write_clip(pathlib.Path(sys.argv[1]), np.clip(frames + grain, 0, 255).astype(np.uint8), Fraction(24))
print(hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest())
"""


def test_equal_frames_give_equal_bytes_whatever_lay_in_memory_before(tmp_path):
    """glibc fills fresh memory with a byte of our choice: an encoder that reads what nobody wrote gives itself away."""

    def encoded(fill: int) -> str:
        env = os.environ | {"PYTHONPATH": str(PROJECT), "MALLOC_PERTURB_": str(fill)}
        command = [sys.executable, "-c", ENCODE, str(tmp_path / f"{fill}.mp4")]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True).stdout

    assert encoded(1) == encoded(170) == encoded(255)
