"""An episode in an editor's hands: every clip where the movie has it, with what it was made from, in files that their readers open."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import opentimelineio as otio
import pytest
from defusedxml import ElementTree
from hypothesis import HealthCheck, Phase, given, settings
from opentimelineio.opentime import RationalTime, TimeRange

from catalog.store import Catalog
from gates.decode import read_video
from pipeline.post.otio_timeline import NO_CLIP, timeline_of
from pipeline.post.timeline import FORMATS, HandedOff, hand_off
from pipeline.story.episode import Episode, load_episode

from .conftest import EPISODE_FRAMES, Done, Rendered, refused
from .cuts import filmed, row_of, say, stories, written

FILM = Fraction(24000, 1001)


def handed(catalog: Catalog, episode: Episode, folder: Path, kind: str = "otio") -> tuple[HandedOff, otio.schema.Timeline]:
    done = hand_off(catalog, episode, kind, folder / f"E01.{kind}")
    return done, otio.adapters.read_from_file(str(folder / "E01.otio")) if kind == "otio" else None


def otiotool(file: Path, *args: str) -> str:
    """OpenTimelineIO's own tool, in the timeline's folder, as an editor would run it."""
    tool = "from opentimelineio.console.otiotool import main; main()"
    done = subprocess.run([sys.executable, "-c", tool, "-i", file.name, *args], cwd=file.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def span(first: int, count: int, rate: float = 24.0) -> TimeRange:
    return TimeRange(RationalTime(first, rate), RationalTime(count, rate))


def test_a_rendered_episode_opens_in_opentimelineio_s_own_tools_with_every_file_and_range(rendered: Rendered, tmp_path: Path) -> None:
    episode = load_episode(rendered.file)
    done = hand_off(Catalog.open(rendered.cwd / "catalog-data"), episode, "otio", tmp_path / "E90.otio")
    said = otiotool(tmp_path / "E90.otio", "--verify-media", "--verify-ranges", "--list-tracks", "--list-markers")
    assert said.count("IN BOUNDS") == said.count("MEDIA EXISTS") == 3 and "NOT FOUND" not in said
    assert done.copied == ["SH0010.mp4", "SH0020.mp4", "SH0030.mp4"] and not done.told
    timeline = otio.adapters.read_from_file(str(tmp_path / "E90.otio"))
    assert timeline.duration() == RationalTime(EPISODE_FRAMES, 24)
    for clip in timeline.find_clips():
        take, own = rendered.accepted("clip")[clip.name], clip.metadata["tower"]
        assert own["take"] == take["take"] and own["seed"] == take["seed"] and own["workflow_digest"] == take["workflow_digest"]
        assert own["workflow"] == f"{take['workflow']}@{take['workflow_version']}" and own["keyframe"] == take["upstream"]
        assert clip.media_reference.name == clip.media_reference.target_url == f"{clip.name}.mp4"  # which Resolve links by
        file = tmp_path / clip.media_reference.target_url
        assert hashlib.sha256(file.read_bytes()).hexdigest() == own["media"] == take["media"]
        frames, fps = read_video(file)
        assert clip.media_reference.available_range == span(0, len(frames), float(fps))  # all of it: handles


def test_a_dissolve_begins_where_its_shot_does_and_finds_a_handle_behind_the_shot_before(tmp_path: Path) -> None:
    file = written(tmp_path, {"S010": ["{id: SH0010, frames: 40}", "{id: SH0020, frames: 30, first_frame: 5, transition: {type: dissolve, frames: 12}}"]})
    catalog, episode = filmed(tmp_path, file, {"SH0010": (60, 24), "SH0020": (60, 24)})
    _, timeline = handed(catalog, episode, tmp_path / "edit")
    before, dissolve, after = timeline.video_tracks()[0]
    assert before.source_range == span(0, 28) and after.source_range == span(5, 30)
    assert dissolve.transition_type == "SMPTE_Dissolve" and (dissolve.in_offset.value, dissolve.out_offset.value) == (0, 12)
    assert timeline.duration().value == episode.total_frames == 58
    assert timeline.global_start_time.to_timecode() == "01:00:00:00"


def test_a_dissolve_over_a_whole_shot_leaves_that_shot_a_frame(tmp_path: Path) -> None:
    file = written(tmp_path, {"S010": ["{id: SH0010, frames: 12}", "{id: SH0020, frames: 30, transition: {type: dissolve, frames: 12}}"]})
    catalog, episode = filmed(tmp_path, file, {"SH0010": (60, 24), "SH0020": (60, 24)})
    _, timeline = handed(catalog, episode, tmp_path / "edit")
    before, dissolve, after = timeline.video_tracks()[0]
    assert before.source_range == span(0, 1) and after.source_range == span(1, 29)
    assert (dissolve.in_offset.value, dissolve.out_offset.value) == (1, 11) and timeline.duration().value == 30
    edl = hand_off(catalog, episode, "edl", tmp_path / "edit" / "E01.edl").file.read_text()
    assert "002  SH0020   V     D 012    00:00:00:00 00:00:01:06 01:00:00:00 01:00:01:06" in edl


def test_a_clip_of_another_rate_keeps_it_and_is_shown_by_the_episode_s(tmp_path: Path) -> None:
    file = written(tmp_path, {"S010": ["{id: SH0010, frames: 36}", "{id: SH0020, frames: 48}"]}, "23.976")
    catalog, episode = filmed(tmp_path, file, {"SH0010": (16, 8), "SH0020": (121, 24)})
    _, timeline = handed(catalog, episode, tmp_path / "edit")
    slow, film = timeline.find_clips()
    rate = float(FILM)
    assert slow.available_range() == span(0, 16, rate / 3) and slow.source_range == span(0, 36, rate)  # one of 8 for three of the episode
    assert film.available_range() == span(0, 121, rate) and not film.effects  # frame by frame, as the pull-down has it
    assert slow.metadata["tower"]["fps"] == "8" and timeline.metadata["tower"]["fps"] == "24000/1001"
    assert timeline.global_start_time.to_timecode() == "01:00:00:00"
    assert otiotool(tmp_path / "edit" / "E01.otio", "--verify-ranges", "--list-markers").count("IN BOUNDS") == 2


def test_a_stretched_clip_has_its_speed_and_a_held_end_is_a_freeze_frame(tmp_path: Path) -> None:
    file = written(tmp_path, {"S010": ["{id: SH0010, frames: 40, fit: stretch}", "{id: SH0020, frames: 40, fit: hold}"]})
    catalog, episode = filmed(tmp_path, file, {"SH0010": (60, 24), "SH0020": (26, 24)})
    _, timeline = handed(catalog, episode, tmp_path / "edit")
    fast, moving, held = timeline.find_clips()
    assert fast.source_range == span(0, 40) and [e.time_scalar for e in fast.effects] == [1.5]
    assert moving.source_range == span(0, 26) and not moving.effects
    assert held.source_range == span(25, 14) and isinstance(held.effects[0], otio.schema.FreezeFrame) and held.name == "SH0020"


def test_a_shot_without_an_accepted_clip_is_a_gap_of_its_length_and_is_told(tmp_path: Path) -> None:
    file = written(tmp_path, {"S010": ["{id: SH0010, frames: 40}", "{id: SH0020, frames: 30}", "{id: SH0030, frames: 20}"]})
    catalog, episode = filmed(tmp_path, file, {"SH0010": (60, 24), "SH0030": (60, 24)})
    done, timeline = handed(catalog, episode, tmp_path / "edit")
    gap = timeline.video_tracks()[0][1]
    assert isinstance(gap, otio.schema.Gap) and gap.name == "SH0020" and gap.duration().value == 30
    assert [marker.name for marker in gap.markers] == [NO_CLIP] and timeline.duration().value == 90
    assert done.told == ["SH0020 has no accepted clip; the timeline has a gap of its length there"]
    assert "SH0030   V     C        00:00:00:00 00:00:00:20 01:00:02:22 01:00:03:18" in hand_off(catalog, episode, "edl", tmp_path / "E01.edl").file.read_text()


def test_what_people_said_is_a_marker_in_its_colour_at_its_frames(tmp_path: Path) -> None:
    file = written(tmp_path, {"S010": ["{id: SH0010, frames: 40, first_frame: 4}"], "S020": ["{id: SH0020, frames: 36}"]})
    catalog, episode = filmed(tmp_path, file, {"SH0010": (60, 24), "SH0020": (16, 8)})
    say(catalog, "SH0010", "approved", "as wanted\nreally")
    say(catalog, "SH0020", "note", "her eyes", first_frame=3, last_frame=5)
    say(catalog, "SH0020", "note", "of another take", attempt=2)
    _, timeline = handed(catalog, episode, tmp_path / "edit")
    (approved,), (note,) = [clip.markers for clip in timeline.find_clips()]
    assert (approved.name, approved.comment, approved.color) == ("approved by Mika", "as wanted\nreally", "GREEN")
    assert approved.marked_range.start_time.value == 4  # the first frame that is shown
    assert (note.comment, note.color, note.marked_range) == ("her eyes", "YELLOW", span(9, 9))
    assert [(m.name, m.marked_range) for m in timeline.tracks.markers] == [("S010", span(0, 40)), ("S020", span(40, 36))]
    edl = hand_off(catalog, episode, "edl", tmp_path / "E01.edl").file.read_text()
    assert "* LOC: 01:00:00:00 GREEN   APPROVED BY MIKA: AS WANTED REALLY\n" in edl  # no line of its own
    assert "* LOC: 01:00:02:01 YELLOW  NOTE BY MIKA: HER EYES\n" in edl  # the record's time


def test_a_finish_has_the_words_the_keyframe_and_the_seed_of_its_clip(tmp_path: Path) -> None:
    file = written(tmp_path, {"S010": ["{id: SH0010, frames: 40, finish_workflow: f}"]})
    catalog, episode = filmed(tmp_path, file, {"SH0010": (60, 24)})
    (clip,) = catalog.rows("takes", "E01")
    finish = "E01/SH0010/finish/v001"
    media = {name: clip[name] for name in ("media", "media_path", "media_bytes")}
    catalog.append("takes", [row_of("SH0010", (60, 24), take=finish, stage="finish", upstream=clip["take"], seed=None, **media)])
    say(catalog, "SH0010", "note", "her eyes", first_frame=3)
    say(catalog, "SH0010", "approved", take=finish)
    _, timeline = handed(catalog, episode, tmp_path / "edit")
    (shown,) = timeline.find_clips()
    own = shown.metadata["tower"]
    assert (own["take"], own["keyframe"], own["seed"]) == (finish, clip["upstream"], clip["seed"])
    assert [(marker.name, marker.metadata["tower"]["take"]) for marker in shown.markers] == [("note by Mika", clip["take"]), ("approved by Mika", finish)]


def test_media_that_are_there_are_not_copied_again_and_changed_ones_are(tmp_path: Path) -> None:
    catalog, episode = filmed(tmp_path, written(tmp_path, {"S010": ["{id: SH0010, frames: 40}", "{id: SH0020, frames: 40}"]}), {"SH0010": (60, 24), "SH0020": (60, 24)})
    folder = tmp_path / "edit"
    handed(catalog, episode, folder)
    kept = (folder / "SH0010.mp4").stat().st_mtime_ns
    (folder / "SH0020.mp4").write_bytes((folder / "SH0020.mp4").read_bytes()[:-1] + b"x")
    done, _ = handed(catalog, episode, folder)
    assert done.copied == ["SH0020.mp4"] and done.kept == ["SH0010.mp4"] and (folder / "SH0010.mp4").stat().st_mtime_ns == kept
    assert (folder / "SH0020.mp4").read_bytes() == (folder / "SH0010.mp4").read_bytes()


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_episode_gives_the_same_bytes(tmp_path: Path, kind: str) -> None:
    catalog, episode = filmed(tmp_path, written(tmp_path, {"S010": ["{id: SH0010, frames: 40}"]}), {"SH0010": (60, 24)})
    files = [hand_off(catalog, episode, kind, tmp_path / name / f"E01.{kind}").file for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert sorted(path.name for path in files[0].parent.iterdir()) == sorted([f"E01.{kind}", "SH0010.mp4"])  # and nothing is left over


def test_an_edl_has_a_reel_a_shot_and_reads_back_as_the_same_cut(tmp_path: Path) -> None:
    shots = ["{id: SH0010, frames: 40}", "{id: SH001012, frames: 30, transition: {type: dissolve, frames: 12}}", "{id: SH001013, frames: 20, fit: stretch}", "{id: SH0040, frames: 70, fit: hold}"]
    catalog, episode = filmed(tmp_path, written(tmp_path, {"S010": shots}), dict.fromkeys(("SH0010", "SH001012", "SH001013", "SH0040"), (60, 24)))
    text = hand_off(catalog, episode, "edl", tmp_path / "E01.edl").file.read_text()
    back = otio.adapters.read_from_string(text, "cmx_3600", rate=24)
    items = list(back.video_tracks()[0])
    reels = [clip.metadata["cmx_3600"]["reel"] for clip in back.find_clips()]
    assert reels == ["SH0010", "SH001012", "SH001013", "SH0040", "SH0040"]  # the last two: the clip, and its last frame held
    assert (items[1].in_offset.value, items[1].out_offset.value) == (0, 12)
    assert [item.source_range.duration.value for item in back.find_clips()] == [28, 30, 20, 60, 10]
    assert back.duration().value == episode.total_frames
    assert re.search(r"^003  SH001013 V     C        00:00:00:00 00:00:02:12 01:00:02:10 01:00:03:06$", text, re.MULTILINE)  # 60 frames of source in 20
    assert items[3].effects[0].time_scalar == 3.0 and type(items[5].effects[0]).__name__ == "FreezeFrame"


def test_an_edl_dissolves_from_where_a_retimed_clip_s_source_is(tmp_path: Path) -> None:
    shots = ["{id: SH0010, frames: 30, fit: stretch}", "{id: SH0020, frames: 30, fit: stretch, transition: {type: dissolve, frames: 10}}"]
    catalog, episode = filmed(tmp_path, written(tmp_path, {"S010": shots}), {"SH0010": (60, 24), "SH0020": (60, 24)})
    lines = hand_off(catalog, episode, "edl", tmp_path / "E01.edl").file.read_text().splitlines()
    assert [line.split()[-4:] for line in lines if re.match(r"\d{3}  ", line)] == [
        ["00:00:00:00", "00:00:01:16", "01:00:00:00", "01:00:00:20"],  # 40 frames of source in 20
        ["00:00:01:16", "00:00:01:16", "01:00:00:20", "01:00:00:20"],
        ["00:00:00:00", "00:00:02:12", "01:00:00:20", "01:00:02:02"],
    ]


@pytest.mark.parametrize(("fps", "line", "start"), [("23.976", "NON-DROP FRAME", "01:00:00:00"), ("29.97", "DROP FRAME", "01:00:00;00"), (25, "NON-DROP FRAME", "01:00:00:00")])
def test_an_edl_counts_in_the_episode_s_timecode(tmp_path: Path, fps: object, line: str, start: str) -> None:
    catalog, episode = filmed(tmp_path, written(tmp_path, {"S010": ["{id: SH0010, frames: 40}"]}, fps), {"SH0010": (60, 24)})
    text = hand_off(catalog, episode, "edl", tmp_path / "E01.edl").file.read_text()
    assert text.splitlines()[1] == f"FCM: {line}" and f" {start} " in text


def test_a_rate_without_timecode_is_refused_for_an_edl_alone(tmp_path: Path, here: Callable[..., Done]) -> None:
    file = written(tmp_path, {"S010": ["{id: SH0010, frames: 20}"]}, 12)
    filmed(tmp_path, file, {"SH0010": (60, 24)})
    refused(here("timeline", file, "--to", "edl", "--out", "edit"), "12 frames a second", "--to otio")
    assert not (tmp_path / "edit").exists()
    assert here("timeline", file, "--to", "fcpxml", "--out", "edit").code == 0


def test_a_final_cut_file_refers_only_to_what_it_has_and_its_clips_meet(tmp_path: Path) -> None:
    shots = ["{id: SH0010, frames: 40}", "{id: SH0020, frames: 30, transition: {type: dissolve, frames: 13}}", "{id: SH0030, frames: 20, fit: stretch}", "{id: SH0040, frames: 70, fit: hold}", "{id: SH0050, frames: 9}"]
    clips = {"SH0010": (16, 8), "SH0020": (60, 24), "SH0030": (60, 24), "SH0040": (60, 24)}
    catalog, episode = filmed(tmp_path, written(tmp_path, {"S010": shots}, "23.976"), clips)
    say(catalog, "SH0020", "note", "<b>&\x07her eyes")
    root = ElementTree.fromstring(hand_off(catalog, episode, "fcpxml", tmp_path / "E01.fcpxml").file.read_bytes())
    ids = {element.get("id"): element.tag for element in root.find("resources")}
    for tag, name, wanted in (("asset", "format", "format"), ("asset-clip", "ref", "asset"), ("video", "ref", "asset"), ("sequence", "format", "format"), ("filter-video", "ref", "effect")):
        elements = list(root.iter(tag))
        assert elements and all(ids[element.get(name)] == wanted for element in elements), tag
    assert {f.get("frameDuration") for f in root.iter("format")} == {"1001/24000s", "1/8s", "1/24s"}
    for asset in root.iter("asset"):
        assert (tmp_path / asset.get("src")).is_file() and asset.get("src").startswith("./")
    at, frame = Fraction(0), 1 / FILM
    for element in root.find("./project/sequence/spine"):
        offset, length = (Fraction(element.get(name).removesuffix("s")) for name in ("offset", "duration"))
        assert offset % frame == length % frame == 0  # Final Cut refuses what is not on a frame
        if element.tag == "transition":
            assert (length, offset) == (13 * frame, at - 6 * frame)  # about the cut
        else:
            assert offset == at
            at += length
    assert at == episode.total_frames * frame
    stretched, _, held, gap = list(root.find("./project/sequence/spine"))[3:]
    assert stretched[0].tag == held[0].tag == "timeMap" and gap.tag == "gap"
    times = [(Fraction(p.get("time").removesuffix("s")), Fraction(p.get("value").removesuffix("s"))) for p in stretched[0]]
    assert times == [(0, 0), (20 * frame, 60 * frame)]
    assert len({p.get("value") for p in held[0]}) == 1
    assert [m.get("value") for m in root.iter("marker")] == ["note by Mika: <b>&her eyes", NO_CLIP]
    assert not (tmp_path / "E01.fcpxml").read_text().count("\x07")


def test_the_command_takes_an_id_a_file_and_a_place(copied: Path, here: Callable[..., Done]) -> None:
    done = here("timeline", "E90")
    assert done.code == 0 and done.out.strip() == "out/E90/timeline/E90.otio" and "3 shots, 3 clips; 3 copied" in done.err
    assert here("timeline", "episode.yaml", "--to", "edl", "--out", "edit/cut.edl").out.strip() == "edit/cut.edl"
    assert here("timeline", "episode.yaml", "--to", "fcpxml", "--out", "edit").out.strip() == "edit/E90.fcpxml"
    assert sorted(path.name for path in (copied / "edit").iterdir()) == ["E90.fcpxml", "SH0010.mp4", "SH0020.mp4", "SH0030.mp4", "cut.edl"]
    refused(here("timeline", "episode.yaml", "--to", "avid"), "--to 'avid'", "otio, edl, fcpxml")
    refused(here("timeline", "episode.yaml", "--out", "cut.edl"), ".otio is wanted")


def test_what_nobody_rendered_and_lost_media_are_one_sentence(tmp_path: Path, here: Callable[..., Done]) -> None:
    file = written(tmp_path, {"S010": ["{id: SH0010, frames: 40}"]})
    refused(here("timeline", file), "there is no catalog yet")
    catalog, _ = filmed(tmp_path, file, {"SH0010": (60, 24)})
    refused(here("timeline", "E77"), "no file of episode E77")
    file.write_text(file.read_text().replace("id: E01", "id: E02"))
    refused(here("timeline", file), "no takes of episode E02")
    file.write_text(file.read_text().replace("id: E02", "id: E01"))
    (tmp_path / "catalog-data" / catalog.rows("takes", "E01")[0]["media_path"]).unlink()
    refused(here("timeline", file, "--out", "edit"), "is missing")
    assert not list((tmp_path / "edit").iterdir())


def test_every_clip_says_what_it_is_in_json_that_any_program_reads(tmp_path: Path) -> None:
    catalog, episode = filmed(tmp_path, written(tmp_path, {"S010": ["{id: SH0010, frames: 40}"]}), {"SH0010": (60, 24)})
    handed(catalog, episode, tmp_path / "edit")
    told = json.loads((tmp_path / "edit" / "E01.otio").read_text())["tracks"]["children"][0]["children"][0]["metadata"]["tower"]
    assert told["seed"] == 2**32 - 1 and told["sequence"] == "S010" and told["shot"] == "SH0010" and told["fit"] == "trim"


@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(stories())
def test_every_format_is_as_long_as_the_movie_whatever_the_episode(made: tuple[Episode, dict[str, dict[str, Any]]]) -> None:
    episode, rows = made
    timeline = timeline_of(episode, rows, {}, {})
    assert sum(item.duration().to_frames() for item in timeline.video_tracks()[0] if not isinstance(item, otio.schema.Transition)) == episode.total_frames
    events = re.findall(r"^\d{3}  .* (\S+) (\S+)$", FORMATS["edl"](timeline, episode), re.MULTILINE)
    times = [tuple(otio.opentime.from_timecode(time, float(episode.fps)).to_frames() for time in event) for event in events]
    assert times[-1][1] - times[0][0] == episode.total_frames and all(a[1] == b[0] for a, b in pairwise(times))
    spine = ElementTree.fromstring(FORMATS["fcpxml"](timeline, episode)).find("./project/sequence/spine")
    lengths = [Fraction(element.get("duration").removesuffix("s")) for element in spine if element.tag == "clip"]
    assert sum(lengths) * episode.fps == episode.total_frames
