"""LtxVideoModel: a clip that starts from its keyframe, by LTX-Video."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from diffusers import LTXConditionPipeline
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image

from .compress import compressed
from .files import check_frames, check_size
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
from .values import ClipRequest, ClipSettings, ModelError, ModelFiles, Receipt


class LtxVideoModel:
    """An LTX-Video checkpoint that animates keyframes. Arguments as KeyframeModel's."""

    def __init__(self, identity: str, files: ModelFiles, settings: ClipSettings, device: str | None = None):
        self.identity, self.settings, self.device = identity, settings, device or best_device()
        check_size(settings.width, settings.height, 32)
        check_frames(files.checkpoint, settings.num_frames)
        dtype = dtype_for(files.dtype, self.device, torch.bfloat16)
        self.pipe = load_pipeline(LTXConditionPipeline, files.checkpoint, dtype, self.device)
        set_scheduler(self.pipe, settings.scheduler)
        self.loras = Loras(self.pipe)
        self.loras.use(files.loras)

    def prepare(self, loras: tuple) -> None:
        """Characters' LoRAs are drawn into the keyframe; LTX-Video only takes its workflow's own."""

    @torch.no_grad()
    def generate(self, requests: list[ClipRequest]) -> tuple[list[Receipt], list[np.ndarray]]:
        """One clip: uint8 RGB (num_frames, height, width, 3). LTX-Video gains nothing from batches: one request a call."""
        (request,), started = requests, time.monotonic()
        s = replace(self.settings, **dict(request.parameters))
        reset_peak_memory()
        still = compressed(request.keyframe, s.keyframe_crf)
        frames = self.pipe(
            conditions=[LTXVideoCondition(image=Image.fromarray(still), frame_index=0, strength=s.strength)],
            prompt_embeds=self._batch(request.prompt.embeds),
            prompt_attention_mask=torch.from_numpy(request.prompt.mask)[None].to(self.device),
            negative_prompt_embeds=self._batch(request.negative.embeds),
            negative_prompt_attention_mask=torch.from_numpy(request.negative.mask)[None].to(self.device),
            width=s.width,
            height=s.height,
            num_frames=s.num_frames,
            frame_rate=s.fps,
            num_inference_steps=s.num_inference_steps,
            timesteps=list(s.timesteps) or None,
            guidance_scale=s.guidance_scale,
            image_cond_noise_scale=s.image_cond_noise_scale,
            decode_timestep=s.decode_timestep,
            decode_noise_scale=s.decode_noise_scale,
            generator=generator(request.seed),
            output_type="pt",
        ).frames
        clip, finite = to_uint8(frames[0])
        if len(clip) != s.num_frames:
            raise ModelError(f"LTX-Video made {len(clip)} frames where {s.num_frames} were asked for")
        receipt = Receipt(
            request.take, self.identity, request.seed, finite, time.monotonic() - started, peak_memory_bytes(), device_name(self.device)
        )
        return [receipt], [clip]

    def _batch(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array)[None].to(self.device, self.pipe.transformer.dtype)
