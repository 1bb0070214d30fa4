"""What a person wrote in a YAML or JSON file is what is read: numbers, truth values, dates, merges, ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pipeline.story.cluster_profile import ClusterProfile
from pipeline.story.episode import Episode, Shot, load_episode
from pipeline.story.errors import InputError
from pipeline.story.gate_profile import GateProfile
from pipeline.story.suite import load_suite
from pipeline.story.workflow import read_workflow
from pipeline.story.yaml_file import comments_in_texts, read_yaml

from .conftest import EPISODE, PROJECT


def read(tmp_path: Path, text: str) -> Episode:
    file = tmp_path / "episode.yaml"
    file.write_text(text, encoding="utf-8")
    return load_episode(file)


def with_shot(fields: str) -> str:
    """EPISODE, whose first shot, in line 20, is of these fields."""
    lines = EPISODE.splitlines()
    lines[19] = f"      - {{id: SH0010, {fields}}}"
    return "\n".join(lines) + "\n"


def first(tmp_path: Path, fields: str) -> Shot:
    return read(tmp_path, with_shot(fields)).shots[0][1]


def refused(tmp_path: Path, text: str, *words: str) -> None:
    with pytest.raises(InputError) as found:
        read(tmp_path, text)
    said = str(found.value)
    assert "\n" not in said and all(word in said for word in words), said


@pytest.mark.parametrize(
    ("written", "frames"), [("60", 60), ("060", 60), ("+60", 60), ("0o74", 60), ("0x3C", 60), ("60.0", 60), ("6e1", 60), ("0060", 60)]
)
def test_a_number_is_what_was_written(tmp_path, written, frames):
    assert first(tmp_path, f"frames: {written}").frames == frames


@pytest.mark.parametrize(
    "written",
    [
        "1:00",
        "12:30",
        "1_0",
        "yes",
        "Yes",
        "on",
        "ON",
        "no",
        "off",
        "true",
        "True",
        "0b11",
        "1e",
        "0o9",
        "0x",
        "٦٠",
        "６０",
        "60.5",
        ".nan",
        ".inf",
        "1e999",
        "2024-01-02",
        "=",
        "<<",
        "y",
        "'60'",
        "null",
        "~",
    ],
)
def test_what_is_no_number_is_refused_in_its_own_words(tmp_path, written):
    refused(tmp_path, with_shot(f"frames: {written}, action: a"), "episode.yaml:20", "SH0010", "'frames' is", written.strip("'"), "integer")


@pytest.mark.parametrize("field", ["variation", "priority"])
@pytest.mark.parametrize("written", ["on", "yes", "true", "'1'", "1_0"])
def test_no_truth_value_and_no_text_passes_for_a_number(tmp_path, field, written):
    refused(tmp_path, with_shot(f"frames: 24, {field}: {written}"), f"'{field}' is", "integer")


def test_a_truth_value_in_a_list_or_a_mapping_of_numbers_is_refused(tmp_path):
    refused(tmp_path, with_shot("frames: 24, clip_parameters: {strength: true}"), "'strength' is true", "number")
    refused(tmp_path, with_shot("frames: 24, clip_parameters: {strength: .nan}"), "'strength' is .nan", "finite")
    refused(tmp_path, with_shot("frames: 24, transition: {type: cut, frames: false}"), "'frames' is false")
    file = tmp_path / "w.yaml"
    text = (PROJECT / "configs" / "workflows" / "ltx_video_2b_demo.yaml").read_text()
    for old, new in (
        ("num_frames: 121", "num_frames: yes"),
        ("version: 1", "version: true"),
        ("fps: 24", "fps: '24'"),
        ("fps: 24", "fps: .inf"),
    ):
        file.write_text(text.replace(old, new))
        with pytest.raises(InputError, match=f"'{old.split(':')[0]}' is"):
            read_workflow(file)


@pytest.mark.parametrize(
    ("model", "text", "field"),
    [
        (ClusterProfile, "name: a\nresident_models: yes\n", "resident_models"),
        (ClusterProfile, "name: a\ndevice_memory_gb: {other: true}\n", "other"),
        (ClusterProfile, "name: a\ndevice_memory_gb: {other: .inf}\n", "other"),
        (GateProfile, "name: a\nimage: [{label: empty, measure: contrast, below: true}]\n", "below"),
        (GateProfile, "name: a\nimage: [{label: empty, measure: contrast, below: 1_0}]\n", "below"),
    ],
)
def test_other_files_are_read_the_same_way(tmp_path, model, text, field):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=f"a.yaml:2.*'{field}' is"):
        read_yaml(file, model)


@pytest.mark.parametrize(
    "written", ["12:30", "2024-01-02", "2001-12-14t21:59:43.10-05:00", "no", "yes", "on", "=", "<<", "1_000", "0b1", "1.2.3", "n"]
)
def test_a_word_that_is_no_number_is_the_text_that_it_is(tmp_path, written):
    shot = first(tmp_path, f"frames: 24, time: {written}, title: {written}")
    assert (shot.time, shot.title) == (written, written)


def test_names_are_what_was_written(tmp_path):
    text = EPISODE.replace("  hana: {", "  no: {").replace("[hana]", "[no]").replace("  aoi: {", "  060: {").replace("[aoi]", "['060']")
    story = read(tmp_path, text)
    assert list(story.characters) == ["no", "060"] and story.shots[0][1].characters == ["no"]
    refused(tmp_path, text.replace("['060']", "[060]"), "number 1 of 'characters' is 060", 'put it in quotes, "060"')


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("007", ["'title' is 007", "a number", '"007"']),
        ("12", ["'title' is 12", '"12"']),
        ("1.50", ["'title' is 1.50", '"1.50"']),
        ("true", ["'title' is true", "truth value", '"true"']),
    ],
)
def test_text_that_reads_as_something_else_is_told_how_to_be_written(tmp_path, written, words):
    refused(tmp_path, with_shot(f"frames: 24, title: {written}"), "episode.yaml:20", "SH0010", "put it in quotes", *words)
    assert first(tmp_path, f"frames: 24, title: '{written}'").title == written


def test_a_hash_that_eats_a_text_is_told(tmp_path):
    refused(
        tmp_path,
        EPISODE.replace("title: A test\n", "title: #1 in town\n", 1),
        "episode.yaml:2",
        "'title' is empty",
        "# is a comment",
        "quotes",
    )
    refused(
        tmp_path,
        EPISODE.replace("action: walking right", "action: wins #1 prize"),
        "not valid YAML",
        "in line 20",
        "# is a comment",
        "quotes",
    )
    file = tmp_path / "episode.yaml"
    file.write_text(
        EPISODE.replace("title: A test\n", "title: Wins medal #1 today\n", 1)
        .replace("fps: 24", "fps: 24 #rate")
        .replace("style: anime", "style: anime # as ever")
    )
    (note,) = comments_in_texts(file)
    assert f"{file}:2" in note and "'#1 today'" in note and "'Wins medal'" in note
    file.write_text(EPISODE + "# the end #1\n#2\n")
    assert not list(comments_in_texts(file))
    assert not list(comments_in_texts(PROJECT / "configs" / "episodes" / "demo.yaml"))


def test_a_plan_notes_a_text_that_a_comment_cuts(tmp_path, here):
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("    time: by day", "    time: by day #2"))
    done = here("plan", "episode.yaml")
    assert done.code == 0 and "note: episode.yaml:18: '#2' after 'by day' is a comment" in done.err
    assert here("plan", "episode.yaml", "--json").out.startswith("[")


def test_json_is_read_the_same_way(tmp_path):
    whole = yaml.safe_load(EPISODE)
    file = tmp_path / "episode.json"

    def put(**fields) -> Shot:
        whole["sequences"][0]["shots"][0].update(fields)
        file.write_text(json.dumps(whole))
        return load_episode(file).shots[0][1]

    assert put(frames=60).frames == put(frames=60.0).frames == 60
    for wrong in (True, "60", "1_0", "６０", None, 60.5, float("nan"), float("inf")):
        with pytest.raises(InputError, match="SH0010: 'frames' is"):
            put(frames=wrong)
    with pytest.raises(InputError, match=r"'title' is true.*quotes"):
        put(frames=60, title=True)
    file.write_text(json.dumps(whole).replace('"frames": 60', '"frames": ' + "1" * 5000))
    with pytest.raises(InputError, match="too many digits"):
        load_episode(file)
    file.write_text(json.dumps(whole | {"x-mine": {"any": True}} | {"fps": True}, indent="\t"))
    with pytest.raises(InputError, match="fps"):
        load_episode(file)


MERGED = """
      - &a {id: SH0040, frames: 24, action: walks, framing: wide shot}
      - &b {id: SH0050, frames: 48, action: runs, camera: static}
      - {%s}
