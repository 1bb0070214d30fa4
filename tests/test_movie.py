"""From clips to a movie: exact frames, right order, any size and rate; each part encoded once."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tempfile
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from decord import VideoReader
from PIL import Image
from rich.console import Console

from catalog.cache import Cache
from catalog.media import MediaDamaged, MediaStore
from catalog.place import Place
from catalog.store import Catalog
from gates.decode import read_video
from pipeline.post import segments as module
from pipeline.post.edit import Edit
from pipeline.post.join import Reels, join
from pipeline.post.join import prove as prove_movie
from pipeline.post.making import make_missing
from pipeline.post.movie import make_movie
from pipeline.post.result import Result
from pipeline.post.segments import MOMENTS, VIDEO, Segment, _pictures, _Sources, make_segment, prove, segments_of, strip_of
from pipeline.post.shots_folder import files_of, write_shots
from pipeline.post.shown import Canvas, Part, rgb
from pipeline.render.context import context
from pipeline.render.marks import Marks
from pipeline.render.video_file import write_clip
from pipeline.story.episode import Episode
from pipeline.story.errors import StorageError
from pipeline.story.fingerprint import file_digest
from pipeline.story.fit import fills, moment
from pipeline.story.letters import built_in
from pipeline.story.settings import Settings
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


def timeline(story: Episode, clips: dict, store: MediaStore, font: Path | None = None) -> list[np.ndarray]:
    """The movie's frames before they are encoded."""
    letters = font.read_bytes() if font else None
    with tempfile.TemporaryDirectory() as folder:
        sources = _Sources(store, letters, Path(folder))
        segments = [segment for segment in segments_of(story, clips, (), "") if segment.frames]
        return [rgb(picture) for segment in segments for picture in _pictures(segment, sources)]


def edit_of_clips(story: Episode, clips: dict, font: Path | None = None) -> Edit:
    """The edit of an episode that was never planned, of clips without rows."""
    letters = file_digest(font) if font else ""
    return Edit(story, "", clips, segments_of(story, clips, (), letters), font, letters, (), (), Marks(None, {"title": story.title}))


def assemble(story: Episode, clips: dict, catalog: Catalog, out: Path) -> list[Segment]:
    """Make every segment that is missing, and the movie. Gives what was made."""
    edit = edit_of_clips(story, clips)
    with context(Settings(catalog_uri=str(catalog.place)), catalog, Console(quiet=True)) as here:
        made = make_missing(edit.segments, None, here)
        make_movie(edit, here, out)
    return made


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
    assert near(levels(timeline(story, clips, store)), wanted)
    assemble(story, clips, Catalog(store.place, 0), tmp_path / "episode.mp4")
    frames, fps = read_video(tmp_path / "episode.mp4")
    assert frames.shape == (28, 64, 64, 3) and fps == 24 and near(levels(frames), wanted, slack=4)
    assert b"crf=16.0" in (tmp_path / "episode.mp4").read_bytes(), "x264 writes its options into the stream"


@pytest.mark.parametrize(("written", "rate"), [("24000/1001", Fraction(24000, 1001)), (29.97, Fraction(30000, 1001)), (12.5, Fraction(25, 2))])
def test_an_episode_of_a_fractional_rate_is_written_exactly_and_shows_each_frame_once(tmp_path, written, rate):
    store = MediaStore(Place.of(tmp_path))
    story = episode({"frames": 60}, {"frames": 60}, fps=written)
    whole = round(rate)  # such as 24 beside 24000/1001, for which no frame is left out
    clips = {f"SH00{n}0": clip(store, tmp_path, 20 * n, 61, whole if rate != Fraction(25, 2) else rate) for n in (1, 2)}
    assemble(story, clips, Catalog(store.place, 0), tmp_path / "episode.mp4")
    frames, fps = read_video(tmp_path / "episode.mp4")
    assert fps == rate and near(levels(frames), [20 + n for n in range(60)] + [40 + n for n in range(60)], slack=4)


