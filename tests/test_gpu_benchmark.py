"""The GPU benchmark: ready beforehand, on a machine that has neither Ray nor Delta nor PyAV, and nothing lost by a step that fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from rich.console import Console

from actors.animatediff import AnimateDiffModel
from actors.folders import identify_folder
from actors.keyframe import KeyframeModel
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import TextSettings
from benchmarks import full_size, single_file
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.agreement import judge_brought_back
from benchmarks.gpu.ratios import Fp8Linear
from benchmarks.gpu.report import Bench, Figure
from benchmarks.models import first_frame, random_checkpoints
from benchmarks.subjects import Subject, animatediff_clip, ltx_clip, stills

from .bare import bare_environment, run_bare
from .conftest import PROJECT


def test_a_rehearsal_runs_whole_on_a_bare_machine_and_its_clips_are_judged_at_home(tmp_path):
    python = bare_environment(tmp_path / "bare")
    for missing in ("ray", "deltalake", "duckdb", "av", "pydantic_settings", "matplotlib"):
        assert run_bare(python, "-c", f"import {missing}").returncode == 1, f"{missing} is not on a bare machine"
    out = tmp_path / "out"
    done = run_bare(python, "-m", "benchmarks.gpu", "--tiny", "--minutes", "3", "--out", out)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    rows = [json.loads(line) for line in (out / "gpu.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} == set(gpu.STEPS)
    assert not [row for row in rows if row["what"] in ("failed", "ended")]
    assert [row["step"] for row in rows if row["what"] == "mp4 and gate 2"] == ["agreement", "LTX-Video"], "left out with a word"
    assert all(f"| {row['step']} | {row['what']} |" in (out / "gpu.md").read_text() for row in rows)
    judged = {figure.what: figure.value for figure in judge_brought_back(out)}
    assert set(judged) == {f"gate 2 on {model}, {dtype}" for model in ("LTX-Video", "AnimateDiff") for dtype in ("float32", "auto")}
    assert "undecodable" not in " ".join(map(str, judged.values()))


def _fails(bench: Bench) -> Iterator[Figure]:
    yield Figure("before", 1.0)
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def _hangs(bench: Bench) -> Iterator[Figure]:
    yield Figure("before", 2.0)
    time.sleep(600)


def _is_killed(bench: Bench) -> Iterator[Figure]:
    yield Figure("before", 3.0)
    os.kill(os.getpid(), signal.SIGKILL)


def _works(bench: Bench) -> Iterator[Figure]:
    yield Figure("after", 4.0)


def test_a_step_that_fails_hangs_or_dies_costs_only_itself(tmp_path, monkeypatch):
    planted = {"fails": (_fails, 1.0), "hangs": (_hangs, 1.0), "is killed": (_is_killed, 5.0), "works": (_works, 5.0)}
    monkeypatch.setattr(gpu, "STEPS", planted)
    assert gpu.run(0.5, tmp_path, tiny=True) is False
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [(row["step"], row["what"]) for row in rows] == [
        ("fails", "before"), ("fails", "failed"), ("hangs", "before"), ("hangs", "ended"), ("is killed", "before"), ("is killed", "failed"),
        ("works", "after"),
    ]  # fmt: skip
    assert "illegal memory access" in (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize(
    "parts, published",  # parameters of the published models, so that random weights take as long and as much memory
    [
        (full_size._sd15(False), {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}),
        (
            full_size._sdxl(False),
            {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840},
        ),
        (full_size._ltx_2b(False), {"transformer": 1_923_385_472, "vae": 1_246_913_522, "text_encoder": 4_762_310_656}),
        (full_size._adapter(False), {"": 453_209_280}),
    ],
)
def test_full_size_is_the_published_size(parts, published):
    for name, count in published.items():
        with torch.device("meta"):
            assert sum(p.numel() for p in parts[name]().parameters()) == count, name


def test_every_checkpoint_is_written_in_its_layout_and_told_for_what_it_is(tmp_path):
    written = [make(tmp_path, "cpu", True) for make in (full_size.stable_diffusion, full_size.stable_diffusion_xl, full_size.ltx_video, full_size.motion_adapter)]
    for folder in written:
        found = identify_folder(folder)
        assert found.kind in ("checkpoint", "motion module") and not [f for f in found.faults if "no family" not in f], (folder, found.faults)
        index = json.loads((folder / "model_index.json").read_text()) if found.kind == "checkpoint" else {}
        assert all((folder / part).is_dir() for part, told in index.items() if isinstance(told, list) and told[0])


def test_a_single_file_is_compared_with_its_folder_to_the_bit(tmp_path):
    assert single_file.measured(tmp_path, True, Console(quiet=True))
    folder = tmp_path / "stable-diffusion"
    model = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float16, local_files_only=True)
    assert single_file.compared(folder, "unet", model).other == 0
    with torch.no_grad():
        model.conv_out.bias[0] = torch.nextafter(model.conv_out.bias[0], torch.tensor(9.0, dtype=torch.float16))
    assert single_file.compared(folder, "unet", model).other == 1


@pytest.fixture(scope="module")
def subjects(tmp_path_factory) -> dict[str, Subject]:
    """The tiny checkpoints' subjects. The keyframe is not compressed first: the plain loop has no such thing."""
    found = random_checkpoints(tmp_path_factory.mktemp("tiny"), "cpu", tiny=True)
    words = PromptEncoder("clip", found.stable_diffusion)
    t5 = PromptEncoder("t5", found.ltx_video, TextSettings(found.max_tokens))
    s, a = replace(found.ltx, keyframe_crf=None), found.animate
    return {
        "stills": stills(KeyframeModel("s", found.stable_diffusion, found.still), words, 2),
        "LTX-Video": ltx_clip(LtxVideoModel("l", found.ltx_video, s), t5, first_frame(s.width, s.height)),
        "AnimateDiff": animatediff_clip(AnimateDiffModel("a", found.animatediff, a), words, first_frame(a.width, a.height)),
    }


