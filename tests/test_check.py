"""`tower models check`: what a workflow needs is there, whole, fitting and the same on every node, or one sentence says what is not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from safetensors.torch import load_file, save_file

from actors.values import ModelFiles
from benchmarks.original_layout import single_file
from pipeline.doctor.model_files import Checked, look, sentences
from pipeline.story.workflow import FILES, WORKFLOWS, read_workflow

from .conftest import DEMO, Done, environment, refused, tower
from .test_models import lora

HEAD, APART = "127.0.0.2", "127.0.0.4"  # loopback, but not the address that Ray takes for this machine's own and replaces
MINE = {"demo:stable-diffusion": "stills", "demo:motion-adapter": "motion", "animatediff_16_demo": "mine"}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "TOWER_CLUSTER_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder of models, and beside it mine.yaml: a workflow that needs a checkpoint, a motion adapter and a LoRA from it."""
    shutil.copytree(DEMO / "stable-diffusion", tmp_path / "models" / "stills")
    shutil.copytree(DEMO / "motion-adapter", tmp_path / "models" / "motion")
    lora(tmp_path / "models" / "hana.safetensors")
    text = (WORKFLOWS / "animatediff_16_demo.yaml").read_text()
    for old, new in MINE.items():
        text = text.replace(old, new)
    (tmp_path / "mine.yaml").write_text(text + "loras: [{file: hana.safetensors}]\n")
    return tmp_path / "models"


def rows(done: Done) -> dict[tuple[str, str], tuple[str, str]]:
    """(what, node) to (state, fault)."""
    return {(r["what"], r["node"]): (r["state"], r["fault"]) for r in json.loads(done.out)}


def told(done: Done) -> list[str]:
    assert "Traceback" not in done.err
    return [line for line in done.err.splitlines() if line.startswith("error: ")]


def test_one_machine_is_checked_without_a_cluster(here, models, tmp_path):
    here("workflows", "register", tmp_path / "mine.yaml")
    done = here("models", "check", "mine", "--json")
    assert (done.code, done.err) == (0, "")
    assert {what: state for (what, node), (state, _) in rows(done).items() if node == "this machine"} == dict.fromkeys(("checkpoint", "motion_adapter", "loras"), "ready")
    text = here("models", "check", "mine").out
    assert all(word in text for word in ("mine@2", "motion_adapter", str(models / "hana.safetensors"), "ready")), text


def test_every_fault_of_a_workflow_is_a_sentence_and_not_the_first_alone(here, models, tmp_path):
    here("workflows", "register", tmp_path / "mine.yaml")
    (weights,) = (models / "motion").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    shutil.rmtree(models / "stills" / "vae")
    (models / "hana.safetensors").unlink()
    done = here("models", "check", "mine", "--json")
    assert done.code == 2 and {what: state for (what, _), (state, _) in rows(done).items()} == {"checkpoint": "unfit", "motion_adapter": "unfit", "loras": "missing"}
    assert len(told(done)) == 3, done.err
    for line, word in zip(told(done), ("it lacks vae/", "is not whole: its header promises", "hana.safetensors does not exist"), strict=True):
        assert line.startswith("error: workflow mine@2: ") and word in line
    refused(here("models", "check", "nobody"), "tower models check", "unknown workflow 'nobody'")


def test_a_base_that_is_missing_and_a_file_that_is_not_whole_are_each_told(here, models, tmp_path):
    text = (WORKFLOWS / "sd15_keyframe_demo.yaml").read_text().replace("sd15_keyframe_demo", "one")
    (tmp_path / "one.yaml").write_text(text.replace("checkpoint: demo:stable-diffusion", "checkpoint: one.safetensors\nbase: stills"))
    file = single_file(DEMO / "stable-diffusion", models / "one.safetensors")
    here("workflows", "register", tmp_path / "one.yaml")
    assert here("models", "check", "one").code == 0
    file.write_bytes(file.read_bytes()[:-3])
    done = here("models", "check", "one", "--json")
    assert done.code == 2 and {what: state for (what, _), (state, _) in rows(done).items()} == {"checkpoint": "unfit", "base": "ready"}
    shutil.rmtree(models / "stills")
    done = here("models", "check", "one", "--json")
    assert rows(done)["base", "this machine"][0] == "missing" and "put a diffusers folder there" in rows(done)["base", "this machine"][1]


def test_without_names_all_but_archived_workflows_are_checked(here, tmp_path):
    done = here("models", "check", "--json")
    named = {r["workflow"] for r in json.loads(done.out)}
    assert done.code == 2 and {"ltx_video_2b@1", "sd15_keyframe_demo@1"} <= named and "ltx_video_2b_demo_soft@1" not in named
    assert {r["state"] for r in json.loads(done.out) if "_demo@" in r["workflow"]} == {"ready"}


def test_a_file_that_may_not_be_read_is_told(here, models, tmp_path, monkeypatch):
    """By a digest that fails as one does without the rights: root may read everything."""
    here("workflows", "register", tmp_path / "mine.yaml")

    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pipeline.story.fingerprint.file_digest", denied)
    (tmp_path / "catalog-data" / "model-digests.json").unlink()
    done = here("models", "check", "mine")
    assert done.code == 2 and len(told(done)) == 3 and all("cannot be read: Permission denied" in line for line in told(done)), done.err


