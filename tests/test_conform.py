"""What an editor did to the cut is told per shot, and applied as a patch that changes those words of the episode's file alone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import opentimelineio as otio
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from opentimelineio.opentime import RationalTime, TimeRange

from pipeline.post.conform import Conformed, conform
from pipeline.post.edited import edit_of, read_edit
from pipeline.post.otio_facts import facts_of
from pipeline.post.otio_timeline import moves, timeline_of
from pipeline.post.patch import patch_of
from pipeline.post.timeline import accepted_clips, hand_off
from pipeline.story.episode import Episode, load_episode
from pipeline.story.errors import InputError

from .conftest import Done, Rendered, refused
from .cuts import cut_shot, filmed, row_of, say, stories, story, written

SHOTS = {
    "S010": [
        "{id: SH0010, frames: 40, action: walking}",
        "{id: SH0020, frames: 30, action: waving, transition: {type: dissolve, frames: 12}}  # she waves twice",
    ],
    "S020": ["id: SH0030\n        frames: 36  # slow\n        action: waiting", "{id: SH0040, frames: 50, fit: hold}"],
}
CLIPS = {"SH0010": (60, 24), "SH0020": (60, 24), "SH0030": (16, 8), "SH0040": (60, 24)}


def span(first: int, count: int, rate: float = 24.0) -> TimeRange:
    return TimeRange(RationalTime(first, rate), RationalTime(count, rate))


class Cutting:
    """An episode in an editor's hands: its timeline to be changed, and what `conform` makes of that."""

    def __init__(self, folder: Path, shots: Any = SHOTS, clips: Any = CLIPS, fps: object = 24):
        self.file = written(folder, shots, fps)
        self.catalog, self.episode = filmed(folder, self.file, clips)
        self.folder = folder
        self.otio = hand_off(self.catalog, self.episode, "otio", folder / "edit" / "E01.otio").file
        self.timeline = otio.adapters.read_from_file(str(self.otio))
        self.track = self.timeline.video_tracks()[0]

    def clip(self, name: str) -> otio.schema.Clip:
        return next(clip for clip in self.track.find_clips() if clip.name == name)

    def out(self) -> Path:
        otio.adapters.write_to_file(self.timeline, str(self.folder / "edited.otio"))
        return self.folder / "edited.otio"

    def conformed(self) -> Conformed:
        clips = accepted_clips(self.catalog, self.episode)
        takes = {row["take"]: row for row in (*self.catalog.rows("takes", "E01"), *clips.values())}
        return conform(edit_of(facts_of(self.timeline), self.episode, "edited.otio"), self.episode, clips, takes)

    def patched(self) -> Episode:
        """The episode, once the patch is applied."""
        patch = patch_of(self.file, self.episode, self.conformed())
        patch.write()
        return load_episode(self.file)


@pytest.fixture
def cutting(tmp_path: Path) -> Cutting:
    return Cutting(tmp_path)


def told(done: Conformed) -> list[tuple[str, str]]:
    return [(one.shot, one.kind) for one in done.told]


def cut_of(episode: Episode) -> list[tuple[str, int, int, int, str]]:
    """What one sees: the shots in order, where each begins in its clip, its frames, its dissolve, and whether it is retimed."""
    return [(s.id, s.first_frame, s.frames, s.transition.frames, s.fit) for _, s in episode.shots]


def test_a_rendered_episode_that_nobody_changed_says_so(rendered: Rendered, copied: Path, here: Callable[..., Done]) -> None:
    assert here("timeline", "E90", "--out", "edit").code == 0
    done = here("conform", "edit/E90.otio", "episode.yaml", "--apply")
    assert (done.code, done.out.strip()) == (0, "nothing was changed")
    assert (copied / "episode.yaml").read_bytes() == rendered.file.read_bytes()


