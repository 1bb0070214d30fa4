"""The whole path, on real Ray and the real demo models."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from PIL import Image

from gates.decode import read_video

from .conftest import EPISODE, EPISODE_FRAMES, PROJECT, Rendered, environment, refused, takes_of, tower


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


def test_a_finished_episode_is_exactly_as_declared(rendered: Rendered):
    with av.open(str(rendered.out / "episode.mp4")) as movie:
        stream = movie.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (192, 128, 24)
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.codec_context.colorspace) == ("h264", "yuv420p", 1)
        assert sum(1 for _ in movie.decode(stream)) == EPISODE_FRAMES
    data = (rendered.out / "episode.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "a player must be able to start before the end has loaded"


def test_the_summary_and_the_sheet_tell_what_happened(rendered: Rendered):
    summary = json.loads((rendered.out / "summary.json").read_text())
    assert (summary["shots"], summary["accepted"], summary["exhausted"], summary["frames"]) == (3, 3, 0, EPISODE_FRAMES)
    assert summary["takes_this_run"] == len(rendered.takes)
    assert [o["shot"] for o in summary["outcomes"]] == ["SH0010", "SH0020", "SH0030"]
    assert Image.open(rendered.out / "contact_sheet.png").width > 1000
    for shot in ("SH0010", "SH0020", "SH0030"):
        for stage, suffix in (("keyframe", "png"), ("clip", "mp4")):
            assert (rendered.out / "shots" / f"{shot}.{suffix}").read_bytes() == rendered.media(rendered.accepted(stage)[shot]).read_bytes()


def test_every_take_is_a_row_with_its_evidence(rendered: Rendered):
    for take in rendered.takes:
        assert take["outcome"] in ("accepted", "rejected", "error") and take["attempt"] >= 1
        if take["outcome"] != "error":
            assert rendered.media(take).stat().st_size == take["media_bytes"]
            assert take["measures"] and take["device_seconds"] > 0 and take["device"]
            assert (take["outcome"] == "rejected") == bool(take["labels"])
    assert len({t["take"] for t in rendered.takes}) == len(rendered.takes)
    assert set(rendered.accepted("keyframe")) == set(rendered.accepted("clip")) == {"SH0010", "SH0020", "SH0030"}


def test_the_requested_workflow_is_the_one_that_ran(rendered: Rendered):
    clips = rendered.accepted("clip")
    assert {s: t["workflow"] for s, t in clips.items()} == {
        "SH0010": "ltx_video_2b_demo",
        "SH0020": "animatediff_16_demo",
        "SH0030": "ltx_video_2b_demo",
    }
    for shot, take in clips.items():
        frames, fps = read_video(rendered.media(take))
        assert (len(frames), fps) == ((16, 8) if shot == "SH0020" else (121, 24))


def test_each_clip_starts_from_its_own_keyframe(rendered: Rendered):
    stills = {s: np.asarray(Image.open(rendered.media(t)), int) for s, t in rendered.accepted("keyframe").items()}
    for shot, take in rendered.accepted("clip").items():
        first = read_video(rendered.media(take))[0][0].astype(int)
        distance = {name: float(np.abs(first - still).mean()) for name, still in stills.items()}
        assert min(distance, key=distance.get) == shot, distance  # type: ignore[arg-type]
        assert take["keyframe_media"] == rendered.accepted("keyframe")[shot]["media"]


def test_the_same_command_again_renders_nothing(rendered: Rendered):
    movie = (rendered.out / "episode.mp4").read_bytes()
    done = tower("render", rendered.file, "--out", "out", cwd=rendered.cwd)
    assert done.code == 0 and "0 to render" in done.out and "0 takes in this run" in done.out and "Ray" not in done.out
    assert takes_of(rendered.cwd) == rendered.takes
    assert (rendered.out / "episode.mp4").read_bytes() == movie


def test_status_takes_and_models_speak_json(rendered: Rendered):
    shots = json.loads(tower("status", "E90", "--json", cwd=rendered.cwd).out)
    assert [(s["shot"], s["outcome"]) for s in shots] == [("SH0010", "accepted"), ("SH0020", "accepted"), ("SH0030", "accepted")]
    assert json.loads(tower("status", "--json", cwd=rendered.cwd).out)[0]["episode"] == "E90"
    one = json.loads(tower("takes", "E90", "SH0020", "--json", cwd=rendered.cwd).out)
    assert {t["shot"] for t in one} == {"SH0020"} and {"seed", "labels", "media", "workflow", "outcome"} <= set(one[0])
    states = {m["workflow"]: m["state"] for m in json.loads(tower("models", "--json", cwd=rendered.cwd).out)}
    assert states["ltx_video_2b_demo"] == "ready" and "does not exist" in states["ltx_video_2b"]


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


def test_ctrl_c_twice_ends_a_render_at_once_with_130_and_leaves_no_processes(episode: Path):
    process = start(episode)
    try:
        text = read_until(process, r"dashboard http")
        url = re.search(r"dashboard (http://\S+)", text).group(1)  # type: ignore[union-attr]
        with urllib.request.urlopen(url, timeout=20) as page:
            assert page.status == 200, "Ray's dashboard is reachable while the render runs"
        devices_at_work(process, 120)
        children = psutil.Process(process.pid).children(recursive=True)
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
    import shutil

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


@pytest.fixture(autouse=True)
def _nothing_is_left_running():
    yield
    mine = [p for p in psutil.Process(os.getpid()).children(recursive=True) if "raylet" in p.name()]
    assert not mine
