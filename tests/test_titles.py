"""Titles and the sheet's words: every letter is a letter, every space a space, and what cannot be drawn is told by the plan."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.story.episode import Episode
from pipeline.story.errors import InputError
from pipeline.story.letters import built_in, lines_of, missing, wrapped
from pipeline.story.title import check_title, title_layer

from .conftest import EPISODE, refused
from .test_contact_sheet import drawn_sheet

SIZE = (384, 216)
DEJAVU, JAPANESE = built_in()[1:]


def drawn(text: str, font: Path | None = None, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Opacity of the title's pixels, 0..1 (height, width)."""
    check_title(text, font, "episode.yaml: shot SH0010", size)
    return title_layer(text, *size, font)[..., 3]


def rows(layer: np.ndarray) -> list[tuple[int, int]]:
    """First and last row of each line of letters."""
    ink = np.concatenate([[False], (layer > 0.95).any(axis=1), [False]])
    edges = np.flatnonzero(ink[1:] != ink[:-1])
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


@pytest.mark.parametrize("font", [None, DEJAVU, JAPANESE], ids=["built-in", "DejaVu", "Noto"])
@pytest.mark.parametrize("space", list("\t\u00a0\u1680\u2000\u2003\u2007\u2009\u200a\u202f\u205f\u3000"))
def test_whatever_unicode_calls_a_space_is_drawn_as_a_space(font, space):
    assert (drawn(f"A{space}b", font) == drawn("A b", font)).all()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_whatever_unicode_calls_the_end_of_a_line_is_one(end):
    assert (drawn(f"One{end}two", JAPANESE) == drawn("One\ntwo", JAPANESE)).all() and len(lines_of(f"One{end}two")) == 2


@pytest.mark.parametrize("mark", list("\u200b\u200c\u200d\u200e\u2060\ufeff\u00ad\u2066\ufe0f"))
def test_a_mark_that_nobody_sees_is_not_seen(mark):
    assert (drawn(f"Lan{mark}terns") == drawn("Lanterns")).all()
    assert not drawn(mark).any(), "a title of nothing else is empty"


@pytest.mark.parametrize("text", ["Café — “Ærø”", "海辺の灯", "カフェー、夜。", "Łódź 海 ё", "Ελλάδα", "Привет", "cafe\u0301", "髙﨑①㈱"])
def test_letters_of_many_languages_are_drawn_without_a_font_of_ones_own(text):
    assert missing(text, built_in()) == [] and drawn(text).max() == 1


def test_a_letter_that_no_font_has_is_named(tmp_path, here):
    for text, font in (("Lamp \U00012000", None), ("海辺", DEJAVU)):
        letter = missing(text, (font,) if font else built_in())[0]
        with pytest.raises(InputError, match=rf"SH0010: title: .* no shape for '{letter}'; give the episode a title_font"):
            check_title(text, font, "episode.yaml: shot SH0010", SIZE)
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("title: A test}", "title: 'Lamp \U00012000'}"))
    refused(here("plan", "episode.yaml"), "SH0010", "title", "\U00012000", "title_font")


