"""No episode file, whatever is in it, gives a traceback: it is read, or it is one sentence. TOWER_FUZZ_FILES says how many are tried."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.plan.plan import make_plan
from pipeline.registry.open_catalog import open_catalog
from pipeline.story.episode import Episode, load_episode
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings
from pipeline.story.yaml_file import comments_in_texts

from .conftest import EPISODE

FILES = int(os.environ.get("TOWER_FUZZ_FILES", "300"))
PLANNED = 10  # one of so many files is planned too, which takes longer
LIMITS: dict[str, Any] = {"deadline": None, "database": None, "derandomize": FILES == 300, "suppress_health_check": list(HealthCheck)}

FIELDS = sorted(
    [
        "id",
        "title",
        "width",
        "height",
        "fps",
        "style",
        "negative_prompt",
        "keyframe_workflow",
        "clip_workflow",
        "title_font",
        "characters",
        "locations",
        "sequences",
        "shots",
        "frames",
        "framing",
        "action",
        "location",
        "time",
        "camera",
        "transition",
        "type",
        "fit",
        "keyframe",
        "keyframe_parameters",
        "clip_parameters",
        "declares",
        "variation",
        "priority",
        "loudness",
        "dialogue",
        "who",
        "text",
        "start",
        "end",
        "audio",
        "kind",
        "length",
        "loop",
        "name",
        "description",
        "lora",
        "file",
        "weight",
        "strength",
        "guidance_scale",
        "<<",
        "x-a",
        "hana",
        "shore",
        "no",
        "1",
        "~",
    ]
)
ODD = st.sampled_from(
    [
        "060",
        "1:00",
        "1_0",
        "yes",
        "no",
        "on",
        "true",
        "~",
        "null",
        ".nan",
        ".inf",
        "-.inf",
        "1e999",
        "0x10",
        "0o17",
        "2024-01-02",
        "12:30",
        "=",
        "<<",
        "[/b]",
        "%20",
        "../x",
        "/etc/passwd",
        "concat:a",
        "pipe:0",
        "SH０010",
        "E٠١",
        "#1",
        "demo:ltx-video",
        "sd15_keyframe_demo",
        "ltx_video_2b_demo",
        "animatediff_16_demo",
        "ltx_video_2b_demo@9",
        "#00000000",
        "hold",
        "dissolve",
        "cut",
        "SH0010",
        "SH0020",
        "S010",
        "E01",
        "hana",
    ]
) | st.sampled_from(
    [
        "",
        " ",
        "a" * 300,
        "a\0b",
        "\u2028",
        "\x85",
        "\ufeff",
        "'",
        '"',
        "\t",
        "a\nb",
        "{",
        "- ",
        ": ",
        " #x",
        "海辺",
        "😀" * 100,
        "e\u0301",
        "\u202e",
    ]
)
TEXT = ODD | st.text(max_size=20)
NUMBER = st.integers(-3, 200) | st.integers() | st.floats() | st.sampled_from([2**31, 2**63, 10**400, -0.0, 1e308])
SCALAR = st.none() | st.booleans() | NUMBER | TEXT
ANY = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | TEXT, inner, max_size=4), max_leaves=8
)
WORDS = (
    st.sampled_from(FIELDS)
    | ODD
    | st.sampled_from(
        [
            "-",
            ":",
            "{",
            "}",
            "[",
            "]",
            ",",
            "&",
            "*",
            "&a",
            "*a",
            "!",
            "!!int",
            "!!python/object:os.system",
            "|",
            ">",
            "?",
            "%",
            "@",
            "`",
            "---",
            "...",
            "<<:",
            "*a",
            "\t",
            "#",
        ]
    )
)
PLACES = [
    ("title",),
    ("fps",),
    ("width",),
    ("characters", "hana"),
    ("characters", "hana", "lora"),
    ("locations", "shore"),
    ("sequences",),
    ("title_font",),
    ("sequences", 0, "shots"),
]
SHOT = [("sequences", i, "shots", 0, field) for i in (0, 1) for field in FIELDS]
CHANGES = st.lists(
    st.tuples(st.sampled_from(PLACES + SHOT + [("x-a",), ("sequences", 0, "id"), ("sequences", 1, "location")]), ANY),
    min_size=1,
    max_size=3,
)
MILD = st.lists(  # most of these files are good ones, whose texts and numbers are odd
    st.tuples(st.sampled_from([("sequences", 0, "shots", 0, field) for field in ("action", "framing", "camera", "time", "title")]), TEXT)
    | st.tuples(st.sampled_from([("sequences", 0, "shots", 0, "variation"), ("sequences", 1, "shots", 0, "frames")]), st.integers(13, 100)),
    min_size=1,
    max_size=3,
)


def changed(changes: list[tuple[tuple[Any, ...], Any]]) -> dict[str, Any]:
    """EPISODE with other values in these places."""
    whole = yaml.safe_load(EPISODE)
    for place, value in changes:
        part = whole
        for step in place[:-1]:
            if not ((isinstance(part, dict) and step in part) or (isinstance(part, list) and isinstance(step, int) and step < len(part))):
                break
            part = part[step]
        if isinstance(part, dict):
            part[place[-1]] = value
    return whole


def spliced(cuts: list[tuple[int, int, str]]) -> str:
    """EPISODE, with words put in the place of some of its characters."""
    text = EPISODE
    for at, length, word in cuts:
        at %= len(text) + 1
        text = text[:at] + word + text[at + length :]
    return text


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """(suffix, bytes) of a file: of other structure, of other text, or of any words and bytes."""
    kind = draw(st.sampled_from(["yaml", "yaml", "json", "spliced", "spliced", "words", "bytes"]))
    if kind == "yaml":
        text = yaml.safe_dump(
            changed(draw(CHANGES | MILD)), allow_unicode=draw(st.booleans()), default_flow_style=draw(st.sampled_from([None, True, False]))
        )
    elif kind == "json":
        text = json.dumps(changed(draw(CHANGES | MILD)), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1, "\t"])))
    elif kind == "spliced":
        text = spliced(draw(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 12), WORDS | TEXT), min_size=1, max_size=4)))
    elif kind == "words":
        text = "".join(draw(st.lists(WORDS | st.sampled_from([" ", "\n", "\n  ", ": "]) | TEXT, max_size=40)))
    else:
        return draw(st.sampled_from([".yaml", ".json"])), draw(st.binary(max_size=60)) + EPISODE.encode()[: draw(st.integers(0, 3000))]
    return ".json" if kind == "json" else draw(st.sampled_from([".yaml"] * 5 + [".json"])), text.encode(errors="surrogatepass")


def told(error: InputError) -> None:
    """The error is one sentence that a terminal can print."""
    assert str(error).strip() and len(str(error)) < 3000, str(error)[:300]


def read(file: Path) -> Episode | None:
    try:
        list(comments_in_texts(file))
    except InputError as error:
        told(error)
    try:
        return load_episode(file)
    except InputError as error:
        told(error)
        assert str(error).split(":")[0].endswith(file.name) or file.name in str(error), str(error)
    return None


def test_whatever_is_in_a_file_it_is_read_or_it_is_a_sentence(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    good = 0

    @settings(max_examples=FILES, **LIMITS)
    @given(files())
    def check(made: tuple[str, bytes]) -> None:
        nonlocal good
        file = folder / f"episode{made[0]}"
        file.write_bytes(made[1])
        story = read(file)
        if story:
            good += 1
            assert type(story.fps) is Fraction and all(type(shot.frames) is int for _, shot in story.shots)

    check()
    assert good > FILES // 50, "some of the files are good ones"


def test_whatever_is_in_a_file_a_plan_is_made_or_it_is_a_sentence(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    mine = Settings(catalog_uri=str(folder / "catalog"), models_dir=folder)
    catalog = open_catalog(mine)

    @settings(max_examples=max(1, FILES // PLANNED), **LIMITS)
    @given(CHANGES | MILD)
    def check(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
        file = folder / "episode.json"
        file.write_text(json.dumps(changed(changes)), encoding="utf-8")
        story = read(file)
        if story is None:
            return
        try:
            assert len(make_plan(story, file, mine, catalog).shots) == len(story.shots)
        except InputError as error:
            told(error)

    check()


@pytest.mark.parametrize("number", range(3))
def test_the_command_line_ends_with_0_or_2(tmp_path, here, number):
    @settings(max_examples=max(1, FILES // 100), **LIMITS)
    @given(files())
    def check(made: tuple[str, bytes]) -> None:
        file = tmp_path / f"episode{made[0]}"
        file.write_bytes(made[1])
        done = here("plan", file.name, *(["--json"] if number else []))
        assert done.code in (0, 2) and "Traceback" not in done.err
        assert (done.code == 2) == (done.err.startswith("error: ")), done.err

    check()