@pytest.fixture
def machines(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A cluster of three: a head without a device, a machine, and one whose folder of models is another, by a mount that only it sees."""
    other = tmp_path / "other"
    shutil.copytree(models, other)
    mount = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount, "-", other, models, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a folder for one process alone")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    head = {"num_cpus": 1, "num_gpus": 0, "node_ip_address": HEAD, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    start = [Path(sys.executable).with_name("ray"), "start", f"--address={cluster.address}", f"--node-ip-address={APART}", "--num-cpus=1", "--num-gpus=1"]
    start += ["--object-store-memory=100000000", "--labels=card=small", "--block"]
    said, own = (tmp_path / "apart.log").open("w"), os.environ | {"XDG_CACHE_HOME": str(tmp_path / "its-cache")}
    apart = subprocess.Popen(["unshare", "-rm", "sh", "-c", mount, "-", other, models, *start], stdout=said, stderr=said, env=own, start_new_session=True)
    try:
        cluster.add_node(num_cpus=1, num_gpus=1, node_ip_address="127.0.0.3", object_store_memory=100 * 2**20, labels={"card": "large"})
        wait_for_nodes(cluster, 3, tmp_path / "apart.log")
        yield cluster.address
    finally:
        os.killpg(apart.pid, signal.SIGTERM)
        apart.wait(60)
        cluster.shutdown()


def wait_for_nodes(cluster: Any, count: int, log: Path) -> None:
    end = time.monotonic() + 60
    while sum(n["Alive"] for n in cluster.global_state.node_table()) < count:
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


@pytest.mark.ray
def test_a_file_that_one_node_lacks_and_one_that_differs_there_are_told_before_anything_renders(models, machines, tmp_path):
    assert not ray.is_initialized()
    env = {"RAY_ADDRESS": machines}
    assert tower("workflows", "register", "mine.yaml", cwd=tmp_path).code == 0
    same = tower("models", "check", "mine", "--json", cwd=tmp_path, **env)
    assert same.code == 0, same.err
    assert len(rows(same)) == 9 and {state for state, _ in rows(same).values()} == {"ready"}, "three files on three machines, and none on the head"

    (tmp_path / "other" / "hana.safetensors").unlink()
    (weights,) = (tmp_path / "other" / "stills" / "unet").glob("*.safetensors")
    tensors = load_file(weights)
    tensors["conv_out.bias"] = tensors["conv_out.bias"] + 1
    save_file(tensors, weights)
    (tmp_path / "other" / "motion" / "extra.json").write_text("{}")
    done = tower("models", "check", "mine", "--json", cwd=tmp_path, **env)
    assert done.code == 2, done.err
    states = [state for (_, node), (state, _) in rows(done).items() if node == "this machine"]
    assert states == ["ready"] * 3 and sorted(s for s, _ in rows(done).values()) == ["differs"] * 2 + ["missing"] + ["ready"] * 6
    unet, motion, hana = told(done)
    assert f"differs from the one on this machine: unet/{weights.name} has other bytes" in unet and "stills" in unet
    assert "extra.json is too much" in motion and "hana.safetensors does not exist" in hana and all("workflow mine@2: " in line for line in told(done))

    placed = {"name": "placed", "placement": {"mine": {"card": "large"}, "prompts": {"card": "large"}}}
    (tmp_path / "placed.yaml").write_text(json.dumps(placed))
    elsewhere = tower("models", "check", "mine", "--json", cwd=tmp_path, **env, TOWER_CLUSTER_PROFILE=str(tmp_path / "placed.yaml"))
    assert elsewhere.code == 0 and len(rows(elsewhere)) == 6, "a node that the workflow never runs on needs none of its files"

    die = "import os; from cluster.each import on_each_node; print([a.why for _, a in on_each_node(os._exit, lambda node: (1,) if node.gpus else None)])"
    died = subprocess.run([sys.executable, "-c", die], env=environment(tmp_path, **env), capture_output=True, text=True, timeout=120, check=False)
    assert died.stdout.count("died") >= 2 and "Traceback" not in died.stderr, "a node that gives no answer is told, and nobody waits for it"


def test_a_fault_that_many_machines_have_is_one_sentence_and_a_silent_machine_is_a_fault():
    row = Checked("mine@2", "a", "checkpoint", "/models/stills", "missing", "checkpoint: /models/stills does not exist")
    quiet = replace(row, node="c", state="silent", fault="it gave no answer: the node died")
    told = sentences([row, replace(row, node="b"), replace(row, node="d", state="ready", fault=""), quiet])
    assert told == ["a, b: workflow mine@2: checkpoint: /models/stills does not exist", "c: workflow mine@2: it gave no answer: the node died"]


def test_a_user_without_a_home_is_checked_too(here, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = str(DEMO / "stable-diffusion")
    found = look([read_workflow(WORKFLOWS / "sd15_keyframe_demo.yaml").with_files(lambda _: folder[1:])])
    assert found.faults == ((),) and "unet/diffusion_pytorch_model.safetensors" in found.digests[folder]


def test_every_field_that_names_a_file_is_among_those_that_are_checked():
    assert {f.name for f in fields(ModelFiles) if not f.name.endswith("dtype")} == {*FILES, "loras"}


def test_a_cluster_that_nobody_answers_for_is_one_sentence(here, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    refused(here("models", "check", "sd15_keyframe_demo"), "RAY_ADDRESS 127.0.0.1:1")