def test_what_was_only_trimmed_and_moved_renders_nothing_and_what_is_too_long_is_told_by_the_plan(copied: Path, here: Callable[..., Done]) -> None:
    assert here("timeline", "E90", "--out", "edit").code == 0
    timeline = otio.adapters.read_from_file("edit/E90.otio")
    track = timeline.video_tracks()[0]
    first, second, dissolve, third = (track[n].deepcopy() for n in range(4))
    first.source_range, third.source_range = span(20, 50), span(0, 100)
    track[:] = [second, dissolve, third, first]
    otio.adapters.write_to_file(timeline, "edited.otio")
    done = here("conform", "edited.otio", "episode.yaml", "--apply")
    assert done.code == 0 and "SH0010   moved      goes from sequence S010 to S020" in done.out
    episode = load_episode(copied / "episode.yaml")
    assert cut_of(episode) == [("SH0020", 0, 36, 0, "trim"), ("SH0030", 0, 100, 12, "trim"), ("SH0010", 20, 50, 0, "trim")]
    plan = here("plan", "episode.yaml", "--json")
    assert [shot["state"] for shot in json.loads(plan.out)] == ["clean"] * 3, plan.out + plan.err
    third.source_range = span(0, 130)
    track[:] = [second.deepcopy(), dissolve.deepcopy(), third, first.deepcopy()]
    otio.adapters.write_to_file(timeline, "edited.otio")
    done = here("conform", "edited.otio", "episode.yaml", "--apply")
    assert "SH0030   longer     frames 100 → 130; its clip has 121 of the 130 frames that it needs: 9 too few" in done.out
    refused(here("plan", "episode.yaml"), "SH0030", "130", "121")


def test_nothing_changed_is_said_of_holds_stretches_gaps_and_other_rates_too(tmp_path: Path) -> None:
    shots = {
        "S010": ["{id: SH0010, frames: 12}", "{id: SH0020, frames: 80, fit: hold, transition: {type: dissolve, frames: 12}}", "{id: SH0030, frames: 90, fit: stretch, transition: {type: dissolve, frames: 7}}"],
        "S020": ["{id: SH0040, frames: 20}", "{id: SH0050, frames: 30, first_frame: 13}", "{id: SH0060, frames: 70}"],
    }
    clips = {"SH0010": (60, 24), "SH0020": (16, 8), "SH0030": (60, 24), "SH0050": (60, 24), "SH0060": (40, 24)}  # the last is too short
    rows = {shot: row_of(shot, clip, media="") for shot, clip in clips.items()}
    for fps in ("24", "23.976", "30", "12.5"):
        episode = load_episode(written(tmp_path, shots, fps))
        timeline = otio.adapters.read_from_string(otio.adapters.write_to_string(timeline_of(episode, rows, {}, {}), "otio_json"), "otio_json")
        assert conform(edit_of(facts_of(timeline), episode, "edit"), episode, rows, {}).told == [], fps


def test_a_trimmed_head_and_tail_are_frames_and_the_first_of_them(cutting: Cutting, here: Callable[..., Done]) -> None:
    cutting.clip("SH0030").source_range = span(6, 24)
    before = cutting.file.read_text()
    done = here("conform", cutting.out(), cutting.file)
    assert done.code == 0 and "SH0030   trimmed    first_frame 0 → 6, frames 36 → 24\n" in done.out
    assert "-        frames: 36  # slow\n+        frames: 24  # slow\n+        first_frame: 6\n" in done.out
    assert "3 of 4 shots are unchanged" in done.err and "nothing was written" in done.err and cutting.file.read_text() == before
    assert here("conform", cutting.out(), cutting.file, "--apply").code == 0
    assert cutting.file.read_text() == before.replace("frames: 36  # slow\n", "frames: 24  # slow\n        first_frame: 6\n")
    assert here("conform", cutting.out(), cutting.file).out.strip() == "nothing was changed"


def test_a_trimmed_head_under_dialogue_is_told_because_its_lines_do_not_move(tmp_path: Path) -> None:
    shots = {"S010": ["id: SH0010\n        frames: 40\n        dialogue:\n          - {who: Mio, text: Wait!, start: 0.5, end: 1.5}"]}
    cutting = Cutting(tmp_path, shots, {"SH0010": (60, 24)})
    cutting.clip("SH0010").source_range = span(12, 40)
    done = cutting.conformed()
    assert told(done) == [("SH0010", "trimmed"), ("SH0010", "by hand")] and "begins +12 frames in its clip" in done.told[1].text
    cutting.clip("SH0010").source_range = span(12, 20)
    assert cut_of(cutting.patched()) == [("SH0010", 12, 20, 0, "trim")]


