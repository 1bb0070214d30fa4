"""Subtitles: what is said is shown when it is said, in every language, as files, as a track and in the picture; or it is one sentence."""

from __future__ import annotations

import ctypes
import ctypes.util
import heapq
import io
import random
import unicodedata
import wave
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pysubs2
import pytest

from catalog.media import MediaStore
from catalog.place import Place
from pipeline.plan.sound_file import SoundFacts
from pipeline.plan.subtitles import planned_cues
from pipeline.post.segments import _pictures, _Sources, segments_of
from pipeline.post.shown import rgb
from pipeline.post.subtitles import subtitle_packets, write_subtitles
from pipeline.render.video_file import write_clip
from pipeline.story.cues import Cue, spans
from pipeline.story.direction import levels, right_to_left
from pipeline.story.episode import Episode, load_episode
from pipeline.story.errors import InputError
from pipeline.story.fingerprint import FileDigests
from pipeline.story.layout import laid_out
from pipeline.story.letters import NO_LETTER, _runs, built_in, face, lines_of, reach, width
from pipeline.story.subtitle import Burnt, burnt, check_subtitle, subtitle_layer
from pipeline.story.title import title_layer

from .conftest import EPISODE, refused
from .test_movie import clip
from .test_movie import episode as made_up

SIZE = (384, 216)
FPS = Fraction(24)
DEJAVU, JAPANESE = built_in()[1:]
ARABIC, PERSIAN, HEBREW = "مرحبا، أين كنت؟", "می‌خواهم", "שָׁלוֹם, מה 50% נשמע?"


def told(folder: Path, lines: dict[str, str], subtitles: str = "soft") -> tuple[Episode, Path]:
    """The test's episode (shots of 60, 36 and 48 frames, the last over 12 of the second) with lines of dialogue, by shot."""
    text = EPISODE.replace("style: anime", f"style: anime\nsubtitles: {subtitles}")
    for shot, said in lines.items():
        text = text.replace(f"id: {shot},", f"id: {shot}, dialogue: [{said}],")
    (folder / "episode.yaml").write_text(text, encoding="utf-8")
    return load_episode(folder / "episode.yaml"), folder / "episode.yaml"


def cues_of(folder: Path, lines: dict[str, str], subtitles: str = "soft") -> tuple[Cue, ...]:
    return planned_cues(*told(folder, lines, subtitles), SoundFacts(FileDigests(folder / "digests.json")))


def tone(file: Path, seconds: float) -> None:
    with wave.open(str(file), "wb") as out:
        out.setparams((1, 2, 48000, 0, "NONE", ""))
        out.writeframes((np.sin(np.arange(round(seconds * 48000)) / 20) * 9000).astype("<i2").tobytes())


def brief(cues: tuple[Cue, ...]) -> list[tuple[int, int, str, str]]:
    return [(cue.start, cue.end, cue.who, cue.text) for cue in cues]


def test_more_than_a_soft_track_holds_at_once_is_told_before_anything_renders(tmp_path):
    full = ", ".join(f"{{who: aoi, text: {'😀' * 2000}, start: 0, end: 1}}" for _ in range(8))  # each 8,000 bytes
    said = cues_of(tmp_path, {"SH0010": full})
    with av.open(tmp_path / "track.mp4", "w") as container:
        assert max(packet.size for packet in subtitle_packets(container, said, 60, FPS)) == 64_009
    lines = {"SH0010": f"{full}, {full}"}
    assert len(cues_of(tmp_path, {"SH0010": f"{full}, {full.replace('start: 0, end: 1', 'start: 1, end: 2')}"})) == 16, "one after the other"
    with pytest.raises(InputError, match=r"SH0010: dialogue 9: 9 lines are shown at once, 72,008 bytes of text, and a soft track holds 65,535"):
        cues_of(tmp_path, lines)
    with pytest.raises(InputError, match=r"'text' is .*at most 2000 characters"):
        told(tmp_path, {"SH0010": f"{{who: aoi, text: {'a' * 2001}, start: 0, end: 1}}"})


# --- when ------------------------------------------------------------------------------------------------------------


def test_cues_stand_in_frames_of_the_cut_by_their_beginnings_and_name_who_speaks(tmp_path):
    said = cues_of(tmp_path, {
        "SH0030": "{who: Sailor, text: Ahoy, start: 0, end: 1}",
        "SH0020": "{who: aoi, text: Two, start: 0.7, end: 1.3}, {who: hana, text: One, start: 0.5, end: 1.5}",
    })  # fmt: skip
    assert brief(said) == [(72, 96, "Hana", "One"), (77, 91, "Aoi", "Two"), (84, 108, "Sailor", "Ahoy")]


def test_a_line_without_an_end_is_shown_as_long_as_its_audio_and_no_longer_than_the_movie(tmp_path):
    tone(tmp_path / "a.wav", 1.25)
    said = cues_of(tmp_path, {
        "SH0010": "{who: hana, text: Rings on, start: 2, audio: a.wav}",
        "SH0030": "{who: aoi, text: Last, start: 1.5, audio: a.wav}",
    })  # fmt: skip
    assert brief(said) == [(48, 78, "Hana", "Rings on"), (120, 132, "Aoi", "Last")]


def test_times_of_broadcast_rates_are_frames_too(tmp_path):
    _, file = told(tmp_path, {"SH0010": "{who: hana, text: One, start: 1.001, end: 2.002}"})
    file.write_text(file.read_text().replace("fps: 24\n", "fps: 23.976\n"))
    assert brief(planned_cues(load_episode(file), file, SoundFacts(FileDigests(tmp_path / "d"))))[0][:2] == (24, 48)


def test_what_several_say_at_once_stands_together_with_a_dash_before_each():
    one, two = Cue(2, 8, "Mio", "Where?\nWhere?", ""), Cue(5, 10, "Ao", "There.", "")
    assert [(s.start, s.end, s.text) for s in spans((one, two), 0, 12)] == [
        (0, 2, ""), (2, 5, "Where?\nWhere?"), (5, 8, "– Where?\nWhere?\n– There."), (8, 10, "There."), (10, 12, ""),
    ]  # fmt: skip
    assert [(s.start, s.end) for s in spans((one, two), 6, 9)] == [(6, 8), (8, 9)]
    assert spans((one, Cue(5, 10, "Mio", "There.", "")), 5, 8)[0].text == "Where?\nWhere?\nThere.", "one person needs none"


# --- what cannot be shown --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{who: aoi, text: Late, start: 1, end: 2.1}", "ends at 2.1 s, 0.100 s after the movie"),
        ("{who: aoi, text: Quick, start: 1, end: 1.05}", "shown for 0.04 s"),
        ('{who: aoi, text: "\\u200b", start: 1, end: 2}', "nothing of it can be seen"),
        ('{who: aoi, text: "a\\x07", start: 1, end: 2}', "U+0007"),
        ("{who: aoi, text: Gone, start: 1, audio: gone.wav}", "gone.wav does not exist"),
    ],
)
def test_what_cannot_be_shown_is_told_with_its_place_unless_nothing_is_shown(tmp_path, line, why):
    with pytest.raises(InputError, match=r"episode.yaml: shot SH0030: dialogue 1: ") as error:
        cues_of(tmp_path, {"SH0030": line})
    assert why in str(error.value) and "\n" not in str(error.value)
    assert cues_of(tmp_path, {"SH0030": line}, "none") == ()


def test_what_cannot_be_burnt_in_is_told_and_may_be_soft(tmp_path):
    for text, why in (("Lamp \U00012000", "'\U00012000' .*DejaVuSans.ttf, NotoSansCJK.*title_font"), ("x" * 80, "does not fit .*192x128")):
        lines = {"SH0020": f"{{who: aoi, text: Fine, start: 0, end: 1}}, {{who: aoi, text: {text}, start: 0.2, end: 1}}"}
        with pytest.raises(InputError, match=f"shot SH0020: dialogue 1 and shot SH0020: dialogue 2: text: .*{why}"):
            cues_of(tmp_path, lines, "burnt")
        assert len(cues_of(tmp_path, lines)) == 2


def test_the_plan_tells_what_cannot_be_shown(tmp_path, here):
    told(tmp_path, {"SH0020": "{who: aoi, text: Fine, start: 0, end: 1}, {who: aoi, text: Lamp \U00012000, start: 0.2, end: 1}"}, "burnt")
    refused(here("plan", "episode.yaml"), "episode.yaml: shot SH0020: dialogue 1 and shot SH0020: dialogue 2", "\U00012000")


# --- files -----------------------------------------------------------------------------------------------------------

SAID = ("Plain", "{\\i1}braces} and \\Never", ARABIC, f"{PERSIAN}\nline two", "海辺の灯", "a, b: c -- > d")


