"""AnimateDiffModel: a short clip that starts from its keyframe, by Stable Diffusion with a motion adapter."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from diffusers import AnimateDiffVideoToVideoPipeline, MotionAdapter
from PIL import Image

from .compress import compressed
from .files import check_folder, check_size, first_line
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


class AnimateDiffModel:
    """A Stable Diffusion checkpoint and a motion adapter that animate keyframes. Arguments as KeyframeModel's.

    The keyframe is repeated, noised up to `strength` and denoised as one clip: the maintained way to
    start AnimateDiff from a picture, with seeds and without a second network.
    """

    def __init__(self, identity: str, files: ModelFiles, settings: ClipSettings, device: str | None = None):
        self.identity, self.settings, self.device = identity, settings, device or best_device()
        check_size(settings.width, settings.height, 8)
        if files.motion_adapter is None:
            raise ModelError("AnimateDiff needs a motion_adapter")
        if not 0 < settings.strength <= 1:
            raise ModelError(f"strength {settings.strength} is not between 0 and 1")
        dtype = dtype_for(files.dtype, self.device, torch.float16)
        adapter = load_adapter(files.motion_adapter, dtype)
        longest = adapter.config.motion_max_seq_length
        if not 2 <= settings.num_frames <= longest:
            raise ModelError(f"num_frames {settings.num_frames} does not fit this motion adapter: it makes 2 to {longest} frames")
        self.pipe = load_pipeline(AnimateDiffVideoToVideoPipeline, files.checkpoint, dtype, self.device, motion_adapter=adapter)
        set_scheduler(self.pipe, settings.scheduler)
        self.loras, self.always = Loras(self.pipe), files.loras
        self.loras.use(self.always)

    def prepare(self, loras: tuple) -> None:
        """Load LoRAs now, so that a bad one is an error before anything renders."""
        self.loras.use(self.always + tuple(loras))

    @torch.no_grad()
    def generate(self, requests: list[ClipRequest]) -> tuple[list[Receipt], list[np.ndarray]]:
        """One clip: uint8 RGB (num_frames, height, width, 3). One request a call."""
        (request,), started = requests, time.monotonic()
        s = replace(self.settings, **dict(request.parameters))
        reset_peak_memory()
        self.loras.use(self.always + request.loras)
        still = Image.fromarray(compressed(request.keyframe, s.keyframe_crf))
        frames = self.pipe(
            video=[[still] * s.num_frames],
            prompt_embeds=self._batch(request.prompt.embeds),
            negative_prompt_embeds=self._batch(request.negative.embeds),
            width=s.width,
            height=s.height,
            num_inference_steps=s.num_inference_steps,
            enforce_inference_steps=False,
            strength=s.strength,
            guidance_scale=s.guidance_scale,
            generator=generator(request.seed),
            output_type="pt",
        ).frames
        clip, finite = to_uint8(frames[0])
        if len(clip) != s.num_frames:
            raise ModelError(f"AnimateDiff made {len(clip)} frames where {s.num_frames} were asked for")
        receipt = Receipt(
            request.take, self.identity, request.seed, finite, time.monotonic() - started, peak_memory_bytes(), device_name(self.device)
        )
        return [receipt], [clip]

    def _batch(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array)[None].to(self.device, self.pipe.unet.dtype)


def load_adapter(folder: str, dtype: torch.dtype) -> MotionAdapter:
    check_folder(folder, "motion adapter", part="config.json")
    try:
        return MotionAdapter.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"motion adapter {folder} cannot be loaded: {first_line(error)}") from error
