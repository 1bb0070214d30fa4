"""What `tower submit` checks, what it sends, and what a job is called: before any cluster is asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cluster import code, jobs
from pipeline.render import submission
from pipeline.story.episode import load_episode
from pipeline.story.errors import InputError

from .conftest import EPISODE, PROJECT, environment, refused
from .ray_cluster import free_ports


def test_an_address_where_nobody_answers_is_one_sentence_before_anything_is_written(here, episode):
    (port,) = free_ports(1)
    refused(here("submit", episode, "--address", f"http://127.0.0.1:{port}"), f"http://127.0.0.1:{port}", "refused", "--address")
    refused(here("jobs", "--address", "127.0.0.1:6379"), "127.0.0.1:6379", "http://127.0.0.1:8265")
    assert not (episode.parent / "out").exists() and not (episode.parent / "catalog-data").exists()


def test_the_address_is_what_was_given_then_rays_variables_then_this_machine(monkeypatch):
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert jobs.address_of(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert jobs.address_of(None) == "http://127.0.0.1:8265", "of drivers, not of the job API"
    monkeypatch.setenv("RAY_ADDRESS", "https://ray.example/")
    assert jobs.address_of(None) == "https://ray.example"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    assert jobs.address_of(None) == "http://head:8265"
    assert jobs.address_of("http://other:1") == "http://other:1"


@pytest.mark.parametrize(
    ("text", "args", "words"),
    [
        (EPISODE.replace("fps: 24", "fps: none"), [], ["episode.yaml:5", "'fps'"]),
        (EPISODE.replace("title: A test}", "keyframe: art/still.png}"), [], ["SH0010", "still.png", "does not exist"]),
        (EPISODE.replace("title: A test}", "keyframes: [{file: art/end.png, frame: -1}]}"), [], ["SH0010: keyframes", "end.png", "does not exist"]),
        (EPISODE.replace("title: A test}", "title: 𒀀}"), [], ["SH0010", "title_font"]),
        (EPISODE, ["--only", "SH0990"], ["SH0990", "SH0010"]),
    ],
)
def test_bad_input_is_told_before_anything_is_submitted(here, tmp_path, text, args, words):
    (tmp_path / "episode.yaml").write_text(text)
    refused(here("submit", "episode.yaml", *args, "--address", "http://127.0.0.1:1"), *words)


def test_an_unknown_workflow_is_told_where_the_catalog_can_be_asked(here, episode):
    assert here("plan", episode).code == 0  # makes the catalog
    episode.write_text(EPISODE.replace("animatediff_16_demo", "animatedif_16_demo"))
    refused(here("submit", "episode.yaml", "--address", "http://127.0.0.1:1"), "SH0020", "'animatedif_16_demo'", "'animatediff_16_demo'")


def with_picture(folder: Path, name: str) -> Path:
    file = folder / "episode.yaml"
    file.write_text(EPISODE.replace("title: A test}", f"keyframe: {name}}}"))
    return file


def test_a_job_takes_along_all_that_a_render_reads(tmp_path):
    (tmp_path / "art").mkdir()
    for name, colour in (("still", (90, 140, 200)), ("end", (200, 140, 90))):
        Image.new("RGB", (192, 128), colour).save(tmp_path / "art" / f"{name}.png")
    file = with_picture(tmp_path, "art/../art/still.png")
    file.write_text(file.read_text().replace("camera pans left,", "camera pans left, keyframes: [{file: art/end.png, frame: -1}],"))
    folder = tmp_path / "staged"
    submission.stage(folder, file, submission.named_files(load_episode(file), file))
    env = environment(tmp_path, PYTHONPATH=str(folder))
    planned = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "plan", "episode/episode.yaml", "--json"],
        cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert planned.returncode == 0, planned.stderr
    first = json.loads(planned.stdout)[0]
    assert (first["shot"], first["keyframe"]) == ("SH0010", "given")
    assert (folder / "episode" / "art" / "end.png").read_bytes() == (tmp_path / "art" / "end.png").read_bytes(), "a further keyframe"
    assert not [path for path in folder.rglob("*") if path.name in (".git", ".venv", "tests", "out", "catalog-data")]


def test_a_cluster_profile_of_ones_own_travels_and_a_bad_one_is_told_here(here, episode, monkeypatch):
    from pipeline.story.settings import load_settings

    (episode.parent / "mine.yaml").write_text("name: mine\nwait_minutes: 5\n")
    monkeypatch.setenv("TOWER_CLUSTER_PROFILE", "mine.yaml")
    assert submission.profile_file(load_settings()) == Path("mine.yaml")
    (episode.parent / "mine.yaml").write_text("name: mine\nwait_minuts: 5\n")
    refused(here("submit", episode, "--address", "http://127.0.0.1:1"), "mine.yaml:2", "'wait_minuts'")
    monkeypatch.setenv("TOWER_CLUSTER_PROFILE", "card-12gb")
    assert submission.profile_file(load_settings()) is None


@pytest.mark.parametrize("written", ["keyframe: {0}", "keyframes: [{{file: {0}, frame: -1}}]"], ids=["keyframe", "further keyframe"])
def test_a_picture_with_an_absolute_path_cannot_travel(tmp_path, written):
    Image.new("RGB", (192, 128)).save(tmp_path / "still.png")
    file = tmp_path / "episode.yaml"
    file.write_text(EPISODE.replace("title: A test}", written.format(tmp_path / "still.png") + "}"))
    with pytest.raises(InputError, match=r"SH0010: keyframes?: .* is an absolute path"):
        submission.named_files(load_episode(file), file)


def test_the_id_is_the_same_for_the_same_wish_and_another_for_any_other(tmp_path):
    picture, file = tmp_path / "still.png", tmp_path / "episode.yaml"
    Image.new("RGB", (192, 128)).save(picture)
    file.write_text(EPISODE)
    shutil.copy(file, tmp_path / "elsewhere.yaml")

    def name(episode: Path = file, named: tuple[str, ...] = ("still.png",), asked: tuple[str, ...] = ("/out", "s3://b/c")) -> str:
        return submission.job_id("E90", episode, {n: picture for n in named}, list(asked))

    was = name()
    assert name() == was == name(tmp_path / "elsewhere.yaml")
    others = [name(named=()), name(asked=("--fresh", "/out", "s3://b/c")), name(asked=("/out", "s3://b/d"))]
    Image.new("RGB", (192, 128), (1, 0, 0)).save(picture)
    others.append(name())
    file.write_text(EPISODE + "\n")
    others.append(name())
    assert len({was, *others}) == 6


def test_relative_folders_are_made_here_and_the_job_wants_to_see_them(tmp_path):
    gone = tmp_path / "it's gone"
    command = submission.command(Path("my episode.yaml"), ["--out", str(gone)], [gone])
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2 and f"error: folder {gone} is not on the machine" in done.stdout
    assert submission.command(Path("e.yaml"), ["--out", "/shared"], []) == "python -m pipeline.cli render episode/e.yaml --out /shared"


def test_a_submitters_settings_travel_and_its_keys_do_not(tmp_path, monkeypatch):
    from pipeline.story.settings import load_settings

    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TOWER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://storage:9000")
    (tmp_path / ".env").write_text("TOWER_DEVICES=3\nTOWER_MODELS_DIR=weights\nTOWER_DESK_TOKEN=a-secret-of-the-desk\n")
    env = submission.job_env(load_settings(), None)
    env.pop("PATH", None)
    assert env == {
        "TOWER_DEVICES": "3", "TOWER_MODELS_DIR": str(tmp_path / "weights"), "TOWER_CATALOG_URI": str(tmp_path / "catalog-data"),
    }  # fmt: skip
    monkeypatch.setenv("TOWER_CATALOG_URI", "s3://bucket/catalog")
    env = submission.job_env(load_settings(), Path("mine.yaml"))
    assert env["TOWER_CLUSTER_PROFILE"] == "episode/.tower-profile.yaml"
    assert (env["TOWER_CATALOG_URI"], env["AWS_ENDPOINT_URL"]) == ("s3://bucket/catalog", "http://storage:9000")
    assert "secret" not in env.values()


def test_what_travels_is_named_as_the_project_names_its_folders():
    assert all((PROJECT / room).is_dir() for room in code.FOLDERS)
