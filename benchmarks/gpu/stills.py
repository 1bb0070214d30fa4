"""Stable Diffusion 1.5 stills in batches, and AnimateDiff."""

from __future__ import annotations

from collections.abc import Iterator

from actors.animatediff import AnimateDiffModel
from actors.keyframe import KeyframeModel
from actors.loading import peak_memory_bytes, reset_peak_memory
from actors.prompts import PromptEncoder
from benchmarks.gpu.clips import checkpoints
from benchmarks.gpu.report import Bench, Figure
from benchmarks.models import first_frame
from benchmarks.subjects import animatediff_clip, stills
from benchmarks.timing import in_turns, stages_of


def stills_and_animatediff(bench: Bench) -> Iterator[Figure]:
    """768x512 stills in batches of 4 beside the plain loop, then 1, 2 and 8; AnimateDiff 512x288x16 beside its plain loop."""
    found, runs = checkpoints(bench), 1 if bench.tiny else 3
    encoder = PromptEncoder("clip", found.stable_diffusion, device=bench.device)
    model = KeyframeModel("stills", found.stable_diffusion, found.still, bench.device)
    for batch in (4, 1, 2, 8):
        reset_peak_memory()
        subject = stills(model, encoder, batch)
        contenders = {"product": subject.product} | ({"plain": subject.plain} if batch == 4 else {})
        medians, _ = in_turns(contenders, runs, bench.share(0.3))
        yield Figure(f"batch of {batch}: a still", medians["product"] / batch, "s", subject.title)
        if batch == 4:
            yield Figure("plain diffusers loop, 4 at once: a still", medians["plain"] / batch, "s", "in turns with it")
        yield Figure(f"batch of {batch}: peak memory", peak_memory_bytes() / 1e9, "GB")
    del model, subject, contenders
    reset_peak_memory()
    animate = AnimateDiffModel("animatediff", found.animatediff, found.animate, bench.device)
    clip = animatediff_clip(animate, encoder, first_frame(found.animate.width, found.animate.height))
    medians, _ = in_turns({"product": clip.product, "plain": clip.plain}, runs, bench.share(0.7))
    yield Figure("AnimateDiff: a clip", medians["product"], "s", clip.title)
    yield Figure("AnimateDiff: plain diffusers loop", medians["plain"], "s", "in turns with it")
    yield Figure("AnimateDiff: peak memory", peak_memory_bytes() / 1e9, "GB")
    for stage, seconds in stages_of(clip.product, clip.parts).items():
        yield Figure(f"AnimateDiff: {stage}", seconds, "s", "one call, waited for at each part")
