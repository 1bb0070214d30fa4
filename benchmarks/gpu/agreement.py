"""Do the demo checkpoints draw on this device what they draw on a CPU, and do the gates agree?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from actors.animatediff import AnimateDiffModel
from actors.keyframe import KeyframeModel
from actors.loading import to_uint8
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import TextSettings
from benchmarks.gpu.report import NO_AV, Bench, Figure, has_av
from benchmarks.models import Checkpoints, demo_checkpoints
from benchmarks.subjects import Subject, animatediff_clip, ltx_clip, stills
from gates.image import measure_image
from gates.rules import judge
from gates.still import Still
from gates.verdict import Verdict
from pipeline.story.gate_profile import load_profile

SEED = 7
RATES = {"stills": 0, "LTX-Video": 24, "AnimateDiff": 8}  # frames a second; stills have none


def agreement(bench: Bench) -> Iterator[Figure]:
    """The same embeddings, keyframe and seed, on a CPU in float32, here in float32, and here in the types that a render takes."""
    found = demo_checkpoints()
    if not any(Path(found.stable_diffusion.checkpoint).rglob("*.safetensors")):
        yield Figure("demo checkpoints", "left out", note="their weights did not travel; run it once more with them")
        return
    found = _short(found) if bench.tiny else found
    on_cpu = _made(found, "cpu", "float32", None)
    keyframe = _pixels(on_cpu["stills"])[0]
    on_cpu |= _made(found, "cpu", "float32", keyframe)
    pictures = {"cpu float32": on_cpu}
    for dtype in ("float32", "auto"):
        here = _made(found, bench.device, dtype, None) | _made(found, bench.device, dtype, keyframe)
        pictures[f"device {dtype}"] = here
        for what, values in here.items():
            apart = (values - on_cpu[what]).abs() * 255
            note = f"largest {apart.max():.1f}; before the cast, against the CPU in float32"
            yield Figure(f"{what}, {dtype}: mean difference", float(apart.mean()), "levels of 255", note)
    _save(bench.out, {name: made for name, made in pictures.items() if name != "cpu float32"}, keyframe)
    _sheet(bench.out / "agreement.png", pictures)
    yield from _stills_judged(pictures)
    yield from judge_brought_back(bench.out) if has_av() else [NO_AV]


def _short(found: Checkpoints) -> Checkpoints:
    """Clips short enough for a rehearsal."""
    ltx = replace(found.ltx, num_frames=9, timesteps=found.ltx.timesteps[::3])
    still, animate = replace(found.still, num_inference_steps=6), replace(found.animate, num_frames=4, num_inference_steps=4)
    return replace(found, ltx=ltx, still=still, animate=animate)


def _made(found: Checkpoints, device: str, dtype: str, keyframe: np.ndarray | None) -> dict[str, torch.Tensor]:
    """Values before the cast, by what they are: stills where there is no keyframe, else the clips that start from it.

    Texts are encoded on the CPU in float32 for all, so that the models alone are compared.
    """

    def files(given: Any) -> Any:
        return replace(given, dtype=dtype)

    words = PromptEncoder("clip", replace(found.stable_diffusion, dtype="float32"), device="cpu")
    if keyframe is None:
        model = KeyframeModel("stills", files(found.stable_diffusion), found.still, device)
        return {"stills": _values(stills(model, words, found.still.batch_size))}
    t5 = PromptEncoder("t5", replace(found.ltx_video, dtype="float32"), TextSettings(found.max_tokens), device="cpu")
    ltx = LtxVideoModel("ltx", files(found.ltx_video), found.ltx, device)
    animate = AnimateDiffModel("animatediff", files(found.animatediff), found.animate, device)
    return {
        "LTX-Video": _values(ltx_clip(ltx, t5, keyframe)),
        "AnimateDiff": _values(animatediff_clip(animate, words, keyframe)),
    }


def _values(subject: Subject) -> torch.Tensor:
    """(n, 3, height, width): all stills, or all frames of the one clip."""
    return subject.values(SEED).flatten(0, -4)


def _pixels(values: torch.Tensor) -> np.ndarray:
    return to_uint8(values)[0]


def _save(out: Path, made: dict[str, dict[str, torch.Tensor]], keyframe: np.ndarray) -> None:
    """What this device made, for eyes and gates elsewhere: one file a type, since no file that travels may be large."""
    for name, models in made.items():
        file = out / f"agreement-{name.split()[-1]}.npz"
        arrays: dict[str, Any] = {what: _pixels(values) for what, values in models.items()}
        np.savez_compressed(file, keyframe=keyframe, **arrays)


def _sheet(file: Path, pictures: dict[str, dict[str, torch.Tensor]]) -> None:
    """A row each: the CPU's stills and moments of its clips, then the device's."""
    rows = []
    for made in pictures.values():
        chosen = [_pixels(values[np.linspace(0, len(values) - 1, 4).astype(int)]) for values in made.values()]
        rows.append(np.hstack([frame for frames in chosen for frame in frames]))
    Image.fromarray(np.vstack(rows)).save(file)


def _stills_judged(pictures: dict[str, dict[str, torch.Tensor]]) -> Iterator[Figure]:
    for name, made in pictures.items():
        verdicts = [judge("image", measure_image(Still(image)), load_profile("anime")) for image in _pixels(made["stills"])]
        yield Figure(f"gate 1 on {name}", ", ".join(map(told, verdicts)))


def told(verdict: Verdict) -> str:
    """`pass`, or the outcome and its labels."""
    return " ".join([verdict.outcome, *verdict.failures, *verdict.warnings])


def judge_brought_back(out: Path) -> Iterator[Figure]:
    """Gate 2 on every clip in the folder's agreement files, each written as mp4 and decoded again as in a render."""
    from catalog.place import Place
    from gates.video import Expectation
    from pipeline.render.gate_tasks import Standard, judge_clip, judge_keyframe

    standard = Standard(load_profile("anime"))
    for file in sorted(out.glob("agreement-*.npz")):
        with np.load(file) as made, tempfile.TemporaryDirectory(prefix="tower-gpu-") as folder:
            height, width = made["keyframe"].shape[:2]
            keyframe = judge_keyframe(made["keyframe"], "", width, height, Place.of(folder), standard).media
            for what in [name for name in made.files if RATES.get(name)]:
                began, frames = time.monotonic(), made[what]
                expect = Expectation(len(frames), Fraction(RATES[what]), width, height, "h264", "yuv420p")
                verdict = judge_clip(frames, "", keyframe, expect, Place.of(folder), standard).verdict
                note = f"{len(frames)} frames, {time.monotonic() - began:.2f} s"
                kind = file.stem.removeprefix("agreement-")
                yield Figure(f"gate 2 on {what}, {kind}", told(verdict), note=note)