def test_a_longer_shot_within_what_was_rendered_needs_nothing_and_beyond_it_a_longer_take(cutting: Cutting) -> None:
    cutting.clip("SH0020").source_range = span(0, 60)
    assert told(cutting.conformed()) == [("SH0020", "trimmed")]
    cutting.clip("SH0030").source_range = span(0, 60)
    done = cutting.conformed()
    assert told(done) == [("SH0020", "trimmed"), ("SH0030", "longer")]
    assert "its clip has 48 of the 60 frames that it needs: 12 too few" in done.told[1].text and done.fields["SH0030"] == {"frames": 60}
    cutting.clip("SH0040").source_range = span(0, 90)  # its last frame stands anyway
    assert told(cutting.conformed())[-1] == ("SH0040", "trimmed")


def test_a_longer_dissolve_from_the_middle_of_its_cut_is_the_house_s(cutting: Cutting) -> None:
    before, dissolve, after = cutting.track[0:3]
    before.source_range, after.source_range = span(0, 34), span(6, 24)  # the cut in the middle, as editors put it
    dissolve.in_offset, dissolve.out_offset = RationalTime(6, 24), RationalTime(6, 24)
    assert cutting.conformed().told == []
    dissolve.out_offset = RationalTime(10, 24)
    assert cutting.conformed().fields["SH0020"]["transition"].frames == 16
    assert cut_of(cutting.patched())[:2] == [("SH0010", 0, 44, 0, "trim"), ("SH0020", 0, 30, 16, "trim")]


def test_a_dissolve_that_is_gone_is_a_cut_and_a_new_one_is_written(cutting: Cutting) -> None:
    del cutting.track[1]
    cutting.track.insert(3, otio.schema.Transition("d", "SMPTE_Dissolve", RationalTime(0, 24), RationalTime(8, 24)))
    assert isinstance(cutting.track[4], otio.schema.Clip)
    assert cut_of(cutting.patched()) == [("SH0010", 0, 28, 0, "trim"), ("SH0020", 0, 30, 0, "trim"), ("SH0030", 0, 44, 0, "trim"), ("SH0040", 0, 50, 8, "hold")]
    assert "# she waves twice" in cutting.file.read_text()


def test_a_wipe_cannot_be_said_and_is_told(cutting: Cutting) -> None:
    cutting.track[1].transition_type = "Custom_Transition"
    done = cutting.conformed()
    assert ("", "by hand") in told(done) and "'Custom_Transition' cannot be said" in done.told[0].text


def test_shots_change_places_with_the_comments_above_them(tmp_path: Path) -> None:
    shots = {"S010": ["{id: SH0010, frames: 40}", "id: SH0020\n        # of the second\n        frames: 30\n\n      # above the third", "{id: SH0030, frames: 20}  # behind the third"]}
    cutting = Cutting(tmp_path, shots, dict.fromkeys(("SH0010", "SH0020", "SH0030"), (60, 24)))
    third = cutting.track[2]
    del cutting.track[2]
    cutting.track.insert(0, third)
    done = cutting.conformed()
    assert [(one.shot, one.kind, one.text) for one in done.told] == [("SH0030", "moved", "stands first now")]
    head = cutting.file.read_text().split("      - {id: SH0010")[0]
    assert [s.id for _, s in cutting.patched().shots] == ["SH0030", "SH0010", "SH0020"]
    assert cutting.file.read_text() == head + (
        "\n      # above the third\n      - {id: SH0030, frames: 20}  # behind the third\n      - {id: SH0010, frames: 40}\n"
        "      - id: SH0020\n        # of the second\n        frames: 30\n"
    )


def test_a_shot_that_goes_to_another_sequence_takes_its_place_and_time_along(cutting: Cutting) -> None:
    first = cutting.track[0]
    del cutting.track[0]
    cutting.track.append(first)
    moved = cutting.patched()
    assert [(q.id, s.id, s.location, s.time) for q, s in moved.shots][-1] == ("S020", "SH0010", "shore", "")  # both sequences are by day
    assert cut_of(moved)[0] == ("SH0020", 0, 30, 0, "trim")  # the first shot dissolves from nothing


