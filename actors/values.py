"""Requests, settings and results: small frozen values, safe to send to another machine."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np


class ModelError(ValueError):
    """Model files or settings that cannot work. The message names the file or the setting, in one sentence."""


@dataclass(frozen=True)
class Lora:
    """A LoRA file (safetensors) and its weight; 1.0 applies the LoRA as it was trained."""

    file: str
    weight: float = 1.0


@dataclass(frozen=True)
class Embedding:
    """A textual inversion file (safetensors) and the word of a prompt that it stands for."""

    word: str
    file: str


@dataclass(frozen=True)
class TextSettings:
    """How texts are encoded.

    max_tokens: most tokens of a text, with those that begin and end it; None is the tokenizer's own limit. CLIP reads longer texts in
        chunks of its own limit, so there it may be a multiple of that.
    clip_skip: of Stable Diffusion 1.5, the layer of CLIP that is read, counted from the last: 1 is the last, 2 the last but one. This is
        how web UIs count; diffusers calls the last but one 1.
    prompt_weights: what becomes of `(words:1.3)`, see actors/prompt_text.py.
    """

    max_tokens: int | None = None
    clip_skip: int = 1
    prompt_weights: Literal["refused", "dropped", "applied"] = "refused"


FILES = ("checkpoint", "base", "motion_adapter", "vae", "ip_adapter", "image_encoder", "upsampler")  # fields that name one file or folder


@dataclass(frozen=True)
class ModelFiles:
    """What to load: diffusers folders and safetensors files on the device's machine.

    ip_adapter, image_encoder: a safetensors file, and the folder of the CLIP vision model that reads the keyframe for it.
    upsampler: LTX-Video's spatial latent upsampler, for clips in two passes.
    base: where the checkpoint is a single file, a diffusers folder of the same architecture with configurations and tokenizer.
    vae: file or diffusers folder of a VAE to use in place of the checkpoint's own. vae_dtype: as dtype; None takes dtype.
    dtype: name of a torch type, or "auto". "auto" is float32 on a CPU; on a GPU it is bfloat16 for LTX-Video and float16
        for Stable Diffusion.
    """

    checkpoint: str
    motion_adapter: str | None = None
    loras: tuple[Lora, ...] = ()
    dtype: str = "auto"
    base: str | None = None
    vae: str | None = None
    vae_dtype: str | None = None
    embeddings: tuple[Embedding, ...] = ()
    ip_adapter: str | None = None
    image_encoder: str | None = None
    upsampler: str | None = None

    @property
    def weights(self) -> list[str]:
        """The files and folders whose weights a device holds, without LoRAs."""
        return [p for p in (self.checkpoint, self.motion_adapter, self.ip_adapter, self.image_encoder, self.upsampler) if p]

    @property
    def named(self) -> list[tuple[str, str]]:
        """Field of the workflow and path, of everything that is loaded."""
        single = [(field, path) for field in FILES if (path := getattr(self, field))]
        return single + [("loras", lora.file) for lora in self.loras] + [("embeddings", one.file) for one in self.embeddings]

    @property
    def folder(self) -> str:
        """The diffusers folder that has configurations and tokenizer."""
        return self.base or self.checkpoint


@dataclass(frozen=True)
class PromptEmbedding:
    """The embedding of one text.

    embeds: float32 (tokens, width). mask: bool (tokens,), False for padding tokens.
    cut: the end of the text that did not fit into the encoder; None where the whole text did.
    pooled: float32 (width,), the text as one vector; only of SDXL's encoders.
    blank: float32 (window, width), a chunk without words, where texts may take several: the shorter of two texts is filled up with it.
    """

    embeds: np.ndarray
    mask: np.ndarray
    cut: str | None = None
    pooled: np.ndarray | None = None
    blank: np.ndarray | None = None

    def filled(self, tokens: int) -> np.ndarray:
        """The embeds, with blank chunks at their end up to so many tokens. Both texts of a guided take need the same length."""
        missing = tokens - len(self.embeds)
        if not missing:
            return self.embeds
        assert self.blank is not None and missing % len(self.blank) == 0
        return np.concatenate([self.embeds, *[self.blank] * (missing // len(self.blank))])


@dataclass(frozen=True)
class PromptRequest:
    """Asks for a text's embedding. loras: those that change the text encoder."""

    text: str
    loras: tuple[Lora, ...] = ()


