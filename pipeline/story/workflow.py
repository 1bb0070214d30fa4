"""Workflow files: versioned settings that turn inputs into a take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from actors.families import FAMILIES, Family
from actors.values import ClipSettings, KeyframeSettings
from gates.verdict import LABELS
from pipeline import PROJECT

from .episode import Lora, Name, Written
from .errors import InputError
from .yaml_file import read_yaml

WORKFLOWS = PROJECT / "configs" / "workflows"
RETIRED = PROJECT / "archive" / "workflows"
Action = Literal["new_seed", "new_keyframe", "give_up"]
LATER_FIELDS = {"beta_schedule": "checkpoint", "base": None}  # fields that workflows got later, and the value that changes nothing
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
        description="what to change for a label; new_seed if not given",
    )

    @model_validator(mode="after")
    def _labels_exist(self) -> Retry:
        for label in self.on:
            if label not in LABELS:
                raise ValueError(f"retry.on: {label!r} is not a gate label; the labels are {', '.join(LABELS)}")
        return self

    def action(self, labels: tuple[str, ...]) -> Action:
        """The strongest action that any of the labels calls for: give_up, then new_keyframe, then new_seed."""
        wanted = {self.on.get(label, "new_seed") for label in labels}
        return "give_up" if "give_up" in wanted else "new_keyframe" if "new_keyframe" in wanted else "new_seed"


Parameter = Literal[
    "num_inference_steps", "guidance_scale", "strength", "image_cond_noise_scale", "decode_timestep", "decode_noise_scale", "keyframe_crf"
]
BetaSchedule = Literal["checkpoint", "linear", "scaled_linear"]
WHOLE = ("num_inference_steps", "keyframe_crf")  # parameters that take only whole numbers


class Range(Written):
    """What a shot may set a parameter to; both ends belong to it."""

    minimum: float
    maximum: float


FILES = ("checkpoint", "base", "motion_adapter")  # fields that each name a file or folder of models


class Workflow(Written):
    """Model files, sampler, sizes and retry policy. What decides pixels belongs to the digest of a take's workflow."""

    name: Name
    version: int = Field(ge=1)
    description: str = ""
    family: FamilyName
    checkpoint: str = Field(
        description="diffusers folder or .safetensors file, relative to TOWER_MODELS_DIR, or demo:NAME for the ones in actors/demo"
    )
    base: str | None = Field(
        None, description="where the checkpoint is one .safetensors file: a diffusers folder of the same architecture, for what it lacks"
    )
    motion_adapter: str | None = Field(None, description="AnimateDiff only; as checkpoint")
    loras: list[Lora] = Field(default_factory=list)
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    width: int = Field(ge=32, le=4096)
    height: int = Field(ge=32, le=4096)
    num_frames: int | None = Field(None, ge=2, le=1025, description="clips only")
    fps: float | None = Field(None, gt=0, le=120, description="clips only: the rate that the model's frames are meant for")
    num_inference_steps: int = Field(ge=1, le=1000)
    timesteps: list[Annotated[float, Field(ge=0, le=1000)]] | None = Field(
        None, description="LTX-Video only: noise levels to visit, 1000 down to 0"
    )
    guidance_scale: float = Field(ge=1, le=30)
    scheduler: Literal["checkpoint", "ddim", "euler", "euler_ancestral", "dpmpp_2m_karras"] = "checkpoint"
    beta_schedule: BetaSchedule = Field(
        "checkpoint", description="of the noise; family animatediff takes linear if not given, as published motion modules were trained on"
    )
    strength: float = Field(1.0, gt=0, le=1, description="clips only; see actors/values.py")
    image_cond_noise_scale: float = Field(0.0, ge=0, le=1)
    decode_timestep: float = Field(0.0, ge=0, le=1)
    decode_noise_scale: float | None = Field(None, ge=0, le=1)
    keyframe_crf: int | None = Field(
        None, ge=0, le=51, description="compress the keyframe first, so that stills move more; LTX-Video's own code uses 29"
    )
    negative_prompt: str = ""
    max_tokens: int | None = Field(None, ge=8, le=1024, description="prompt length in tokens; the tokenizer's own limit if not given")
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
        if self.timesteps is not None and (
            "timesteps" not in kind.own or sorted(self.timesteps, reverse=True) != self.timesteps or not self.timesteps
        ):
            having = [f.name for f in FAMILIES.values() if "timesteps" in f.own]
            raise ValueError(f"timesteps belong to family {' and '.join(having)}, and go down")
        single = self.checkpoint.endswith(".safetensors")
        if single != (self.base is not None):
            raise ValueError("base belongs to a checkpoint that is one .safetensors file, which needs it, and to no other")
        if single and "stable_diffusion" not in (kind.name, kind.checkpoints):
            raise ValueError(f"family {kind.name} loads diffusers folders, and no single files")
        if self.beta_schedule != "checkpoint" and not kind.betas:
            having = [f.name for f in FAMILIES.values() if f.betas]
            raise ValueError(f"beta_schedule belongs to family {' and '.join(having)}, and only there")
        return self

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
    def files(self) -> list[tuple[str, str]]:
        """Field and name of every file and folder that it loads."""
        return [(field, name) for field in FILES if (name := getattr(self, field))] + [("loras", lora.file) for lora in self.loras]

    def with_files(self, renamed: Callable[[str], str]) -> Workflow:
        """The same workflow with its files under other names."""
        one = {field: renamed(name) for field in FILES if (name := getattr(self, field))}
        return self.model_copy(update=one | {"loras": [lora.model_copy(update={"file": renamed(lora.file)}) for lora in self.loras]})

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


def read_workflow(path: Path) -> Workflow:
    """Read a workflow file.

    Raises:
        InputError: the file does not fit. The message is one sentence with file and line.
    """
    workflow = read_yaml(path, Workflow)
    given = "beta_schedule" in workflow.model_fields_set
    # Not the field's default: versions in catalogs from before the field were rendered with the checkpoint's betas.
    return workflow if given else workflow.model_copy(update={"beta_schedule": workflow.kind.betas or "checkpoint"})
