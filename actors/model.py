"""What the models share: loading a pipeline, LoRAs, a request's own parameters, and the receipt for what was made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch

from .certificate import of_model, written
from .families import FAMILIES
from .files import check_size, in_one_line
from .loading import (
    best_device,
    device_name,
    dtype_for,
    load_pipeline,
    peak_memory_bytes,
    reset_peak_memory,
    seeded,
    set_scheduler,
    to_uint8,
)
from .loras import Loras
from .values import ClipRequest, ClipSettings, KeyframeRequest, Lora, ModelError, ModelFiles, PromptEmbedding, Receipt

Request = KeyframeRequest | ClipRequest
TRY_TOKENS = 77  # of the empty prompt of a trial: what CLIP gives, and fewer than T5


class Model:
    """A diffusers pipeline on a device.

    Args:
        identity: name of this model in its receipts; the caller checks that it is the model it asked for.
        files: what to load. settings: how to sample.
        device: such as "cuda" or "cpu"; None chooses. beside: a model of the same files, whose weights this one uses as well.
        parts: components of the pipeline to use in place of the checkpoint's own.

    Raises:
        ModelError: the files cannot be loaded, or the settings do not fit the model.
    """

    family: ClassVar[str]
    pipeline: ClassVar[Any]

    def __init__(
        self, identity: str, files: ModelFiles, settings: Any, device: str | None = None, beside: Model | None = None, **parts: Any
    ):
        family = FAMILIES[self.family]
        self.identity, self.files, self.settings, self.device = identity, files, settings, device or best_device()
        check_size(settings.width, settings.height, family.size_multiple)
        if beside is None:
            dtype = dtype_for(files.dtype, self.device, family.dtype)
            self.pipe = load_pipeline(self.pipeline, files, dtype, self.device, **parts)
            self.own_scheduler = self.pipe.scheduler
            self.equip(files, dtype)
            self.loras = Loras(self.pipe, family.clip)
        else:
            self.pipe, self.own_scheduler, self.loras = copy(beside.pipe), beside.own_scheduler, beside.loras
            self.pipe.scheduler = self.own_scheduler
        set_scheduler(self.pipe, settings)
        self.always, self.shots_loras = files.loras, family.shots_loras
        self.loras.use(self.always)
        self.certificate: dict[str, Any] = {}

    def again(self, identity: str, settings: Any) -> Model:
        """A model for another workflow of the same files, on the same weights."""
        return type(self)(identity, self.files, settings, self.device, self)

    def certify(self) -> dict[str, Any]:
        """What is loaded and how it samples; told once, when the model is whole."""
        return of_model(self.pipe, [self.pipe.scheduler])

    def equip(self, files: ModelFiles, dtype: torch.dtype) -> None:
        """Add to the pipeline what a family needs in it before LoRAs are loaded. Most need nothing."""

    def generate(self, requests: Sequence[Any]) -> tuple[list[Receipt], list[np.ndarray]]:
        """Make what is asked for: a receipt and a result for every request.

        Noise for which a pipeline takes no generator (of some schedulers, of a VAE's decoder) comes from torch's own generators. They are
        seeded from the first request, or a clip would depend on what was made before it.
        """
        with seeded(requests[0].seed, self.device):
            return self.make(requests)

    def make(self, requests: Any) -> tuple[list[Receipt], list[np.ndarray]]:
        """One call of the pipeline, by each family's class."""
        raise NotImplementedError

    def try_out(self, request: Request, **least: Any) -> None:
        """Make one take of least size and few steps. What every take would meet is found here, as one sentence, before any is begun.

        Args:
            request: without prompt; its embeddings are of the width that the denoiser reads, and empty.
            least: settings of the least take, in place of the model's own.

        Raises:
            ModelError: these files and settings cannot make a take.
        """
        pooled = np.zeros(self.pooled_width, np.float32) if self.pooled_width else None
        nothing = PromptEmbedding(np.zeros((TRY_TOKENS, self.text_width), np.float32), np.ones(TRY_TOKENS, bool), pooled=pooled)
        self.certificate = self.certify()
        try:
            self.generate([replace(request, prompt=nothing, negative=nothing, parameters=tuple(least.items()))])
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ModelError(f"{self.identity.split('#')[0]} cannot make a take: {in_one_line(error)}") from error

    @property
    def text_width(self) -> int:
        """Width of the embeddings that the denoiser attends to."""
        told = self.loras.denoiser.config
        return int(told.get("cross_attention_dim") if hasattr(self.pipe, "unet") else told.caption_channels)

    @property
    def pooled_width(self) -> int:
        """Width of the text as one vector that the denoiser reads; 0 where it reads none."""
        return 0

    def prepare(self, loras: tuple[Lora, ...]) -> None:
        """Load a shot's LoRAs now, so that a bad one is an error before anything renders."""
        self.active = self.always + (tuple(loras) if self.shots_loras else ())
        self.loras.use(self.active)

    def begin(self, request: Request) -> tuple[Any, float]:
        """Activate the request's LoRAs and reset the peak memory. Returns the call's settings, and time.monotonic() at its start."""
        started = time.monotonic()
        reset_peak_memory()
        self.prepare(request.loras)
        return replace(self.settings, **dict(request.parameters)), started

    def remember(self, _pipe: Any, _step: int, _timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Called by pipelines that decode by themselves, after each step: keeps the latents, so that NaN is told where it came about."""
        self.latents = tensors["latents"]
        return tensors

    def end(
        self, requests: Sequence[Request], pictures: Sequence[torch.Tensor], started: float, latents: Sequence[torch.Tensor] = ()
    ) -> tuple[list[Receipt], list[np.ndarray]]:
        """Receipts and results of a call: one of each for every request.

        Args:
            pictures: float 0..1, of shape (3, height, width) for a still and (frames, 3, height, width) for a clip.
            started: from `begin`. latents: what the pictures were decoded from, of models that tell.
        """
        results = [to_uint8(p) for p in pictures]
        sound: list[bool | None] = [bool(torch.isfinite(one).all()) for one in latents] or [None] * len(results)
        seconds = (time.monotonic() - started) / len(requests)
        told = written(self.certificate | {"loras": self.loras.told(self.active)})
        receipts = [
            Receipt(
                take=r.take,
                model=self.identity,
                seed=r.seed,
                not_finite="" if finite else "latents" if of_latents is False else "decode" if of_latents else "output",
                seconds=seconds,
                peak_memory_bytes=peak_memory_bytes(),
                device=device_name(self.device),
                certificate=told,
            )
            for r, (_, finite), of_latents in zip(requests, results, sound, strict=True)
        ]
        return receipts, [picture for picture, _ in results]

    def texts(self, batch: Sequence[Any], tokens: int) -> dict[str, Any]:
        """A pipeline's arguments for the prompts of requests, each text filled up to so many tokens."""
        return {
            "prompt_embeds": self.embeddings([r.prompt.filled(tokens) for r in batch]),
            "negative_prompt_embeds": self.embeddings([r.negative.filled(tokens) for r in batch]),
        }

    def embeddings(self, arrays: list[np.ndarray]) -> torch.Tensor:
        """Stack embeddings to (n, tokens, width), on the device and in the denoiser's dtype."""
        return torch.from_numpy(np.stack(arrays)).to(self.device, self.loras.denoiser.dtype)


def longest(request: Request) -> int:
    """Tokens of the longer one of a request's texts."""
    return max(len(request.prompt.embeds), len(request.negative.embeds))


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
