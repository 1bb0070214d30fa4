"""AnimateDiffModel: a short clip that starts from its keyframe, by Stable Diffusion with a motion adapter."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AnimateDiffVideoToVideoPipeline, MotionAdapter
from PIL import Image

from .compress import compressed
from .families import FAMILIES
from .files import check_folder, in_one_line
from .loading import best_device, dtype_for, generator
from .model import Model, proven_length
from .values import ClipRequest, ClipSettings, ModelError, ModelFiles, Receipt


class AnimateDiffModel(Model):
    """A Stable Diffusion checkpoint and a motion adapter that animate keyframes.

    The keyframe is repeated for every frame, noised up to `strength`, and denoised as one clip. Of the ways to start
    AnimateDiff from a picture, diffusers maintains this one; it takes seeds and needs no second network.

    Raises:
        ModelError: the motion adapter is missing or cannot be loaded, or `strength` or `num_frames` is out of range.
    """

    family = "animatediff"
    pipeline = AnimateDiffVideoToVideoPipeline

    def __init__(self, identity: str, files: ModelFiles, settings: ClipSettings, device: str | None = None):
        if files.motion_adapter is None:
            raise ModelError("AnimateDiff needs a motion_adapter")
        if not 0 < settings.strength <= 1:
            raise ModelError(f"strength {settings.strength} is not between 0 and 1")
        adapter = load_adapter(files.motion_adapter, dtype_for(files.dtype, device or best_device(), FAMILIES[self.family].dtype))
        longest = adapter.config.motion_max_seq_length
        if not 2 <= settings.num_frames <= longest:
            raise ModelError(f"num_frames {settings.num_frames} does not fit this motion adapter: it makes 2 to {longest} frames")
        super().__init__(identity, files, settings, device, motion_adapter=adapter)
        least = {"width": 64, "height": 64, "num_frames": 2, "num_inference_steps": 2, "strength": 1.0, "keyframe_crf": None}
        self.try_out(ClipRequest("trial", 0, keyframe=np.zeros((64, 64, 3), np.uint8)), **least)

    @torch.no_grad()
    def make(self, requests: list[ClipRequest]) -> tuple[list[Receipt], list[np.ndarray]]:
        """Make one clip, uint8 RGB (num_frames, height, width, 3). A call takes exactly one request.

        Raises:
            ModelError: the pipeline made another number of frames.
        """
        (request,) = requests
        s, started = self.begin(request)
        still = Image.fromarray(compressed(request.keyframe, s.keyframe_crf))
        frames = self.pipe(
            video=[[still] * s.num_frames],
            prompt_embeds=self.embeddings([request.prompt.embeds]),
            negative_prompt_embeds=self.embeddings([request.negative.embeds]),
            width=s.width,
            height=s.height,
            num_inference_steps=s.num_inference_steps,
            enforce_inference_steps=False,
            strength=s.strength,
            guidance_scale=s.guidance_scale,
            generator=generator(request.seed),
            output_type="pt",
        ).frames
        return self.end(requests, [proven_length(frames[0], s, "AnimateDiff")], started)


def load_adapter(folder: str, dtype: torch.dtype) -> MotionAdapter:
    check_folder(folder, "motion adapter", part="config.json")
    try:
        return MotionAdapter.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"motion adapter {folder} cannot be loaded: {in_one_line(error)}") from error
