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
        identity: name of this model in its receipts; the caller checks that it is the model it asked for.
        files: what to load. settings: how to sample.
        device: such as "cuda" or "cpu"; None chooses.
        parts: components of the pipeline to use in place of the checkpoint's own.

    Raises:
        ModelError: the files cannot be loaded, or the settings do not fit the model.
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
        """Activate the request's LoRAs and reset the peak memory. Returns the call's settings, and time.monotonic() at its start."""
        started = time.monotonic()
        reset_peak_memory()
        self.prepare(request.loras)
        return replace(self.settings, **dict(request.parameters)), started

    def end(self, requests: Sequence[Request], pictures: Sequence[torch.Tensor], started: float) -> tuple[list[Receipt], list[np.ndarray]]:
        """Receipts and results of a call: one of each for every request.

        Args:
            pictures: float 0..1, of shape (3, height, width) for a still and (frames, 3, height, width) for a clip.
            started: from `begin`.
        """
        results = [to_uint8(p) for p in pictures]
        seconds = (time.monotonic() - started) / len(requests)
        receipts = [
            Receipt(
                take=r.take,
                model=self.identity,
                seed=r.seed,
                finite=finite,
                seconds=seconds,
                peak_memory_bytes=peak_memory_bytes(),
                device=device_name(self.device),
            )
            for r, (_, finite) in zip(requests, results, strict=True)
        ]
        return receipts, [picture for picture, _ in results]

    def embeddings(self, arrays: list[np.ndarray]) -> torch.Tensor:
        """Stack embeddings to (n, tokens, width), on the device and in the denoiser's dtype."""
        denoiser = getattr(self.pipe, "unet", None) or self.pipe.transformer
        return torch.from_numpy(np.stack(arrays)).to(self.device, denoiser.dtype)


def proven_length(clip: torch.Tensor, settings: ClipSettings, model: str) -> torch.Tensor:
    """Return the clip unchanged. Some pipelines make another number of frames than they were asked for, in silence.

    Args:
        clip: (frames, 3, height, width). model: name for the error message.

    Raises:
        ModelError: the clip does not have settings.num_frames frames.
    """
    if len(clip) != settings.num_frames:
        raise ModelError(f"{model} made {len(clip)} frames where {settings.num_frames} were asked for")
    return clip
