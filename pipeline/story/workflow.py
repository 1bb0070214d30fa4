"""Workflow files: versioned settings that turn inputs into a take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from actors.families import FAMILIES, Family
from actors.values import FILES, ClipSettings, KeyframeSettings, TextSettings
from gates.verdict import LABELS
from pipeline import PROJECT

from .episode import Lora
from .errors import InputError
from .written import Name, Written
from .yaml_file import read_yaml

WORKFLOWS = PROJECT / "configs" / "workflows"
RETIRED = PROJECT / "archive" / "workflows"
Action = Literal["new_seed", "more_compression", "new_keyframe", "give_up"]  # from the weakest to the strongest
# Fields that workflows got later, and the value that changes nothing.
LATER_FIELDS: dict[str, Any] = {
    "beta_schedule": "checkpoint",
    "base": None,
    "vae": None,
    "vae_dtype": None,
    "prediction_type": "checkpoint",
    "rescale_betas_zero_snr": False,
    "guidance_rescale": 0.0,
    "hires": None,
    "clip_skip": 1,
    "prompt_weights": "refused",
    "embeddings": {},
    "timestep_spacing": "checkpoint",
    "ip_adapter": None,
    "image_encoder": None,
    "ip_adapter_scale": 0.6,
    "context_length": None,
    "context_overlap": 4,
    "vae_tiling": False,
    "upsampler": None,
    "second_timesteps": None,
    "second_strength": 0.999,
    "adain_factor": 0.0,
    "tone_map_compression_ratio": 0.0,
}
FIRST_CRF, MORE_CRF, MOST_CRF = 29, 6, 51  # LTX-Video's own compression of keyframes; 6 halve the bits of H.264; its coarsest
if TYPE_CHECKING:  # mypy cannot read a Literal that is built at run time
    FamilyName = str
else:
    FamilyName = Literal[tuple(FAMILIES)]


class Retry(Written):
    """What happens after a rejection. Errors that are not the take's fault are retried with the same seed."""

    max_attempts: int = Field(4, ge=1, le=100, description="takes of one stage that one run may spend on a shot")
    # Another seed cannot change frame count, fps or size: the settings decide them.
    on: dict[str, Action] = Field(
        default={"wrong_frame_count": "give_up", "wrong_fps": "give_up", "wrong_size": "give_up"},
        description="what to change for a label; new_seed if not given; more_compression: a new seed and a higher keyframe_crf",
    )

    @model_validator(mode="after")
    def _labels_exist(self) -> Retry:
        for label in self.on:
            if label not in LABELS:
                raise ValueError(f"retry.on: {label!r} is not a gate label; the labels are {', '.join(LABELS)}")
        return self

    def action(self, labels: tuple[str, ...]) -> Action:
        """The strongest action that any of the labels calls for."""
        wanted = {self.on.get(label, "new_seed") for label in labels}
        return max(wanted, key=get_args(Action).index, default="new_seed")


