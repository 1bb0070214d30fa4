"""KeyframeModel: stills from prompts, batched across shots."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from diffusers import AutoPipelineForText2Image

from .files import check_size
from .loading import (
    Loras,
    best_device,
    device_name,
    dtype_for,
    generator,
    load_pipeline,
    peak_memory_bytes,
    reset_peak_memory,
    set_scheduler,
    to_uint8,
)
from .values import KeyframeRequest, KeyframeSettings, ModelError, ModelFiles, Receipt


class KeyframeModel:
    """A Stable Diffusion checkpoint that draws keyframes.

    Args:
        identity: what receipts call this model; the caller checks it.
        files, settings: what to load, and how to sample.
    """

    def __init__(self, identity: str, files: ModelFiles, settings: KeyframeSettings, device: str | None = None):
        self.identity, self.settings, self.device = identity, settings, device or best_device()
        check_size(settings.width, settings.height, 8)
        dtype = dtype_for(files.dtype, self.device, torch.float16)
        self.pipe = load_pipeline(AutoPipelineForText2Image, files.checkpoint, dtype, self.device)
        set_scheduler(self.pipe, settings.scheduler)
        self.loras, self.always = Loras(self.pipe), files.loras
        self.loras.use(self.always)

    def prepare(self, loras: tuple) -> None:
        """Load LoRAs now, so that a bad one is an error before anything renders."""
        self.loras.use(self.always + tuple(loras))

    @torch.no_grad()
    def generate(self, requests: list[KeyframeRequest]) -> tuple[list[Receipt], list[np.ndarray]]:
        """One still a request: uint8 RGB (height, width, 3). All requests must want the same LoRAs and parameters.

        The batch is always padded to batch_size: PyTorch does not promise equal bits for another batch size
        ("Numerical accuracy", in its notes), and a take must not depend on how many neighbours it had.
        """
        started = time.monotonic()
        if len({(r.loras, r.parameters) for r in requests}) != 1 or len(requests) > self.settings.batch_size:
            raise ModelError(f"a batch holds at most {self.settings.batch_size} requests, all with the same LoRAs and parameters")
        s = replace(self.settings, **dict(requests[0].parameters))
        reset_peak_memory()
        self.loras.use(self.always + requests[0].loras)
        padded = requests + [requests[-1]] * (s.batch_size - len(requests))
        pictures = self.pipe(
            prompt_embeds=self._stack([r.prompt.embeds for r in padded]),
            negative_prompt_embeds=self._stack([r.negative.embeds for r in padded]),
            width=s.width,
            height=s.height,
            num_inference_steps=s.num_inference_steps,
            guidance_scale=s.guidance_scale,
            generator=[generator(r.seed) for r in padded],
            output_type="pt",
        ).images
        results = [to_uint8(p) for p in pictures[: len(requests)]]
        seconds = (time.monotonic() - started) / len(requests)
        receipts = [
            Receipt(r.take, self.identity, r.seed, finite, seconds, peak_memory_bytes(), device_name(self.device))
            for r, (_, finite) in zip(requests, results, strict=True)
        ]
        return receipts, [picture for picture, _ in results]

    def _stack(self, arrays: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self.device, self.pipe.unet.dtype)
