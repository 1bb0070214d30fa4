"""KeyframeModel: stills from prompts, batched across shots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from torch.nn.functional import interpolate

from .loading import generator
from .model import Model, longest
from .vae import decode, encode
from .values import KeyframeRequest, KeyframeSettings, ModelError, ModelFiles, PromptEmbedding, Receipt

LATENT_CHANNELS = 4  # by which diffusers' image-to-image tells latents from pictures


class KeyframeModel(Model):
    """A Stable Diffusion checkpoint that draws keyframes."""

    family = "stable_diffusion"
    pipeline = StableDiffusionPipeline
    second_pipeline: Any = StableDiffusionImg2ImgPipeline  # draws the second pass, with the same parts
    rescales_again = False  # whether that class takes a guidance_rescale

    def __init__(
        self, identity: str, files: ModelFiles, settings: KeyframeSettings, device: str | None = None, beside: Model | None = None
    ):
        super().__init__(identity, files, settings, device, beside)
        self.second: Any = self._second() if settings.hires else None
        hires = replace(settings.hires, scale=2.0) if settings.hires else None
        side = 128 if hires else 64
        self.try_out(KeyframeRequest("trial", 0), width=side, height=side, num_inference_steps=2, batch_size=1, hires=hires)

    def _second(self) -> Any:
        self.pipe.unet.register_to_config(sample_size=64)  # only a default, and the class stumbles over one of two sides
        pipe = self.second_pipeline(**self.pipe.components)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @torch.no_grad()
    def make(self, requests: list[KeyframeRequest]) -> tuple[list[Receipt], list[np.ndarray]]:
        """Make one still for each request, uint8 RGB (height, width, 3).

        A call of the pipeline is always padded to batch_size, and holds texts of one length. PyTorch does not promise equal bits for
        another batch size ("Numerical accuracy", in its notes), and a take must not depend on how many neighbours it had.

        Raises:
            ModelError: more requests than batch_size, or requests with different LoRAs or parameters.
        """
        if len({(r.loras, r.parameters) for r in requests}) != 1 or len(requests) > self.settings.batch_size:
            raise ModelError(f"a batch holds at most {self.settings.batch_size} requests, all with the same LoRAs and parameters")
        s, started = self.begin(requests[0])
        by_length: dict[int, list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            by_length[longest(request)].append(i)
        drawn: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for tokens, places in by_length.items():
            batch = [requests[i] for i in places]
            drawn |= zip(places, zip(*self._draw(batch + [batch[-1]] * (s.batch_size - len(batch)), s, tokens), strict=True), strict=False)
        return self.end(requests, [drawn[i][1] for i in range(len(requests))], started, [drawn[i][0] for i in range(len(requests))])

    def _draw(self, batch: list[KeyframeRequest], s: KeyframeSettings, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents and pictures (n, 3, height, width), 0..1."""
        generators = [generator(r.seed) for r in batch]
        first = s.hires.scale if s.hires else 1
        how = self.texts(batch, tokens) | {"guidance_scale": s.guidance_scale, "generator": generators, "output_type": "latent"}
        size = {"width": round(s.width / first), "height": round(s.height / first)}
        latents = self.pipe(
            **how, **size, num_inference_steps=s.num_inference_steps, guidance_rescale=s.guidance_rescale
        ).images
        pictures = decode(self.pipe.vae, latents)
        if s.hires is None:
            return latents, pictures
        larger = interpolate(pictures.float(), (s.height, s.width), mode="bicubic", antialias=True).clamp(0, 1)
        ours = self.pipe.vae.config.latent_channels == LATENT_CHANNELS  # the class would take others for pictures
        start = encode(self.pipe.vae, larger, generators).to(latents.dtype) if ours else larger
        steps = {"strength": s.hires.strength, "num_inference_steps": s.hires.num_inference_steps}
        if self.rescales_again:
            steps["guidance_rescale"] = s.guidance_rescale
        self.second.scheduler = self.pipe.scheduler
        latents = self.second(**how, image=start, **steps).images
        return latents, decode(self.pipe.vae, latents)


class KeyframeXLModel(KeyframeModel):
    """An SDXL checkpoint that draws keyframes. As size conditioning it is told the size that it draws, uncropped."""

    family = "stable_diffusion_xl"
    pipeline = StableDiffusionXLPipeline
    second_pipeline = StableDiffusionXLImg2ImgPipeline
    rescales_again = True

    def texts(self, batch: Sequence[Any], tokens: int) -> dict[str, Any]:
        return super().texts(batch, tokens) | {
            "pooled_prompt_embeds": self.embeddings([_pooled(r.prompt) for r in batch]),
            "negative_pooled_prompt_embeds": self.embeddings([_pooled(r.negative) for r in batch]),
        }

    @property
    def pooled_width(self) -> int:
        told = self.pipe.unet.config
        return int(told.projection_class_embeddings_input_dim - 6 * told.addition_time_embed_dim)


def _pooled(text: PromptEmbedding) -> np.ndarray:
    if text.pooled is None:
        raise ModelError("the prompt was encoded without the pooled vector that SDXL needs")
    return text.pooled