@pytest.mark.parametrize(("clip_fps", "written"), [(8, "24000/1001"), (Fraction(24000, 1001), 24), (Fraction(30000, 1001), "30000/1001"), (12, 12)])
def test_rates_that_differ_by_the_pull_down_show_each_frame_equally_long(clip_fps, written):
    story = episode({"frames": 48}, fps=written)
    times = [round(float(story.fps / clip_fps))] * 48
    shown = [moment(n, "trim", 48, 48, Fraction(clip_fps), story.fps) for n in range(48)]
    assert shown == [n // times[0] for n in range(48)]


def test_a_dissolve_overlaps_and_blends_from_one_shot_to_the_next(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    story = episode({"frames": 8}, {"frames": 8, "transition": {"type": "dissolve", "frames": 3}}, {"frames": 4})
    clips = {f"SH00{n}0": clip(store, tmp_path, level, 1, 24) for n, level in ((1, 40), (2, 200), (3, 100))}
    story.sequences[0].shots[0].fit = story.sequences[0].shots[1].fit = story.sequences[0].shots[2].fit = "hold"
    wanted = [40] * 5 + [80, 120, 160] + [200] * 5 + [100] * 4
    assert story.total_frames == len(wanted) == 17
    assert near(levels(timeline(story, clips, store)), wanted)


def test_dissolves_one_after_another_and_as_long_as_their_shots(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    dissolve = {"transition": {"type": "dissolve", "frames": 4}, "fit": "hold"}
    story = episode({"frames": 6, "fit": "hold"}, {"frames": 8} | dissolve, {"frames": 4} | dissolve)
    clips = {f"SH00{n}0": clip(store, tmp_path, level, 1, 24) for n, level in ((1, 0), (2, 200), (3, 100))}
    found = levels(timeline(story, clips, store))
    assert near(found, [0, 0, 40, 80, 120, 160, 180, 160, 140, 120], slack=3)
    assert len(found) == story.total_frames


def test_hold_keeps_the_last_frame_and_stretch_retimes(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    made = clip(store, tmp_path, 50, 4, 24)
    held = list(timeline(episode({"frames": 8, "fit": "hold"}), {"SH0010": made}, store))
    assert near(levels(held), [50, 51, 52, 53, 53, 53, 53, 53])
    stretched = list(timeline(episode({"frames": 8, "fit": "stretch"}), {"SH0010": made}, store))
    assert near(levels(stretched), [50, 50, 51, 51, 52, 52, 53, 53])


def test_another_shape_fills_the_picture_without_bars(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    made = clip(store, tmp_path, 200, 2, 24, 96, 32)
    for frame in timeline(episode({"frames": 2}, width=64, height=96), {"SH0010": made}, store):
        assert frame.shape == (96, 64, 3) and frame.min() > 180


def test_a_title_is_drawn_and_fades(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    made = clip(store, tmp_path, 60, 1, 24, 192, 128)
    frames = list(
        timeline(episode({"frames": 48, "fit": "hold", "title": "Lanterns"}, width=192, height=128), {"SH0010": made}, store)
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
    for frame in timeline(episode({"frames": 3}, width=128, height=64), clips, store):
        assert np.abs(frame.astype(int) - picture).mean() < 3


def test_a_title_of_two_lines_is_joined(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    made = clip(store, tmp_path, 60, 1, 24, 192, 128)
    story = episode({"frames": 48, "fit": "hold", "title": "One\u2028two \u6d77"}, width=192, height=128)
    for font in (None, built_in()[-1]):
        assert list(timeline(story, {"SH0010": made}, store, font))[24].max() > 230


# --- how a shot is retimed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fit", "held"), [("on_twos", 2), ("on_threes", 3)])
def test_each_drawing_is_held_for_as_many_frames_as_the_shot_says(tmp_path, fit, held):
    store = MediaStore(Place.of(tmp_path))
    made = clip(store, tmp_path, 50, 16, 8)
    found = levels(timeline(episode({"frames": 30, "fit": fit}), {"SH0010": made}, store))
    assert near(found, [50 + n // held for n in range(30)], slack=1)


@pytest.mark.parametrize(
    ("fit", "shown"), [("trim", [2, 2, 3, 3]), ("hold", [2, 2, 3, 3]), ("on_twos", [3, 4, 4, 5]), ("flow", [2.33, 2.67, 3, 3.33])]
)
def test_a_shot_begins_within_its_clip_at_the_first_frame_that_the_file_says(tmp_path, fit, shown):
    store = MediaStore(Place.of(tmp_path))
    made = clip(store, tmp_path, 50, 16, 8)
    found = levels(timeline(episode({"frames": 4, "fit": fit, "first_frame": 7}), {"SH0010": made}, store))
    assert near(found, [50 + n for n in shown], slack=1)


@pytest.mark.parametrize(
    ("fit", "wanted"), [("trim", 48), ("flow", 48), ("on_twos", 32), ("on_threes", 48), ("hold", None), ("stretch", None)]
)
def test_it_is_known_how_many_frames_a_clip_of_sixteen_at_eight_a_second_fills(fit, wanted):
    assert fills(fit, 16, Fraction(8), Fraction(24)) == wanted
    assert wanted is None or moment(wanted - 1, fit, wanted, 16, Fraction(8), Fraction(24)) >= 15


def test_flow_draws_what_is_between_two_frames_where_it_moves(tmp_path):
    """A square that goes 8 pixels a frame, at 12 frames a second, in an episode of 24."""
    store, frames = MediaStore(Place.of(tmp_path)), np.full((6, 64, 96, 3), 60, np.uint8)
    texture = np.random.default_rng(1).integers(120, 250, (24, 24, 3), np.uint8)
    texture = np.repeat(np.repeat(texture[::6, ::6], 6, 0), 6, 1)
    for n in range(6):
        frames[n, 20:44, 10 + 8 * n : 34 + 8 * n] = texture
    write_clip(tmp_path / "c.mp4", frames, Fraction(12), crf=1)
    media = store.put((tmp_path / "c.mp4").read_bytes(), ".mp4")
    story = episode({"frames": 12, "fit": "flow"}, width=96)
    found = timeline(story, {"SH0010": {"media": media.digest, "media_path": media.path}}, store)

    def middle(frame: np.ndarray) -> float:
        light = np.abs(frame.astype(float).mean(axis=2) - 60)
        return float((light * np.arange(96)).sum() / light.sum())

    places = [middle(frame) for frame in found]
    assert np.abs(np.diff(places[:11]) - 4).max() < 1, places
    assert np.abs(found[0].astype(int) - frames[0]).mean() < 2 and np.abs(found[11].astype(int) - frames[5]).mean() < 2
    middle_of_both = (frames[0].astype(float) + frames[1]) / 2
    assert np.abs(found[1] - middle_of_both).mean() > 4, "it is drawn anew, and not blended"


def test_a_clip_that_has_the_movies_size_is_taken_over_as_it_was_decoded(tmp_path):
    """No level of it is rounded a second time by a way through RGB."""
    store = MediaStore(Place.of(tmp_path))
    made, story = clip(store, tmp_path, 20, 8, 24), episode({"frames": 8})
    (segment,) = segments_of(story, {"SH0010": made}, (), "")
    pictures = list(_pictures(segment, _Sources(store, None, tmp_path)))
    with av.open(str(tmp_path / "c20.mp4")) as file:
        assert all(np.array_equal(a.to_ndarray(), b.to_ndarray()) for a, b in zip(pictures, file.decode(video=0), strict=True))


# --- segments: made once, proven, kept ------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path) -> tuple[Episode, dict, Catalog]:
    """Three shots, the second of which dissolves in, the third one frame long."""
    catalog = Catalog(Place.of(tmp_path / "catalog"), 0)
    story = episode({"frames": 10}, {"frames": 12, "transition": {"type": "dissolve", "frames": 4}}, {"frames": 1})
    return story, {f"SH00{n}0": clip(catalog.media, tmp_path, 60 * n, 16, 24) for n in (1, 2, 3)}, catalog


def changed(story: Episode, shot: int, **fields: object) -> Episode:
    new = story.model_copy(deep=True)
    for name, value in fields.items():
        setattr(new.sequences[0].shots[shot], name, value)
    return new


def test_a_changed_shot_costs_its_own_segment_and_its_dissolves(desk, tmp_path):
    story, clips, catalog = desk
    names = lambda made: [segment.name for segment in made]  # noqa: E731
    assert names(assemble(story, clips, catalog, tmp_path / "a.mp4")) == ["SH0010", "SH0010-SH0020", "SH0020", "SH0030"]
    assert assemble(story, clips, catalog, tmp_path / "b.mp4") == []
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert names(assemble(changed(story, 2, frames=2), clips, catalog, tmp_path / "c.mp4")) == ["SH0030"]
    assert names(assemble(changed(story, 1, frames=13), clips, catalog, tmp_path / "d.mp4")) == ["SH0010-SH0020", "SH0020"]
    other = clips | {"SH0010": clip(catalog.media, tmp_path, 33, 16, 24)}
    assert names(assemble(story, other, catalog, tmp_path / "e.mp4")) == ["SH0010", "SH0010-SH0020"]


def test_the_same_bytes_come_from_a_cold_cache_a_warm_one_and_other_workers(desk, tmp_path, monkeypatch):
    story, clips, catalog = desk
    assemble(story, clips, catalog, tmp_path / "here.mp4")
    kept = {path.name for path in (tmp_path / "catalog" / "made").rglob("*.*")}
    for file in (tmp_path / "catalog" / "made").rglob("*.*"):
        file.unlink()
    for segment in reversed(segments_of(story, clips, (), "")):  # in another order, each by a process of its own
        code = "import pickle,sys; from pipeline.post.segments import make_segment; make_segment(*pickle.loads(sys.stdin.buffer.read()))"
        subprocess.run([sys.executable, "-c", code], input=pickle.dumps((segment, catalog.place, None)), check=True, cwd=PROJECT, timeout=120)
    assert {path.name for path in (tmp_path / "catalog" / "made").rglob("*.*")} == kept, "names hold the digests of the bytes"
    assert assemble(story, clips, catalog, tmp_path / "there.mp4") == []
    assert (tmp_path / "here.mp4").read_bytes() == (tmp_path / "there.mp4").read_bytes()


def test_a_damaged_segment_is_found_and_made_again(desk, tmp_path):
    story, clips, catalog = desk
    assemble(story, clips, catalog, tmp_path / "a.mp4")
    (victim,) = [file for file in (tmp_path / "catalog" / "made").rglob("*.mp4") if segments_of(story, clips, (), "")[2].key in file.name]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    assert [segment.name for segment in assemble(story, clips, catalog, tmp_path / "b.mp4")] == ["SH0020"]
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_movie_has_a_keyframe_where_each_shot_begins_and_no_gap_in_its_times(desk, tmp_path):
    story, clips, catalog = desk
    assemble(story, clips, catalog, tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as file:
        packets = [packet for packet in file.demux(video=0) if packet.pts is not None]
        times = sorted(packet.pts * packet.time_base * 24 for packet in packets)
        assert times == list(range(19)) and all(a.dts < b.dts for a, b in pairwise(packets))
        assert {0, 6, 10, 18} <= {packet.pts * packet.time_base * 24 for packet in packets if packet.is_keyframe}
        context = file.streams.video[0].codec_context
        assert (context.color_range, context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1, 1)
    assert len(VideoReader(str(tmp_path / "a.mp4"))) == 19, "a second decoder counts the same"


def test_the_colours_of_a_test_card_come_back_within_two_levels(tmp_path):
    """Primaries, secondaries, skin and greys: the movie shows what its clip shows, and that is within a level more of what was drawn."""
    catalog = Catalog(Place.of(tmp_path / "catalog"), 0)
    colours = [(235, 30, 30), (30, 235, 30), (30, 30, 235), (30, 235, 235), (235, 30, 235), (235, 235, 30), (224, 172, 140), (90, 60, 50)]
    colours += [(level,) * 3 for level in (0, 16, 64, 128, 192, 235, 255, 40)]
    card = np.array(colours, np.uint8).reshape(4, 4, 3).repeat(32, axis=0).repeat(32, axis=1)
    write_clip(tmp_path / "card.mp4", np.stack([card] * 12), Fraction(24))
    media = catalog.media.put((tmp_path / "card.mp4").read_bytes(), ".mp4")
    story = episode({"frames": 12}, width=128, height=128)
    assemble(story, {"SH0010": {"media": media.digest, "media_path": media.path}}, catalog, tmp_path / "a.mp4")

    def patches(frame: np.ndarray) -> np.ndarray:
        return frame.reshape(4, 32, 4, 32, 3)[:, 8:24, :, 8:24].mean(axis=(1, 3)).reshape(16, 3)

    source = patches(read_video(tmp_path / "card.mp4")[0][6])
    for found in (read_video(tmp_path / "a.mp4")[0][6], VideoReader(str(tmp_path / "a.mp4"))[6].asnumpy()):
        assert np.abs(patches(found) - source).max() <= 2 and np.abs(patches(found) - colours).max() <= 3


def test_shots_without_a_clip_leave_the_other_segments_as_they_are(desk):
    story, clips, _ = desk
    whole = {segment.name: segment.key for segment in segments_of(story, clips, (), "")}
    part = segments_of(story, {shot: row for shot, row in clips.items() if shot != "SH0020"}, (), "")
    assert [segment.name for segment in part] == ["SH0010", "SH0030"] and all(whole[segment.name] == segment.key for segment in part)


def test_a_shot_that_dissolves_take_whole_has_a_strip_and_no_segment(tmp_path):
    catalog, dissolve = Catalog(Place.of(tmp_path / "catalog"), 0), {"transition": {"type": "dissolve", "frames": 4}}
    story = episode({"frames": 6}, {"frames": 8} | dissolve, {"frames": 4} | dissolve)
    clips = {f"SH00{n}0": clip(catalog.media, tmp_path, 60 * n, 8, 24) for n in (1, 2, 3)}
    segments = segments_of(story, clips, (), "")
    assert [(s.name, s.frames) for s in segments] == [
        ("SH0010", 2), ("SH0010-SH0020", 4), ("SH0020", 0), ("SH0020-SH0030", 4), ("SH0030", 0),
    ]  # fmt: skip
    assemble(story, clips, catalog, tmp_path / "a.mp4")
    cache = Cache(catalog.place)
    strip = strip_of(segments[2], cache, cache.there())
    assert len(strip) == MOMENTS and near(levels(strip), [120, 121, 123, 125, 127], slack=2)
    assert len(read_video(tmp_path / "a.mp4")[0]) == 10


def test_an_episode_appears_whole_or_not_at_all(desk, tmp_path):
    story, clips, catalog = desk
    (catalog.place.folder / clips["SH0020"]["media_path"]).write_bytes(b"damaged")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "episode.mp4").write_bytes(b"the one before")
    with pytest.raises(MediaDamaged, match="promises"):
        assemble(story, clips, catalog, tmp_path / "out" / "episode.mp4")
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
def test_a_file_that_cannot_be_written_is_one_sentence(desk, tmp_path, monkeypatch, error, words):
    story, clips, catalog = desk
    out = tmp_path / "nowhere" / "episode.mp4"
    with pytest.raises(StorageError, match=f"^{out} cannot be written: No such file or directory$"):
        assemble(story, clips, catalog, out)

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(module.VideoFile, "add", fails)
    with pytest.raises(StorageError, match=f"^segment SH0010 cannot be written: {words}$"):
        make_segment(segments_of(story, clips, (), "")[0], catalog.place, None)
    assert not list(tmp_path.glob(".part-*"))


def test_a_segment_that_is_not_what_was_meant_is_never_kept(desk, tmp_path, monkeypatch):
    story, clips, catalog = desk
    segment = segments_of(story, clips, (), "")[0]
    monkeypatch.setattr(module, "_pictures", lambda *_: iter([np.zeros((64, 64, 3), np.uint8)] * 5))
    with pytest.raises(StorageError, match=r"^segment SH0010 has 5 frames of 64x64 at 24 fps; 6 of 64x64 at 24 were meant$"):
        make_segment(segment, catalog.place, None)
    assert Cache(catalog.place).there() == {}


@pytest.mark.parametrize("meant", [{"frames": 5}, {"width": 96}, {"height": 64}, {"fps": Fraction(25)}])
def test_every_property_of_a_segment_is_proven(tmp_path, meant):
    canvas, frames = {"width": 64, "height": 96, "fps": Fraction(24), "font": ""}, 4
    write_clip(tmp_path / "s.mp4", np.zeros((4, 96, 64, 3), np.uint8), Fraction(24))
    part = Part("", "", 4, "trim", "")
    prove(tmp_path / "s.mp4", Segment("SH0010", Canvas(**canvas), part, 0, frames))
    frames = meant.pop("frames", frames)
    with pytest.raises(StorageError, match=r"^segment SH0010 has 4 frames of 64x96 at 24 fps; "):
        prove(tmp_path / "s.mp4", Segment("SH0010", Canvas(**canvas | meant), part, 0, frames))


def test_a_movie_that_lacks_a_frame_is_never_put_in_its_place(desk, tmp_path):
    story, clips, catalog = desk
    assemble(story, clips, catalog, tmp_path / "whole.mp4")
    there = Cache(catalog.place).there()
    shown = [(catalog.place.folder / there[s.key + VIDEO], s.frames) for s in segments_of(story, clips, (), "")]
    (tmp_path / "episode.mp4").write_bytes(b"the one before")
    files, frames = [file for file, _ in shown], [count for _, count in shown]
    for wrong, words in (([6, 4, 9, 1], "has 19 frames"), ([6, 4, 7, 1], "has 18 frames|has 19 frames"), ([5, 5, 8, 1], "no keyframe|has")):
        with pytest.raises(StorageError, match=words):
            join(Reels(files, wrong, Fraction(24)), Marks(None), tmp_path / "episode.mp4")
    with pytest.raises(StorageError, match="no keyframe at frame 6"):
        prove_movie(tmp_path / "whole.mp4", [5, 5, 8, 1], Fraction(24))
    assert (tmp_path / "episode.mp4").read_bytes() == b"the one before"
    join(Reels(files, frames, Fraction(24)), edit_of_clips(story, clips).marks, tmp_path / "episode.mp4")
    assert (tmp_path / "episode.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


# --- shots/ ---------------------------------------------------------------------------------------------------------------------


def test_accepted_media_lie_in_files_named_by_their_shots_and_are_written_once(tmp_path):
    store, folder = MediaStore(Place.of(tmp_path / "catalog")), tmp_path / "out"
    story = episode({"frames": 4}, {"frames": 4}, {"frames": 4})

    def take(shot: str, stage: str, level: int) -> dict:
        made = clip(store, tmp_path, level, 4, 24)
        if stage == "keyframe":
            buffer = io.BytesIO()
            Image.new("RGB", (8, 8), (level, level, level)).save(buffer, "PNG")
            media = store.put(buffer.getvalue(), ".png")
            made = {"media": media.digest, "media_path": media.path}
        flow = {"workflow": "w", "workflow_version": 1, "workflow_digest": "d", "seed": level, "reference_files": {}}
        return made | flow | {"take": f"E01/{shot}/{stage}/v001", "shot": shot, "stage": stage}

    def write(before: dict, **takes: tuple[int | None, int | None]) -> dict:
        results = []
        for shot, levels in takes.items():
            found = {stage: take(shot, stage, level) for stage, level in zip(("keyframe", "clip"), levels, strict=True) if level}
            results.append(Result(shot, "accepted", "", found))
        return write_shots(folder, story, results, before, store)

    def there() -> dict[str, int]:
        """Name to the level of the picture, in tens."""
        pictures = {p.name: read_video(p)[0][0] if p.suffix == ".mp4" else np.asarray(Image.open(p)) for p in sorted((folder / "shots").iterdir())}
        return {name: round(float(picture.mean()), -1) for name, picture in pictures.items()}

    first = write({}, SH0010=(20, 40), SH0020=(20, 40))
    second = write(files_of({"files": first}), SH0010=(60, None), SH0030=(None, 80))
    assert there() == {"SH0010.png": 60, "SH0020.png": 20, "SH0020.mp4": 40, "SH0030.mp4": 80} and second.keys() == there().keys()
    damaged = take("SH0020", "clip", 40)
    (store.place.folder / damaged["media_path"]).write_bytes(b"damaged")
    result = Result("SH0020", "accepted", "", {"keyframe": take("SH0020", "keyframe", 20), "clip": damaged})
    assert write_shots(folder, story, [result], second, store) == second, "what is there already is not read again"
    (folder / "shots" / "SH0020.mp4").write_bytes(b"somebody else's")
    with pytest.raises(MediaDamaged):
        write_shots(folder, story, [result], second, store)


ENCODE = """
import hashlib, numpy as np, pathlib, sys
from fractions import Fraction
from itertools import pairwise
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
