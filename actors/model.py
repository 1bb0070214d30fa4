"""What the models share: loading a pipeline, LoRAs, a request's own parameters, and the receipt for what was made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch

from .families import FAMILIES
from .files import check_size
from .loading import (
    Loras,
    best_device,
    device_name,
    dtype_for,
    load_pipeline,
    peak_memory_bytes,
    reset_peak_memory,
    set_scheduler,
    to_uint8,
)
from .values import ClipRequest, ClipSettings, KeyframeRequest, Lora, ModelError, ModelFiles, Receipt

Request = KeyframeRequest | ClipRequest


class Model:
    """A diffusers pipeline on a device.

    Args:
        identity: what receipts call this model; the caller checks it.
        files, settings: what to load, and how to sample.
        parts: of the pipeline, in place of the checkpoint's own.
    """

    family: ClassVar[str]
    pipeline: ClassVar[Any]

    def __init__(self, identity: str, files: ModelFiles, settings: Any, device: str | None = None, **parts: Any):
        family = FAMILIES[self.family]
        self.identity, self.settings, self.device = identity, settings, device or best_device()
        check_size(settings.width, settings.height, family.size_multiple)
        dtype = dtype_for(files.dtype, self.device, family.dtype)
        self.pipe = load_pipeline(self.pipeline, files.checkpoint, dtype, self.device, **parts)
        set_scheduler(self.pipe, settings.scheduler)
        self.loras, self.always, self.shots_loras = Loras(self.pipe), files.loras, family.shots_loras
        self.loras.use(self.always)

    def prepare(self, loras: tuple[Lora, ...]) -> None:
        """Load a shot's LoRAs now, so that a bad one is an error before anything renders."""
        if self.shots_loras:
            self.loras.use(self.always + tuple(loras))

    def begin(self, request: Request) -> tuple[Any, float]:
        """The settings of this call, and when it began; LoRAs and the count of memory are made ready for it."""
        started = time.monotonic()
        reset_peak_memory()
        self.prepare(request.loras)
        return replace(self.settings, **dict(request.parameters)), started

    def end(self, requests: Sequence[Request], pictures: Sequence[torch.Tensor], started: float) -> tuple[list[Receipt], list[np.ndarray]]:
        """Receipts and results of a call, one each a request.

        Args:
            pictures: float 0..1, (3, height, width) a still or (frames, 3, height, width) a clip.
        """
        results = [to_uint8(p) for p in pictures]
        seconds = (time.monotonic() - started) / len(requests)
        receipts = [
            Receipt(r.take, self.identity, r.seed, finite, seconds, peak_memory_bytes(), device_name(self.device))
            for r, (_, finite) in zip(requests, results, strict=True)
        ]
        return receipts, [picture for picture, _ in results]

    def embeddings(self, arrays: list[np.ndarray]) -> torch.Tensor:
        """(n, tokens, width) on the device, in the type that the denoiser computes in."""
        denoiser = getattr(self.pipe, "unet", None) or self.pipe.transformer
        return torch.from_numpy(np.stack(arrays)).to(self.device, denoiser.dtype)


def proven_length(clip: torch.Tensor, settings: ClipSettings, model: str) -> torch.Tensor:
    """The clip, if it has as many frames as were asked for: pipelines make other counts in silence."""
    if len(clip) != settings.num_frames:
        raise ModelError(f"{model} made {len(clip)} frames where {settings.num_frames} were asked for")
    return clip
