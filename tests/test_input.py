"""Bad input is one sentence with its place, exit code 2, and nothing written."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from pipeline.story.episode import load_episode
from pipeline.story.errors import InputError
from pipeline.story.prompt import compose
from pipeline.story.schemas import SCHEMAS, schema_text
from pipeline.story.suite import SUITES
from pipeline.story.workflow import RETIRED, WORKFLOWS

from .conftest import EPISODE, PROJECT, refused, tower

EXPLOSION = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

BAD_FILES = {
    "empty": ("", ["episode.yaml:1", "empty"]),
    "only comments": ("# nothing\n", ["episode.yaml:1", "comments"]),
    "a list": ("- 1\n", ["episode.yaml:1", "list"]),
    "tabs": (EPISODE.replace("    shots:", "\tshots:", 1), ["episode.yaml:19", "tab"]),
    "broken": (EPISODE.replace("[hana]", "[hana", 1), ["episode.yaml:", "not valid YAML"]),
    "unknown field": (EPISODE.replace("action: walking", "acton: walking"), ["episode.yaml:20", "SH0010", "'acton'", "'action'"]),
    "misspelt top field": (EPISODE.replace("title: A test\nwidth", "titel: A test\nwidth"), ["episode.yaml:2", "'titel'", "'title'"]),
    "duplicate shot": (EPISODE.replace("SH0030", "SH0010"), ["episode.yaml:26", "SH0010", "twice"]),
    "duplicate key": (EPISODE.replace("fps: 24", "fps: 24\nfps: 25"), ["episode.yaml:6", "'fps'", "twice"]),
    "unknown character": (EPISODE.replace("[aoi]", "[aio]"), ["episode.yaml:26", "SH0030", "'aio'", "'aoi'"]),
    "unknown location": (EPISODE.replace("location: town", "location: twon"), ["SH0030", "'twon'", "'town'"]),
    "unknown workflow": (
        EPISODE.replace("animatediff_16_demo", "animatedif_16_demo"),
        ["SH0020", "'animatedif_16_demo'", "'animatediff_16_demo'"],
    ),
    "negative length": (EPISODE.replace("frames: 60", "frames: -60"), ["episode.yaml:20", "SH0010", "'frames'", "-60", "greater than 0"]),
    "length as text": (EPISODE.replace("frames: 60", "frames: long"), ["SH0010", "'frames'", "integer"]),
    "missing id": (EPISODE.replace("id: SH0010, ", ""), ["episode.yaml:20", "'id' is missing"]),
    "odd size": (EPISODE.replace("width: 192", "width: 191"), ["episode.yaml:3", "'width'", "multiple of 2"]),
    "shot longer than its clip": (EPISODE.replace("frames: 60", "frames: 160"), ["SH0010", "160", "121", "fit: hold"]),
    "shot longer than what its clip has left": (EPISODE.replace("frames: 60", "frames: 60, first_frame: 62"), ["SH0010", "60 after the first 62", "121"]),
    "a first frame that no clip has": (EPISODE.replace("frames: 60", "frames: 60, first_frame: 121, fit: hold"), ["SH0010", "first_frame 121", "121 frames"]),
    "a part of what is shown whole": (EPISODE.replace("frames: 60", "frames: 60, first_frame: 9, fit: stretch"), ["SH0010", "'first_frame' is 9", "fit: stretch"]),
    "dissolve too long": (EPISODE.replace("frames: 12}", "frames: 99}"), ["episode.yaml:26", "SH0030", "99", "36"]),
    "dissolve at the start": (
        EPISODE.replace("title: A test}", "transition: {type: dissolve, frames: 4}}"),
        ["SH0010", "first shot cannot dissolve"],
    ),
    "anchors that explode": (EXPLOSION + EPISODE, ["episode.yaml:", "anchors and aliases"]),
    "50 MB": (EPISODE + "# " + "x" * 50_000_000, ["50 MB", "at most"]),
    "picture outside": (EPISODE.replace("title: A test}", "keyframe: ../../etc/passwd}"), ["SH0010", "keyframe", "outside"]),
    "picture missing": (
        EPISODE.replace("title: A test}", "keyframe: art/still.png}"),
        ["SH0010", "keyframe", "still.png", "does not exist"],
    ),
    "title the font lacks": (EPISODE.replace("title: A test}", "title: 𒀀}"), ["SH0010", "title", "𒀀", "title_font"]),
    "LoRA missing": (
        EPISODE.replace("yellow coat}", "yellow coat, lora: {file: hana.safetensors}}"),
        ["hana", "lora", "hana.safetensors", "does not exist"],
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_episode_file_is_one_sentence(tmp_path, here, case):
    text, words = BAD_FILES[case]
    (tmp_path / "episode.yaml").write_text(text)
    done = here("render", "episode.yaml")
    code, line = done.code, done.err.strip()
    assert code == 2 and len(line.splitlines()) == 1, line
    assert all(word in line for word in words), line
    assert not (tmp_path / "out" / "E90" / "episode.mp4").exists()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["render"], ["Missing argument"]),
        (["render", "nothing.yaml"], ["nothing.yaml", "does not exist"]),
        (["render", "."], ["is a folder"]),
        (["render", "episode.yaml", "--only", "SH9999"], ["--only SH9999", "SH0010"]),
        (["render", "episode.yaml", "--only", ","], ["--only", "names no shot"]),
        (["rendr"], ["rendr"]),
        (["takes", "E55"], ["no takes of episode E55"]),
        (["status", "E55"], ["no takes of episode E55"]),
    ],
)
def test_bad_usage_is_one_sentence(tmp_path, here, args, words):
    (tmp_path / "episode.yaml").write_text(EPISODE)
    done = here(*args)
    code, line = done.code, done.err.strip()
    assert code == 2 and all(word in line for word in words) and "Traceback" not in line, line


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "episode.yaml").write_bytes(b"\xff\xfe\x00\x81" * 20)
    with pytest.raises(InputError, match="not UTF-8"):
        load_episode(tmp_path / "episode.yaml")


def test_unicode_and_right_to_left_text_reach_the_prompt_unchanged(tmp_path):
    file = tmp_path / "episode.yaml"
    file.write_text(EPISODE.replace("action: walking right", "action: 'تمشي نحو 海辺 — «ё»'"), encoding="utf-8")
    episode = load_episode(file)
    sequence, shot = episode.shots[0]
    assert "تمشي نحو 海辺 — «ё»" in compose(episode, sequence, shot)


def test_prompts_are_composed_in_the_documented_order(episode):
    story = load_episode(episode)
    assert compose(story, *story.shots[2]) == (
        "close-up, a girl with blue hair and a red coat, standing still, in the city, at night, camera pans left, anime"
    )


def test_an_unwritable_output_folder_is_refused(tmp_path, here):
    (tmp_path / "episode.yaml").write_text(EPISODE)
    (tmp_path / "out").write_text("a file where the folder should be")
    done = here("render", "episode.yaml")
    code, line = done.code, done.err.strip()
    assert code == 2 and "cannot be written" in line and str(Path("out") / "E90") in line


def test_settings_that_cannot_be_are_refused(tmp_path, monkeypatch, here):
    (tmp_path / "episode.yaml").write_text(EPISODE)
    monkeypatch.setenv("TOWER_DEVICES", "many")
    done = here("render", "episode.yaml")
    code, line = done.code, done.err.strip()
    assert code == 2 and "TOWER_DEVICES" in line and "'many'" in line


def test_a_taken_dashboard_port_is_refused_before_anything_starts(episode):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = tower("render", episode, cwd=episode.parent, TOWER_DASHBOARD_PORT=str(port))
    refused(done, str(port), "not free", "TOWER_DASHBOARD_PORT")
    assert not (episode.parent / "out" / "E90" / "summary.json").exists()


def test_a_ray_cluster_that_is_not_there_is_refused(episode):
    done = tower("render", episode, cwd=episode.parent, RAY_ADDRESS="127.0.0.1:1")
    refused(done, "127.0.0.1:1", "could not join")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_refused_before_anything_is_rendered(episode, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False).returncode:
        pytest.skip("this machine does not allow mounting")
    try:
        done = tower("render", episode, cwd=episode.parent, TOWER_CATALOG_URI=str(disk / "catalog"))
        refused(done, "MB free", str(disk))
        assert not list((disk / "catalog").rglob("*.png"))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_published_schemas_are_current_and_accept_the_shipped_files():
    for name in SCHEMAS:
        file = PROJECT / "configs" / "schemas" / f"{name}.schema.json"
        assert file.read_text() == schema_text(name), "run `make schemas`"
    for kind, folder in (("episode", PROJECT / "configs" / "episodes"), ("workflow", WORKFLOWS), ("workflow", RETIRED), ("suite", SUITES)):
        schema = json.loads(schema_text(kind))
        for file in folder.glob("*.yaml"):
            jsonschema.validate(yaml.safe_load(file.read_text()), schema)


def test_the_demo_episode_is_what_the_documents_say():
    story = load_episode(PROJECT / "configs" / "episodes" / "demo.yaml")
    shots = [s for _, s in story.shots]
    assert len(shots) >= 8 and len(story.sequences) == 3 and len(story.characters) == 2
    assert {s.clip_workflow or story.clip_workflow for s in shots} == {"ltx_video_2b_demo", "animatediff_16_demo"}
    assert any(s.transition.type == "dissolve" for s in shots) and any(s.title for s in shots)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("num_frames: 121", "num_frames: 120", ["num_frames", "120", "121"]),
        ("width: 96", "width: 500", ["width, height", "500x64", "multiples of 32"]),
        ("checkpoint: demo:ltx-video", "checkpoint: nowhere", ["checkpoint", "nowhere", "does not exist"]),
        ("checkpoint: demo:ltx-video", "checkpoint: ../../etc", ["outside"]),
        ("fps: 24", "fps: 24\nsampler: euler", ["unknown field 'sampler'"]),
        ("guidance_scale: 1.0", "guidance_scale: 99", ["'guidance_scale'", "less than or equal to 30"]),
    ],
)
def test_a_workflow_that_cannot_work_stops_the_run_before_rendering(tmp_path, monkeypatch, here, old, new, words):
    folder = tmp_path / "workflows"
    folder.mkdir()
    for file in WORKFLOWS.glob("*_demo.yaml"):
        (folder / file.name).write_text(file.read_text())
    text = (folder / "ltx_video_2b_demo.yaml").read_text()
    assert old in text
    (folder / "ltx_video_2b_demo.yaml").write_text(text.replace(old, new))
    monkeypatch.setattr("pipeline.registry.open_catalog.WORKFLOWS", folder)
    (tmp_path / "episode.yaml").write_text(EPISODE)
    done = here("render", "episode.yaml")
    code, line = done.code, done.err.strip()
    assert code == 2 and all(word in line for word in words), line
