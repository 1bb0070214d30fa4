"""What each known way to go faster gives on this device, and how far its pictures are from the plain ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch
from diffusers import FirstBlockCacheConfig
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from actors.keyframe import KeyframeModel
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from benchmarks.gpu.clips import base, checkpoints
from benchmarks.gpu.report import Bench, Figure
from benchmarks.models import first_frame
from benchmarks.subjects import RandomTexts, Subject, ltx_clip, stills
from benchmarks.timing import seconds_of

Way = Callable[[], AbstractContextManager[None]]


def ratios(bench: Bench) -> Iterator[Figure]:
    """LTX-Video distilled and base, then stills; compiling last, since it takes longest."""
    found = checkpoints(bench)
    texts = RandomTexts.like(found.ltx_video, found.max_tokens)
    model = LtxVideoModel("ltx", found.ltx_video, found.ltx, bench.device)
    keyframe, transformer = first_frame(found.ltx.width, found.ltx.height), model.pipe.transformer
    distilled = ltx_clip(model, texts, keyframe)
    ways: dict[str, Way] = {"FP8 matrix products": lambda: fp8(transformer)}
    ways |= {f"attention {name}": partial(attention, transformer, name) for name in ("_native_flash", "_native_cudnn")}
    yield from _compared("LTX-Video distilled", distilled, ways, bench)
    model.settings = base(found.ltx, bench.tiny)
    cached: dict[str, Way] = {f"FirstBlockCache {t}": partial(first_block_cache, transformer, t) for t in (0.05, 0.1)}
    yield from _compared("LTX-Video base", ltx_clip(model, texts, keyframe), cached, bench)
    words = PromptEncoder("clip", found.stable_diffusion, device=bench.device)
    drawer = KeyframeModel("stills", found.stable_diffusion, found.still, bench.device)
    unet = drawer.pipe.unet
    more: dict[str, Way] = {"channels last": lambda: channels_last([unet, drawer.pipe.vae])}
    more |= {
        f"attention {kind.name.lower()}": partial(sdpa_kernel, kind)
        for kind in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION)
    }
    drawn = stills(drawer, words, found.still.batch_size)
    yield from _compared("stills", drawn, more | {"compiled blocks": lambda: compiled(unet, bench)}, bench)
    model.settings = replace(found.ltx)
    yield from _compared("LTX-Video distilled", distilled, {"compiled blocks": lambda: compiled(transformer, bench)}, bench)


def _compared(what: str, subject: Subject, ways: dict[str, Way], bench: Bench) -> Iterator[Figure]:
    plain = subject.values()
    runs = 1 if bench.tiny else 3
    before = median(seconds_of(subject.product) for _ in range(runs))
    apart = (subject.values() - plain).abs().max() * 255
    yield Figure(f"{what}: plain", before, "s", f"{subject.title}; again with the same seed: largest difference {apart:.3g} levels")
    for name, way in ways.items():
        try:
            with way():
                began = time.perf_counter()
                values = subject.values()  # warms up, too
                first = time.perf_counter() - began
                seconds = median(seconds_of(subject.product) for _ in range(runs))
        except (RuntimeError, ValueError, NotImplementedError, ImportError) as error:
            yield Figure(f"{what}: {name}", "cannot run here", note=" ".join(str(error).split())[:200])
            continue
        apart = (values - plain).abs() * 255
        note = f"{seconds:.3f} s; difference largest {apart.max():.3g}, mean {apart.mean():.3g} levels; first call {first:.1f} s"
        yield Figure(f"{what}: {name}", before / seconds, "times as fast", note)


@contextmanager
def attention(transformer: Any, backend: str) -> Iterator[None]:
    """On self-attention alone: cross-attention has a mask, which flash attention refuses."""
    from diffusers.models.attention_dispatch import AttentionBackendName

    processors = [block.attn1.processor for block in transformer.transformer_blocks]
    for processor in processors:
        processor._attention_backend = AttentionBackendName(backend)
    try:
        yield
    finally:
        for processor in processors:
            processor._attention_backend = None


@contextmanager
def first_block_cache(transformer: Any, threshold: float) -> Iterator[None]:
    transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    try:
        yield
    finally:
        transformer.disable_cache()


@contextmanager
def channels_last(models: list[nn.Module]) -> Iterator[None]:
    for model in models:
        model.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        for model in models:
            model.to(memory_format=torch.contiguous_format)


@contextmanager
def compiled(model: Any, bench: Bench) -> Iterator[None]:
    """Its repeated blocks. A CPU's rehearsal traces only: building kernels takes a C++ compiler minutes there."""
    model.compile_repeated_blocks(fullgraph=True, backend="inductor" if bench.on_gpu else "eager")
    try:
        yield
    finally:
        for module in model.modules():
            module._compiled_call_impl = None


class Fp8Linear(nn.Module):
    """A linear layer whose product is computed in 8 bits: e4m3 with one scale a tensor, the input's found as it comes.

    What torchao's dynamic FP8 does; written out, since that wheel refuses to run on a CPU and so cannot be tried before a GPU is there.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight, self.scale = _to_fp8(linear.weight.data)
        self.weight, self.bias = weight, linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, scale = _to_fp8(x.reshape(-1, x.shape[-1]))
        y = torch._scaled_mm(rows, self.weight.t(), scale_a=scale, scale_b=self.scale, out_dtype=torch.bfloat16)
        y = y.to(x.dtype).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


def _to_fp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    largest = torch.finfo(torch.float8_e4m3fn).max
    scale = (x.abs().amax().float() / largest).clamp(min=1e-12)
    return (x / scale).clamp(-largest, largest).to(torch.float8_e4m3fn), scale


@contextmanager
def fp8(transformer: Any) -> Iterator[None]:
    """The linear layers of all blocks; their sides are multiples of 16, as the hardware wants."""
    swapped: list[tuple[nn.Module, str, nn.Linear]] = []
    for block in transformer.transformer_blocks:
        for parent in list(block.modules()):
            swapped += [(parent, name, child) for name, child in parent.named_children() if isinstance(child, nn.Linear)]
    for parent, name, linear in swapped:
        setattr(parent, name, Fp8Linear(linear))
    try:
        yield
    finally:
        for parent, name, linear in swapped:
            setattr(parent, name, linear)
