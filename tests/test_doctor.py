"""The doctor tells what can render here and what is missing, one sentence each, and changes nothing."""

from __future__ import annotations

import json
import shutil
import socket
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from ray.cluster_utils import Cluster

from actors.values import ModelFiles
from catalog.migrate import found_version
from catalog.place import Place
from catalog.schema import MIGRATIONS, VERSION
from catalog.store import Catalog
from cluster.look import Machine, Sight
from cluster.nodes import Node
from pipeline.doctor.machine import store
from pipeline.render.needs import first_guess
from pipeline.story.workflow import WORKFLOWS, read_workflow

from .conftest import DEMO, Done, refused

Here = Callable[..., Done]
HEAD = "127.0.0.2"  # loopback, but not the address that Ray takes for this machine's own and replaces
LTX, STILLS, ANIMATEDIFF = "ltx_video_2b_demo@1", "sd15_keyframe_demo@1", "animatediff_16_demo@2"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "TOWER_CLUSTER_PROFILE", "TOWER_DEVICES", "TOWER_RESIDENT_MODELS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def findings(done: Done) -> list[dict[str, Any]]:
    assert "Traceback" not in done.err
    return json.loads(done.out)


def of(done: Done, check: str, about: str = "") -> list[dict[str, Any]]:
    return [f for f in findings(done) if f["check"] == check and about in f["told"]]


def word(done: Done, workflow: str) -> str:
    (found,) = of(done, "workflow", workflow)
    return found["told"].split("): ")[1].split(",")[0].split(";")[0]


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


def profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **settings: Any) -> None:
    (tmp_path / "small.yaml").write_text(json.dumps({"name": "small"} | settings))
    monkeypatch.setenv("TOWER_CLUSTER_PROFILE", str(tmp_path / "small.yaml"))


def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """An nvidia-smi that says so, first in the path."""
    file = tmp_path / "bin" / "nvidia-smi"
    file.parent.mkdir()
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(file.parent), prepend=":")


def test_a_fresh_machine_renders_the_demo_and_the_doctor_leaves_it_as_it_was(here: Here, tmp_path: Path):
    done = here("doctor", "--json")
    assert done.code == 0, done.out
    assert all(set(f) == {"check", "state", "told", "do"} and f["state"] in ("ok", "note", "problem") for f in findings(done))
    assert {word(done, name) for name in (LTX, STILLS, ANIMATEDIFF)} == {"ready"}
    assert "the demo can render" in findings(done)[-1]["told"] and "up to 8 shots" in findings(done)[-1]["told"]
    assert "the first render makes it" in of(done, "catalog")[0]["told"]
    assert everything(tmp_path) == {}
    assert here("doctor").out.count("\n") >= len(findings(done)), "for a person it is a line each"


def test_a_missing_checkpoint_is_told_with_its_path_and_what_to_do(here: Here, tmp_path: Path):
    done = here("doctor", "--json")
    (missing,) = of(done, "models", "ltx_video_2b@1")
    assert missing["state"] == "note" and str(tmp_path / "models" / "ltx-video-2b-0.9.8-distilled") in missing["told"]
    assert "put a diffusers folder there" in missing["do"] and "SETUP_GUIDE" in missing["do"]
    assert word(done, "ltx_video_2b@1") == "missing files"


def test_a_checkpoint_that_nothing_proves_is_experimental(here: Here, tmp_path: Path):
    shutil.copytree(DEMO / "stable-diffusion", tmp_path / "models" / "aom3a1b")
    done = here("doctor", "--json")
    assert word(done, "sd15_keyframe@1") == "experimental"
    assert "--allow-experimental" in of(done, "workflow", "sd15_keyframe@1")[0]["do"]


