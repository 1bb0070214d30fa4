"""Renders that are killed, interrupted, misled or rejected, on real Ray and the real demo models: nothing is lost, nothing made twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import psutil
import pytest
from PIL import Image

from catalog.place import PART

from .conftest import EPISODE, PROJECT, Rendered, environment, refused, takes_of, tower


def start(file: Path, *args: str) -> subprocess.Popen[str]:
    """A render in the background, with its output on a pipe."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "pipeline.cli", "render", str(file), *args],
        cwd=file.parent, env=environment(file.parent), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell in the background hands down an ignored one
    )  # fmt: skip


def read_until(process: subprocess.Popen[str], pattern: str, timeout: float = 240) -> str:
    """Lines of the process up to one that matches; fails if it ends first."""
    assert process.stdout
    lines, end = [], time.monotonic() + timeout
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return "".join(lines)
        assert time.monotonic() < end, "".join(lines)
    raise AssertionError(f"the render ended without {pattern!r}:\n" + "".join(lines))


def devices_at_work(process: subprocess.Popen[str], seconds: float = 60) -> list[psutil.Process]:
    """The Ray actors of this render that are executing a request now."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        busy = []
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                if " ".join(child.cmdline()).startswith(("ray::keyframe ", "ray::clip ")):
                    busy.append(child)
            except psutil.Error:
                continue
        if busy:
            return busy
        time.sleep(0.02)
    raise AssertionError("no device was executing anything")


def test_a_killed_device_costs_one_attempt_and_changes_no_picture(rendered: Rendered, episode: Path):
    """kill -9 of the actor while it makes a clip: the render goes on, the shot is done once, the bits are the same."""
    process = start(episode)
    try:
        read_until(process, r"keyframe/v\d+ accepted \(3/3")
        device = devices_at_work(process)[0]
        time.sleep(0.7)  # what dies sooner may have been dead before, and costs nothing
        device.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, rest
    takes = takes_of(episode.parent)
    lost = [t for t in takes if t["outcome"] == "error"]
    assert lost and all("DeviceLost" in t["error"] for t in lost), takes
    accepted = Counter((t["shot"], t["stage"]) for t in takes if t["outcome"] == "accepted")
    assert accepted == {(s, g): 1 for s in ("SH0010", "SH0020", "SH0030") for g in ("keyframe", "clip")}
    same = {(t["shot"], t["stage"]): t["media"] for t in takes if t["outcome"] == "accepted"}
    assert same == {(t["shot"], t["stage"]): t["media"] for t in rendered.takes if t["outcome"] == "accepted"}


def test_a_movie_that_is_killed_in_the_making_comes_out_the_same(rendered: Rendered, copied: Path):
    """Killed where the first part of the movie is kept, some are, the movie is being joined, and the sheet is drawn."""
    made, out = copied / "catalog-data" / "made", copied / "out" / "E90"

    def kept(folder: Path) -> set[str]:
        return {path.name for path in folder.rglob("*.*") if not path.name.startswith(PART)}  # what a kill cut off is never read

    whole = kept(made)
    shutil.rmtree(made)
    moments = [lambda k=k: len(kept(made)) >= k for k in (1, len(whole) // 2, len(whole))] + [lambda: (out / "episode.mp4").is_file()]
    for comes in moments:
        process = start(copied / "episode.yaml", "--out", "out")
        while process.poll() is None and not comes():
            time.sleep(0.001)
        process.kill()
        process.communicate()
    done = tower("render", "episode.yaml", "--out", "out", cwd=copied)
    assert done.code == 0 and "0 takes in this run" in done.out, done.out + done.err
    for name in ("episode.mp4", "contact_sheet.png"):
        assert (out / name).read_bytes() == (rendered.out / name).read_bytes(), name
    assert kept(made) == whole


def test_a_killed_driver_resumes_without_rendering_twice(rendered: Rendered, episode: Path):
    """With stale files under every name that a result will have: none of them is taken for one."""
    stale = [episode.parent / "out" / "E90" / name for name in ("episode.mp4", "shots/SH0010.mp4", "shots/SH0010.png")]
    for file in stale:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((rendered.out / "shots" / f"SH0030{file.suffix}").read_bytes())
    process = start(episode)
    try:
        read_until(process, r"accepted")
    finally:
        process.kill()
        process.wait()
    before = {t["take"] for t in takes_of(episode.parent) if t["outcome"] == "accepted"}
    assert before
    done = tower("render", episode, cwd=episode.parent)
    assert done.code == 0, done.out + done.err
    takes = takes_of(episode.parent)
    accepted = [t for t in takes if t["outcome"] == "accepted"]
    assert before <= {t["take"] for t in accepted}
    assert len({(t["shot"], t["stage"]) for t in accepted}) == len(accepted) == 6
    assert sorted(t["media"] for t in accepted) == sorted(t["media"] for t in rendered.takes if t["outcome"] == "accepted")
    for file in stale:
        assert file.read_bytes() == (rendered.out / file.relative_to(episode.parent / "out" / "E90")).read_bytes()


def test_the_same_seed_gives_the_same_bits_and_another_variation_another_picture(rendered: Rendered, episode: Path):
    once = rendered.accepted("keyframe")["SH0020"], rendered.accepted("clip")["SH0020"]
    episode.write_text(EPISODE.replace("clip_workflow: animatediff_16_demo}", "clip_workflow: animatediff_16_demo, variation: 1}"))
    other = tower("render", episode, "--only", "SH0020", cwd=episode.parent)
    assert other.code in (0, 3), other.err
    changed = next(t for t in takes_of(episode.parent) if t["stage"] == "keyframe")
    assert changed["seed"] != once[0]["seed"] and changed["media"] != once[0]["media"]
    episode.write_text(EPISODE)
    again = tower("render", episode, "--only", "SH0020", "--fresh", cwd=episode.parent)
    assert again.code == 0, again.err
    latest = {t["stage"]: t for t in takes_of(episode.parent) if t["outcome"] == "accepted"}
    assert (latest["keyframe"]["media"], latest["clip"]["media"]) == (once[0]["media"], once[1]["media"])
    assert not (episode.parent / "out" / "E90" / "episode.mp4").exists(), "a part of an episode is not the episode"
    assert tower("render", episode, "--only", "SH0020", "--new-seeds", cwd=episode.parent).code in (0, 3)
    seeds = [t["seed"] for t in takes_of(episode.parent) if t["stage"] == "keyframe"]
    assert seeds[-1] not in seeds[:-1], "new seeds were asked for"


def test_ctrl_c_twice_ends_a_render_at_once_with_130_and_leaves_no_processes(episode: Path):
    process = start(episode)
    try:
        text = read_until(process, r"dashboard http")
        url = re.search(r"dashboard (http://\S+)", text).group(1)  # type: ignore[union-attr]
        with urllib.request.urlopen(url, timeout=20) as page:
            assert page.status == 200, "Ray's dashboard is reachable while the render runs"
        device = devices_at_work(process, 120)[0]
        children = psutil.Process(process.pid).children(recursive=True)
        device.send_signal(signal.SIGSTOP)  # what executes never ends, so to wait for it politely would take for ever
        process.send_signal(signal.SIGINT)
        rest = read_until(process, r"stopping: ")
        process.send_signal(signal.SIGINT)
        rest += process.communicate(timeout=90)[0]
    finally:
        process.kill()
    assert process.returncode == 130, rest
    assert "interrupted" in rest and "Traceback" not in rest
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_a_checkpoint_that_loads_wrongly_stops_the_run_before_rendering(episode: Path):
    """The folder is there, its weights are cut short: found when it is loaded, before any picture."""
    models = episode.parent / "models"
    shutil.copytree(PROJECT / "actors" / "demo" / "stable-diffusion", models / "broken")
    weights = next((models / "broken" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    text = (PROJECT / "configs" / "workflows" / "sd15_keyframe_demo.yaml").read_text()
    (episode.parent / "mine.yaml").write_text(text.replace("demo:stable-diffusion", "broken").replace("version: 1", "version: 2"))
    assert tower("workflows", "register", "mine.yaml", cwd=episode.parent).code == 0
    done = tower("render", episode, "--only", "SH0010", "--allow-experimental", cwd=episode.parent)
    refused(done, "broken", "sd15_keyframe_demo")
    assert tower("takes", "E90", cwd=episode.parent).code == 2, "nothing was rendered"


def test_a_shot_whose_attempts_are_spent_is_told_and_the_rest_is_kept(episode: Path):
    """A person's keyframe that is one flat grey: gate 1 says no, and no other seed can mend it."""
    Image.new("RGB", (300, 200), (120, 120, 120)).save(episode.parent / "grey.png")
    long = "standing still" + " and waiting" * 5_000
    episode.write_text(EPISODE.replace("title: A test}", "keyframe: grey.png}").replace("action: standing still", f"action: {long}", 1))
    done = tower("render", episode, "--only", "SH0010,SH0020", cwd=episode.parent)
    assert done.code == 3, done.err
    assert "SH0020/keyframe/v001: the prompt was cut" in done.out, "a prompt of 10,000 words is cut, and where is said"
    assert "SH0010 exhausted" in done.err and "empty" in done.err
    summary = json.loads((episode.parent / "out" / "E90" / "summary.json").read_text())
    assert (summary["accepted"], summary["exhausted"], summary["movie"]) == (1, 1, None)
    takes = takes_of(episode.parent)
    assert [(t["stage"], t["outcome"], t["labels"]) for t in takes if t["shot"] == "SH0010"] == [
        ("keyframe", "rejected", ["empty", "blur"])
    ]


@pytest.fixture(autouse=True)
def _nothing_is_left_running():
    yield
    mine = [p for p in psutil.Process(os.getpid()).children(recursive=True) if "raylet" in p.name()]
    assert not mine
