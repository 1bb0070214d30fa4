"""LtxVideoModel: a clip that starts from its keyframe, by LTX-Video."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import LTXConditionPipeline, LTXLatentUpsamplePipeline
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image

from .certificate import of_model, of_modules
from .compress import compressed
from .files import check_frames, check_upsampler, in_one_line
from .folders import variant_of_part
from .loading import as_given, generator
from .model import Model, proven_length
from .values import ClipRequest, ClipSettings, ModelError, ModelFiles, Receipt


class LtxVideoModel(Model):
    """An LTX-Video checkpoint that animates keyframes. Raises ModelError where it cannot make `num_frames` frames."""

    family = "ltx_video"
    pipeline = LTXConditionPipeline

    def __init__(
        self, identity: str, files: ModelFiles, settings: ClipSettings, device: str | None = None, beside: LtxVideoModel | None = None
    ):
        check_frames(files.folder, settings.num_frames)
        super().__init__(identity, files, settings, device, beside)
        own = self.pipe.scheduler
        self.schedulers = [as_given(own) if levels else own for levels in (settings.timesteps, settings.second_timesteps)]
        self.upsample: Any = self._upsampler(files, settings) if beside is None else beside.upsample
        if settings.vae_tiling:
            self.pipe.vae.enable_tiling()
        least = {"width": 64, "height": 64, "num_frames": self.pipe.vae_temporal_compression_ratio + 1, "num_inference_steps": 2}
        still = ClipRequest("trial", 0, keyframe=np.zeros((64, 64, 3), np.uint8))
        self.try_out(still, **least, timesteps=settings.timesteps[:2], keyframe_crf=None)

    def certify(self) -> dict[str, Any]:
        passes = self.schedulers if self.upsample else self.schedulers[:1]
        upsampler = {"latent_upsampler": self.upsample.latent_upsampler} if self.upsample else {}
        told = of_model(self.pipe, passes)
        return told | {"parts": told["parts"] | of_modules(upsampler)}

    @torch.no_grad()
    def make(self, requests: list[ClipRequest]) -> tuple[list[Receipt], list[np.ndarray]]:
        """Make one clip, uint8 RGB (num_frames, height, width, 3).

        A call takes exactly one request, since LTX-Video gains nothing from batches.

        Raises:
            ModelError: the pipeline made another number of frames.
        """
        (request,) = requests
        s, started = self.begin(request)
        if self.upsample is None:
            frames = self._pass(request, s, 0)
        else:
            small = self._pass(request, replace(s, width=s.width // 2, height=s.height // 2), 0, output_type="latent")
            more = {"adain_factor": s.adain_factor, "tone_map_compression_ratio": s.tone_map_compression_ratio, "output_type": "latent"}
            large = self.upsample(latents=small, width=s.width, height=s.height, **more).frames
            levels = {"timesteps": list(s.second_timesteps), "denoise_strength": s.second_strength}
            frames = self._pass(request, s, 1, latents=large, **levels)
        return self.end(requests, [proven_length(frames[0], s, "LTX-Video")], started, [self.latents])

    def _upsampler(self, files: ModelFiles, settings: ClipSettings) -> Any:
        """The pipeline between two passes; None where there is one pass."""
        if files.upsampler is None:
            return None
        folder = check_upsampler(files.upsampler, files.folder, settings.width, settings.height)
        try:
            how = {"local_files_only": True, "use_safetensors": True, "variant": variant_of_part(folder)}
            model = LTXLatentUpsamplerModel.from_pretrained(folder, dtype=self.pipe.transformer.dtype, **how)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ModelError(f"upsampler {files.upsampler} cannot be loaded: {in_one_line(error)}") from error
        if lacking := [key for key, value in model.state_dict().items() if value.is_meta]:
            raise ModelError(f"upsampler {files.upsampler} lacks {len(lacking)} tensors, such as {lacking[0]}")
        return LTXLatentUpsamplePipeline(self.pipe.vae, model.to(self.device))

    def _pass(self, request: ClipRequest, s: ClipSettings, number: int, **other: Any) -> Any:
        """Frames or latents of one pass.

        Args:
            number: 0 for the first or only pass, 1 for the second. other: arguments of the pipeline in place of the usual ones.
        """
        self.pipe.scheduler = self.schedulers[number]
        told: dict[str, Any] = dict(
            conditions=conditions(request, s),
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
            callback_on_step_end=self.remember,
        )
        return self.pipe(**told | other).frames


def conditions(request: ClipRequest, s: ClipSettings) -> list[LTXVideoCondition]:
    """The keyframe, and what else the clip passes through. Single pictures are compressed, clips have been already."""

    def still(picture: np.ndarray, frame: int, strength: float) -> LTXVideoCondition:
        return LTXVideoCondition(image=Image.fromarray(compressed(picture, s.keyframe_crf)), frame_index=frame, strength=strength)

    found = [] if any(passage.frame == 0 for passage in request.passages) else [still(request.keyframe, 0, s.strength)]
    for passage in request.passages:
        if len(passage.pictures) == 1:
            found.append(still(passage.pictures[0], passage.frame, passage.strength))
        else:
            moving = [Image.fromarray(picture) for picture in passage.pictures]
            found.append(LTXVideoCondition(video=moving, frame_index=passage.frame, strength=passage.strength))
    return found
