"""Requests, settings and results: small frozen values, safe to send to another machine."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class ModelError(ValueError):
    """Model files or settings that cannot work. The message names the file or the setting, in one sentence."""


@dataclass(frozen=True)
class Lora:
    """A LoRA file (safetensors) and its weight; 1.0 is as trained."""

    file: str
    weight: float = 1.0


@dataclass(frozen=True)
class ModelFiles:
    """What to load: diffusers folders and safetensors files on the device's machine.

    dtype: "auto" is float32 on a CPU, bfloat16 for LTX-Video and float16 for Stable Diffusion on a GPU.
    """

    checkpoint: str
    motion_adapter: str | None = None
    loras: tuple[Lora, ...] = ()
    dtype: str = "auto"


@dataclass(frozen=True)
class PromptEmbedding:
    """A text as its encoder sees it.

    embeds: float32 (tokens, width). mask: bool (tokens,), False where padding. cut: the end of the text
    that did not fit into the encoder, None where all of it did.
    """

    embeds: np.ndarray
    mask: np.ndarray
    cut: str | None = None


@dataclass(frozen=True)
class PromptRequest:
    text: str


@dataclass(frozen=True)
class PromptReceipt:
    """model: identity of the encoder. cut: as PromptEmbedding's. seconds: on the device."""

    model: str
    cut: str | None
    seconds: float


@dataclass(frozen=True)
class KeyframeSettings:
    """Sampling of stills. width, height in pixels, multiples of 8; guidance_scale 1 is without guidance."""

    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str = "checkpoint"
    batch_size: int = 4


# Fields that are filled on the device, from values that never pass through the driver.
LATER: Any = None


@dataclass(frozen=True)
class KeyframeRequest:
    """parameters: settings that this take has in place of the model's own."""

    take: str
    seed: int
    loras: tuple[Lora, ...] = ()
    parameters: tuple[tuple[str, Any], ...] = ()
    prompt: PromptEmbedding = LATER
    negative: PromptEmbedding = LATER


@dataclass(frozen=True)
class ClipSettings:
    """Sampling of clips.

    num_frames: LTX-Video wants temporal ratio * k + 1; AnimateDiff at most its adapter's length.
    strength: LTX-Video, how firmly frame 0 is the keyframe (1: exactly). AnimateDiff, how much noise is
    added to the repeated keyframe (1: nothing of it is left).
    timesteps: the noise levels to visit, 1000 down to 0, in place of num_inference_steps' own.
    image_cond_noise_scale, decode_timestep, decode_noise_scale: as LTXConditionPipeline has them.
    keyframe_crf: compress the keyframe as H.264 at this CRF first (LTX-Video's own code uses 29, so that
    stills move more); None leaves it.
    """

    width: int
    height: int
    num_frames: int
    fps: float
    num_inference_steps: int
    guidance_scale: float
    scheduler: str = "checkpoint"
    strength: float = 1.0
    timesteps: tuple[float, ...] = ()
    image_cond_noise_scale: float = 0.0
    decode_timestep: float = 0.0
    decode_noise_scale: float | None = None
    keyframe_crf: int | None = None


@dataclass(frozen=True)
class ClipRequest:
    """keyframe: uint8 RGB (height, width, 3), the accepted still of the same shot. parameters: as above."""

    take: str
    seed: int
    loras: tuple[Lora, ...] = ()
    parameters: tuple[tuple[str, Any], ...] = ()
    prompt: PromptEmbedding = LATER
    negative: PromptEmbedding = LATER
    keyframe: np.ndarray = LATER


@dataclass(frozen=True)
class Receipt:
    """Proof of what ran: small, so that it may pass through the driver.

    model: the identity that the model was built with. finite: whether every value was finite before the
    cast to uint8. seconds: time on the device, one take's share of its batch. peak_memory_bytes: most
    GPU memory in use, or on a CPU the process's high-water mark. node: the machine that it ran on.
    """

    take: str
    model: str
    seed: int
    finite: bool
    seconds: float
    peak_memory_bytes: int
    device: str
    node: str = field(default_factory=socket.gethostname)
