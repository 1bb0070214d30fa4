"""Deployment files: they say what Tower, Ray and KubeRay understand, and open nothing to strangers."""

from __future__ import annotations

import copy
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import typer
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts import scripts as ray_cli
from ray.util import accelerators

from cluster.code import FOLDERS
from pipeline.cli.main import app
from pipeline.render.submission import PREFIX
from pipeline.story.settings import Settings

from .conftest import PROJECT

DEPLOY = PROJECT / "cluster" / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
PINNED = dict(line.split("==") for line in (PROJECT / "configs" / "constraints.txt").read_text().splitlines() if "==" in line)
MANIFESTS = ("raycluster.yaml", "rayjob.yaml")

DEFINITION = """\
kind: CustomResourceDefinition
spec:
  group: ray.io
  names: {kind: RayCluster}
  versions:
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          properties:
            apiVersion: {type: string}
            kind: {type: string}
            metadata: {type: object}
            spec:
              type: object
              required: [head]
              properties:
                head: {type: object, properties: {params: {type: object, additionalProperties: {type: string}}}}
                groups: {type: array, items: {type: object, properties: {name: {type: string}}}}
"""
FITS = "apiVersion: ray.io/v1\nkind: RayCluster\nmetadata: {name: x}\nspec: {head: {params: {any: text}}, groups: [{name: a}]}\n"
FAULTS = {
    "unknown field": (FITS.replace("{name: a}", "{nmae: a}"), "spec.groups.0"),
    "wrong type": (FITS.replace("any: text", "any: 3"), "spec.head.params.any"),
    "missing field": (FITS.replace("head: {params: {any: text}}, ", ""), "'head' is a required property"),
    "unknown top field": (FITS + "specs: {}\n", "'specs'"),
    "another version": (FITS.replace("ray.io/v1", "ray.io/v0"), "ray.io/v0"),
}


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text())


def cluster_spec(name: str) -> dict[str, Any]:
    spec = load(name)["spec"]
    return spec.get("rayClusterSpec", spec)


def pods(name: str) -> list[dict[str, Any]]:
    spec = cluster_spec(name)
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def containers(name: str) -> list[dict[str, Any]]:
    return [container for pod in pods(name) for container in pod["containers"]]


def image_env() -> dict[str, str]:
    block = re.search(r"^ENV (.*?)(?<!\\)$", DOCKERFILE, re.M | re.S)
    assert block
    return dict(item.split("=", 1) for item in shlex.split(block[1].replace("\\\n", " ")))


