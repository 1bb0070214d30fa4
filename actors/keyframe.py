"""KeyframeModel: stills from prompts, batched across shots."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoPipelineForText2Image

from .loading import generator
from .model import Model
from .values import KeyframeRequest, KeyframeSettings, ModelError, ModelFiles, Receipt


class KeyframeModel(Model):
    """A Stable Diffusion checkpoint that draws keyframes."""

    family = "stable_diffusion"
    pipeline = AutoPipelineForText2Image

    def __init__(self, identity: str, files: ModelFiles, settings: KeyframeSettings, device: str | None = None):
        super().__init__(identity, files, settings, device)
        self.try_out(KeyframeRequest("trial", 0), width=64, height=64, num_inference_steps=2, batch_size=1)

    @torch.no_grad()
    def make(self, requests: list[KeyframeRequest]) -> tuple[list[Receipt], list[np.ndarray]]:
        """Make one still for each request, uint8 RGB (height, width, 3).

        The batch is always padded to batch_size. PyTorch does not promise equal bits for another batch size
        ("Numerical accuracy", in its notes), and a take must not depend on how many neighbours it had.

        Raises:
            ModelError: more requests than batch_size, or requests with different LoRAs or parameters.
        """
        if len({(r.loras, r.parameters) for r in requests}) != 1 or len(requests) > self.settings.batch_size:
            raise ModelError(f"a batch holds at most {self.settings.batch_size} requests, all with the same LoRAs and parameters")
        s, started = self.begin(requests[0])
        padded = requests + [requests[-1]] * (s.batch_size - len(requests))
        pictures = self.pipe(
            prompt_embeds=self.embeddings([r.prompt.embeds for r in padded]),
            negative_prompt_embeds=self.embeddings([r.negative.embeds for r in padded]),
            width=s.width,
            height=s.height,
            num_inference_steps=s.num_inference_steps,
            guidance_scale=s.guidance_scale,
            generator=[generator(r.seed) for r in padded],
            output_type="pt",
        ).images
        return self.end(requests, pictures[: len(requests)], started)