@dataclass(frozen=True)
class PromptReceipt:
    """model: identity of the encoder. cut: as in PromptEmbedding. seconds: on the device, one text's share of its batch.

    certificate: JSON, see actors/certificate.py.
    """

    model: str
    cut: str | None
    seconds: float
    certificate: str = ""


@dataclass(frozen=True)
class Hires:
    """A second pass: the still is drawn at 1/scale of its size, enlarged, noised up to `strength`, and denoised again."""

    scale: float
    strength: float
    num_inference_steps: int


@dataclass(frozen=True)
class KeyframeSettings:
    """Sampling of stills. width, height: pixels, multiples of 8. guidance_scale: 1 turns guidance off. batch_size: stills a call.

    beta_schedule, timestep_spacing: of the scheduler; "checkpoint" leaves the checkpoint's own.
    prediction_type: what the model predicts; "checkpoint" is what its scheduler or the markers of its file say.
    rescale_betas_zero_snr: noise up to a signal of zero, as v-prediction models are trained (arXiv 2305.08891); False leaves the
        checkpoint's.
    guidance_rescale: how far guidance is brought back to the spread of the unguided prediction, 0 to 1 (arXiv 2305.08891, section 3.4).
    """

    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str = "checkpoint"
    beta_schedule: str = "checkpoint"
    batch_size: int = 4
    prediction_type: str = "checkpoint"
    rescale_betas_zero_snr: bool = False
    guidance_rescale: float = 0.0
    hires: Hires | None = None
    timestep_spacing: str = "checkpoint"


# Default of fields that are filled on the device. Their values never pass through the driver.
LATER: Any = None


@dataclass(frozen=True)
class KeyframeRequest:
    """Asks for one still.

    take: id of the take. parameters: (name, value) of settings that replace the workflow's own for this take.
    workflow, settings: identity of the workflow and how it samples, where one set of weights serves several.
    """

    take: str
    seed: int
    loras: tuple[Lora, ...] = ()
    parameters: tuple[tuple[str, Any], ...] = ()
    workflow: str = ""
    settings: Any = None
    prompt: PromptEmbedding = LATER
    negative: PromptEmbedding = LATER


@dataclass(frozen=True)
class ClipSettings:
    """Sampling of clips.

    num_frames: for LTX-Video, 1 more than a multiple of its temporal compression ratio; for AnimateDiff, 2 up to its
        motion adapter's length, and any number of windows where there is a context_length.
    strength: for LTX-Video, how closely frame 0 follows the keyframe (1: exactly). For AnimateDiff, how much noise is
        added to the repeated keyframe (1: nothing of the keyframe is left): of the num_inference_steps noise levels, the last
        int(num_inference_steps * strength) are visited, and at least one.
    beta_schedule, timestep_spacing, prediction_type, rescale_betas_zero_snr: of AnimateDiff's scheduler, as in KeyframeSettings.
    timesteps: noise levels to visit, from 1000 down to 0, in place of those that num_inference_steps gives. They are visited as they
        are: nothing shifts them.
    image_cond_noise_scale, decode_timestep, decode_noise_scale: arguments of diffusers' LTXConditionPipeline.
    context_length, context_overlap: AnimateDiff moves that many frames at once, in windows that share context_overlap frames with the
        next (FreeNoise, arXiv 2310.15169); None moves the whole clip at once.
    ip_adapter_scale: how much AnimateDiff attends to the keyframe, where there is an IP-Adapter; 0 is as without it.
    keyframe_crf: CRF, 0..51, at which the keyframe is compressed as H.264 before the model sees it (LTX-Video's own code
        uses 29, so that stills move more); None does not compress it.
    second_timesteps: with an upsampler, noise levels of the second pass; () for one pass. The first pass makes the clip in half the width
        and height, the upsampler doubles its latents, and the second pass denoises them anew from a part of these levels.
    second_strength: the part, below 1: of n levels, the last int(n * second_strength) are visited.
    adain_factor, tone_map_compression_ratio: arguments of diffusers' LTXLatentUpsamplePipeline.
    vae_tiling: whether the clip is decoded in tiles of 512 x 512 pixels, which takes less memory; seams may show.
    """

    width: int
    height: int
    num_frames: int
    fps: float
    num_inference_steps: int
    guidance_scale: float
    scheduler: str = "checkpoint"
    beta_schedule: str = "checkpoint"
    prediction_type: str = "checkpoint"
    rescale_betas_zero_snr: bool = False
    strength: float = 1.0
    timesteps: tuple[float, ...] = ()
    image_cond_noise_scale: float = 0.0
    decode_timestep: float = 0.0
    decode_noise_scale: float | None = None
    keyframe_crf: int | None = None
    timestep_spacing: str = "checkpoint"
    ip_adapter_scale: float = 0.6
    context_length: int | None = None
    context_overlap: int = 4
    second_timesteps: tuple[float, ...] = ()
    second_strength: float = 0.999
    adain_factor: float = 0.0
    tone_map_compression_ratio: float = 0.0
    vae_tiling: bool = False