def validate(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEPLOY / "validate.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_job_runs_on_the_cluster_that_stands_elsewhere_too():
    standing, own = cluster_spec("raycluster.yaml"), cluster_spec("rayjob.yaml")
    assert standing["workerGroupSpecs"] == own["workerGroupSpecs"]
    assert {k: standing[k] for k in standing if k != "headGroupSpec"} == {k: own[k] for k in own if k != "headGroupSpec"}


@pytest.mark.parametrize("name", MANIFESTS)
def test_image_and_versions_are_those_that_tower_is_tested_with(name):
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert {container["image"] for container in containers(name)} == {f"tower:{version}"}
    assert f"-t tower:{version} ." in DOCKERFILE
    assert cluster_spec(name)["rayVersion"] == PINNED["ray"] == ray.__version__
    assert re.search(r"^FROM python:3\.11-slim$", DOCKERFILE, re.M)
    assert "--constraint configs/constraints.txt" in DOCKERFILE and "torch" in PINNED


def test_the_image_has_what_a_render_reads_and_nobody_elses_weights():
    copied = [(parts[1:-1], parts[-1]) for line in DOCKERFILE.splitlines() if (parts := line.split())[:1] == ["COPY"]]
    sources = [source for names, _ in copied for source in names]
    assert all((PROJECT / source).exists() for source in sources) and set(FOLDERS) <= set(sources)
    assert not {".", "models", "out", "catalog-data"} & set(sources)
    assert [line for line in DOCKERFILE.splitlines() if line.startswith("USER")] == ["USER 1000:1000"]


def test_settings_in_image_and_manifests_are_settings_that_exist_and_agree():
    env = image_env()
    known = {f"TOWER_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in env if name.startswith("TOWER_")} <= known
    for name in MANIFESTS:
        for pod in pods(name):
            (container,) = pod["containers"]
            told = {e["name"]: e["value"] for e in container["env"]}
            assert told.pop("RAY_health_check_timeout_ms", None) == ("3000" if container["name"] == "ray-head" else None)
            profile = told.pop("TOWER_CLUSTER_PROFILE", None)
            assert (
                profile is None or (PROJECT / "configs" / "cluster" / f"{profile}.yaml").is_file()
            ) and "cluster_profile" in Settings.model_fields
            assert told == {name: env[name] for name in told} and set(told) <= known
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert all("/" + value.split("/")[1] in mounts for value in told.values())
            assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_jobs_entrypoint_is_a_command_that_tower_has_and_finds_its_files():
    spec = load("rayjob.yaml")["spec"]
    python, module, name, command, *args = shlex.split(spec["entrypoint"])
    assert (python, module, name) == ("python", "-m", "pipeline.cli")
    given = typer.main.get_command(app).commands[command].make_context(command, args).params  # type: ignore[attr-defined]
    head = pods("rayjob.yaml")[0]
    mounts = [mount["mountPath"] for mount in head["containers"][0]["volumeMounts"]]
    assert str(given["episode"].parent) in mounts and any(given["out_dir"].is_relative_to(mount) for mount in mounts)
    assert (PROJECT / "configs" / "episodes" / given["episode"].name).is_file()
    assert not given["fresh"], "each attempt would begin again"
    assert spec["backoffLimit"] > 0 and spec["shutdownAfterJobFinishes"] and spec["jobId"].startswith(PREFIX)
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"].keys() == {"RAY_JOB_STOP_WAIT_TIME_S"}


@pytest.mark.parametrize("name", MANIFESTS)
def test_nobody_gets_in_without_the_token_or_from_outside(name):
    spec, policy = cluster_spec(name), load("networkpolicy.yaml")["spec"]
    assert spec["authOptions"]["mode"] == "token" and spec["authOptions"]["secretName"] in (PROJECT / "docs" / "CLUSTER.md").read_text()
    assert image_env()["RAY_AUTH_MODE"] == "token"
    head = spec["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP" and not head.get("enableIngress")
    for group in (head, *spec["workerGroupSpecs"]):
        assert policy["podSelector"]["matchLabels"].items() <= group["template"]["metadata"]["labels"].items()
        assert group["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    assert policy["policyTypes"] == ["Ingress"] and all(rule["from"] for rule in policy["ingress"])
    host = head["rayStartParams"]["dashboard-host"]
    assert host == ("127.0.0.1" if load(name)["kind"] == "RayCluster" else "0.0.0.0")


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_head_only_drives_and_workers_say_which_accelerator_they_have(name):
    spec = cluster_spec(name)
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all("nvidia.com/gpu" not in c["resources"]["limits"] for c in spec["headGroupSpec"]["template"]["spec"]["containers"])
    known = {value for key, value in vars(accelerators).items() if key.startswith("NVIDIA_")}
    kinds = [group["labels"]["ray.io/accelerator-type"] for group in spec["workerGroupSpecs"]]
    assert set(kinds) <= known and len(set(kinds)) == len(kinds) > 1
    for group in spec["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        assert int(container["resources"]["limits"]["nvidia.com/gpu"]) > 0 and int(container["resources"]["limits"]["cpu"]) > 0
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert spec["enableInTreeAutoscaling"] and any(group["minReplicas"] for group in spec["workerGroupSpecs"])


@pytest.mark.parametrize("name", MANIFESTS)
def test_parameters_of_ray_start_are_ones_that_it_has(name):
    spec = cluster_spec(name)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        ray_cli.start.make_context("start", [f"--{key}={value}" for key, value in group["rayStartParams"].items()])


def test_plain_machines_start_with_a_token_a_dashboard_on_loopback_and_options_that_ray_has():
    told = load("plain-machines.yaml")
    launched = prepare_config(copy.deepcopy(told))
    validate_config(launched)
    assert launched["max_workers"] == len(told["provider"]["worker_ips"]) == 2
    with pytest.raises(jsonschema.ValidationError, match="head_start_comands"):
        validate_config(launched | {"head_start_comands": []})
    assert told["provider"]["type"] == "local"
    assert told["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    starts = {}
    for role in ("head", "worker"):
        (line,) = [command for command in told[f"{role}_start_ray_commands"] if " start " in command]
        environment, options = line.rpartition(" start ")[::2]
        assert "RAY_AUTH_MODE=token" in environment
        starts[role] = ray_cli.start.make_context("start", shlex.split(options)).params
    assert starts["head"]["head"] and starts["head"]["dashboard_host"] == "127.0.0.1" and starts["head"]["num_cpus"] == 0
    assert starts["worker"]["address"] == "$RAY_HEAD_IP:6379"


def test_the_page_names_only_commands_that_tower_has():
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    page = (PROJECT / "docs" / "CLUSTER.md").read_text()
    code = [inline or block for inline, block in re.findall(r"`([^`\n]*)`|^    (.*)$", page, re.M)]
    named = {name for line in code for name in re.findall(r"(?:^|[ ;|])tower ([a-z]+)", line)}
    assert {"submit", "jobs", "logs", "cancel"} <= named <= set(commands)


@pytest.mark.parametrize("case", FAULTS)
def test_a_planted_fault_is_found_and_a_manifest_that_fits_passes(tmp_path, case):
    text, words = FAULTS[case]
    for name, content in (("crd.yaml", DEFINITION), ("good.yaml", FITS), ("bad.yaml", text)):
        (tmp_path / name).write_text(content)
    good = validate(tmp_path / "crd.yaml", "--manifests", tmp_path / "good.yaml")
    assert good.returncode == 0, good.stdout + good.stderr
    bad = validate(tmp_path / "crd.yaml", "--manifests", tmp_path / "bad.yaml")
    assert bad.returncode == 1 and words in bad.stdout and "1 faults" in bad.stdout, bad.stdout + bad.stderr


@pytest.mark.skipif("TOWER_CRDS" not in os.environ, reason="TOWER_CRDS names no folder with KubeRay's definitions (docs/CLUSTER.md)")
def test_the_manifests_fit_kuberays_own_definitions(tmp_path):
    definitions = sorted(Path(os.environ["TOWER_CRDS"]).glob("*.yaml"))
    done = validate(*definitions)
    assert done.returncode == 0, done.stdout + done.stderr
    planted = tmp_path / "planted.yaml"
    planted.write_text((DEPLOY / "raycluster.yaml").read_text().replace("maxReplicas: 8", "maxReplica: 8", 1))
    done = validate(*definitions, "--manifests", planted)
    assert done.returncode == 1 and "maxReplica" in done.stdout