def test_whole_sequences_change_places_as_such(cutting: Cutting) -> None:
    del cutting.track[1]
    one, two, three, four = [cutting.track[n] for n in range(4)]
    cutting.track[:] = []
    cutting.track.extend([three, four, one, two])
    moved = cutting.patched()
    assert [(q.id, s.id, s.location) for q, s in moved.shots] == [("S020", "SH0030", None), ("S020", "SH0040", None), ("S010", "SH0010", None), ("S010", "SH0020", None)]
    assert "# slow" in cutting.file.read_text() and "# she waves twice" in cutting.file.read_text()


def test_a_shot_that_is_cut_out_goes_and_an_emptied_sequence_with_it(cutting: Cutting) -> None:
    del cutting.track[3:]
    assert told(cutting.conformed()) == [("SH0030", "gone"), ("SH0040", "gone")]
    assert [q.id for q in cutting.patched().sequences] == ["S010"] and "S020" not in cutting.file.read_text()


def test_what_is_not_the_episode_s_is_told_with_its_place_and_never_written(cutting: Cutting) -> None:
    stock = otio.schema.Clip("stock", otio.schema.ExternalReference("stock.mov", span(0, 90)), span(0, 10))
    other = cutting.clip("SH0030").deepcopy()
    other.metadata["tower"]["episode"] = "E02"
    off = cutting.clip("SH0040").deepcopy()
    off.enabled = False
    nest = otio.schema.Stack("nest", [otio.schema.Track(children=[stock.deepcopy()])])
    upper = otio.schema.Track("V2", kind="Video", children=[cutting.clip("SH0010").deepcopy()])
    cutting.track.insert(3, stock)
    cutting.track.insert(3, otio.schema.Gap(source_range=span(0, 5)))
    cutting.track.extend([other, off, nest])
    cutting.timeline.tracks.append(upper)
    done = cutting.conformed()
    assert [one.kind for one in done.told] == ["by hand", "by hand", "new", "new", "by hand", "new"]
    assert "(SH0040 is switched off)" in done.told[4].text and "'nest' at frame" in done.told[5].text
    assert "SH0010 on track V2" in done.told[0].text and "a gap at frame 58 of the edit, 5 frames" in done.told[1].text
    assert "'stock' at frame 63 of the edit, 10 frames" in done.told[2].text
    assert patch_of(cutting.file, cutting.episode, done).diff == ""


def test_a_clip_that_was_bladed_is_one_and_one_that_is_used_again_is_told(cutting: Cutting) -> None:
    whole = cutting.clip("SH0030")
    again = whole.deepcopy()
    whole.source_range, again.source_range = span(0, 20), span(20, 16)
    cutting.track.insert(4, again)
    assert cutting.conformed().told == []
    again.source_range = span(24, 12)
    done = cutting.conformed()
    assert told(done) == [("SH0030", "twice"), ("SH0030", "trimmed")] and done.fields == {"SH0030": {"frames": 20}}


def test_another_take_is_told_with_the_command_that_picks_it(cutting: Cutting) -> None:
    row = cutting.catalog.rows("takes", "E01")[0]
    cutting.catalog.append("takes", [row_of("SH0010", (60, 24), 2, media=row["media"], media_path=row["media_path"], media_bytes=row["media_bytes"])])
    done = cutting.conformed()  # a later accepted clip stands now
    assert told(done) == [("SH0010", "other take")]
    assert "`tower review E01 SH0010 --pick v001`" in done.told[0].text and patch_of(cutting.file, cutting.episode, done).diff == ""
    say(cutting.catalog, "SH0010", "picked")
    assert cutting.conformed().told == []


@pytest.mark.parametrize("second", ["{<<: *base, id: SH0020}", "<<: *base\n        id: SH0020"])
def test_a_shot_gets_frames_of_its_own_where_it_had_those_of_a_merge(tmp_path: Path, second: str) -> None:
    cutting = Cutting(tmp_path, {"S010": ["&base {id: SH0010, frames: 40}", second]}, {shot: (60, 24) for shot in ("SH0010", "SH0020")})
    cutting.clip("SH0020").source_range = span(0, 25)
    cutting.episode = cutting.patched()
    assert [shot.frames for _, shot in cutting.episode.shots] == [40, 25]
    cutting.clip("SH0010").source_range = span(0, 20)
    cutting.clip("SH0020").source_range = span(0, 20)
    assert [shot.frames for _, shot in cutting.patched().shots] == [20, 20]


