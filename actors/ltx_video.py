"""LtxVideoModel: a clip that starts from its keyframe, by LTX-Video."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import LTXConditionPipeline
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image

from .compress import compressed
from .files import check_frames
from .loading import generator, visit_as_given
from .model import Model, proven_length
from .values import ClipRequest, ClipSettings, ModelFiles, Receipt


class LtxVideoModel(Model):
    """An LTX-Video checkpoint that animates keyframes. Raises ModelError where it cannot make `num_frames` frames."""

    family = "ltx_video"
    pipeline = LTXConditionPipeline

    def __init__(self, identity: str, files: ModelFiles, settings: ClipSettings, device: str | None = None):
        check_frames(files.folder, settings.num_frames)
        super().__init__(identity, files, settings, device)
        if settings.timesteps:
            visit_as_given(self.pipe)
        if settings.vae_tiling:
            self.pipe.vae.enable_tiling()
        least = {"width": 64, "height": 64, "num_frames": self.pipe.vae_temporal_compression_ratio + 1, "num_inference_steps": 2}
        still = ClipRequest("trial", 0, keyframe=np.zeros((64, 64, 3), np.uint8))
        self.try_out(still, **least, timesteps=settings.timesteps[:2], keyframe_crf=None)

    @torch.no_grad()
    def make(self, requests: list[ClipRequest]) -> tuple[list[Receipt], list[np.ndarray]]:
        """Make one clip, uint8 RGB (num_frames, height, width, 3).

        A call takes exactly one request, since LTX-Video gains nothing from batches.

        Raises:
            ModelError: the pipeline made another number of frames.
        """
        (request,) = requests
        s, started = self.begin(request)
        still = Image.fromarray(compressed(request.keyframe, s.keyframe_crf))
        frames = self.pipe(
            conditions=[LTXVideoCondition(image=still, frame_index=0, strength=s.strength)],
            prompt_embeds=self.embeddings([request.prompt.embeds]),
            prompt_attention_mask=torch.from_numpy(request.prompt.mask)[None].to(self.device),
            negative_prompt_embeds=self.embeddings([request.negative.embeds]),
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
        return self.end(requests, [proven_length(frames[0], s, "LTX-Video")], started)