def placed(*texts: str, each: int = 24, apart: int = 30) -> tuple[Cue, ...]:
    return tuple(Cue(i * apart, i * apart + each, f"Who {i}, x", text, f"shot SH0010: dialogue {i}") for i, text in enumerate(texts))


def test_the_files_say_the_same_to_another_reader(tmp_path, episode):
    story, cues = load_episode(episode), placed(*SAID)
    srt, ass = write_subtitles(story, cues, tmp_path)
    assert (srt.name, ass.name) == ("episode.srt", "episode.ass")
    for file in (srt, ass):
        with av.open(str(file)) as read:
            found = [(p, s) for p in read.demux(read.streams.subtitles[0]) if p.size for s in p.stream.codec_context.decode(p)]
        assert [(float(p.pts * p.time_base), float(p.duration * p.time_base)) for p, _ in found] == [(i * 1.25, 1.0) for i in range(len(cues))]
        for (_, shown), cue in zip(found, cues, strict=True):
            said = shown.ass.decode().split(",", 8)[8]
            assert said.replace("\\N", "\n").replace("\\{", "{").replace("\\}", "}").replace("\u2060", "") == cue.text
    assert srt.read_text(encoding="utf-8").startswith("1\n00:00:00,000 --> 00:00:01,000\nPlain\n\n2\n")
    events = pysubs2.load(str(ass))
    assert [event.name for event in events] == [f"Who {i} x" for i in range(len(cues))]
    assert (events.info["PlayResX"], events.info["PlayResY"], events.styles["Default"].fontsize) == ("192", "128", 10)


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60), Fraction(120)])
def test_no_cue_overlaps_another_by_rounding_or_ends_before_it_begins(tmp_path, episode, fps):
    story, at, cues = load_episode(episode).model_copy(update={"fps": fps}), 0, []
    chance = random.Random(1)
    for _ in range(300):
        length = -int(-fps // 10) + chance.randrange(50)  # a tenth of a second is the shortest
        cues.append(Cue(at, at + length, "x", "x", ""))
        at += length + chance.choice((0, 0, 1))
    for file, unit in zip(write_subtitles(story, cues, tmp_path), (0.0005, 0.005), strict=True):
        events = pysubs2.load(str(file)).events
        assert len(events) == 300 and all(event.start < event.end for event in events)
        assert all(one.end <= other.start for one, other in pairwise(events))
        assert max(abs(event.start / 1000 - cue.start / fps) for event, cue in zip(events, cues, strict=True)) <= unit + 1e-9


def test_files_that_would_be_the_same_are_not_written_again_and_those_of_no_dialogue_go(tmp_path, episode):
    story, cues = load_episode(episode), placed("One")
    before = [file.stat().st_mtime_ns for file in write_subtitles(story, cues, tmp_path)]
    assert before == [file.stat().st_mtime_ns for file in write_subtitles(story, cues, tmp_path)]
    assert write_subtitles(story, (), tmp_path) == [] and not list(tmp_path.glob("episode.[as]*"))


# --- a track ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(24000, 1001), Fraction(25), Fraction(60000, 1001)])
def test_the_track_in_a_movie_has_every_text_at_its_frame_and_clears_it_between(tmp_path, fps):
    write_clip(tmp_path / "picture.mp4", np.zeros((90, 64, 64, 3), np.uint8), fps)
    cues = (Cue(12, 36, "Mio", f"{PERSIAN} {{x}}\nline two", ""), Cue(30, 48, "Ao", "海", ""), Cue(60, 90, "Ao", ARABIC, ""))
    movies = [io.BytesIO(), io.BytesIO()]
    for movie in movies:
        with av.open(str(tmp_path / "picture.mp4")) as picture, av.open(movie, "w", format="mp4", options={"fflags": "+bitexact"}) as out:
            video = out.add_stream_from_template(picture.streams.video[0])
            texts = subtitle_packets(out, cues, 90, fps)
            frames = [packet for packet in picture.demux() if packet.dts is not None]
            for packet in frames:
                packet.stream = video
            for packet in heapq.merge(frames, texts, key=lambda p: p.dts * p.time_base):
                out.mux_one(packet)
    assert movies[0].getvalue() == movies[1].getvalue()
    with av.open(io.BytesIO(movies[0].getvalue())) as read:
        assert sum(1 for _ in read.decode(video=0)) == 90
    with av.open(io.BytesIO(movies[0].getvalue())) as read:
        track = read.streams.subtitles[0]
        found = [p for p in read.demux(track) if p.size]
        shown = {round(p.pts * p.time_base * fps): bytes(p)[2:].decode() for p in found}  # behind the length of the text
        decoded = [b"".join(s.dialogue for s in track.codec_context.decode(p)).decode() for p in found]
        assert track.codec_context.name == "mov_text" and track.language == "und"
        assert all(p.pts * p.time_base * fps == round(p.pts * p.time_base * fps) for p in found), "to the frame"
        assert sum(p.duration for p in found) * track.time_base == 90 / fps, "and without gaps"
    text = f"{PERSIAN} {{x}}\nline two"
    assert shown | {90: ""} == {0: "", 12: text, 30: f"– {text}\n– 海", 36: "海", 48: "", 60: ARABIC, 90: ""}
    assert decoded[3:6] == ["海", "", ARABIC] and all(p.duration for p in found[:6]) and len(found) < 8, "no text of no length between others"


# --- in the picture --------------------------------------------------------------------------------------------------


def ink(text: str, *titles: str, size: tuple[int, int] = SIZE, font: Path | None = None) -> np.ndarray:
    """Opacity of the subtitle's pixels, 0..1 (height, width)."""
    one = Burnt(0, 1, text, titles)
    check_subtitle(one, font, "episode.yaml: shot SH0010: dialogue 1", size)
    return subtitle_layer(one, *size, font)[..., 3]


LONG = "A very long line which goes on until it has to be wrapped, and then some more of it"


@pytest.mark.parametrize("text", ["Hello, gypsy", "海辺の灯。", ARABIC, HEBREW, f"{PERSIAN} 海 Mio!", LONG, "Ẫy Ṩ gjpqy\nẪy ÅÇŞ gjpqy", "– Who?\n– 海"])
@pytest.mark.parametrize("size", [(192, 128), (384, 216), (216, 384)])
def test_subtitles_stand_whole_at_the_foot_of_the_picture(text, size):
    layer = ink(text, size=size)
    rows, columns = np.flatnonzero(layer.any(axis=1)), np.flatnonzero(layer.any(axis=0))
    assert 0.5 * size[1] < rows[0] and rows[-1] < 0.97 * size[1] and abs(columns[0] + columns[-1] - size[0]) < 16
    assert size[0] * 0.04 < columns[0] and columns[-1] < size[0] * 0.96


@pytest.mark.parametrize("title", ["A title", "A title\nof two lines", "A long title that goes on until it has three lines or even four lines"])
@pytest.mark.parametrize("text", ["Hello", LONG, "Ẫy\nẪy"])
def test_a_subtitle_stands_above_the_title_and_never_over_it(title, text):
    below, above = title_layer(title, *SIZE, None)[..., 3].any(axis=1), ink(text, title).any(axis=1)
    assert above.any() and np.flatnonzero(above)[-1] < np.flatnonzero(below)[0]


def test_stacked_marks_and_descenders_of_neighbouring_lines_touch_nothing():
    text = "gjpqyÇŞ\nẪǞỖ"
    layer = subtitle_layer(Burnt(0, 1, text, ()), *SIZE, None)
    white = (layer[..., :3].min(axis=2) > 0.9) & (layer[..., 3] > 0.9)
    lit = np.flatnonzero(np.diff(np.concatenate([[0], white.any(axis=1).astype(int), [0]])))
    assert len(lit) >= 4, "there is a row without letters between the lines"
    above, below = reach("Ẫ", (DEJAVU,), 60, 0)
    assert above > reach("A", (DEJAVU,), 60, 0)[0] and below >= 0


def test_a_letter_that_only_the_episodes_font_has_is_drawn_with_it_and_others_with_the_built_in():
    lacking = "한"
    with pytest.raises(InputError, match=r"dialogue 1: text: no font has a shape for '한' \(Pillow's own, DejaVuSans.ttf, NotoSans"):
        ink(lacking)
    assert ink("Hello", font=JAPANESE).tolist() == ink("Hello").tolist()


def test_what_is_drawn_into_a_part_of_the_cut_counts_from_its_beginning_and_knows_the_titles_there(tmp_path):
    lines = {"SH0010": "{who: hana, text: One, start: 2, end: 3}", "SH0030": "{who: hana, text: Two, start: 0, end: 1}"}
    episode, cues = told(tmp_path, lines)[0], cues_of(tmp_path, lines)
    assert burnt(episode, cues, 0, 60) == [Burnt(48, 60, "One", ("A test",))]
    assert burnt(episode, cues, 60, 84) == [Burnt(0, 12, "One", ())]
    assert burnt(episode, cues, 84, 132) == [Burnt(0, 24, "Two", ())]
    assert burnt(episode, cues, 110, 132) == []
    assert burnt(episode, cues, 40, 70) == [Burnt(8, 20, "One", ("A test",)), Burnt(20, 30, "One", ())]


def test_lines_are_in_exactly_their_frames_of_the_movie_over_a_dissolve_too(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    lines = [{"who": "x", "text": "III", "start": 7 / 24, "end": 13 / 24}]
    story = made_up({"frames": 12, "dialogue": lines}, {"frames": 12, "transition": {"type": "dissolve", "frames": 4}})
    story = story.model_copy(update={"subtitles": "burnt"})
    clips = {shot: clip(store, tmp_path, level, 12, 24) for shot, level in (("SH0010", 20), ("SH0020", 60))}
    said = planned_cues(story, tmp_path / "episode.yaml", SoundFacts(FileDigests(tmp_path / "digests.json")))
    frames = []
    for segment in segments_of(story, clips, said, ""):
        frames += [rgb(picture) for picture in _pictures(segment, _Sources(store, None, tmp_path))]
    assert [n for n, frame in enumerate(frames) if frame.max() > 200] == list(range(7, 13)) and len(frames) == 20


# --- from right to left ----------------------------------------------------------------------------------------------


def test_letters_are_ordered_as_fribidi_orders_them():
    fribidi, chance = ctypes.CDLL(ctypes.util.find_library("fribidi") or "libfribidi.so.0"), random.Random(1)
    for _ in range(3000):
        line = "".join(chance.choice("abאבسم海12 ,.-!–?%$") for _ in range(chance.randint(1, 9)))
        strong = any(unicodedata.bidirectional(c) in ("L", "R", "AL") for c in line)
        if not strong:
            continue
        count = len(line)
        theirs, base = (ctypes.c_int8 * count)(), ctypes.c_uint32(0x111 if right_to_left(line) else 0x110)
        assert fribidi.fribidi_log2vis((ctypes.c_uint32 * count)(*map(ord, line)), count, ctypes.byref(base), None, None, None, theirs)
        assert visual(levels(line)) == visual(list(theirs)), line


def visual(found: list[int]) -> list[int]:
    """Places of the characters from left to right, by rule L2 of UAX 9."""
    order = list(range(len(found)))
    for level in range(max(found), 0, -1):
        i = 0
        while i < len(order):
            j = i
            while j < len(order) and found[order[j]] >= level:
                j += 1
            order[i:j] = order[i:j][::-1]
            i = max(j, i + 1)
    return order


def test_a_line_of_several_fonts_is_read_from_the_right_where_it_begins_there():
    line = "אב 海 12 גד"
    assert [(part, way) for _, part, way in _runs(line, (DEJAVU, JAPANESE))] == [
        (" גד", "rtl"), ("海 ", "ltr"), ("12", "ltr"), ("אב ", "rtl"),
    ]  # fmt: skip
    assert [font for font, *_ in _runs("ab 海 cd", (DEJAVU, JAPANESE))] == [JAPANESE], "one font for all where one has all"


def test_letters_that_join_are_joined_and_a_mark_keeps_them_apart():
    size = 60
    assert width("سلام", (DEJAVU,), size) < sum(width(c, (DEJAVU,), size) for c in "سلام")
    assert lines_of(PERSIAN) == [PERSIAN] and width(PERSIAN, (DEJAVU,), size) != width(PERSIAN.replace("\u200c", ""), (DEJAVU,), size)
    assert face(DEJAVU, size).getmask(NO_LETTER).getbbox(), "a box would be seen"


def test_a_wrapped_line_goes_on_in_the_direction_in_which_it_began():
    for first, rtl in (("אבג", True), ("abc", False)):
        found = laid_out(f"{first} Mio Mio Mio אב אב אב Mio Mio Mio!", 120, 200, range(20, 10, -1), (DEJAVU,))
        assert found and len(found[1]) > 2 and all(right_to_left(line) == rtl for line in found[1])
