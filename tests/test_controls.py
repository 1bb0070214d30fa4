"""What a person says to a running render, and what a cluster profile says of its devices."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest
from rich.console import Console

from catalog.store import Catalog
from cluster.pool import Pool
from cluster.specs import PoolOptions
from cluster.start import ClusterInfo, cluster
from pipeline.plan.plan import make_plan
from pipeline.registry.open_catalog import seed
from pipeline.render.context import Context, Ray
from pipeline.render.drive import drive, studio_for
from pipeline.render.needs import ModelNeeds
from pipeline.render.run_log import RunLog
from pipeline.story.cluster_profile import PROFILES, cluster_profile
from pipeline.story.episode import load_episode
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings

from .conftest import EPISODE, never, refused, takes_of, tower
from .test_faults import read_until, start


def settings(**values) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[call-arg]


@dataclass(frozen=True)
class Story:
    """A render that was paused, resumed, and interrupted once while its clips were being made."""

    takes: dict[str, int]  # of the catalog: when the pause had settled, and seconds later
    told: str
    code: int
    clips: list[dict[str, Any]]
    last: str


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Story:
    file = tmp_path_factory.mktemp("told") / "episode.yaml"
    file.write_text(EPISODE)
    process, catalog = start(file), lambda: Catalog.open(file.parent / "catalog-data")
    try:
        told = read_until(process, r"^Ray: ")
        assert tower("pause", "E90", cwd=file.parent).code == 0
        told += read_until(process, r"paused by \w+: what executes ends")
        time.sleep(4.0)
        takes = {"settled": len(catalog().rows("takes"))}
        time.sleep(3.0)
        takes["later"] = len(catalog().rows("takes"))
        assert tower("resume", "E90", cwd=file.parent).code == 0
        told += read_until(process, r"resumed by")
        if "(3/3" not in told:  # else the stills were at work when the pause came
            told += read_until(process, r"keyframe/v\d+ accepted \(3/3")
        time.sleep(0.5)  # clips are being made
        process.send_signal(signal.SIGINT)
        told += process.communicate(timeout=120)[0]
    finally:
        process.kill()
    clips = [t for t in takes_of(file.parent) if t["stage"] == "clip"]
    return Story(takes, told, process.returncode, clips, catalog().rows("runs")[-1]["event"])


def test_a_paused_render_begins_nothing_and_goes_on_when_told(story):
    assert story.takes["later"] == story.takes["settled"] < 6
    assert "resumed by" in story.told and story.clips, story.told


def test_ctrl_c_lets_what_executes_end_and_commits_it(story):
    assert story.code == 130 and re.search(r"stopping: [12] devices finish", story.told) and "Traceback" not in story.told, story.told
    assert story.clips and all(t["outcome"] == "accepted" for t in story.clips), "what was executing is recorded"
    assert len(story.clips) < 3, "and nothing else was begun"
    assert story.last == "interrupted"


def test_an_urgent_shot_goes_before_shots_that_wait_already(tmp_path):
    """The keyframes of nine shots are asked for at once, the urgent shot's last. A device makes four in a call."""
    head, shots = EPISODE.split("    shots:\n")[:2]
    plain = shots.splitlines()[0].replace(", title: A test", "")
    lines = [plain.replace("SH0010", f"SH{n:04d}") for n in range(10, 90, 10)] + [plain.replace("SH0010", "SH0090, priority: 1")]
    file = tmp_path / "episode.yaml"
    file.write_text(head + "    shots:\n" + "\n".join(lines) + "\n")
    here = Context(settings(catalog_uri=str(tmp_path / "catalog"), devices=1), Catalog.open(tmp_path / "catalog"), Console(quiet=True), Ray(never))
    seed(here.catalog, here.settings, evidence=False)
    plan = make_plan(load_episode(file), file, here.settings, here.catalog)
    stills = replace(plan, shots=[replace(shot, stages=shot.stages[:1]) for shot in plan.shots])
    log, needs = RunLog(here.catalog, stills, True, {}), ModelNeeds.of(here.catalog, cluster_profile(here.settings))

    async def story(info: ClusterInfo) -> None:
        async with studio_for(stills, here, log, Pool(info, PoolOptions(devices=1)), needs) as studio:
            await drive(stills.shots, studio, lambda: len(lines))

    with cluster(devices=1) as info:
        asyncio.run(story(info))
    made = [row["shot"] for row in here.catalog.rows("takes")]
    assert len(made) == 9 and "SH0090" in made[:4], made


def test_nobody_who_renders_can_be_told_nothing(here, tmp_path):
    refused(here("pause", "E90"), "there is no catalog yet")
    Catalog.open(tmp_path / "catalog-data")
    refused(here("resume", "E90"), "nobody renders episode E90 now")


@pytest.mark.parametrize("file", sorted(PROFILES.glob("*.yaml")), ids=lambda f: f.stem)
def test_every_profile_in_the_repository_holds(file, tmp_path):
    profile = cluster_profile(settings(cluster_profile=file.stem))
    assert profile.name == file.stem and profile.description
    ModelNeeds.of(Catalog.open(tmp_path), profile)


def test_a_profile_says_what_devices_take_and_settings_go_before_it(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ndevice_memory_gb: {L4: 20, other: 11}\nresident_models: 3\ncall_minutes: 2\n")
    profile = cluster_profile(settings(cluster_profile=str(file)))
    assert profile.options(settings(devices=4)) == PoolOptions(4, 3, {"L4": 20 * 10**9, "": 11 * 10**9}, 120.0, 0.0)
    assert profile.options(settings(resident_models=1)).resident == 1


def test_a_profile_that_means_nothing_is_one_sentence(here, episode, tmp_path, monkeypatch):
    monkeypatch.setenv("TOWER_CLUSTER_PROFILE", "card-12")
    refused(here("render", episode), "no cluster profile 'card-12'", "did you mean 'card-12gb'?")
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nplacement:\n  ltx: {ray.io/accelerator-type: H100}\n")
    with pytest.raises(InputError, match=r"placement of 'ltx', which is neither a family .*ltx_video.* nor a workflow"):
        ModelNeeds.of(Catalog.open(tmp_path / "c"), cluster_profile(settings(cluster_profile=str(file))))
    file.write_text("name: mine\nresident: 1\n")
    monkeypatch.setenv("TOWER_CLUSTER_PROFILE", str(file))
    refused(here("render", episode), "mine.yaml:2", "resident")