@pytest.mark.parametrize("font", [None, DEJAVU, JAPANESE], ids=["built-in", "DejaVu", "Noto"])
def test_lines_are_centred_below_each_other_and_inside_the_picture(font):
    layer = drawn("One\ntwo lines and more", font)
    assert len(rows(layer)) >= 2
    for top, bottom in rows(layer):
        across = np.flatnonzero((layer[top:bottom] > 0.95).any(axis=0))
        assert abs(across[0] + across[-1] - SIZE[0]) <= 8, "each is centred"
    assert not layer[: SIZE[1] // 3].any() and not layer[-2:].any() and not layer[:, :8].any() and not layer[:, -8:].any()


LONG = "A very long title that goes on until it has to be wrapped at the width of the picture"


@pytest.mark.parametrize("text", [LONG, "夜の海辺で灯をともす少女と、ながいながい題名の物語。そして朝が来るまで歩いた"])
@pytest.mark.parametrize("size", [(192, 128), (384, 216), (128, 128), (1080, 1920)])
def test_a_long_title_is_wrapped(text, size):
    layer = drawn(text, size=size)
    assert (layer > 0.95).any() and not layer[:, : size[0] // 40].any() and not layer[:, -(size[0] // 40) :].any() and not layer[-1].any()


def test_lines_break_where_a_reader_would_break_them():
    assert wrapped("one two three", 7, len) == ["one two", "three"]
    assert wrapped("one two\u00a0three", 9, len) == ["one", "two\u00a0three"]
    assert wrapped("海辺の灯。朝", 4, len) == ["海辺の", "灯。朝"], "no line begins with a full stop"
    assert wrapped("灯「海」", 2, len) is None and wrapped("灯「海」", 3, len) == ["灯", "「海」"]
    assert wrapped("unbreakable", 4, len) is None
    assert wrapped("un\u200bbreakable", 10, len) == ["un", "breakable"]


def test_what_does_not_fit_is_one_sentence_of_the_plan(tmp_path, here):
    for title in ("x" * 80, '"' + "\\n".join("abcdefgh") + '"'):
        (tmp_path / "episode.yaml").write_text(EPISODE.replace("title: A test}", f"title: {title}}}"))
        refused(here("plan", "episode.yaml"), "SH0010", "title", "does not fit", "192x128")


def test_a_title_of_two_lines_with_a_font_of_ones_own_is_planned(tmp_path, here):
    (tmp_path / "own.otf").write_bytes(JAPANESE.read_bytes())
    text = EPISODE.replace("title: A test}", 'title: "海辺の灯\\n第一話"}').replace("style: anime", "style: anime\ntitle_font: own.otf")
    (tmp_path / "episode.yaml").write_text(text)
    assert here("plan", "episode.yaml").code == 0


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.95])
def test_a_damaged_font_is_one_sentence_of_the_plan(tmp_path, here, share):
    """Its tables come in any order: the damage may be found when it is opened, when a letter is drawn, or not matter to these letters."""
    data = DEJAVU.read_bytes()
    (tmp_path / "own.ttf").write_bytes(data[: int(len(data) * share)] or b"no font")
    for title in ("title: A test}", "keyframe_parameters: {}}"):
        (tmp_path / "episode.yaml").write_text(
            EPISODE.replace("title: A test}", title).replace("style: anime", "style: anime\ntitle_font: own.ttf")
        )
        done = here("plan", "episode.yaml")
        if share < 0.1 or done.code:
            refused(done, "own.ttf")


def story(title: str, **shot: str) -> Episode:
    base = {"id": "E01", "title": title, "width": 96, "height": 64, "fps": 24, "keyframe_workflow": "k", "clip_workflow": "c"}
    return Episode.model_validate(base | {"sequences": [{"id": "S010", "title": title, "shots": [{"id": "SH0010", "frames": 9} | shot]}]})


def sheet(tmp_path: Path, episode: Episode, font: Path | None = None) -> np.ndarray:
    drawn_sheet(tmp_path, episode, [{}], font=font)
    with Image.open(tmp_path / "out" / "contact_sheet.png") as picture:
        return np.asarray(picture.convert("L")).astype(int)


def test_the_contact_sheet_writes_letters_and_no_escapes(tmp_path):
    pages = [sheet(tmp_path, story(t)) for t in ("海辺の灯", "灯の辺海", "\\u6d77\\u8fba\\u306e\\u706f", "????")]
    for page in pages[1:]:
        assert np.abs(pages[0] - page).max() > 100
    assert (sheet(tmp_path, story("Café\u3000—\u00a0x")) == sheet(tmp_path, story("Café — x"))).all()
    assert (sheet(tmp_path, story("One\ntwo")) == sheet(tmp_path, story("One two"))).all()


def test_the_contact_sheet_writes_with_the_episodes_font_as_far_as_it_has_the_letters(tmp_path):
    assert (sheet(tmp_path, story("Lanterns"), DEJAVU) != sheet(tmp_path, story("Lanterns"))).any()
    assert (sheet(tmp_path, story("海辺"), DEJAVU) == sheet(tmp_path, story("海辺"))).mean() > 0.99, "another's letters where it has none"
    assert (sheet(tmp_path, story("\U00012000"), DEJAVU) == sheet(tmp_path, story("?"), DEJAVU)).all(), "what no font has"


def test_long_words_stay_out_of_the_pictures(tmp_path):
    page = sheet(tmp_path, story("灯" * 100, action="海" * 400))
    assert (page[100:, 28 + 340 : -28] == page[-1, -1]).all() and (page[:, -27:] == page[-1, -1]).all()


def test_the_fonts_that_are_shipped_stand_with_their_licence():
    folder = JAPANESE.parent
    assert sum(f.stat().st_size for f in folder.iterdir()) < 4_000_000
    assert re.search(r"SIL OPEN FONT LICENSE Version 1\.1", (folder / "OFL.txt").read_text())
