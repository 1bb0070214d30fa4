"""The whole path, on real Ray and the real demo models."""

from __future__ import annotations

import json

import av
import numpy as np
from PIL import Image

from gates.decode import read_video

from .conftest import EPISODE_FRAMES, Rendered, takes_of, tower


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


def test_status_takes_and_workflows_speak_json(rendered: Rendered):
    shots = json.loads(tower("status", "E90", "--json", cwd=rendered.cwd).out)
    assert [(s["shot"], s["outcome"]) for s in shots] == [("SH0010", "accepted"), ("SH0020", "accepted"), ("SH0030", "accepted")]
    assert json.loads(tower("status", "--json", cwd=rendered.cwd).out)[0]["episode"] == "E90"
    one = json.loads(tower("takes", "E90", "SH0020", "--json", cwd=rendered.cwd).out)
    assert {t["shot"] for t in one} == {"SH0020"} and {"seed", "labels", "media", "workflow", "outcome"} <= set(one[0])
    files = {w["workflow"]: w["files"] for w in json.loads(tower("workflows", "list", "--json", cwd=rendered.cwd).out)}
    assert files["ltx_video_2b_demo@1"].startswith("ready, ") and "does not exist" in files["ltx_video_2b@1"]
