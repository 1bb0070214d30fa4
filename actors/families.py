"""The families of models: everything that Tower knows of each by its name.

A new family needs a row in TABLE, a class, and a workflow file. The module imports nothing heavy: planning reads the
table, and only a device imports the class.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from .architectures import LTX, SD, SDXL
from .decoding import ltx_decode_numbers
from .files import check_frames, temporal_ratio
from .upscaler_files import upscale_numbers
from .values import ClipSettings, FinishSettings, Hires, KeyframeSettings, ModelError

SETTINGS: dict[str, type[KeyframeSettings | ClipSettings | FinishSettings]] = {
    "keyframe": KeyframeSettings,
    "clip": ClipSettings,
    "finish": FinishSettings,
}
GENERAL = ("num_inference_steps", "guidance_scale")  # parameters that every family reads whose takes come from noise


@dataclass(frozen=True)
class Family:
    """One kind of model.

    Args:
        stage: what the family's models make.
        model: `module:class`, built on a device as `class(identity, files, settings)`.
        architecture: of the checkpoints, LoRAs and embeddings that it loads.
        size_multiple: pixels that width and height must be multiples of.
        dtype: what "auto" means on a GPU; on a CPU it is float32.
        parameters: settings that a workflow may let a shot change.
        own: fields of a workflow that not every family reads, and this one does.
        shots_loras: whether the LoRAs of a shot's characters are applied; a workflow's own LoRAs always are.
        checkpoints: family whose checkpoints it loads, where these are not its own.
        clip: whether it reads texts by CLIP, which takes weights, embeddings and LoRAs of its own.
        motion_adapter: whether the family needs a motion adapter.
        single_files: endings of checkpoints in one file that it loads.
        betas: beta schedule of a workflow that names none; "" where the family's noise has no betas.
        check_length: check_length(checkpoint, num_frames) raises ModelError where the checkpoint cannot make that many
            frames; None where there is nothing to check before loading.
        decoding: decoding(checkpoint, settings) is how many numbers live at most while a clip is decoded, or made larger; None where nobody
            has counted.
        guided: guided(folder) is what the frames of further keyframes are multiples of; None where the family takes none.
        generative: whether its takes come from noise, by a prompt and a seed. Others make one thing of what they start from, and their
            workflows say nothing of prompts, steps and noise.
        libraries: those that affect its pixels, beside the ones that all families share.
    """

    name: str
    stage: Literal["keyframe", "clip", "finish"]
    model: str
    architecture: str
    size_multiple: int
    dtype: Literal["float16", "bfloat16"]
    parameters: tuple[str, ...]
    own: tuple[str, ...] = ()
    shots_loras: bool = True
    clip: bool = True
    checkpoints: str = ""
    motion_adapter: bool = False
    single_files: tuple[str, ...] = (".safetensors",)
    betas: str = ""
    check_length: Callable[[str, int], None] | None = None
    decoding: Callable[[str, Any], int] | None = None
    guided: Callable[[str], int] | None = None
    generative: bool = True
    libraries: tuple[str, ...] = ()

    @property
    def settings(self) -> type[KeyframeSettings | ClipSettings | FinishSettings]:
        return SETTINGS[self.stage]

    def settings_of(self, values: Any) -> KeyframeSettings | ClipSettings | FinishSettings:
        """The settings, from the attributes of the same names of any object, such as a workflow. Lists become tuples."""
        given: dict[str, Any] = {f.name: getattr(values, f.name) for f in fields(self.settings)}
        given |= {name: tuple(value or ()) for name, value in given.items() if name.endswith("timesteps")}
        if hires := given.get("hires"):
            given["hires"] = Hires(hires.scale, hires.strength, hires.num_inference_steps)
        return self.settings(**given)


CLIP = ("clip_skip", "prompt_weights", "embeddings", "vae", "beta_schedule", "prediction_type", "rescale_betas_zero_snr")
STILLS = ("timestep_spacing", "vae_dtype", "guidance_rescale", "hires")
ANIMATE = ("ip_adapter", "image_encoder", "ip_adapter_scale", "context_length", "context_overlap")
SECOND_PASS = ("upsampler", "second_timesteps", "second_strength", "adain_factor", "tone_map_compression_ratio")
TABLE = (
    Family(
        "stable_diffusion", "keyframe", "actors.keyframe:KeyframeModel", SD, 8, "float16", GENERAL, own=(*CLIP, *STILLS), betas="checkpoint"
    ),
    Family(
        "stable_diffusion_xl",
        "keyframe",
        "actors.keyframe:KeyframeXLModel",
        SDXL,
        8,
        "float16",
        GENERAL,
        own=(*(name for name in CLIP if name != "clip_skip"), *STILLS),  # SDXL's layer is the last but one, always
        betas="checkpoint",
    ),
    Family(
        "ltx_video",
        "clip",
        "actors.ltx_video:LtxVideoModel",
        LTX,
        32,
        "bfloat16",
        (*GENERAL, "strength", "image_cond_noise_scale", "decode_timestep", "decode_noise_scale", "keyframe_crf"),
        own=("timesteps", "prompt_weights", "vae_tiling", *SECOND_PASS),
        single_files=(".safetensors", ".gguf"),
        clip=False,
        shots_loras=False,  # characters' LoRAs are for Stable Diffusion, and their effect is in the keyframe
        check_length=check_frames,
        decoding=ltx_decode_numbers,
        guided=temporal_ratio,
    ),
    Family(
        "animatediff",
        "clip",
        "actors.animatediff:AnimateDiffModel",
        SD,
        8,
        "float16",
        (*GENERAL, "strength", "keyframe_crf", "ip_adapter_scale"),
        own=(*CLIP, "timestep_spacing", *ANIMATE),
        checkpoints="stable_diffusion",
        motion_adapter=True,
        betas="linear",  # published motion modules were trained so; on a checkpoint's own betas their clips are washed out
    ),
    Family(
        "upscaler",
        "finish",
        "actors.upscaler:UpscalerModel",
        "an upscaler",
        2,  # H.264 with 4:2:0 takes even sizes
        "float16",
        ("strength",),
        own=("scale", "tile", "tile_overlap"),
        shots_loras=False,
        clip=False,
        decoding=lambda file, s: upscale_numbers(file, s.width, s.height, s.scale, s.tile, s.tile_overlap),
        generative=False,
        libraries=("spandrel",),
    ),
)
FAMILIES = {family.name: family for family in TABLE}
SHARED = "actors.beside:Workflows"  # what a device builds for them, by the path of the family's class
ENCODER = "actors.prompts:PromptEncoder"  # for every family: the checkpoint says whether it is CLIP or T5


@dataclass(frozen=True)
class Lazy:
    """Stands for a class, which is imported on the machine that calls it. path: `module:class`."""

    path: str

    def __call__(self, *args: Any) -> Any:
        return pkgutil.resolve_name(self.path)(*args)


def family_of(name: str) -> Family:
    if name not in FAMILIES:
        raise ModelError(f"family {name!r} is not known; it is one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
