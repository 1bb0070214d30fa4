"""The plan for a 12 GB card, on a card that is made to look like one: all prompts, then all keyframes, then all clips."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from diffusers.hooks import apply_layerwise_casting

from actors.animatediff import AnimateDiffModel
from actors.keyframe import KeyframeModel
from actors.loading import peak_memory_bytes, reset_peak_memory
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import TextSettings
from benchmarks.gpu.clips import checkpoints
from benchmarks.gpu.report import Bench, Figure
from benchmarks.models import Checkpoints, first_frame
from benchmarks.subjects import WORDS, RandomTexts, animatediff_clip, ltx_clip, stills
from benchmarks.timing import seconds_of
from pipeline.story.cluster_profile import PROFILES, ClusterProfile
from pipeline.story.yaml_file import read_yaml

EIGHT_BITS = torch.float8_e4m3fn  # for keeping weights; each layer is cast to the type that it computes in as it is called


def small_card(bench: Bench) -> Iterator[Figure]:
    """Each stage as it is, then with what makes it smaller: what fits, what does not and where it breaks, and what that costs."""
    found = checkpoints(bench)
    yield _limit(bench)
    yield from _prompts(found, bench)
    yield from _keyframes_and_animatediff(found, bench)
    yield from _ltx(found, bench)


def _limit(bench: Bench) -> Figure:
    """As much as the shipped profile gives to models on such a card; the rest is the driver's and the desktop's."""
    profile = read_yaml(PROFILES / "card-12gb.yaml", ClusterProfile)
    limit = profile.device_memory_gb["other"]
    if not bench.on_gpu:
        return Figure("limit", "none", note="memory can be limited on a GPU only; everything below runs without")
    torch.cuda.set_per_process_memory_fraction(limit * 1e9 / torch.cuda.get_device_properties(0).total_memory)
    return Figure("limit", limit, "GB", "configs/cluster/card-12gb.yaml, as torch.cuda.set_per_process_memory_fraction")


def _prompts(found: Checkpoints, bench: Bench) -> Iterator[Figure]:
    def in_8_bits() -> PromptEncoder:
        encoder = PromptEncoder("t5", replace(found.ltx_video, dtype="bfloat16"), TextSettings(found.max_tokens), "cpu")
        # T5's last layer of each block asks its weights for the type to compute in, so those stay as they are.
        apply_layerwise_casting(encoder.encoder, EIGHT_BITS, torch.bfloat16, skip_modules_pattern=("norm", "wo"))
        encoder.encoder.to(bench.device)
        encoder.device = bench.device
        return encoder

    def encode(encoder: PromptEncoder) -> Any:
        return encoder.encode([WORDS])

    yield _attempt("T5-XXL on the card", lambda: PromptEncoder("t5", found.ltx_video, TextSettings(found.max_tokens), bench.device), encode)
    yield _attempt("T5-XXL on the card, weights kept in 8 bits", in_8_bits, encode)
    on_cpu = replace(found.ltx_video, dtype="bfloat16")
    yield _attempt("T5-XXL on the CPU", lambda: PromptEncoder("t5", on_cpu, TextSettings(found.max_tokens), "cpu"), encode)


def _keyframes_and_animatediff(found: Checkpoints, bench: Bench) -> Iterator[Figure]:
    words = PromptEncoder("clip", found.stable_diffusion, device=bench.device)
    still, clip = found.still, found.animate
    yield _attempt(
        f"{still.batch_size} stills of {still.width}x{still.height}",
        lambda: KeyframeModel("stills", found.stable_diffusion, still, bench.device),
        lambda model: stills(model, words, still.batch_size).product(),
    )
    yield _attempt(
        f"AnimateDiff, {clip.num_frames} frames of {clip.width}x{clip.height}",
        lambda: AnimateDiffModel("animatediff", found.animatediff, clip, bench.device),
        lambda model: animatediff_clip(model, words, first_frame(clip.width, clip.height)).product(),
    )


def _ltx(found: Checkpoints, bench: Bench) -> Iterator[Figure]:
    s = found.ltx
    # The encoder may not fit beside it, and words change no timing.
    texts, keyframe = RandomTexts.like(found.ltx_video, found.max_tokens), first_frame(s.width, s.height)

    def load(tiling: bool = False, eight_bits: bool = False) -> LtxVideoModel:
        model = LtxVideoModel("ltx", found.ltx_video, s, bench.device)
        if tiling:
            model.pipe.vae.enable_tiling()
        if eight_bits:
            model.pipe.transformer.enable_layerwise_casting(storage_dtype=EIGHT_BITS, compute_dtype=model.pipe.transformer.dtype)
        return model

    title = f"LTX-Video, {s.num_frames} frames of {s.width}x{s.height}"
    for how, options in {"": {}, ", decoded in tiles": {"tiling": True}, ", weights kept in 8 bits": {"eight_bits": True}}.items():
        yield _attempt(title + how, lambda o=options: load(**o), lambda model: ltx_clip(model, texts, keyframe).product())  # type: ignore[misc]


def _attempt(what: str, load: Callable[[], Any], call: Callable[[Any], Any]) -> Figure:
    """Load, call twice (the first warms up), let go. Out of memory is an answer."""
    reset_peak_memory()
    began, phase, held = time.perf_counter(), "loading", []
    try:
        held.append(load())
        loaded, phase = time.perf_counter() - began, "its call"
        call(held[0])
        seconds = seconds_of(lambda: call(held[0]))
        return Figure(what, seconds, "s", f"fits; peak {peak_memory_bytes() / 1e9:.2f} GB; loaded in {loaded:.2f} s")
    except torch.OutOfMemoryError as error:
        return Figure(what, "does not fit", note=f"breaks at {phase}: {str(error).split('.')[0][:160]}")
    finally:
        held.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
