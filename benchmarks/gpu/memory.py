"""Is what a device tells the pool of a model's memory what the GPU's allocator says?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from actors.keyframe import KeyframeModel
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import ClipRequest, KeyframeRequest
from benchmarks.gpu.clips import checkpoints
from benchmarks.gpu.report import Bench, Figure
from benchmarks.models import first_frame
from benchmarks.subjects import NEGATIVE, WORDS, RandomTexts
from cluster.device import Answer, Device
from cluster.specs import ModelSpec, pack, unpack


def memory(bench: Bench) -> Iterator[Figure]:
    """Models built and called through the device itself: LTX-Video, Stable Diffusion beside it, and LTX-Video once more."""
    found, device = checkpoints(bench), Device(0)
    clip_text = PromptEncoder("clip", found.stable_diffusion, device="cpu").encode([WORDS, NEGATIVE])
    t5_text = RandomTexts.like(found.ltx_video, found.max_tokens).encode([WORDS, NEGATIVE])
    keyframe = first_frame(found.ltx.width, found.ltx.height)
    clip = ClipRequest("t", 1, prompt=t5_text[0], negative=t5_text[1], keyframe=keyframe)
    drawn = [KeyframeRequest(f"t{i}", i, prompt=clip_text[0], negative=clip_text[1]) for i in range(found.still.batch_size)]
    ltx = ModelSpec("LTX-Video", LtxVideoModel, ("ltx", found.ltx_video, found.ltx, bench.device))
    sd = ModelSpec("Stable Diffusion", KeyframeModel, ("stills", found.stable_diffusion, found.still, bench.device))
    for spec, requests in ((ltx, [clip]), (sd, drawn), (ltx, [clip])):
        yield from _asked(device, spec, requests, bench)


def _asked(device: Device, spec: ModelSpec, requests: Sequence[ClipRequest | KeyframeRequest], bench: Bench) -> Iterator[Figure]:
    beside = [key for key in device.models if key != spec.key]
    title = spec.key + (f" beside {', '.join(beside)}" if beside else "")
    (answer,) = unpack(device.run(pack(spec.key, spec.written, (), requests, []))[0])
    assert isinstance(answer, Answer)
    if answer.error:
        yield Figure(title, "failed", note=": ".join(answer.error))
        return
    yield Figure(f"{title}: load", answer.load_seconds, "s")
    if not bench.on_gpu or answer.memory is None:
        yield Figure(f"{title}: needs", "not told", note="only a GPU's allocator can tell")
        return
    others = sum(device.weights[key] for key in beside)
    told, allocated = answer.memory / 1e9, (torch.cuda.max_memory_allocated() - others) / 1e9
    yield Figure(f"{title}: needs, as the device tells the pool", told, "GB", f"weights {device.weights[spec.key] / 1e9:.2f} GB")
    yield Figure(f"{title}: max_memory_allocated, less the others' weights", allocated, "GB", f"{told / allocated:.3f} of it was told")
    yield Figure(f"{title}: reserved by the allocator", torch.cuda.max_memory_reserved() / 1e9, "GB", "what nvidia-smi counts")
