"""The families of models: everything that the house knows of each by name. A new one is a row here, a class, and a workflow file.

Nothing heavy is imported: planning reads this table, and only a device imports the class.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from .files import check_frames
from .values import ClipSettings, KeyframeSettings, ModelError

GENERAL = ("num_inference_steps", "guidance_scale")  # parameters that every family reads


@dataclass(frozen=True)
class Family:
    """One kind of model.

    Args:
        stage: of the chain; what its models make.
        model: `module:class`, built on a device as `class(identity, files, settings)`.
        size_multiple: pixels that width and height must be multiples of.
        dtype: what "auto" means on a GPU; on a CPU it is float32.
        parameters: settings that a workflow may let a shot change.
        own: settings that belong to this family alone, beside those that its stage always has.
        shots_loras: whether characters' LoRAs are used; a workflow's own always are.
        motion_adapter: whether it needs one.
        check_length: raises ModelError where a checkpoint cannot make so many frames; None where any number, or none, will do.
    """

    name: str
    stage: Literal["keyframe", "clip"]
    model: str
    size_multiple: int
    dtype: Literal["float16", "bfloat16"]
    parameters: tuple[str, ...]
    own: tuple[str, ...] = ()
    shots_loras: bool = True
    motion_adapter: bool = False
    check_length: Callable[[str, int], None] | None = None

    @property
    def settings(self) -> type[KeyframeSettings | ClipSettings]:
        return KeyframeSettings if self.stage == "keyframe" else ClipSettings

    def settings_of(self, values: Any) -> KeyframeSettings | ClipSettings:
        """The settings out of anything that has their names as attributes, such as a workflow. Lists become tuples."""
        given: dict[str, Any] = {f.name: getattr(values, f.name) for f in fields(self.settings)}
        kind: Any = self.settings
        return kind(**{k: tuple(v or ()) if k == "timesteps" else v for k, v in given.items()})


TABLE = (
    Family("stable_diffusion", "keyframe", "actors.keyframe:KeyframeModel", 8, "float16", GENERAL),
    Family(
        "ltx_video",
        "clip",
        "actors.ltx_video:LtxVideoModel",
        32,
        "bfloat16",
        (*GENERAL, "strength", "image_cond_noise_scale", "decode_timestep", "decode_noise_scale", "keyframe_crf"),
        own=("timesteps",),
        shots_loras=False,  # a character's LoRA is one of Stable Diffusion's: it is drawn into the keyframe
        check_length=check_frames,
    ),
    Family(
        "animatediff",
        "clip",
        "actors.animatediff:AnimateDiffModel",
        8,
        "float16",
        (*GENERAL, "strength", "keyframe_crf"),
        motion_adapter=True,
    ),
)
FAMILIES = {family.name: family for family in TABLE}
ENCODER = "actors.prompts:PromptEncoder"  # of every family: it finds out from the checkpoint whether to read CLIP or T5


@dataclass(frozen=True)
class Lazy:
    """A class that is imported when it is first called, on the machine that calls it."""

    path: str

    def __call__(self, *args: Any) -> Any:
        return pkgutil.resolve_name(self.path)(*args)


def family_of(name: str) -> Family:
    if name not in FAMILIES:
        raise ModelError(f"family {name!r} is not known; it is one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