def test_the_first_of_two_shots_that_share_its_frames_is_changed_by_hand(tmp_path: Path) -> None:
    cutting = Cutting(tmp_path, {"S010": ["&base {id: SH0010, frames: 40}", "{<<: *base, id: SH0020}"]}, {shot: (60, 24) for shot in ("SH0010", "SH0020")})
    cutting.clip("SH0010").source_range = span(0, 20)
    with pytest.raises(InputError, match="laid out so that a program cannot make these changes"):
        cutting.patched()


def finish(cutting: Cutting, attempt: int) -> None:
    """Record a finish of the first shot's clip."""
    clip = next(row for row in cutting.catalog.rows("takes", "E01") if row["take"] == "E01/SH0010/clip/v001")
    more = {name: clip[name] for name in ("media", "media_path", "media_bytes")} | {"stage": "finish", "upstream": clip["take"], "seed": None}
    cutting.catalog.append("takes", [row_of("SH0010", (60, 24), attempt + 1, take=f"E01/SH0010/finish/v{attempt:03}", **more)])


def test_a_cut_on_clips_is_the_same_once_their_finishes_stand_and_once_they_are_gone(cutting: Cutting) -> None:
    plain = cutting.file.read_text()
    cutting.file.write_text(plain.replace("clip_workflow: c\n", "clip_workflow: c\nfinish_workflow: f\n"))
    cutting.episode = load_episode(cutting.file)
    finish(cutting, 1)
    assert accepted_clips(cutting.catalog, cutting.episode)["SH0010"]["stage"] == "finish" and cutting.conformed().told == []
    cutting.clip("SH0010").metadata["tower"]["take"] = "E01/SH0010/finish/v001"
    assert cutting.conformed().told == []
    finish(cutting, 2)
    (one,) = cutting.conformed().told
    assert one.kind == "other take" and "`tower review E01 SH0010 --stage finish --pick v001`" in one.text
    cutting.file.write_text(plain)
    cutting.episode = load_episode(cutting.file)
    assert cutting.conformed().told == []


def test_a_shot_without_a_clip_stays_although_an_editor_s_file_lost_its_gap(tmp_path: Path) -> None:
    cutting = Cutting(tmp_path, clips={shot: clip for shot, clip in CLIPS.items() if shot != "SH0030"})
    assert cutting.conformed().told == []
    del cutting.track[3]
    assert cutting.conformed().told == []


def test_names_say_whose_a_clip_is_where_metadata_are_lost(cutting: Cutting) -> None:
    for clip in cutting.track.find_clips():
        clip.metadata.clear()
    cutting.clip("SH0030").source_range = span(0, 30)
    cutting.clip("SH0030").name = "renamed"  # its file is left
    assert told(cutting.conformed()) == [("SH0030", "trimmed")]


def test_a_changed_speed_is_a_stretch_of_the_whole_clip_or_work_by_hand(cutting: Cutting) -> None:
    clip = cutting.clip("SH0030")
    clip.effects.append(otio.schema.LinearTimeWarp(time_scalar=2.0))
    clip.source_range = span(0, 24)  # 48 frames at twice their speed
    assert cutting.conformed().fields == {"SH0030": {"fit": "stretch", "frames": 24}}
    clip.source_range = span(0, 23)
    done = cutting.conformed()
    assert told(done) == [("SH0030", "by hand")] and not done.fields
    clip.effects[0].time_scalar = -1.0
    assert told(cutting.conformed()) == [("SH0030", "by hand")]