def test_settings_that_do_not_hold_are_refused(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOWER_CLUSTER_PROFILE", "card-12g")
    refused(here("doctor"), "TOWER_CLUSTER_PROFILE", "card-12gb")
    profile(monkeypatch, tmp_path, placement={"ltx_vidoe": {"a": "b"}})
    refused(here("doctor", "--json"), "small", "ltx_vidoe")
    monkeypatch.delenv("TOWER_CLUSTER_PROFILE")
    monkeypatch.setenv("TOWER_DEVICES", "many")
    refused(here("doctor"), "TOWER_DEVICES", "many")


@pytest.mark.ray
def test_a_cluster_that_nobody_answers_for_is_a_problem_in_one_sentence(here: Here, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        for listens in (False, True):  # nobody is there; somebody is who is no Ray, and says nothing
            if listens:
                monkeypatch.setattr("cluster.address.ANSWER_SECONDS", 2)
                listener.listen()
            done = here("doctor", "--json")
            (problem,) = of(done, "devices")
            assert done.code == 1 and problem["state"] == "problem" and address in problem["told"] and "\n" not in problem["told"]
            assert ("nobody answered" if listens else "refused") in problem["told"] and "unset RAY_ADDRESS" in problem["do"]
            assert findings(done)[-1]["state"] == "problem" and word(done, LTX) == "cannot run"


def test_a_card_that_holds_one_stage_takes_turns_and_a_smaller_one_refuses(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    needs = first_guess(read_workflow(WORKFLOWS / "ltx_video_2b_demo.yaml"), ModelFiles(str(DEMO / "ltx-video"))) / 1e9
    profile(monkeypatch, tmp_path, device_memory_gb={"other": needs * 1.05})
    done = here("doctor", "--json")
    assert (done.code, word(done, LTX), word(done, ANIMATEDIFF)) == (0, "takes turns", "ready")
    assert "take turns" in findings(done)[-1]["told"] and "up to 128 shots" in findings(done)[-1]["told"]
    profile(monkeypatch, tmp_path, device_memory_gb={"other": needs * 0.95})
    done = here("doctor", "--json")
    assert (done.code, word(done, LTX), word(done, ANIMATEDIFF)) == (0, "cannot run", "ready")
    assert "can never run here" in of(done, "memory", LTX)[0]["told"] and of(done, "memory", LTX)[0]["do"]
    profile(monkeypatch, tmp_path, device_memory_gb={"other": 0.001})
    done = here("doctor", "--json")
    assert done.code == 1 and "no keyframe and no clip workflow is ready" in findings(done)[-1]["told"]


def test_one_resident_model_means_turns(here: Here, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOWER_RESIDENT_MODELS", "1")
    assert {word(here("doctor", "--json"), name) for name in (LTX, STILLS)} == {"takes turns"}


def test_a_driver_that_fails_is_told_and_no_fault_of_the_doctor(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program(monkeypatch, tmp_path, "echo 'no communication with the driver'; exit 9")
    done = here("doctor", "--json")
    told = [f for f in of(done, "devices") if f["state"] == "problem"]
    assert len(told) == 1 and "ends with 9: no communication with the driver" in told[0]["told"] and told[0]["do"]


def test_a_card_is_told_with_its_memory_and_bounds_what_fits(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    card = "case $1 in --list-gpus) echo 'GPU 0: a card';; *) echo '0, GPU-1, 40, NVIDIA GeForce RTX 3060';; esac"
    program(monkeypatch, tmp_path, card)  # a card of 40 MiB
    done = here("doctor", "--json")
    assert "1 GPU GeForce-RTX-3060 of 42 MB" in of(done, "devices")[0]["told"]
    assert (word(done, LTX), word(done, ANIMATEDIFF)) == ("cannot run", "ready")
    monkeypatch.setenv("TOWER_DEVICES", "2")
    done = here("doctor", "--json")
    assert done.code == 1 and "this machine has 1 GPU" in of(done, "devices")[0]["told"]


def test_what_takes_needed_counts_more_than_a_guess(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    digest = json.loads(here("workflows", "show", LTX, "--json").out)["digest"]
    take = {"take": "E01/SH0010/clip/v001", "at": datetime.now(UTC), "workflow_digest": digest, "model_memory_bytes": 20 * 10**9}
    Catalog.open(tmp_path / "catalog-data").append("takes", [take])
    profile(monkeypatch, tmp_path, device_memory_gb={"other": 12})
    before = everything(tmp_path)
    done = here("doctor", "--json")
    (memory,) = of(done, "memory", LTX)
    assert "20.0 GB of a device (measured here)" in memory["told"] and word(done, LTX) == "cannot run"
    assert "and 1 take" in of(done, "catalog")[0]["told"]
    assert everything(tmp_path) == before


def test_a_newer_catalog_and_a_damaged_one_are_problems(here: Here, tmp_path: Path):
    here("workflows", "list")
    folder = tmp_path / "catalog-data"
    (file,) = (folder / "benchmarks").glob("*.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    done = here("doctor", "--json")
    assert done.code == 1 and of(done, "catalog")[0]["state"] == "problem" and "tower catalog repair" in of(done, "catalog")[0]["do"]
    file.write_bytes(whole)
    row = {"version": VERSION + 1, "at": datetime.now(UTC), "tower": "9.9", "host": "elsewhere"}
    write_deltalake(str(folder / "migrations"), pa.Table.from_pylist([row], schema=MIGRATIONS.schema), mode="append")
    done = here("doctor", "--json")
    assert done.code == 1 and f"has version {VERSION + 1}" in of(done, "catalog")[0]["told"] and of(done, "catalog")[0]["do"]


def test_an_old_catalog_is_not_upgraded_by_looking(here: Here, tmp_path: Path):
    with tarfile.open(Path(__file__).parent / "catalogs" / "version-1.tar.gz") as archive:
        archive.extractall(tmp_path / "old", filter="data")
    (takes,) = (tmp_path / "old").rglob("takes")
    shutil.move(takes.parent, tmp_path / "catalog-data")
    before = everything(tmp_path)
    done = here("doctor", "--json")
    assert done.code == 0 and f"has version 1, and the next render brings it to {VERSION}" in of(done, "catalog")[0]["told"]
    assert everything(tmp_path) == before and found_version(Place.of(tmp_path / "catalog-data")) == 1


def test_a_catalog_that_can_never_be_made_there_is_a_problem(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOWER_CATALOG_URI", str(tmp_path / "file" / "catalog"))
    done = here("doctor", "--json")
    (problem,) = (f for f in of(done, "disk") if f["state"] == "problem")
    assert done.code == 1 and f"{tmp_path / 'file'} is not a folder" in problem["told"] and problem["do"]


def test_shared_memory_that_is_smaller_than_the_object_store_is_a_problem_with_the_option_for_docker():
    node = Node("", "this machine", 1, 4, (), False)
    small = store(Sight((Machine(node, None, 7 * 2**30, 64 * 2**20),)), 1)
    assert [f.state for f in small] == ["ok", "problem"] and "--shm-size=7.7g" in small[1].do
    few = store(Sight((Machine(node, None, 100 * 2**20, None),)), 2)
    assert [f.state for f in few] == ["note"] and "up to 1 clip of 121x768x512 (143 MB each)" in few[0].told


@pytest.mark.ray
def test_a_cluster_is_told_with_its_devices_and_holds_what_its_labels_allow(here: Here, monkeypatch: pytest.MonkeyPatch):
    head = {"num_cpus": 1, "num_gpus": 2, "labels": {"ray.io/accelerator-type": "L4"}, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head | {"node_ip_address": HEAD, "object_store_memory": 100 * 2**20})
    try:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        monkeypatch.setenv("TOWER_CLUSTER_PROFILE", "mixed-rack")
        done = here("doctor", "--json")
    finally:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        cluster.shutdown()
    (node,) = of(done, "devices")
    assert node["state"] == "ok" and "2 GPUs L4, 1 CPU, object store 105 MB" in node["told"]
    assert (done.code, word(done, ANIMATEDIFF), word(done, LTX)) == (0, "ready", "cannot run")
    assert "ray.io/accelerator-type=in(H100" in of(done, "memory", LTX)[0]["told"]
