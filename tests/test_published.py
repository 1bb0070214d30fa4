"""Checkpoints as they are published render: every file name, shard, variant and extra entry, with the demo's weights in them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actors.animatediff import AnimateDiffModel
from actors.keyframe import KeyframeModel
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import ClipRequest, KeyframeRequest, ModelFiles
from gates.decode import read_video
from pipeline.render.video_file import write_clip
from pipeline.story.workflow import WORKFLOWS, Workflow, read_workflow

from .conftest import DEMO, EPISODE, takes_of, tower
from .published import ltx_video, motion_adapter, stable_diffusion, stable_diffusion_in_fp16

# Workflow of the demo to that of the published layout, and what its file says in place of the demo's words.
WHOLE = {"sd15_keyframe_demo": "stills", "demo:stable-diffusion": "stable-diffusion-v1-5"}
ONE = {
    "sd15_keyframe_demo": "one_file",
    "checkpoint: demo:stable-diffusion": "checkpoint: stable-diffusion-v1-5/v1-5-pruned.safetensors\nbase: stable-diffusion-v1-5",
}
LTX = {"ltx_video_2b_demo": "moved", "demo:ltx-video": "LTX-Video-0.9.5"}
ANIMATED = {"animatediff_16_demo": "animated", "demo:stable-diffusion": "anime-fp16", "demo:motion-adapter": "animatediff-motion-adapter-v1-5-2"}
SHIPPED = {"stills": "sd15_keyframe_demo", "one_file": "sd15_keyframe_demo", "moved": "ltx_video_2b_demo", "animated": "animatediff_16_demo"}


@pytest.fixture
def here_published(tmp_path: Path) -> Path:
    models = tmp_path / "models"
    stable_diffusion(models / "stable-diffusion-v1-5")
    stable_diffusion_in_fp16(models / "anime-fp16")
    motion_adapter(models / "animatediff-motion-adapter-v1-5-2")
    ltx_video(models / "LTX-Video-0.9.5")
    for words in (WHOLE, ONE, LTX, ANIMATED):
        demo, name = next(iter(words.items()))
        text = (WORKFLOWS / f"{demo}.yaml").read_text()
        for old, new in words.items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / f"{name}.yaml").write_text(text)
        done = tower("workflows", "register", f"{name}.yaml", cwd=tmp_path)
        assert done.code == 0, done.err
    return tmp_path


def by_hand(take: dict[str, Any], before: dict[str, Any], flow: Workflow) -> np.ndarray:
    """The picture or clip that the demo's own folder gives for a take's prompt, seed and keyframe."""
    adapter = str(DEMO / "motion-adapter") if flow.motion_adapter else None
    files = ModelFiles(str(DEMO / ("ltx-video" if flow.family == "ltx_video" else "stable-diffusion")), adapter)
    encoder = PromptEncoder("t", files)
    texts = {"prompt": encoder.encode([take["prompt"]])[0], "negative": encoder.encode([take["negative_prompt"] or ""])[0]}
    models: dict[str, Any] = {"stable_diffusion": KeyframeModel, "ltx_video": LtxVideoModel, "animatediff": AnimateDiffModel}
    model = models[flow.family]("m", files, flow.settings())
    if flow.stage == "keyframe":
        return model.generate([KeyframeRequest("t", take["seed"], **texts)])[1][0]
    return model.generate([ClipRequest("t", take["seed"], keyframe=before["pixels"], **texts)])[1][0]


@pytest.mark.ray
@pytest.mark.models
def test_published_layouts_render_what_the_demos_own_folders_render(here_published):
    cwd = here_published
    text = EPISODE[: EPISODE.index("  - id: S020")].replace("sd15_keyframe_demo", "stills").replace("ltx_video_2b_demo", "moved")
    text = text.replace("clip_workflow: animatediff_16_demo", "clip_workflow: animated, keyframe_workflow: one_file")
    (cwd / "episode.yaml").write_text(text)
    assert tower("models", "check", *SHIPPED, cwd=cwd).code == 0
    done = tower("render", "episode.yaml", "--allow-experimental", cwd=cwd, HF_HUB_OFFLINE="1")
    assert done.code == 0, done.out + done.err
    takes = {(t["shot"], t["stage"]): t for t in takes_of(cwd) if t["outcome"] == "accepted"}
    assert {t["workflow"] for t in takes.values()} == set(SHIPPED)
    for shot in ("SH0010", "SH0020"):
        still, clip = takes[shot, "keyframe"], takes[shot, "clip"]
        still["pixels"] = np.asarray(Image.open(cwd / "catalog-data" / still["media_path"]).convert("RGB"))
        flows = [read_workflow(WORKFLOWS / f"{SHIPPED[t['workflow']]}.yaml") for t in (still, clip)]
        assert np.array_equal(by_hand(still, {}, flows[0]), still["pixels"]), "another picture than from the demo's own folder"
        assert flows[1].fps
        write_clip(cwd / "by_hand.mp4", by_hand(clip, still, flows[1]), Fraction(flows[1].fps))
        wanted, made = (read_video(file)[0] for file in (cwd / "by_hand.mp4", cwd / "catalog-data" / clip["media_path"]))
        assert np.array_equal(wanted, made), "another clip"


def test_a_published_folder_is_told_for_what_it_is_with_what_is_passed_over(tmp_path, here):
    stable_diffusion(tmp_path / "sd")
    (row,) = json.loads(here("models", "inspect", tmp_path / "sd", "--json").out)
    assert not row["faults"] and "safety_checker and feature_extractor: never loaded" in row["notes"]
    rows = json.loads(here("models", "inspect", tmp_path / "sd" / "v1-5-pruned.safetensors", tmp_path / "sd" / "v1-5-pruned-emaonly.safetensors", "--json").out)
    assert [r["unknown"] for r in rows] == [[], []] and "holds a second copy of the UNet (EMA), which is not used" in rows[0]["notes"]
    ltx_video(tmp_path / "ltx")
    (row,) = json.loads(here("models", "inspect", tmp_path / "ltx", "--json").out)
    assert not row["faults"] and {"text_encoder/ in 4 shards", "transformer/ in 2 shards"} <= set(row["notes"])