"""


@pytest.mark.parametrize(
    ("shot", "wanted"),
    [
        ("<<: *a, id: SH0060", (24, "walks", "")),
        ("<<: [*a, *b], id: SH0060", (24, "walks", "static")),
        ("<<: [*b, *a], id: SH0060", (48, "runs", "static")),
        ("id: SH0060, action: own, <<: [*a, *b]", (24, "own", "static")),
        ("<<: [*a, *b], id: SH0060, action: own", (24, "own", "static")),
        ("<<: {<<: *b, frames: 12}, id: SH0060", (12, "runs", "static")),
    ],
)
def test_of_merged_mappings_the_earlier_counts_and_a_shots_own_field_most(tmp_path, shot, wanted):
    last = read(tmp_path, EPISODE + MERGED[1:] % shot).shots[-1][1]
    assert (last.frames, last.action, last.camera) == wanted


@pytest.mark.parametrize("merge", ["<<: walks", "<<: 3", "<<: [3]", "<<: [*a, 3]", "<<: [[*a]]", "<<: ~", "<<: *text", "<<: [*a, *text]"])
def test_only_mappings_can_be_merged(tmp_path, merge):
    text = EPISODE.replace("title: A test\n", "title: &text A test\n", 1) + MERGED[1:] % f"{merge}, id: SH0060, frames: 24"
    refused(tmp_path, text, "episode.yaml:29", "`<<` merges", "mapping")


def test_a_merge_in_quotes_or_twice_is_an_error(tmp_path):
    refused(tmp_path, EPISODE + MERGED[1:] % "'<<': *a, id: SH0060, frames: 24", "episode.yaml:29", "unknown field '<<'")
    refused(tmp_path, EPISODE + MERGED[1:] % "<<: *a, <<: *b, id: SH0060", "episode.yaml:29", "'<<' is given twice")


def test_a_fault_in_a_merged_template_is_told_where_it_stands(tmp_path):
    refused(tmp_path, "x-far: &far {frames: 1:00}\n" + EPISODE + "      - {<<: *far, id: SH0040}\n", "episode.yaml:1:", "SH0040", "1:00")


def test_templates_have_a_place_at_the_top_and_only_there(tmp_path):
    story = read(tmp_path, "x-far: &far {framing: wide shot, frames: 24}\nx-1: [yes]\n" + EPISODE + "      - {<<: *far, id: SH0040}\n")
    assert (story.shots[-1][1].framing, story.shots[-1][1].frames) == ("wide shot", 24)
    refused(tmp_path, with_shot("frames: 24, x-mine: 1"), "unknown field 'x-mine'")
    refused(tmp_path, "xfar: 1\n" + EPISODE, "unknown field 'xfar'")
    suite = (PROJECT / "configs" / "suites" / "demo.yaml").read_text()
    (tmp_path / "suite.yaml").write_text("x-a: {b: c}\n" + suite)
    assert load_suite(tmp_path / "suite.yaml").digest == load_suite(PROJECT / "configs" / "suites" / "demo.yaml").digest
    workflow = (PROJECT / "configs" / "workflows" / "ltx_video_2b_demo.yaml").read_text()
    (tmp_path / "w.yaml").write_text("x-a: 1\n" + workflow)
    with pytest.raises(InputError, match="unknown field 'x-a'"):
        read_workflow(tmp_path / "w.yaml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("id: SH0010", "id: SH００１０"),
        ("id: SH0010", "id: SH٠٠١٠"),
        ("id: SH0010", 'id: "SH0010\\n"'),
        ("id: E90", "id: E٠١"),
        ("id: S010", "id: S०१०"),
        ("clip_workflow: ltx_video_2b_demo\n", "clip_workflow: ltx_video_2b_demo@１\n"),
        ("clip_workflow: ltx_video_2b_demo\n", "clip_workflow: ltx_vidéo\n"),
        ("  hana: {", "  hаna: {"),
    ],
)
def test_names_and_ids_are_ascii(tmp_path, old, new):
    assert old in EPISODE
    if "\\n" in new:  # spaces at the ends of a text are removed, so this one is fine
        assert read(tmp_path, EPISODE.replace(old, new, 1)).shots[0][1].id == "SH0010"
    else:
        refused(tmp_path, EPISODE.replace(old, new, 1), "episode.yaml:")


@pytest.mark.parametrize("ref", ["ltx_video_2b_demo@１", "ltx_video_2b_demo@²", "ltх"])
def test_a_workflow_that_is_asked_for_in_other_digits_is_one_sentence(here, ref):
    for command in (["show", ref], ["diff", ref, ref], ["explain", ref], ["alias", "a", ref]):
        done = here("workflows", *command)
        assert done.code == 2 and "write it in ASCII" in done.err and len(done.err.splitlines()) == 1, done.err


@pytest.mark.parametrize(
    "args",
    [
        ["--size", "８x８"],
        ["--size", "²x8"],
        ["--fps", "２４"],
        ["--fps", "2_4"],
        ["--fps", "1e999999999"],
        ["--frames", "１０"],
        ["--frames", "1_0"],
        ["--frames", "0"],
    ],
)
def test_figures_on_the_command_line_are_digits(tmp_path, here, args):
    (tmp_path / "a.mp4").write_bytes(b"x")
    done = here("gate", "video", "a.mp4", *args)
    assert done.code == 2 and args[0] in done.err and len(done.err.splitlines()) == 1, done.err


@pytest.mark.parametrize("hours", ["nan", "inf", "1e300"])
@pytest.mark.parametrize("command", [["gc", "--older-than"], ["vacuum", "--retain"]])
def test_hours_that_no_clock_has_are_refused(here, command, hours):
    here("workflows", "list")
    done = here("catalog", *command, hours)
    assert done.code == 2 and command[1] in done.err and len(done.err.splitlines()) == 1, done.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("? [a]\n: b\n", ["episode.yaml:1", "a field's name"]),
        ("id: !!python/object:os.system x\n", ["episode.yaml:1", "!!python/object:os.system"]),
        ("id: !mine x\n", ["the tag !mine"]),
        ("id: !!set {a}\n", ["the tag !!set"]),
        ("id: !!int '1:00'\n", ["1:00 is not a number"]),
        ("id: " + "9" * 5000 + "\n", ["5000 characters"]),
        ("id: a\x00b\n", ["episode.yaml:1", "not valid YAML", "#x0000"]),
        ("~\n", ["episode.yaml:1", "holds nothing"]),
        ("a: &a {<<: [*a]}\n", ["episode.yaml:1"]),
        ("a: &a {b: *a}\n", ["episode.yaml:1"]),
        (
            "a0: &a0 {}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 20)}]}}\n" for n in range(1, 9)),
            ["anchors and aliases"],
        ),
    ],
)
def test_what_yaml_has_and_a_story_does_not_is_one_sentence(tmp_path, text, words):
    refused(tmp_path, text, *words)