Parameter = Literal[
    "num_inference_steps", "guidance_scale", "strength", "image_cond_noise_scale", "decode_timestep", "decode_noise_scale", "keyframe_crf",
    "ip_adapter_scale",
]  # fmt: skip
BetaSchedule = Literal["checkpoint", "linear", "scaled_linear"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
TimestepSpacing = Literal["checkpoint", "leading", "linspace", "trailing"]
LCM_STEPS = 50  # that diffusers' LCMScheduler chooses from
WHOLE = ("num_inference_steps", "keyframe_crf")  # parameters that take only whole numbers


class Hires(Written):
    """A second pass over a still that is drawn smaller first."""

    scale: float = Field(gt=1, le=4, description="width and height are this many times those of the first pass")
    strength: float = Field(gt=0, le=1, description="how much noise is added to the enlarged still")
    num_inference_steps: int = Field(ge=1, le=1000)


class Range(Written):
    """What a shot may set a parameter to; both ends belong to it."""

    minimum: float
    maximum: float


class Workflow(Written):
    """Model files, sampler, sizes and retry policy. What decides pixels belongs to the digest of a take's workflow."""

    name: Name
    version: int = Field(ge=1)
    description: str = ""
    family: FamilyName
    checkpoint: str = Field(
        description="diffusers folder, .safetensors or (LTX-Video) .gguf file, relative to TOWER_MODELS_DIR, or demo:NAME in actors/demo"
    )
    base: str | None = Field(
        None, description="where the checkpoint is one file: a diffusers folder of the same architecture and version, for what it lacks"
    )
    motion_adapter: str | None = Field(None, description="AnimateDiff only; as checkpoint")
    ip_adapter: str | None = Field(None, description="AnimateDiff only: a .safetensors file, through which clips attend to their keyframe")
    image_encoder: str | None = Field(None, description="for ip_adapter: folder of the CLIP vision model that it was trained with")
    ip_adapter_scale: float = Field(0.6, ge=0, le=2, description="for ip_adapter: how much the keyframe counts beside the prompt")
    loras: list[Lora] = Field(default_factory=list)
    dtype: Dtype = "auto"
    vae: str | None = Field(None, description="another VAE than the checkpoint's: diffusers folder or .safetensors file, as checkpoint")
    vae_dtype: Dtype | None = Field(None, description="what stills are decoded in; SDXL takes float32 where its VAE overflows in float16")
    width: int = Field(ge=32, le=4096)
    height: int = Field(ge=32, le=4096)
    num_frames: int | None = Field(None, ge=2, le=1025, description="clips only")
    fps: float | None = Field(None, gt=0, le=120, description="clips only: the rate that the model's frames are meant for")
    context_length: int | None = Field(
        None, ge=2, le=1025, description="AnimateDiff only: frames moved at once, for clips longer than the motion adapter's (FreeNoise)"
    )
    context_overlap: int = Field(4, ge=0, le=1024, description="for context_length: frames that a window shares with the next")
    num_inference_steps: int = Field(ge=1, le=1000)
    timesteps: list[Annotated[float, Field(ge=0, le=1000)]] | None = Field(
        None, description="LTX-Video only: noise levels to visit, 1000 down to 0"
    )
    guidance_scale: float = Field(ge=1, le=30)
    scheduler: Literal["checkpoint", "ddim", "euler", "euler_ancestral", "dpmpp_2m_karras", "lcm"] = Field(
        "checkpoint", description="lcm is for models of few steps, such as AnimateLCM, with guidance_scale 1 or little more"
    )
    beta_schedule: BetaSchedule = Field(
        "checkpoint", description="of the noise; family animatediff takes linear if not given, as published motion modules were trained on"
    )
    prediction_type: Literal["checkpoint", "epsilon", "v_prediction"] = Field(
        "checkpoint", description="what the model predicts, where its scheduler or the markers of its file do not say so"
    )
    rescale_betas_zero_snr: bool = Field(False, description="noise up to a signal of zero, as v-prediction models are mostly trained")
    guidance_rescale: float = Field(0.0, ge=0, le=1, description="against pictures that guidance overexposes; 0.7 for v-prediction")
    hires: Hires | None = None
    timestep_spacing: TimestepSpacing = Field(
        "checkpoint", description="of the scheduler's noise levels; AnimateDiff-Lightning wants trailing, with scheduler euler"
    )
    strength: float = Field(1.0, gt=0, le=1, description="clips only; see actors/values.py")
    image_cond_noise_scale: float = Field(0.0, ge=0, le=1)
    decode_timestep: float = Field(0.0, ge=0, le=1)
    decode_noise_scale: float | None = Field(None, ge=0, le=1)
    keyframe_crf: int | None = Field(
        None, ge=0, le=51, description="compress the keyframe first, so that stills move more; LTX-Video's own code uses 29"
    )
    upsampler: str | None = Field(
        None, description="LTX-Video only: folder of a latent upsampler; the clip is made in half the size, doubled, and refined"
    )
    second_timesteps: list[Annotated[float, Field(ge=0, le=1000)]] | None = Field(
        None, min_length=1, description="with an upsampler: noise levels of the second pass, 1000 down to 0"
    )
    second_strength: float = Field(0.999, gt=0, lt=1, description="with an upsampler: the last part of these levels, which is visited")
    adain_factor: float = Field(0.0, ge=0, le=1, description="with an upsampler: how far colours are drawn back to the first pass's")
    tone_map_compression_ratio: float = Field(0.0, ge=0, le=1, description="with an upsampler: how far its extremes are compressed")
    vae_tiling: bool = Field(False, description="LTX-Video only: decode in tiles of 512 pixels, which takes less memory; seams may show")
    negative_prompt: str = ""
    max_tokens: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="prompt length in tokens; the tokenizer's own limit if not given. CLIP reads 77 at a time: 154 is twice that",
    )
    clip_skip: int = Field(1, ge=1, le=12, description="layer of CLIP that is read, from the last, as web UIs count: 2 is diffusers' 1")
    prompt_weights: Literal["refused", "dropped", "applied"] = Field(
        "refused", description="what becomes of weights such as (blue eyes:1.3) in prompts; only CLIP can apply them"
    )
    embeddings: dict[str, str] = Field(
        default_factory=dict, description="textual inversion: word of a prompt to its .safetensors file, as checkpoint"
    )
    batch_size: int = Field(1, ge=1, le=64, description="keyframes only: stills per call")
    gates: Name = Field("anime", description="profile in configs/gates that its takes are judged by")
    retry: Retry = Field(default_factory=Retry)
    parameters: dict[Parameter, Range] = Field(
        default_factory=dict, description="settings that a shot may change, and how far; all others are fixed"
    )

    @model_validator(mode="after")
    def _parameters_fit(self) -> Workflow:
        for name, span in self.parameters.items():
            if name not in self.kind.parameters or (name == "num_inference_steps" and self.timesteps is not None):
                raise ValueError(f"parameters.{name} means nothing here: family {self.family} does not read it from these settings")
            default = getattr(self, name)
            if default is None or not span.minimum <= default <= span.maximum:
                raise ValueError(f"parameters.{name}: its own value {default} is not between {span.minimum:g} and {span.maximum:g}")
        return self

    @model_serializer(mode="wrap")
    def _without_later_fields(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out fields that the first workflows did not have, where they change nothing: digests must stay what they were."""
        written: dict[str, Any] = write(self)
        return {name: value for name, value in written.items() if name not in LATER_FIELDS or LATER_FIELDS[name] != value}

    @model_validator(mode="after")
    def _fields_of_its_family(self) -> Workflow:
        for name in dict.fromkeys(name for family in FAMILIES.values() for name in family.own):
            if name not in self.kind.own and getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True):
                having = [f.name for f in FAMILIES.values() if name in f.own]
                raise ValueError(f"{name} belongs to family {' and '.join(having)}, and family {self.family} does not read it")
        if self.prompt_weights == "applied" and not self.kind.clip:
            raise ValueError(f"prompt_weights: family {self.family} cannot apply weights; dropped takes them out of the prompt")
        if self.hires and int(self.hires.num_inference_steps * self.hires.strength) < 1:
            raise ValueError(f"hires: strength {self.hires.strength:g} of {self.hires.num_inference_steps} steps leaves no step to take")
        first = [round(side / self.hires.scale, 6) for side in (self.width, self.height)] if self.hires else []
        if self.hires and any(side % self.kind.size_multiple for side in first):
            size = f"{self.width}x{self.height}"
            raise ValueError(f"hires.scale {self.hires.scale:g}: {size} over it are no multiples of {self.kind.size_multiple}")
        return self

    @model_validator(mode="after")
    def _embeddings_are_words(self) -> Workflow:
        known: dict[str, str] = {}
        for word in self.embeddings:
            if not word.strip() or set(word) & set("()[]\\"):  # these are the notation of weights
                raise ValueError(f"embeddings: {word!r} is no word that a prompt could have; it needs letters, and no brackets")
            if (other := known.setdefault(word.lower(), word)) != word:
                raise ValueError(f"embeddings: {other} and {word} are one word in a prompt")
        return self

    @model_validator(mode="after")
    def _fits_its_family(self) -> Workflow:
        kind = self.kind
        clip = kind.stage == "clip"
        if clip and (self.num_frames is None or self.fps is None):
            raise ValueError(f"family {kind.name} needs num_frames and fps")
        if not clip and (self.num_frames or self.fps):
            raise ValueError(f"family {kind.name} draws stills: num_frames and fps do not belong here")
        if clip and self.batch_size != 1:
            raise ValueError("batch_size is for keyframes; clips are made one by one")
        if kind.motion_adapter != (self.motion_adapter is not None):
            having = [f.name for f in FAMILIES.values() if f.motion_adapter]
            raise ValueError(f"motion_adapter belongs to family {' and '.join(having)}, and only there")
        if self.timesteps is not None and (sorted(self.timesteps, reverse=True) != self.timesteps or not self.timesteps):
            raise ValueError("timesteps go down")
        self._second_pass_fits()
        if "more_compression" in self.retry.on.values() and "keyframe_crf" not in kind.parameters:
            raise ValueError(f"retry.on: more_compression raises keyframe_crf, which family {kind.name} does not read")
        single = self.checkpoint.endswith((".safetensors", ".gguf"))
        if single != (self.base is not None):
            raise ValueError("base belongs to a checkpoint that is one .safetensors or .gguf file, which needs it, and to no other")
        if single and not self.checkpoint.endswith(kind.single_files):
            raise ValueError(f"family {kind.name} loads diffusers folders{', and files that end in '.join(['', *kind.single_files])}")
        if (self.ip_adapter is None) != (self.image_encoder is None):
            raise ValueError("ip_adapter and image_encoder belong together")
        if self.ip_adapter is None and (self.ip_adapter_scale != LATER_FIELDS["ip_adapter_scale"] or "ip_adapter_scale" in self.parameters):
            raise ValueError("ip_adapter_scale means nothing without ip_adapter")
        if self.context_length is None and self.context_overlap != LATER_FIELDS["context_overlap"]:
            raise ValueError("context_overlap means nothing without context_length")
        if self.timestep_spacing != "checkpoint" and self.scheduler == "lcm":
            raise ValueError("timestep_spacing is not for scheduler lcm, which has its own")
        span = self.parameters.get("num_inference_steps")
        most = max(self.num_inference_steps, span.maximum if span else 0, self.hires.num_inference_steps if self.hires else 0)
        if self.scheduler == "lcm" and most > LCM_STEPS:
            raise ValueError(f"scheduler lcm takes at most {LCM_STEPS} num_inference_steps, and is meant for about 4")
        return self

    def _second_pass_fits(self) -> None:
        if (self.upsampler is None) != (self.second_timesteps is None):
            raise ValueError("upsampler and second_timesteps belong together: what the upsampler doubles is refined at these noise levels")
        for name in ("second_strength", "adain_factor", "tone_map_compression_ratio"):
            if self.upsampler is None and getattr(self, name) != LATER_FIELDS[name]:
                raise ValueError(f"{name} belongs to an upsampler, and there is none")
        levels = self.second_timesteps or []
        if sorted(levels, reverse=True) != levels:
            raise ValueError("second_timesteps go down")
        if levels and int(len(levels) * self.second_strength) < 1:
            raise ValueError(f"second_strength {self.second_strength:g} of {len(levels)} second_timesteps leaves no step to visit")

    def more_compressed(self, crf: int | None, times: int) -> int | None:
        """The keyframe's CRF after so many rejections that call for more compression. It stays in the range that shots may set."""
        most = int(self.parameters["keyframe_crf"].maximum) if "keyframe_crf" in self.parameters else MOST_CRF
        for _ in range(times):
            crf = max(crf or 0, min(FIRST_CRF if crf is None else crf + MORE_CRF, most))
        return crf

    @property
    def named_files(self) -> list[str]:
        """Everything that it loads as the file writes it, in the order of `ModelFiles.named`."""
        return [name for field in FILES if (name := getattr(self, field))] + [x.file for x in self.loras] + [*self.embeddings.values()]

    @property
    def title(self) -> str:
        """`name@version`, the name of this one version."""
        return f"{self.name}@{self.version}"

    @property
    def makes(self) -> str:
        """Size, and length of clips, as text for people: `768x512, 121 frames at 24 fps`."""
        size = f"{self.width}x{self.height}"
        return size + (f", {self.num_frames} frames at {self.fps:g} fps" if self.num_frames else "")

    @property
    def kind(self) -> Family:
        return FAMILIES[self.family]

    @property
    def stage(self) -> Literal["keyframe", "clip"]:
        return self.kind.stage

    def with_parameters(self, given: dict[str, float], where: str) -> dict[str, float | int]:
        """A shot's parameters, with whole numbers as int.

        Args:
            given: parameter to value. where: file and shot, for the error message.

        Raises:
            InputError: the workflow does not declare a parameter, or its value is out of range or not whole.
        """
        for name, value in given.items():
            span = self.parameters.get(name)  # type: ignore[call-overload]
            if span is None:
                known = ", ".join(self.parameters) or "none"
                raise InputError(f"{where}: workflow {self.name} has no parameter {name!r}; it declares {known}")
            if not span.minimum <= value <= span.maximum:
                raise InputError(f"{where}: {name} is {value:g}; workflow {self.name} takes {span.minimum:g} to {span.maximum:g}")
            if name in WHOLE and value != int(value):
                raise InputError(f"{where}: {name} is {value:g}; workflow {self.name} takes whole numbers")
        return {name: int(value) if name in WHOLE else float(value) for name, value in sorted(given.items())}

    def settings(self) -> KeyframeSettings | ClipSettings:
        return self.kind.settings_of(self)

    def text_settings(self) -> TextSettings:
        """How its prompts are encoded."""
        return TextSettings(self.max_tokens, self.clip_skip, self.prompt_weights)


def read_workflow(path: Path) -> Workflow:
    """Read a workflow file.

    Raises:
        InputError: the file does not fit. The message is one sentence with file and line.
    """
    workflow = read_yaml(path, Workflow)
    given = "beta_schedule" in workflow.model_fields_set
    # Not the field's default: versions in catalogs from before the field were rendered with the checkpoint's betas.
    return workflow if given else workflow.model_copy(update={"beta_schedule": workflow.kind.betas or "checkpoint"})
