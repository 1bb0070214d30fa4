"""What a person says to a running render, and what a cluster profile says of its devices."""

from __future__ import annotations

import re
import signal
import time

import pytest

from catalog.store import Catalog
from cluster.specs import PoolOptions
from pipeline.cluster_profile import PROFILES, cluster_profile
from pipeline.errors import InputError
from pipeline.settings import Settings
from pipeline.specs import Specs

from .conftest import refused, takes_of, tower
from .test_render import read_until, start


def settings(**values) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[call-arg]


def test_a_paused_render_begins_nothing_and_goes_on_when_told(episode):
    process = start(episode)
    try:
        read_until(process, r"^Ray: ")
        assert tower("pause", "E90", cwd=episode.parent).code == 0
        read_until(process, r"paused by \w+: what executes ends")
        time.sleep(4.0)
        before = len(Catalog.open(episode.parent / "catalog-data").rows("takes"))
        time.sleep(3.0)
        assert len(Catalog.open(episode.parent / "catalog-data").rows("takes")) == before < 6
        assert tower("resume", "E90", cwd=episode.parent).code == 0
        rest, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0 and "resumed by" in rest, rest


def test_ctrl_c_lets_what_executes_end_and_commits_it(episode):
    process = start(episode)
    try:
        read_until(process, r"keyframe/v\d+ accepted \(3/3")
        time.sleep(0.5)  # clips are being made
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130 and re.search(r"stopping: [12] devices finish", rest) and "Traceback" not in rest, rest
    clips = [t for t in takes_of(episode.parent) if t["stage"] == "clip"]
    assert clips and all(t["outcome"] == "accepted" for t in clips), "what was executing is recorded, nothing else was begun"
    assert Catalog.open(episode.parent / "catalog-data").rows("runs")[-1]["event"] == "interrupted"


def test_nobody_who_renders_can_be_told_nothing(here, tmp_path):
    refused(here("pause", "E90"), "there is no catalog yet")
    Catalog.open(tmp_path / "catalog-data")
    refused(here("resume", "E90"), "nobody renders episode E90 now")


@pytest.mark.parametrize("file", sorted(PROFILES.glob("*.yaml")), ids=lambda f: f.stem)
def test_every_profile_in_the_repository_holds(file, tmp_path):
    profile = cluster_profile(settings(profile=file.stem))
    assert profile.name == file.stem and profile.description
    Specs.of(Catalog.open(tmp_path), profile)


def test_a_profile_says_what_devices_take_and_settings_go_before_it(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ndevice_memory_gb: {L4: 20, other: 11}\nresident_models: 3\ncall_minutes: 2\n")
    profile = cluster_profile(settings(profile=str(file)))
    assert profile.options(settings(devices=4)) == PoolOptions(4, 3, {"L4": 20 * 10**9, "": 11 * 10**9}, 120.0, 0.0)
    assert profile.options(settings(resident_models=1)).resident == 1


def test_a_profile_that_means_nothing_is_one_sentence(here, episode, tmp_path, monkeypatch):
    monkeypatch.setenv("TOWER_PROFILE", "card-12")
    refused(here("render", episode), "no cluster profile 'card-12'", "did you mean 'card-12gb'?")
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nplacement:\n  ltx: {ray.io/accelerator-type: H100}\n")
    with pytest.raises(InputError, match=r"placement of 'ltx', which is neither a family .*ltx_video.* nor a workflow"):
        Specs.of(Catalog.open(tmp_path / "c"), cluster_profile(settings(profile=str(file))))
    file.write_text("name: mine\nresident: 1\n")
    monkeypatch.setenv("TOWER_PROFILE", str(file))
    refused(here("render", episode), "mine.yaml:2", "resident")
