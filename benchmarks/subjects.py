"""What is timed: a model of the product with a request, and the plain diffusers loop with the same settings beside it.

Both use the same weights, so they fit beside each other. The plain loop is what the libraries' own pages show: a pipeline that is
called with a prompt and gives pictures. It encodes its prompt again at every call; the product encodes each text once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import AnimateDiffVideoToVideoPipeline, LTXConditionPipeline, StableDiffusionPipeline
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image

import actors.model
from actors.animatediff import AnimateDiffModel
from actors.files import read_config
from actors.keyframe import KeyframeModel
from actors.loading import generator
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import ClipRequest, KeyframeRequest, ModelFiles, PromptEmbedding

from .timing import Parts, replaced

WORDS = "wide shot, a girl with pink hair and a red coat, walking left, by the sea, by day, static camera, anime"
NEGATIVE = "low quality, blurry"


@dataclass(frozen=True)
class Subject:
    """product, plain: one call each, with a seed; the product's results are uint8 RGB with channels last.

    denoiser: the network that is called at every step. parts: where the product's seconds go.
    """

    title: str
    product: Callable[..., list[np.ndarray]]
    plain: Callable[..., Any]
    denoiser: torch.nn.Module
    parts: Parts

    def values(self, seed: int = 1) -> torch.Tensor:
        """What the product makes with this seed, before the cast to uint8: float32 0..1, all results one after another."""
        kept: list[torch.Tensor] = []

        def keeping(_: str, cast: Callable[..., Any]) -> Callable[..., Any]:
            def kept_and_cast(values: torch.Tensor) -> Any:
                kept.append(values.float().cpu())
                return cast(values)

            return kept_and_cast

        with replaced({"cast": self.parts["copy"]}, keeping):
            self.product(seed)
        return torch.stack(kept)


class RandomTexts:
    """In place of a text encoder that is too large to load only for this: embeddings of its shape. There is no plain loop with it.

    Args:
        tokens, width: shape of an embedding.
    """

    encoder = tokenizer = None

    def __init__(self, tokens: int, width: int):
        self.max_tokens, self.width = tokens, width

    @classmethod
    def like(cls, ltx_video: ModelFiles, max_tokens: int | None) -> RandomTexts:
        """Of the size that the transformer of this LTX-Video checkpoint takes."""
        return cls(max_tokens or 256, read_config(ltx_video.checkpoint, "transformer")["caption_channels"])

    def encode(self, texts: list[str]) -> list[PromptEmbedding]:
        values = np.random.default_rng(0).standard_normal((len(texts), self.max_tokens, self.width), np.float32)
        return [PromptEmbedding(v, np.ones(self.max_tokens, bool)) for v in values]


@torch.no_grad()
def stills(model: KeyframeModel, encoder: PromptEncoder, count: int, words: str = WORDS) -> Subject:
    """`count` stills in one call, whatever batch the model was made for."""
    model.settings = s = replace(model.settings, batch_size=count)
    text, negative = encoder.encode([words, NEGATIVE])
    pipe = _quiet(
        StableDiffusionPipeline(
            model.pipe.vae, encoder.encoder, encoder.tokenizer, model.pipe.unet, model.pipe.scheduler, None, None,
            requires_safety_checker=False,
        )
    )  # fmt: skip

    def product(seed: int = 1) -> list[np.ndarray]:
        model.settings = s
        return model.generate([KeyframeRequest(f"t{i}", seed + i, prompt=text, negative=negative) for i in range(count)])[1]

    plain = partial(
        _plain, pipe, prompt=[words] * count, negative_prompt=[NEGATIVE] * count, width=s.width, height=s.height,
        num_inference_steps=s.num_inference_steps, guidance_scale=s.guidance_scale, many=count,
    )  # fmt: skip
    return Subject(
        f"{count} stills of {s.width}x{s.height}, {s.num_inference_steps} steps",
        product, plain, model.pipe.unet, _parts(model.pipe, model.pipe.unet),
    )  # fmt: skip


def ltx_clip(model: LtxVideoModel, encoder: PromptEncoder | RandomTexts, keyframe: np.ndarray, words: str = WORDS) -> Subject:
    """One clip from a keyframe, uint8 RGB of the clip's size."""
    s = model.settings
    pipe = _quiet(LTXConditionPipeline(model.pipe.scheduler, model.pipe.vae, encoder.encoder, encoder.tokenizer, model.pipe.transformer))
    plain = partial(
        _plain, pipe, prompt=words, negative_prompt=NEGATIVE,
        conditions=[LTXVideoCondition(image=Image.fromarray(keyframe), frame_index=0, strength=s.strength)],
        width=s.width, height=s.height, num_frames=s.num_frames, frame_rate=s.fps, num_inference_steps=s.num_inference_steps,
        timesteps=list(s.timesteps) or None, guidance_scale=s.guidance_scale, image_cond_noise_scale=s.image_cond_noise_scale,
        decode_timestep=s.decode_timestep, decode_noise_scale=s.decode_noise_scale, max_sequence_length=encoder.max_tokens,
    )  # fmt: skip
    return _clip(model, encoder, keyframe, words, plain, model.pipe.transformer)


def animatediff_clip(model: AnimateDiffModel, encoder: PromptEncoder, keyframe: np.ndarray, words: str = WORDS) -> Subject:
    """One clip from a keyframe, uint8 RGB of the clip's size."""
    s = model.settings
    pipe = _quiet(
        AnimateDiffVideoToVideoPipeline(
            model.pipe.vae, encoder.encoder, encoder.tokenizer, model.pipe.unet, model.pipe.motion_adapter, model.pipe.scheduler
        )
    )
    plain = partial(
        _plain, pipe, prompt=words, negative_prompt=NEGATIVE, video=[[Image.fromarray(keyframe)] * s.num_frames], width=s.width,
        height=s.height, num_inference_steps=s.num_inference_steps, enforce_inference_steps=False, strength=s.strength,
        guidance_scale=s.guidance_scale,
    )  # fmt: skip
    return _clip(model, encoder, keyframe, words, plain, model.pipe.unet)


def _clip(
    model: LtxVideoModel | AnimateDiffModel, encoder: PromptEncoder | RandomTexts, keyframe: np.ndarray, words: str, plain: Any,
    denoiser: torch.nn.Module,
) -> Subject:  # fmt: skip
    s = model.settings
    text, negative = encoder.encode([words, NEGATIVE])

    def product(seed: int = 1) -> list[np.ndarray]:
        return model.generate([ClipRequest("t", seed, prompt=text, negative=negative, keyframe=keyframe)])[1]

    title = f"{s.num_frames} frames of {s.width}x{s.height}, {s.num_inference_steps} steps, guidance {s.guidance_scale:g}"
    return Subject(title, product, plain, denoiser, {"encode keyframe": (model.pipe.vae, "encode")} | _parts(model.pipe, denoiser))


def _parts(pipe: Any, denoiser: torch.nn.Module) -> dict[str, tuple[Any, str]]:
    return {"denoise": (denoiser, "forward"), "decode": (pipe.vae, "decode"), "copy": (actors.model, "to_uint8")}


@torch.no_grad()
def _plain(pipe: Any, seed: int = 1, many: int = 1, **settings: Any) -> Any:
    seeds = [generator(seed + i) for i in range(many)]
    return pipe(**settings, generator=seeds if many > 1 else seeds[0])[0]


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe
