"""A script, a list of shots or a storyboard becomes an episode file: all that it says, with its place, and a TODO for what it does not say."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from screenplay_tools.fountain.parser import Parser

from pipeline.cli.imports import Format, _read
from pipeline.story.episode import load_episode
from pipeline.story.errors import InputError
from pipeline.story.imports.draft import Draft, Sequence, finished
from pipeline.story.imports.draft import Shot as DraftShot
from pipeline.story.imports.fountain import Fountain, plain
from pipeline.story.imports.write import episode_text
from pipeline.story.yaml_values import Loader

from .conftest import Done, refused

FILES = int(os.environ.get("TOWER_FUZZ_FILES", "150"))
LIMITS: dict[str, Any] = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}

SCRIPT = """\
Title:
    _**Lanterns by the Sea**_
Credit: written by
Author: A. Writer

# Act one

= The girls meet.

EXT. SHORE - DAY #1A#

HANA walks along the water. [[Is it *cold*?]]
The wind is strong.

HANA (V.O.)
I should not have come.

She stops. /* A dog
barks. */

@McCoy
(calling)
Hana! *Wait.*
(beat)
Please.

HANA (CONT'D) ^
Who is there?

DISSOLVE TO:

INT. LIGHTHOUSE - LATER

.FLASHBACK

!THE LAMP TURNS.

RADIO (O.S.)
Storm warning.
~La la

> FADE OUT.

> THE END <
"""

FDX = """\
<?xml version="1.0" encoding="UTF-8" standalone="no" ?>
<FinalDraft DocumentType="Script" Template="No" Version="5">
  <Content>
    <Paragraph Number="1A" Type="Scene Heading">
      <SceneProperties Length="1/8" Page="1" Title=""><Summary><Paragraph><Text>The girls meet.</Text></Paragraph></Summary></SceneProperties>
      <Text>EXT. SHORE - DAY</Text>
    </Paragraph>
    <Paragraph Type="Action">
      <ScriptNote ID="1"><Paragraph><Text>Is it cold?</Text></Paragraph></ScriptNote>
      <Text>HANA walks along </Text><Text Style="Italic">the water.</Text>
    </Paragraph>
    <Paragraph Type="Shot"><Text>CLOSE ON HANA</Text></Paragraph>
    <Paragraph Type="Action"><Text>She stops.</Text></Paragraph>
    <Paragraph>
      <DualDialogue>
        <Paragraph Type="Character"><Text>McCOY</Text></Paragraph>
        <Paragraph Type="Parenthetical"><Text>(calling)</Text></Paragraph>
        <Paragraph Type="Dialogue"><Text>Hana!</Text></Paragraph>
        <Paragraph Type="Character"><Text>HANA (CONT'D)</Text></Paragraph>
        <Paragraph Type="Dialogue"><Text>Who is there?</Text></Paragraph>
      </DualDialogue>
    </Paragraph>
    <Paragraph Type="Transition"><Text>DISSOLVE TO:</Text></Paragraph>
    <Paragraph Number="2" Type="Scene Heading"><Text>INT. LIGHTHOUSE - NIGHT</Text></Paragraph>
    <Paragraph Type="Sketch"><Text>A lamp.</Text></Paragraph>
  </Content>
  <TitlePage><Content>
    <Paragraph Alignment="Center"><Text>Lanterns by the Sea</Text></Paragraph>
    <Paragraph Alignment="Center"><Text>A. Writer</Text></Paragraph>
  </Content></TitlePage>
</FinalDraft>
"""

KITSU = """\
Episode,Sequence,Name,Description,Nb Frames,Frame In,Frame Out,FPS
E03,SQ010,SH010,"A shore, at night",48,1001,1048,24
E03,SQ010,SH020,"Two
lines",36,1049,1085,24
E03,SQ020,SH030,,0,,,24
"""


def board(number: int, **more: Any) -> dict[str, Any]:
    return {"uid": f"B{number}", "url": f"board-{number}-B{number}.png", "shot": f"{number}A", "newShot": True, "time": 0} | more


BOARDS = {
    "version": "2.1.0",
    "aspectRatio": "1.7777777777777777",
    "fps": 24,
    "defaultBoardTiming": "2000",
    "boards": [
        board(1, action="A girl waits.", dialogue="HANA: Hello!\nIs it you?", notes="Cold light.", audio={"filename": "hello.wav"}),
        board(2, shot="1B", newShot=False, duration="500", action="She turns.", dialogue="Hm.", audio=None),
        board(3, shot="2A", duration=1010),
    ],
}

Import = Any


@pytest.fixture
def imported(here, tmp_path) -> Import:
    """Import a text, and give back what was said and the episode file that was written."""

    def run(kind: str, text: str | bytes, *words: str) -> tuple[Done, str]:
        (tmp_path / "given").write_bytes(text if isinstance(text, bytes) else text.encode())
        done = here("import", kind, "given", *words)
        assert done.code == 0, done.err
        named = re.match(r"(\S+\.yaml): ", done.out)
        assert named
        return done, (tmp_path / named[1]).read_text(encoding="utf-8")

    return run


def read(text: str) -> dict[str, Any]:
    return yaml.load(text, Loader=Loader)


def shots(text: str) -> list[dict[str, Any]]:
    return [shot for sequence in read(text)["sequences"] for shot in sequence["shots"]]


def before(text: str, line: str) -> list[str]:
    """The comments that stand right before a line."""
    lines = [part.strip() for part in text.splitlines()]
    at = lines.index(line)
    first = at
    while lines[first - 1].startswith("#"):
        first -= 1
    return [part.removeprefix("# ") for part in lines[first:at]]


FILLED = {"width": "576", "height": "384", "fps": "24", "keyframe_workflow": "sd15_keyframe_demo", "clip_workflow": "ltx_video_2b_demo", "frames": "48", "start": "0.5", "end": "1.5", "kind": "effect"}


def filled(text: str) -> str:
    """The file as a person would leave it: a value in place of each TODO."""
    text = text.replace("{type: dissolve, frames: TODO}", "{type: dissolve, frames: 8}")
    return re.sub(r"^( *(?:- )?)(\w+): TODO\b.*$", lambda m: f"{m[1]}{m[2]}: {FILLED.get(m[2], 'somebody')}", text, flags=re.M)


# --- scripts ------------------------------------------------------------------------------------------------------------


def test_a_script_becomes_sequences_shots_and_dialogue(imported):
    _, text = imported("fountain", SCRIPT)
    story = read(text)
    assert story["title"] == "Lanterns by the Sea" and story["id"] == "E01"
    assert [(s["id"], s["title"], s.get("location"), s.get("time")) for s in story["sequences"]] == [
        ("S010", "EXT. SHORE - DAY", "ext_shore", "day"),
        ("S020", "INT. LIGHTHOUSE - LATER", "int_lighthouse", None),
        ("S030", "FLASHBACK", None, None),
    ]
    assert list(story["characters"]) == ["hana", "mccoy"] and story["characters"]["mccoy"]["name"] == "McCoy"
    first, second, empty, lamp, end = shots(text)
    assert [shot["id"] for shot in shots(text)] == ["SH0010", "SH0020", "SH0030", "SH0040", "SH0050"]
    assert first["action"] == "HANA walks along the water. The wind is strong." and first["characters"] == ["hana"]
    assert [(said["who"], said["text"]) for said in first["dialogue"]] == [("hana", "I should not have come.")]
    assert [(said["who"], said["text"]) for said in second["dialogue"]] == [("mccoy", "Hana! Wait."), ("mccoy", "Please."), ("hana", "Who is there?")]
    assert second["characters"] == ["mccoy", "hana"]
    assert empty["action"] == "TODO" and empty["transition"] == {"type": "dissolve", "frames": "TODO"}
    assert lamp["action"] == "THE LAMP TURNS." and [said["who"] for said in lamp["dialogue"]] == ["RADIO", "RADIO"]
    assert end["title"] == "THE END" and end["action"] == "TODO"


def test_comments_say_where_in_the_script_each_part_stands(imported):
    done, text = imported("fountain", SCRIPT)
    assert before(text, "- id: S010") == ["line 6: # Act one", "line 8: The girls meet.", "line 10, scene 1A"]
    assert before(text, "- id: SH0010") == ["line 12: Is it *cold*?", "lines 12-13"]
    assert before(text, "- id: SH0020") == ["line 18: A dog", "barks.", "line 18"]
    assert before(text, "- id: S020")[:2] == ["line 30: DISSOLVE TO:", "line 32"]
    assert "TODO: the time of day; the heading only says LATER" in text
    assert "# Author: A. Writer" in text and "# Credit: written by" in text
    said = [before(text, f"- who: {who}") for who in ("mccoy", "RADIO")]
    assert said == [["line 23", "(calling)"], ["line 39, O.S."]]
    assert "# line 40, O.S." in text and "# sung" in text
    assert "# together with the line before" in text
    assert done.err.strip().splitlines() == ["warning: given: line 42: FADE OUT. (an episode has cuts, and dissolves between two shots)"]
    assert before(text, "- id: SH0050")[0].startswith("NOT UNDERSTOOD, line 42: FADE OUT.")


def test_final_draft_says_the_same(imported):
    done, text = imported("fdx", FDX)
    story = read(text)
    assert story["title"] == "Lanterns by the Sea" and "# A. Writer" in text
    assert [(s["title"], s["location"], s["time"]) for s in story["sequences"]] == [
        ("EXT. SHORE - DAY", "ext_shore", "day"),
        ("INT. LIGHTHOUSE - NIGHT", "int_lighthouse", "night"),
    ]
    assert before(text, "- id: S010") == ["line 5: The girls meet.", "line 4, scene 1A"]
    walks, close, lamp = shots(text)
    assert walks["action"] == "HANA walks along the water." and before(text, "- id: SH0010") == ["line 9: Is it cold?", "line 8"]
    assert (close["framing"], close["action"]) == ("CLOSE ON HANA", "She stops.")
    assert [(said["who"], said["text"]) for said in close["dialogue"]] == [("mccoy", "Hana!"), ("hana", "Who is there?")]
    assert before(text, "- who: hana") == ["line 20", "together with the line before"]
    assert lamp["action"] == "TODO" and lamp["transition"]["type"] == "dissolve"
    assert "warning: given: line 25: a paragraph of type 'Sketch': A lamp." in done.err


def test_each_part_of_a_script_is_what_another_reader_takes_it_for():
    """screenplay-tools. It takes what follows a cut of several lines for dialogue, so there is none here."""
    text, left_out = SCRIPT.replace(" /* A dog\nbarks. */", ""), ("SECTION", "SYNOPSIS", "REMARK", "CHARACTER", "CUE")
    other = Parser()
    other.add_text(text)
    theirs = [(e.type.name, plain(e.text_raw.replace("[[0]]", "")).split()) for e in other.script.elements if e.type.name not in left_out]
    names = {"CENTRED": "ACTION", "SPEECH": "DIALOGUE"}
    elements = [e for e in Fountain(text).script().elements if e.kind.name not in left_out]
    assert [(names.get(e.kind.name, e.kind.name), e.text.strip("()").split()) for e in elements] == theirs
    assert [e.name for e in other.script.elements if e.type.name == "CHARACTER"] == ["HANA", "McCoy", "HANA", "RADIO"]


@pytest.mark.parametrize(
    ("heading", "location", "time"),
    [
        ("INT. HOUSE - KITCHEN - NIGHT", "int_house_kitchen", "night"),
        ("int./ext. Car — Dawn", "int_ext_car", "dawn"),
        ("I/E VAN - MOVING", "i_e_van_moving", None),
        ("EXT. DAY SPA", "ext_day_spa", None),
        ("EXT. SHORE - DAY - CONTINUOUS", "ext_shore", "day - continuous"),
        (".CAFÉ", "cafe", None),
        (".海辺", "location", None),
        (".DAY ROOM", "day_room", None),
    ],
)
def test_a_heading_tells_place_and_time(imported, heading, location, time):
    _, text = imported("fountain", f"{heading}\n\nRain.\n")
    (scene,) = read(text)["sequences"]
    assert (scene["location"], scene.get("time")) == (location, time)


def test_a_name_in_other_letters_or_twice_gets_a_key_of_its_own(imported):
    _, text = imported("fountain", "@ミオ\nはい。\n\n@アオイ\nねえ。\n\nZOË!\nYes.\n\nZOE?\nNo.\n\nZoe walks off.\n")
    assert {key: who["name"] for key, who in read(text)["characters"].items()} == {"character": "ミオ", "character_2": "アオイ", "zoe": "ZOË!", "zoe_2": "ZOE?"}
    assert shots(text)[-1]["characters"] == ["zoe_2"]


def test_a_voice_alone_is_no_character(imported):
    _, text = imported("fountain", "A radio.\n\nANNOUNCER (V.O.)\nRain.\n\nHANA (O.S.)\nAgain!\n\nHana comes in.\n")
    story = read(text)
    assert list(story["characters"]) == ["hana"]
    assert [said["who"] for said in shots(text)[0]["dialogue"]] == ["ANNOUNCER", "hana"]
    assert "characters: [hana]  # named in the action: hana" in text


# --- what is not said ---------------------------------------------------------------------------------------------------


def test_nothing_loads_while_a_todo_is_left_and_the_first_is_named(imported, tmp_path):
    done, text = imported("kitsu", KITSU)
    left = int(re.search(r"TODO (\d+);", done.out)[1])
    assert left == len(re.findall(r"^ *(?:- )?\w+: TODO\b", text, re.M))
    while left:
        found = re.search(r"^( *(?:- )?)(\w+): TODO\b.*$", text, re.M)
        line = text.count("\n", 0, found.start()) + 1
        more = rf"\(and {left - 1} more\)" if left > 1 else ""
        with pytest.raises(InputError, match=rf"E03.yaml:{line}: .*'{found[2]}' is still TODO; [^(]*{more}$"):
            load_episode(tmp_path / "E03.yaml")
        text = text.replace(found[0], f"{found[1]}{found[2]}: {FILLED.get(found[2], 'somebody')}", 1)
        (tmp_path / "E03.yaml").write_text(text)
        left -= 1
    assert load_episode(tmp_path / "E03.yaml").total_frames == 48 + 36 + 48


def test_the_sentence_names_the_shot(imported, here, tmp_path):
    _, text = imported("kitsu", KITSU)
    frames = text.index("frames: TODO")
    (tmp_path / "E03.yaml").write_text(filled(text[:frames]) + text[frames:])
    refused(here("plan", "E03.yaml"), f"E03.yaml:{text.count(chr(10), 0, frames) + 1}: shot SH0030: 'frames' is still TODO")


def test_the_word_in_quotes_is_a_text(imported, tmp_path):
    _, text = imported("kitsu", "Sequence,Name,Description,Frames\nS1,1,TODO,24\n")
    (tmp_path / "E01.yaml").write_text(filled(text))
    assert load_episode(tmp_path / "E01.yaml").shots[0][1].action == "TODO"


@pytest.mark.parametrize(("kind", "text"), [("fountain", SCRIPT), ("fdx", FDX), ("storyboarder", json.dumps(BOARDS))])
def test_a_file_with_every_todo_filled_in_is_an_episode(imported, here, tmp_path, kind, text):
    _, written = imported(kind, text)
    (tmp_path / "E01.yaml").write_text(filled(written))
    story = load_episode(tmp_path / "E01.yaml")
    assert [len(shot.dialogue) for _, shot in story.shots] == [len(shot.get("dialogue", ())) for shot in shots(written)]
    done = here("plan", "E01.yaml")
    assert done.code == 0, done.err


# --- lists of shots -----------------------------------------------------------------------------------------------------


def test_a_list_of_shots_keeps_its_numbers_and_its_lengths(imported):
    done, text = imported("kitsu", KITSU)
    story = read(text)
    assert story["id"] == "E03" and story["fps"] == 24 and [s["id"] for s in story["sequences"]] == ["S010", "S020"]
    assert [(s["id"], s["frames"], s.get("action")) for s in shots(text)] == [
        ("SH0010", 48, "A shore, at night"),
        ("SH0020", 36, "Two\nlines"),
        ("SH0030", "TODO", "TODO"),
    ]
    assert before(text, "- id: SH0020") == ["row 3: SH020"]
    assert done.err.strip() == "warning: given: row 5: Nb Frames: 0 is no length of a shot"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_separators_encodings_and_ends_of_lines_change_nothing(imported, separator, encoding, ending):
    text = ending.join(["Sequence,Name,Description,Frames,FPS", "sc01,sc01_sh020,Été,24,23.976", ""]).replace(",", separator)
    _, written = imported("kitsu", text.encode(encoding))
    assert read(written)["fps"] == "24000/1001"
    assert shots(written) == [{"id": "SH0020", "frames": 24, "action": "Été"}]
    assert "# row 2: sc01_sh020" in written


def test_names_that_collide_are_counted_in_tens(imported):
    rows = ["A,SH010", "A,SH010A", "B,SH010", "B,intro"]
    _, text = imported("kitsu", "\n".join(["Sequence,Name", *rows]))
    assert [s["id"] for s in shots(text)] == ["SH0010", "SH0020", "SH0030", "SH0040"]
    assert [before(text, f"- id: SH00{n}0") for n in (1, 2, 3, 4)] == [[f"row {n + 1}: {row.split(',')[1]}"] for n, row in enumerate(rows, 1)]


@pytest.mark.parametrize(
    ("first", "second", "frames"),
    [((0, 100), (100, 200), [100, 100]), ((1001, 1100), (1101, 1110), [100, 10]), (("", ""), (5, ""), ["TODO", "TODO"]), ((9, 3), (4, 4), ["TODO", 1])],
)
def test_a_length_from_the_first_and_the_last_frame(imported, first, second, frames):
    rows = [f"S{n},{n},{a},{b}" for n, (a, b) in enumerate((first, second), 1)]
    _, text = imported("kitsu", "\n".join(["Sequence,Name,In,Out", *rows]))
    assert [s["frames"] for s in shots(text)] == frames


def test_of_several_episodes_one_is_chosen(imported, here, tmp_path):
    text = KITSU.replace("E03,SQ020", "Pilot 4,SQ020")
    (tmp_path / "given").write_text(text)
    refused(here("import", "kitsu", "given"), "2 episodes", "--id", "E03", "E04 (Pilot 4)")
    refused(here("import", "kitsu", "given", "--id", "E07"), "no episode E07", "E04 (Pilot 4)")
    _, written = imported("kitsu", text, "--id", "E04")
    assert read(written)["id"] == "E04" and [s["id"] for s in shots(written)] == ["SH0030"]


def test_what_an_episode_has_no_place_for_is_told(imported):
    done, text = imported("kitsu", "Sequence,Name,Frames,Frame In,Frame Out,FPS,Animator\nS1,1,450,0,456,24,Jo\nS1,2,9,,,25,Jo\nS1,,9,,,25,Jo\n")
    assert [line.removeprefix("warning: given: ") for line in done.err.strip().splitlines()] == [
        "row 1: an episode has no place for the columns Animator",
        "row 4: a row without a shot's name: S1,,9,,,25,Jo",
        "row 2: 450 frames were taken, and 0 to 456 are 457",
        "column FPS: FPS is 24, 25, and an episode has one rate",
    ]
    assert read(text)["fps"] == "TODO" and text.count("NOT UNDERSTOOD") == 4


# --- storyboards --------------------------------------------------------------------------------------------------------


def test_boards_become_shots(imported, tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("board-1-B1.png", "hello.wav"):
        (tmp_path / "images" / name).write_bytes(b"")
    done, text = imported("storyboarder", json.dumps(BOARDS))
    first, second = shots(text)
    assert (first["frames"], first["action"], first["keyframe"]) == (60, "A girl waits. She turns.", "images/board-1-B1.png")
    assert first["dialogue"] == [
        {"who": "hana", "text": "Hello!\nIs it you?", "start": 0.0, "end": 2.0},
        {"who": "TODO", "text": "Hm.", "start": 2.0, "end": 2.5},
    ]
    assert first["audio"] == [{"file": "images/hello.wav", "kind": "TODO"}]
    assert second == {"id": "SH0020", "frames": 24, "action": "TODO"}
    assert before(text, "- id: SH0010") == ["boards 1-2, shot 1A", "board 1: Cold light.", "board 2 from 2.0 s: picture board-2-B2.png, She turns."]
    assert "board 3: url board-3-B3.png is not there" in text and not done.err


@pytest.mark.parametrize(("fps", "count", "milliseconds"), [(24, 1000, 1010), (23.976, 1000, 1000), (30, 500, 33.4)])
def test_the_frames_of_many_boards_do_not_drift(imported, fps, count, milliseconds):
    boards = BOARDS | {"fps": fps, "boards": [board(n, duration=milliseconds) for n in range(1, count + 1)]}
    _, text = imported("storyboarder", json.dumps(boards))
    exact = {23.976: 24000 / 1001}.get(fps, fps)
    assert sum(s["frames"] for s in shots(text)) == round(count * milliseconds * exact / 1000)
    assert len({s["frames"] for s in shots(text)}) <= 2


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a\\b.png", "link.png", 7, "x\0y"])
def test_a_picture_outside_the_scenes_folder_is_not_named(imported, tmp_path, name):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link.png").symlink_to("/etc/passwd")
    done, text = imported("storyboarder", json.dumps(BOARDS | {"boards": [board(1, url=name)]}))
    assert "keyframe" not in shots(text)[0] and "warning: given: board 1: url" in done.err


def test_a_sound_of_a_kind_that_is_not_read_is_told(imported, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "voice.webm").write_bytes(b"")
    done, text = imported("storyboarder", json.dumps(BOARDS | {"boards": [board(1, audio={"filename": "voice.webm"})]}))
    assert "audio" not in shots(text)[0] and "warning: given: board 1: audio images/voice.webm is no sound file that is read" in done.err


def test_a_picture_outside_the_episodes_folder_is_not_named(imported, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "board-1-B1.png").write_bytes(b"")
    (tmp_path / "stories").mkdir()
    done, text = imported("storyboarder", json.dumps(BOARDS), "--out", "stories/E01.yaml")
    assert "keyframe" not in shots(text)[0] and "lies outside stories" in done.err


# --- files --------------------------------------------------------------------------------------------------------------

DTD = '<?xml version="1.0"?><!DOCTYPE FinalDraft [<!ENTITY a "&b;&b;"><!ENTITY b "x">]>\n<FinalDraft><Content>&a;</Content></FinalDraft>'
BAD = {
    "empty script": ("fountain", b"", ["no scene, action or dialogue"]),
    "only a title": ("fountain", b"Title: X\nAuthor: Y\n", ["no scene, action or dialogue"]),
    "Latin-1": ("fountain", b"INT. CAF\xc9\n\nCaf\xe9.\n", ["given:1: byte 8 is not UTF-8"]),
    "UTF-16 without a mark": ("fountain", "INT. A".encode("utf-16-le"), ["given:1:", "NUL"]),
    "half of UTF-16": ("fountain", b"\xff\xfeI", ["is not UTF-16"]),
    "an archive": ("kitsu", b"PK\x03\x04\x14\x00\x06\x00", ["NUL"]),
    "empty XML": ("fdx", b"", ["given:1: the file is empty"]),
    "broken XML": ("fdx", b"<FinalDraft>\n<Content>\n</FinalDraft>", ["given:3: not valid XML"]),
    "other XML": ("fdx", b"<html/>", ["<html>", "<FinalDraft>"]),
    "no XML": ("fdx", b"INT. SHORE", ["given:1: not valid XML"]),
    "a document type": ("fdx", DTD.encode(), ["given:1:", "document type", "no Final Draft script needs one"]),
    "deep XML": ("fdx", b"<FinalDraft>" + b"<a>" * 5000, ["nested more than 100"]),
    "XML in unknown letters": ("fdx", b'<?xml version="1.0" encoding="klingon"?><FinalDraft/>', ["given:1: not valid XML"]),
    "a script in no script": ("fdx", b"<FinalDraft><Content/></FinalDraft>", ["no scene, action or dialogue"]),
    "an empty list": ("kitsu", b"", ["no shots"]),
    "other columns": ("kitsu", b"Type,Asset\nProps,Lamp\n", ["given:1:", "Sequence and Name"]),
    "a column twice": ("kitsu", b"Sequence,Name,Frames,Nb Frames\n", ["'nb frames' is there twice"]),
    "no rows": ("kitsu", b"Sequence,Name\n", ["no shots"]),
    "no JSON": ("storyboarder", b"{\n", ["given:2: not valid JSON"]),
    "a list": ("storyboarder", b"[]", ["no `boards`"]),
    "no boards": ("storyboarder", b'{"boards": []}', ["no boards"]),
    "no board": ("storyboarder", b'{"boards": [1]}', ["board 1 is 1"]),
    "a wrong time": ("storyboarder", b'{"boards": [{"duration": "long"}]}', ["board 1: 'duration' is", "long"]),
    "a wrong rate": ("storyboarder", b'{"fps": [], "boards": [{}]}', ["'fps' is []"]),
    "deep JSON": ("storyboarder", b"[" * 100_000, ["nested too deep"]),
    "digits": ("storyboarder", b'{"boards": [], "fps": ' + b"1" * 5000 + b"}", ["too many digits"]),
    "huge": ("fountain", b"x" * 4_000_001, ["4 MB"]),
    "too much of it": ("kitsu", b"Sequence,Name\n" + b"S,1\n" * 100_000, ["too many for one episode"]),
    "too much text": ("fountain", b"ho " * 1_300_000, ["more than 4 MB", "divide the file"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_cannot_be_imported_is_one_sentence(here, tmp_path, case):
    kind, data, words = BAD[case]
    (tmp_path / "given").write_bytes(data)
    refused(here("import", kind, "given"), *words)
    assert not list(tmp_path.glob("*.yaml"))


def test_what_cannot_be_written_is_one_sentence_and_nothing_is_written_over(here, tmp_path):
    (tmp_path / "given").write_text(SCRIPT)
    refused(here("import", "fountain", "nothing"), "nothing does not exist")
    refused(here("import", "fountain", "."), "is a folder", "Fountain")
    refused(here("import", "fountain", "given", "--id", "e1"), "'e1' is not an episode's id")
    refused(here("import", "fountain", "given", "--out", "story.json"), "must end in .yaml")
    refused(here("import", "fountain", "given", "--out", "no/story.yaml"), "cannot be written")
    refused(here("import", "final draft", "given"), "fountain")
    (tmp_path / "E01.yaml").symlink_to("elsewhere.yaml")
    for words in (("import", "fountain", "given"), ("new", "E01")):
        refused(here(*words), "E01.yaml is there already", "--out")
    assert not (tmp_path / "elsewhere.yaml").exists()


def test_the_same_file_gives_the_same_bytes(imported):
    for kind, text in (("fountain", SCRIPT), ("fdx", FDX), ("kitsu", KITSU), ("storyboarder", json.dumps(BOARDS))):
        assert imported(kind, text, "--out", f"{kind}1.yaml")[1] == imported(kind, text, "--out", f"{kind}2.yaml")[1]


def test_a_new_episode_can_be_planned_as_it_is(here, tmp_path):
    assert here("new", "E07").code == 0
    assert load_episode(tmp_path / "E07.yaml").id == "E07"
    done = here("plan", "E07.yaml")
    assert done.code == 0 and "2 shots, 2 to render" in done.out, done.err
    refused(here("new", "seven"), "'seven' is not an episode's id")


# --- any text -----------------------------------------------------------------------------------------------------------

def test_what_cannot_be_seen_reaches_neither_the_terminal_nor_the_file(imported):
    done, text = imported("fountain", "A girl.\n\n> \x1b[2JFADE\u202e TO.\n\nA boy.\n")
    assert "\\u001b[2JFADE\\u202e TO." in done.err and before(text, "- id: SH0020")[0].endswith("\\u001b[2JFADE\\u202e TO. (an episode has cuts, and dissolves between two shots)")
    assert not {"\x1b", "\u202e"} & {*done.err, *text}


LETTERS = st.characters(codec="utf-8", exclude_characters="\0")
TEXT = st.text(LETTERS, max_size=60) | st.sampled_from(["TODO", "1e5", "no", "~", "- a", "a: b", "#", " # x", "x\u2028y: 1", "x\x85id: E99", "\ufeff", "'\n\"", "|\n a", "a\n", "\n\u2028a", "a\nb", "{}", "0x1F", "\t", "a " * 200])


def test_any_text_is_read_as_it_was_written_and_no_comment_ends_early(tmp_path):
    @settings(max_examples=FILES, **LIMITS)
    @given(st.lists(TEXT, min_size=5, max_size=5))
    def check(texts: list[str]) -> None:
        title, action, comment, heading, last = texts
        draft = Draft(title=title, id="E01", comments=[comment], last_comments=[last])
        draft.sequences = [Sequence([comment], title=heading, shots=[DraftShot([comment], action=action, keyframe=heading)])]
        text, _ = episode_text(finished(draft), comment, last)
        story = read(text)
        assert story["title"] == title and story.keys() == {"id", "title", "width", "height", "fps", "keyframe_workflow", "clip_workflow", "sequences"}
        (sequence,) = story["sequences"]
        assert sequence.get("title", "") == heading and sequence.keys() <= {"id", "title", "shots"}
        (shot,) = sequence["shots"]
        assert (shot.get("action", ""), shot.get("keyframe", "")) == (action or ("" if heading else "TODO"), heading)

    check()


PARTS = st.sampled_from(
    ["INT. A - DAY", ".B", "HANA", "@x", "(V.O.)", "^", "Hello.", "\n", "\n\n", "  \n", "CUT TO:", "> DISSOLVE", "> x <", "[[", "]]", "/*", "*/", "~la", "!", "# A", "= s", "===", "Title: x", "*", "_", "#1#", "(", ")", "\r\n", "\x0c", "ÄÖ", "海"]
)  # fmt: skip
SCRIPTS = st.lists(PARTS | st.text(LETTERS, max_size=8), max_size=25).map("".join)
CELLS = st.sampled_from(["E1", "E2", "S1", "SH010", "24", "-1", "24.0", "²", "25", "23.976", '"', '"a, b"', "1001"]) | st.text(LETTERS, max_size=5)
HEADS = st.sampled_from(["Sequence,Name,Frames", "Episode,Sequence,Name,In,Out,FPS", "\ufeffSequence;Name;FPS;X", "Name,Name", "Sequence\tName\tFrames"])
ROWS = st.lists(st.lists(CELLS, max_size=6).map(",".join), max_size=5).map("\n".join)
LISTS = st.tuples(HEADS, ROWS).map("\n".join)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT, lambda x: st.lists(x, max_size=3) | st.dictionaries(TEXT, x, max_size=3), max_leaves=6)
FIELDS = st.fixed_dictionaries({}, optional={name: JSON for name in ("uid", "url", "shot", "time", "duration", "audio", "action", "dialogue", "notes", "newShot")})
SCENES = st.fixed_dictionaries({"boards": st.lists(FIELDS | JSON, max_size=4)}, optional={"fps": JSON, "defaultBoardTiming": JSON, "aspectRatio": JSON}).map(json.dumps)
TYPES = st.sampled_from(["Action", "Character", "Dialogue", "Parenthetical", "Scene Heading", "Shot", "Transition", "General", "Singing", "Other", ""])
WORDS = st.sampled_from(["INT. A - DAY", "HANA (V.O.)", "Hana runs.", "DISSOLVE TO:", "&amp;", "&x;", "<b>", "]]>", "<!-- x -->", " ", "<Text/>"])
LEAVES = st.builds('<Paragraph Type="{}" Number="1"><Text>{}</Text></Paragraph>'.format, TYPES, WORDS)
PLACED = st.sampled_from(["{}", "<DualDialogue>{}</DualDialogue>", "<ScriptNote>{}</ScriptNote>", "<Paragraph>{}</Paragraph>", "<Paragraph>{}", "{}</Text>"])
XMLS = st.lists(st.builds(str.format, PLACED, LEAVES), max_size=9).map(lambda ps: f"<FinalDraft><Content>{''.join(ps)}</Content></FinalDraft>")


@pytest.mark.parametrize(("kind", "made"), [("fountain", SCRIPTS), ("kitsu", LISTS), ("storyboarder", SCENES), ("fdx", XMLS)])
def test_whatever_is_in_a_file_it_is_imported_or_it_is_a_sentence(tmp_path, kind, made):
    file, target = tmp_path / "given", tmp_path / "E01.yaml"
    good = 0

    @settings(max_examples=FILES, **LIMITS)
    @given(made | st.text(LETTERS, max_size=40) | st.binary(max_size=40))
    def check(text: str | bytes) -> None:
        nonlocal good
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        try:
            draft = finished(_read(Format(kind), file, "", tmp_path))
            written, _ = episode_text(draft, "given", "tower import")
        except InputError as error:
            assert "\n" not in str(error).strip() and str(error).startswith(str(file)), error
            return
        good += 1
        target.write_text(written, encoding="utf-8")
        assert [len(s["shots"]) for s in read(written)["sequences"]] == [len(s.shots) for s in draft.sequences]
        with pytest.raises(InputError, match="is still TODO"):
            load_episode(target)

    check()
    assert good > FILES // 50, "some of the files are good ones"
