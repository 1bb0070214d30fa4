"""The whole path, on real Ray and the real demo models."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from gates.decode import read_video
from pipeline.story.gate_profile import PROFILES

from .conftest import EPISODE, EPISODE_FRAMES, Rendered, environment, takes_of, tower


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
    assert done.code == 0 and "0 to render" in done.out and "0 takes in this run; nothing has changed" in done.out and "Ray" not in done.out
    assert takes_of(rendered.cwd) == rendered.takes
    assert (rendered.out / "episode.mp4").read_bytes() == movie


def test_status_takes_and_workflows_speak_json(rendered: Rendered):
    shots = json.loads(tower("status", "E90", "--json", cwd=rendered.cwd).out)
    assert [(s["shot"], s["outcome"]) for s in shots] == [("SH0010", "accepted"), ("SH0020", "accepted"), ("SH0030", "accepted")]
    assert json.loads(tower("status", "--json", cwd=rendered.cwd).out)[0]["episode"] == "E90"
    one = json.loads(tower("takes", "E90", "SH0020", "--json", cwd=rendered.cwd).out)
    assert {t["shot"] for t in one} == {"SH0020"} and {"seed", "labels", "media", "workflow", "outcome"} <= set(one[0])
    files = {w["workflow"]: w["files"] for w in json.loads(tower("workflows", "list", "--json", cwd=rendered.cwd).out)}
    assert files["ltx_video_2b_demo@1"].startswith("ready, ") and "does not exist" in files["ltx_video_2b@1"]


# --- what gate 2 rejects --------------------------------------------------------------------------------------------

# AnimateDiff as text to video: at strength 1 nothing of the keyframe is left, so no clip begins with it.
CARELESS = """\
name: careless
version: 1
family: animatediff
checkpoint: demo:stable-diffusion
motion_adapter: demo:motion-adapter
width: 96
height: 64
num_frames: 16
fps: 8
num_inference_steps: 8
guidance_scale: 1.0
strength: 1.0
retry: {max_attempts: 2}
"""
CARELESS_SHOT = (
    EPISODE[: EPISODE.index("      - {id: SH0010")].replace("clip_workflow: ltx_video_2b_demo", "clip_workflow: careless")
    + "      - {id: SH0010, frames: 36, framing: close-up, characters: [hana], action: standing still, camera: static camera}\n"
)
URGENT_SHOT = CARELESS_SHOT.splitlines()[-1].replace("SH0010", "SH0020").replace(
    "camera}", "camera, declares: [hold], clip_workflow: animatediff_16_demo, priority: 10}"
)  # fmt: skip

ONE_DEVICE = {"TOWER_DEVICES": "1"}  # wherever these tests run: another number of threads may round otherwise

# The command line with the gate profiles of the folder `gates`, as if they were in configs/gates.
OWN_GATES = """\
from pathlib import Path
import pipeline.story.gate_profile as profiles
profiles.PROFILES = Path("gates").absolute()
from pipeline.cli.main import main
main()
"""


def ready(cwd: Path, workflow: str, episode: str) -> Path:
    (cwd / "careless.yaml").write_text(workflow)
    (cwd / "episode.yaml").write_text(episode)
    return cwd / "episode.yaml"


@pytest.fixture(scope="module")
def refused_clip(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """A careless shot and an urgent good one after it, on one device, one shot at a time."""
    cwd = tmp_path_factory.mktemp("refused")
    file = ready(cwd, CARELESS, CARELESS_SHOT + URGENT_SHOT + "\n")
    (cwd / "one.yaml").write_text("name: one\nlive_shots_per_device: 1\n")
    assert tower("workflows", "register", "careless.yaml", cwd=cwd).code == 0
    first = tower("render", file, "--allow-experimental", cwd=cwd, TOWER_CLUSTER_PROFILE="one.yaml", **ONE_DEVICE)
    return Rendered(cwd, file, first, takes_of(cwd))


def clips_of(takes: list[dict[str, Any]], shot: str = "SH0010") -> list[dict[str, Any]]:
    return [t for t in takes if (t["shot"], t["stage"]) == (shot, "clip")]


def test_a_clip_that_gate_2_rejects_is_a_rejected_take_and_its_shot_is_exhausted_after_other_seeds(refused_clip: Rendered):
    clips = clips_of(refused_clip.takes)
    assert [(t["attempt"], t["variation"], t["outcome"]) for t in clips] == [(1, 0, "rejected"), (2, 1, "rejected")]
    assert all(t["labels"] == ["wrong_first_frame"] for t in clips) and len({t["seed"] for t in clips}) == 2
    assert refused_clip.first.code == 3
    assert "SH0010 exhausted: clip rejected 2 times, last for wrong_first_frame" in refused_clip.first.err


def test_nothing_of_a_rejected_clip_is_delivered_and_its_file_stays_as_evidence(refused_clip: Rendered):
    delivered = [file for file in refused_clip.out.rglob("*") if file.is_file()]
    assert {f.name for f in delivered} == {"SH0010.png", "SH0020.png", "SH0020.mp4", "contact_sheet.png", "summary.json"}
    clips = clips_of(refused_clip.takes)
    assert not {t["media"] for t in clips} & {hashlib.sha256(f.read_bytes()).hexdigest() for f in delivered}
    assert all(hashlib.sha256(refused_clip.media(t).read_bytes()).hexdigest() == t["media"] for t in clips)
    summary = json.loads((refused_clip.out / "summary.json").read_text())
    assert (summary["accepted"], summary["exhausted"], summary["movie"]) == (1, 1, None)


def test_the_more_urgent_shot_is_begun_first_wherever_its_file_names_it(refused_clip: Rendered):
    assert [(t["shot"], t["stage"]) for t in refused_clip.takes] == [
        ("SH0020", "keyframe"), ("SH0020", "clip"), ("SH0010", "keyframe"), ("SH0010", "clip"), ("SH0010", "clip")
    ]  # fmt: skip


def test_after_a_rejected_clip_the_next_seed_is_tried_and_the_first_good_one_is_delivered(refused_clip: Rendered, tmp_path: Path):
    first, second = clips_of(refused_clip.takes)
    was, will = (t["measures"]["first_frame_delta_e"] for t in (first, second))
    side = "above" if was > will else "below"  # on which the first take is, whatever that says of its looks
    rule = f"{{label: wrong_first_frame, measure: first_frame_delta_e, {side}: {(was + will) / 2}}}"
    shutil.copytree(PROFILES, tmp_path / "gates")
    (tmp_path / "gates" / "between.yaml").write_text(
        f"name: between\nimage:\n  - {{label: empty, measure: contrast, below: 1}}\nvideo:\n  - {rule}\n"
    )
    file = ready(tmp_path, CARELESS + "gates: between\n", CARELESS_SHOT)
    commands = ["workflows", "register", "careless.yaml"], ["render", str(file), "--allow-experimental"]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-c", OWN_GATES, *command],
            cwd=tmp_path, env=environment(tmp_path, **ONE_DEVICE), capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    clips = clips_of(takes_of(tmp_path))
    assert [(t["outcome"], t["labels"]) for t in clips] == [("rejected", ["wrong_first_frame"]), ("accepted", [])]
    assert [(t["seed"], t["media"]) for t in clips] == [(t["seed"], t["media"]) for t in (first, second)], "the same seeds, the same bits"
    shot = tmp_path / "out" / "E90" / "shots" / "SH0010.mp4"
    assert hashlib.sha256(shot.read_bytes()).hexdigest() == second["media"] and (tmp_path / "out" / "E90" / "episode.mp4").is_file()
