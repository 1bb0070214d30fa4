"""How long each stage of each model takes, and how much memory, beside the plain diffusers loop: without Ray, on the device that is there.

    python -m benchmarks.models                      the demo workflows' models
    python -m benchmarks.models --full-size          Stable Diffusion 1.5, AnimateDiff and LTX-Video 2B with random weights
    python -m benchmarks.models --full-size --tiny   the same code with all widths cut, to try it on a CPU

Random weights take as long as trained ones; what they draw is noise. A CPU runs the full size too, for hours.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from actors.animatediff import AnimateDiffModel
from actors.demo.train import scenes
from actors.keyframe import KeyframeModel
from actors.loading import best_device, device_name, peak_memory_bytes, reset_peak_memory
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import ClipSettings, KeyframeSettings, ModelFiles, TextSettings
from pipeline.story.workflow import WORKFLOWS, read_workflow

from . import full_size
from .subjects import WORDS, Subject, animatediff_clip, ltx_clip, stills
from .timing import in_turns, stages_of

MEANT = {
    "": ("sd15_keyframe", "ltx_video_2b", "animatediff_16"),
    "_demo": ("sd15_keyframe_demo", "ltx_video_2b_demo", "animatediff_16_demo"),
}


@dataclass(frozen=True)
class Timing:
    """One stage: median seconds over the runs, the first (warm-up) apart where it was timed, and peak memory of the model's calls."""

    model: str
    stage: str
    seconds: float
    first_seconds: float | None = None
    peak_gb: float | None = None


@dataclass(frozen=True)
class Checkpoints:
    """Where the models of the three workflows lie, and the settings that they are sampled with."""

    stable_diffusion: ModelFiles
    ltx_video: ModelFiles
    animatediff: ModelFiles
    still: KeyframeSettings
    ltx: ClipSettings
    animate: ClipSettings
    max_tokens: int | None


def demo_checkpoints(folder: Path = full_size.DEMO) -> Checkpoints:
    sd, ltx, adapter = (str(folder / name) for name in ("stable-diffusion", "ltx-video", "motion-adapter"))
    return _checkpoints("_demo", sd, ltx, adapter, tiny=False)


def random_checkpoints(folder: Path, device: str, tiny: bool) -> Checkpoints:
    sd = str(full_size.stable_diffusion(folder, device, tiny))
    ltx, adapter = str(full_size.ltx_video(folder, device, tiny)), str(full_size.motion_adapter(folder, device, tiny))
    return _checkpoints("", sd, ltx, adapter, tiny)


def _checkpoints(kind: str, sd: str, ltx: str, adapter: str, tiny: bool) -> Checkpoints:
    """The shipped workflows' settings; tiny: a few steps of small pictures."""
    still, clip, animate = (read_workflow(WORKFLOWS / f"{name}.yaml") for name in MEANT[kind])
    s, c, a = still.settings(), clip.settings(), animate.settings()
    assert isinstance(s, KeyframeSettings) and isinstance(c, ClipSettings) and isinstance(a, ClipSettings)
    if tiny:
        s = replace(s, width=96, height=64, num_inference_steps=2)
        c = replace(c, width=96, height=64, num_frames=17, timesteps=c.timesteps[::4], num_inference_steps=2)
        a = replace(a, width=64, height=64, num_frames=4, num_inference_steps=2)
    return Checkpoints(ModelFiles(sd), ModelFiles(ltx), ModelFiles(sd, adapter), s, c, a, clip.max_tokens)


def first_frame(width: int, height: int) -> np.ndarray:
    """A drawn keyframe: uint8 RGB (height, width, 3)."""
    return scenes.draw(scenes.sample(0), 0, height, width)


def measure(found: Checkpoints, runs: int) -> Iterator[Timing]:
    """Every model in turn. One is let go before the next is loaded, but for the text encoders."""
    clip_text = PromptEncoder("clip", found.stable_diffusion)
    yield from _encoding("CLIP text encoder", clip_text, runs)
    keyframes = KeyframeModel("stills", found.stable_diffusion, found.still)
    yield from _model("Stable Diffusion", stills(keyframes, clip_text, found.still.batch_size), runs)
    del keyframes
    animate = AnimateDiffModel("animatediff", found.animatediff, found.animate)
    yield from _model("AnimateDiff", animatediff_clip(animate, clip_text, first_frame(found.animate.width, found.animate.height)), runs)
    del animate
    t5 = PromptEncoder("t5", found.ltx_video, TextSettings(found.max_tokens))
    yield from _encoding("T5 text encoder", t5, runs)
    ltx = LtxVideoModel("ltx", found.ltx_video, found.ltx)
    yield from _model("LTX-Video", ltx_clip(ltx, t5, first_frame(found.ltx.width, found.ltx.height)), runs)


def _encoding(name: str, encoder: PromptEncoder, runs: int) -> Iterator[Timing]:
    medians, first = in_turns({"a prompt": lambda: encoder.encode([WORDS])}, runs)
    yield Timing(name, "a prompt", medians["a prompt"], first["a prompt"])


def _model(name: str, subject: Subject, runs: int) -> Iterator[Timing]:
    reset_peak_memory()
    medians, first = in_turns({"whole call": subject.product, "plain diffusers loop": subject.plain}, runs)
    peak, title = peak_memory_bytes() / 1e9, f"{name}, {subject.title}"
    spent = stages_of(subject.product, subject.parts)
    yield from (Timing(title, stage, seconds) for stage, seconds in spent.items() if stage != "whole call")
    yield from (Timing(title, stage, medians[stage], first[stage], peak) for stage in medians)


def show(rows: list[Timing], device: str) -> None:
    table = Table("model", "stage", "seconds", "first call", "peak GB", box=None, pad_edge=False)
    for row in rows:
        first = "" if row.first_seconds is None else f"{row.first_seconds:.3f}"
        table.add_row(row.model, row.stage, f"{row.seconds:.3f}", first, "" if row.peak_gb is None else f"{row.peak_gb:.2f}")
    console = Console(width=150)
    console.print(
        f"{device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"
    )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="with --full-size: the same code, narrow models and small pictures")
    parser.add_argument("--runs", type=int, default=3, help="timed runs after one to warm up")
    parser.add_argument("--quick", action="store_true", help="one timed run")
    parser.add_argument("--threads", type=int, help="torch threads on a CPU")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    device, runs = best_device(), 1 if args.quick else max(1, args.runs)
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(prefix="tower-models-") as folder:
        found = random_checkpoints(Path(folder), device, args.tiny) if args.full_size else demo_checkpoints()
        rows = list(measure(found, runs))
    show(rows, device)
    if args.json:
        args.json.write_text(json.dumps({"device": device_name(device), "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