@pytest.mark.parametrize("name", ["stills", "LTX-Video", "AnimateDiff"])
def test_the_plain_loop_beside_a_model_draws_the_same_pictures(subjects, name):
    """Else the two times would not be of the same work."""
    subject = subjects[name]
    plain = subject.plain(3)
    pictures = np.stack([np.asarray(p) for p in (plain if name == "stills" else plain[0])])
    made = np.concatenate([np.atleast_3d(r)[None] if r.ndim == 3 else r for r in subject.product(3)])
    assert made.shape == pictures.shape
    assert np.abs(made.astype(int) - pictures.astype(int)).max() <= 1


def test_values_before_the_cast_are_those_that_became_the_pictures(subjects):
    subject = subjects["LTX-Video"]
    values, (clip,) = subject.values(5)[0], subject.product(5)
    assert np.array_equal((values.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy(), clip)


def test_an_8_bit_product_is_near_the_plain_one():
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 32).bfloat16()
    x = torch.randn(2, 5, 64).bfloat16()
    with torch.no_grad():
        plain, eight = linear(x), Fp8Linear(linear)(x)
    assert eight.shape == plain.shape and 0 < (eight - plain).norm() / plain.norm() < 0.06


def test_the_bundle_names_its_two_loads_and_every_pin_is_there():
    script = PROJECT / "benchmarks" / "gpu_bundle.sh"
    told = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert told.returncode == 2 and "weights FOLDER" in told.stderr and "video FOLDER" in told.stderr
    names = script.read_text().split("PACKAGES=(")[1].split(")")[0].split()
    pinned = {line.split("==")[0].lower() for line in (PROJECT / "configs" / "constraints.txt").read_text().splitlines()}
    assert {name.lower() for name in [*names, "av"]} <= pinned
