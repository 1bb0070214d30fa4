"""AnimateDiffModel: a short clip that starts from its keyframe, by Stable Diffusion with a motion adapter."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import AnimateDiffVideoToVideoPipeline
from PIL import Image

from .animate_files import check_fit, check_windows
from .compress import compressed
from .families import FAMILIES
from .ip_adapter import add_ip_adapter
from .loading import best_device, dtype_for, generator
from .model import Model, longest, proven_length
from .motion_adapter import load_adapter
from .values import ClipRequest, ClipSettings, ModelError, ModelFiles, Receipt


class WindowsPipeline(AnimateDiffVideoToVideoPipeline):
    """diffusers' pipeline, which for windows of a long clip (FreeNoise) takes prompts as text alone: here their embeddings serve."""

    def _encode_prompt_free_noise(
        self,
        num_frames: int,
        do_classifier_free_guidance: bool,
        prompt_embeds: torch.Tensor,
        negative_prompt_embeds: torch.Tensor,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        texts = [negative_prompt_embeds, prompt_embeds] if do_classifier_free_guidance else [prompt_embeds]
        return torch.cat([text.repeat_interleave(num_frames, dim=0) for text in texts]), negative_prompt_embeds


class AnimateDiffModel(Model):
    """A Stable Diffusion checkpoint and a motion adapter that animate keyframes.

    The keyframe is repeated for every frame, noised up to `strength`, and denoised as one clip. Of the ways to start
    AnimateDiff from a picture, diffusers maintains this one; it takes seeds and needs no second network.

    Raises:
        ModelError: the motion adapter is missing or cannot be loaded, or `strength` or `num_frames` is out of range.
    """

    family = "animatediff"
    pipeline = WindowsPipeline

    def __init__(
        self, identity: str, files: ModelFiles, settings: ClipSettings, device: str | None = None, beside: AnimateDiffModel | None = None
    ):
        if files.motion_adapter is None:
            raise ModelError("AnimateDiff needs a motion_adapter")
        if not 0 < settings.strength <= 1:
            raise ModelError(f"strength {settings.strength} is not between 0 and 1")
        dtype = dtype_for(files.dtype, device or best_device(), FAMILIES[self.family].dtype)
        adapter = load_adapter(files.motion_adapter, dtype) if beside is None else beside.pipe.motion_adapter
        check_fit(files.motion_adapter, adapter.config, files.folder)
        check_windows(settings.num_frames, adapter.config.motion_max_seq_length, settings.context_length, settings.context_overlap)
        self.likeness = files.ip_adapter is not None
        super().__init__(identity, files, settings, device, beside, motion_adapter=adapter)
        shortest = settings.context_length or 2
        least = {"width": 64, "height": 64, "num_frames": shortest, "num_inference_steps": 2, "strength": 1.0, "keyframe_crf": None}
        self.try_out(ClipRequest("trial", 0, keyframe=np.zeros((64, 64, 3), np.uint8)), **least)

    def equip(self, files: ModelFiles, dtype: torch.dtype) -> None:
        s = self.settings
        if s.context_length:
            self.pipe.enable_free_noise(s.context_length, s.context_length - s.context_overlap)
            self.pipe.unet.eval()
        if files.ip_adapter and files.image_encoder:
            add_ip_adapter(self.pipe, files.ip_adapter, files.image_encoder, files.folder, dtype, self.device)

    @torch.no_grad()
    def make(self, requests: list[ClipRequest]) -> tuple[list[Receipt], list[np.ndarray]]:
        """Make one clip, uint8 RGB (num_frames, height, width, 3). A call takes exactly one request.

        Raises:
            ModelError: the pipeline made another number of frames.
        """
        (request,) = requests
        s, started = self.begin(request)
        still = Image.fromarray(compressed(request.keyframe, s.keyframe_crf))
        if self.likeness:
            self.pipe.set_ip_adapter_scale(s.ip_adapter_scale)
        frames = self.pipe(
            video=[[still] * s.num_frames],
            **self.texts([request], longest(request)),
            ip_adapter_image=Image.fromarray(request.keyframe) if self.likeness else None,
            width=s.width,
            height=s.height,
            num_inference_steps=s.num_inference_steps,
            enforce_inference_steps=False,
            strength=_of_a_step(s.strength, s.num_inference_steps),
            guidance_scale=s.guidance_scale,
            generator=generator(request.seed),
            output_type="pt",
            callback_on_step_end=self.remember,
        ).frames
        return self.end(requests, [proven_length(frames[0], s, "AnimateDiff")], started, [self.latents])


def _of_a_step(strength: float, steps: int) -> float:
    """The strength, or the least at which one step is taken: diffusers rounds their number down, and fails where none is left."""
    return strength if int(steps * strength) else min(1.0, 1.5 / steps)
