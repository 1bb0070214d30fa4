"""What the tests share: the demo checkpoints, a small episode, and one render that many tests look at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parent.parent
DEMO = PROJECT / "actors" / "demo"

EPISODE = """\
id: E90
title: A test
width: 192
height: 128
fps: 24
style: anime
keyframe_workflow: sd15_keyframe_demo
clip_workflow: ltx_video_2b_demo
characters:
  hana: {name: Hana, description: a girl with pink hair and a yellow coat}
  aoi: {name: Aoi, description: a girl with blue hair and a red coat}
locations:
  shore: {description: by the sea}
  town: {description: in the city}
sequences:
  - id: S010
    location: shore
    time: by day
    shots:
      - {id: SH0010, frames: 60, framing: wide shot, characters: [hana], action: walking right, camera: static camera, title: A test}
      - {id: SH0020, frames: 36, framing: close-up, characters: [hana], action: standing still, camera: static camera, declares: [hold], clip_workflow: animatediff_16_demo}
  - id: S020
    location: town
    time: at night
    shots:
      - {id: SH0030, frames: 48, framing: close-up, characters: [aoi], action: standing still, camera: camera pans left, transition: {type: dissolve, frames: 12}}
"""
EPISODE_FRAMES = 60 + 36 + 48 - 12


# Ray's workers have a niceness of 15. On a busy machine, whatever else runs would keep them from ever answering.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray wants it so
# Two workers of pytest on two cores: threads of torch would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What `make check` leaves out: files whose tests start Ray or run a model, nearly all of them. Single tests elsewhere are marked.
RAY = ("controls", "desk_on_ray", "desk_survives", "drivers", "faults", "jobs", "local_jobs", "metrics", "nodes", "page", "pool", "render")
MODELS = ("actors", "animatediff", "certificates", "gpu_benchmark", "judges", "loading", "lora_kinds", "ltx", "prompts", "sdxl", "shared_weights", "training")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = item.path.stem.removeprefix("test_")
        if name in RAY or {"rendered", "copied"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.ray)
        if name in MODELS:
            item.add_marker(pytest.mark.models)


@pytest.fixture(autouse=True)
def ordinary_priority() -> Iterator[None]:
    """The AV1 encoder, of which some tests need a file, makes its process real-time (SCHED_FIFO) where root runs it.

    Whatever the tests start later would inherit that, and a browser or a render at that priority keeps all others from the cores.
    """
    yield
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread), os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new catalog with the project's workflows and evidence. Copying it is quicker than making one for each test."""
    from pipeline.registry.open_catalog import open_catalog
    from pipeline.story.settings import load_settings

    folder = tmp_path_factory.mktemp("seeded") / "catalog"
    open_catalog(load_settings().model_copy(update={"catalog_uri": str(folder)}))
    return folder


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def tower(*args: str | Path, cwd: Path, timeout: float = 300, **env: str) -> Done:
    """Run the command line as a person would, in its own process."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, args)],
        cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False, env=environment(cwd, **env),
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def environment(cwd: Path, **extra: str) -> dict[str, str]:
    mine = {k: v for k, v in os.environ.items() if not k.startswith("TOWER_") and k != "RAY_ADDRESS"}
    return (
        mine
        | {"PYTHONPATH": str(PROJECT), "TOWER_CATALOG_URI": str(cwd / "catalog-data"), "TOWER_MODELS_DIR": str(cwd / "models")}
        | {"TOWER_LOG_SECONDS": "0"}
        | extra
    )


def refused(done: Done, *words: str) -> None:
    """Exit 2 and one sentence that holds all the words; no traceback."""
    assert done.code == 2, (done.code, done.out, done.err)
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.err
    for word in words:
        assert word in lines[0], (word, lines[0])


def never() -> Any:
    """Starts no Ray, where a test has a pool of its own."""
    raise AssertionError("nothing but the test's own pool was to start Ray")


def takes_of(cwd: Path, episode: str = "E90") -> list[dict[str, Any]]:
    done = tower("takes", episode, "--json", cwd=cwd)
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.fixture
def episode(tmp_path: Path) -> Path:
    file = tmp_path / "episode.yaml"
    file.write_text(EPISODE)
    return file


@dataclass(frozen=True)
class Rendered:
    """A finished render of EPISODE: never changed by a test."""

    cwd: Path
    file: Path
    first: Done
    takes: list[dict[str, Any]]

    @property
    def out(self) -> Path:
        return self.cwd / "out" / "E90"

    def accepted(self, stage: str) -> dict[str, dict[str, Any]]:
        return {t["shot"]: t for t in self.takes if t["stage"] == stage and t["outcome"] == "accepted"}

    def media(self, take: dict[str, Any]) -> Path:
        return self.cwd / "catalog-data" / take["media_path"]


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    cwd = tmp_path_factory.mktemp("rendered")
    file = cwd / "episode.yaml"
    file.write_text(EPISODE)
    first = tower("render", file, "--out", "out", cwd=cwd)
    assert first.code == 0, first.out + first.err
    return Rendered(cwd, file, first, takes_of(cwd))


@pytest.fixture
def copied(rendered: Rendered, tmp_path: Path) -> Path:
    """A folder of its own with a copy of the finished render's catalog and episode file, to be changed."""
    shutil.copytree(rendered.cwd / "catalog-data", tmp_path / "catalog-data")
    shutil.copy(rendered.file, tmp_path / "episode.yaml")
    return tmp_path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line in this process, in tmp_path: quick, for what needs no Ray."""
    from pipeline.cli import main as cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOWER_CATALOG_URI", str(tmp_path / "catalog-data"))
    monkeypatch.setenv("TOWER_MODELS_DIR", str(tmp_path / "models"))

    def run(*args: str | Path) -> Done:
        monkeypatch.setattr("sys.argv", ["tower", *map(str, args)])
        capsys.readouterr()
        code = cli._run()
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run