def test_a_file_of_another_cut_another_rate_or_another_kind_is_one_sentence(cutting: Cutting, here: Callable[..., Done]) -> None:
    edited, episode = cutting.out(), cutting.file
    good = edited.read_text()

    def refuses(text: str, *words: str) -> None:
        edited.write_text(text)
        with pytest.raises(InputError) as error:
            read_edit(edited, cutting.episode)
        assert all(word in str(error.value) for word in words), error.value

    edited.write_text("[" * 200_000)  # which OpenTimelineIO crashes on
    refused(here("conform", edited, episode), "edited.otio is not a timeline that can be read")
    refuses("", "is not a timeline")
    refuses("{}", "where a Timeline is wanted")
    refuses('{"OTIO_SCHEMA": "Clip.2"}', "is not a timeline")
    refuses(good.replace('"rate": 24.0', '"rate": 0.0'), "rate 0")
    refuses(good.replace('"value": 36.0', '"value": NaN'), "nan")
    refuses(good.replace('"value": 36.0', '"value": 1e300'), "no edit of an episode")
    refuses(good.replace('"value": 36.0', '"value": -36.0'), "no edit of an episode")
    refuses(good.replace('"value": 36.0', '"value": 36.5'), "36.5 frames long", "another rate")
    refuses(good.replace('"kind": "Video"', '"kind": "Audio"'), "no video track")
    edited.write_text(good.replace("E01", "E02").replace("SH00", "AB00"))
    refused(here("conform", edited, episode), "none of the shots of E01")
    refused(here("conform", "nowhere.otio", episode), "'nowhere.otio' cannot be read")
    refused(here("conform", cutting.folder, episode), "is not a timeline")
    os.truncate(edited, 64_000_001)
    refused(here("conform", edited, episode), "has 64 MB")


def test_an_edit_that_no_file_can_say_is_refused_and_nothing_is_written(cutting: Cutting) -> None:
    before = cutting.file.read_text()
    cutting.clip("SH0010").source_range = span(0, 0)
    del cutting.track[1]
    with pytest.raises(InputError, match=r"cannot say this edit: shot SH0010: frames 0: .*greater than 0"):
        patch_of(cutting.file, cutting.episode, cutting.conformed())
    cutting.clip("SH0010").source_range = span(0, 28)
    cutting.track.insert(1, otio.schema.Transition("d", "SMPTE_Dissolve", RationalTime(0, 24), RationalTime(300, 24)))
    with pytest.raises(InputError, match=r"shot SH0020: transition.frames 300: .*240"):
        patch_of(cutting.file, cutting.episode, cutting.conformed())
    assert cutting.file.read_text() == before


def test_shots_in_one_line_and_json_are_told_to_be_changed_by_hand(tmp_path: Path) -> None:
    cutting = Cutting(tmp_path, {"S010": ["{id: SH0010, frames: 40}", "{id: SH0020, frames: 40}"]}, {"SH0010": (60, 24), "SH0020": (60, 24)})
    cutting.file.write_text(cutting.file.read_text().split("    shots:")[0] + "    shots: [{id: SH0010, frames: 40}, {id: SH0020, frames: 40}]\n")
    cutting.track[:] = [cutting.track[1].deepcopy(), cutting.track[0].deepcopy()]
    with pytest.raises(InputError, match="make them by hand: line 15"):
        patch_of(cutting.file, cutting.episode, cutting.conformed())
    text = cutting.episode.model_dump_json()
    (tmp_path / "episode.json").write_text(text)
    with pytest.raises(InputError, match="is JSON"):
        patch_of(tmp_path / "episode.json", cutting.episode, cutting.conformed())


def test_anchors_windows_lines_and_a_file_s_mode_survive(cutting: Cutting) -> None:
    text = cutting.file.read_text().replace("transition: {type: dissolve, frames: 12}", "transition: *soft").replace("locations:\n", "x-soft: &soft {type: dissolve, frames: 12}\nlocations:\n")
    cutting.file.write_bytes(text.replace("\n", "\r\n").encode())
    cutting.file.chmod(0o640)
    cutting.episode = load_episode(cutting.file)
    cutting.track[1].out_offset = RationalTime(9, 24)
    cutting.clip("SH0030").source_range = span(3, 30)
    patched = cutting.patched()
    assert cut_of(patched)[:3] == [("SH0010", 0, 37, 0, "trim"), ("SH0020", 0, 30, 9, "trim"), ("SH0030", 3, 30, 0, "trim")]
    data = cutting.file.read_bytes()
    assert b"x-soft: &soft {type: dissolve, frames: 12}\r\n" in data and data.count(b"\r\n") == data.count(b"\n")
    assert cutting.file.stat().st_mode & 0o777 == 0o640 and not list(cutting.folder.glob(".episode*"))