@dataclass(frozen=True)
class Passage:
    """Pictures that a clip passes through: uint8 RGB (frames, height, width, 3), from that frame on, and how closely (1: exactly)."""

    frame: int
    strength: float
    pictures: np.ndarray


@dataclass(frozen=True)
class ClipRequest:
    """Asks for one clip. keyframe: uint8 RGB (height, width, 3), the accepted still of the shot. Other fields: as in KeyframeRequest.

    passages: what it passes through beside; pictures at frame 0 take the place of the keyframe, which is their first.
    """

    take: str
    seed: int
    loras: tuple[Lora, ...] = ()
    parameters: tuple[tuple[str, Any], ...] = ()
    workflow: str = ""
    settings: Any = None
    prompt: PromptEmbedding = LATER
    negative: PromptEmbedding = LATER
    keyframe: np.ndarray = LATER
    passages: tuple[Passage, ...] = ()


@dataclass(frozen=True)
class FinishSettings:
    """How clips are made larger.

    width, height: of the finished clip. scale: by which the network makes pictures larger; what is larger than the size is reduced to it.
    tile, tile_overlap: pixels of the clip, as in `tiles.in_tiles`.
    strength: how much of the network's picture there is, beside the clip enlarged by Lanczos; 1: nothing but the network's.
    """

    width: int
    height: int
    scale: int
    tile: int | None = None
    tile_overlap: int = 16
    strength: float = 1.0


@dataclass(frozen=True)
class FinishRequest:
    """Asks for one clip, larger. clip: the bytes of the accepted clip's file. Other fields: as in KeyframeRequest; there is no noise."""

    take: str
    seed: int = 0
    loras: tuple[Lora, ...] = ()
    parameters: tuple[tuple[str, Any], ...] = ()
    workflow: str = ""
    settings: Any = None
    clip: bytes = LATER


@dataclass(frozen=True)
class Receipt:
    """Proof of what ran. It is small, so it may pass through the driver.

    model: the identity that the model was built with.
    not_finite: where values were no numbers before the cast to uint8: "latents" (of the denoiser), "decode" (by the VAE), or "output"
        where that is not known; "" where all were finite.
    seconds: time on the device, one take's share of its batch.
    peak_memory_bytes: most GPU memory in use during the call; on a CPU, the most that the process ever used.
    device: the hardware's name. node: host name of its machine.
    certificate: JSON, see actors/certificate.py.
    """

    take: str
    model: str
    seed: int
    not_finite: str
    seconds: float
    peak_memory_bytes: int
    device: str
    node: str = field(default_factory=socket.gethostname)
    certificate: str = ""

    @property
    def finite(self) -> bool:
        return not self.not_finite