def test_a_file_that_changed_meanwhile_is_not_written_over(cutting: Cutting) -> None:
    cutting.clip("SH0030").source_range = span(0, 30)
    patch = patch_of(cutting.file, cutting.episode, cutting.conformed())
    cutting.file.write_text(cutting.file.read_text() + "# mine\n")
    with pytest.raises(InputError, match="has changed meanwhile"):
        patch.write()
    assert cutting.file.read_text().endswith("# mine\n")


def test_the_demo_s_own_file_is_changed_in_the_lines_that_say_so_alone(tmp_path: Path) -> None:
    from .conftest import PROJECT

    file = Path(shutil.copy(PROJECT / "configs" / "episodes" / "demo.yaml", tmp_path))
    episode = load_episode(file)
    clips = {shot.id: row_of(shot.id, (121, 24), media="") for _, shot in episode.shots}
    timeline = timeline_of(episode, clips, {}, {})
    track = timeline.video_tracks()[0]
    track[0].source_range = span(10, 60)
    done = conform(edit_of(facts_of(timeline), episode, "edit"), episode, clips, {})
    lines = patch_of(file, episode, done).diff.splitlines()
    assert [line for line in lines if line[0] in "+-"][2:] == ["-        frames: 84", "+        frames: 60", "+        first_frame: 10"]


# --- Any edit ---------------------------------------------------------------------------------------------------------------

@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate], suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(stories(), st.data())
def test_whatever_an_editor_trims_moves_and_deletes_the_patched_file_is_that_cut(tmp_path: Path, made: Any, data: st.DataObject) -> None:
    episode, rows = made
    old = {shot.id: shot for _, shot in episode.shots}
    kept = data.draw(st.lists(st.sampled_from(sorted(old)), min_size=1, unique=True))
    shots, before = list[dict[str, Any]](), None
    for name in kept:
        as_it_was = data.draw(st.booleans())
        shot = old[name].model_dump(exclude_defaults=False)
        room = min(before["frames"] - before["transition"]["frames"], shot["frames"]) if before else 0
        if not (as_it_was and shot["transition"]["frames"] <= min(room, shot["frames"] - 1)):
            shot = cut_shot(data.draw, shot, rows[name], episode.fps, before)
        shots.append(before := shot)
    edited = story(episode.fps, [{"id": "S010", "shots": shots}])
    assume(all(_can_be_told(a, b, rows, edited) for (_, a), (_, b) in pairwise(edited.shots)))
    timeline = otio.adapters.read_from_string(otio.adapters.write_to_string(timeline_of(edited, rows, {}, {}), "otio_json"), "otio_json")
    done = conform(edit_of(facts_of(timeline), episode, "edit"), episode, rows, {row["take"]: row for row in rows.values()})
    file = tmp_path / "episode.yaml"
    file.write_text(_yaml(episode))
    assert load_episode(file) == episode
    patch = patch_of(file, episode, done)
    patch.write()
    assert cut_of(load_episode(file)) == cut_of(edited)
    assert (patch.diff == "") == (cut_of(edited) == cut_of(episode))
    assert {one.shot for one in done.told if one.kind == "gone"} == set(old) - set(kept)
    assert {one.kind for one in done.told} <= {"trimmed", "moved", "gone"}


def _can_be_told(shot: Any, after: Any, rows: Any, episode: Episode) -> bool:
    """Whether a timeline holds all of the cut between two shots: a clip that is held has an end of its own, over which no dissolve may lie."""
    left = moves(episode, shot, rows[shot.id]) - shot.first_frame - shot.frames
    return shot.fit != "hold" or left >= 0 or not after.transition.frames


def _yaml(episode: Episode) -> str:
    """An episode file with comments, some shots in one line and some in several."""
    head = {key: value for key, value in json.loads(episode.model_dump_json(exclude_defaults=True)).items() if key != "sequences"}
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in head.items()) + "sequences:\n"
    for sequence in episode.sequences:
        text += f"\n  # sequence {sequence.id}\n  - id: {sequence.id}\n    shots:\n"
        for n, shot in enumerate(sequence.shots):
            fields = json.loads(shot.model_dump_json(exclude_defaults=True))
            words = [f"{key}: {json.dumps(value)}" for key, value in fields.items()]
            text += f"      # shot {shot.id}\n      - " + ("{" + ", ".join(words).replace('"', "") + "}  # one line\n" if n % 2 else "\n        ".join(words).replace('"', "") + "\n")
    return text
