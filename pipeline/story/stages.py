"""The chain that shots go through. Each stage has a workflow, a family of models, a gate and a retry policy of its own.

To add a stage: add a row to CHAIN, its families to `actors/families.py`, its fields to the episode, and its method to `render/studio.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

StageName = Literal["keyframe", "clip", "finish"]


@dataclass(frozen=True)
class Stage:
    """gate: the gate that judges the stage's takes. suffix: end of the names of their files in shots/. many: several of its takes.

    optional: a shot goes through the stage only where it or its episode names a workflow for it.
    """

    name: StageName
    gate: Literal["image", "video"]
    suffix: str
    many: str
    optional: bool = False


CHAIN = (
    Stage("keyframe", "image", ".png", "keyframes"),
    Stage("clip", "video", ".mp4", "clips"),
    Stage("finish", "video", ".finish.mp4", "finishes", optional=True),
)
STAGES: tuple[StageName, ...] = tuple(stage.name for stage in CHAIN)
NEEDED: tuple[StageName, ...] = tuple(stage.name for stage in CHAIN if not stage.optional)
MOVING: tuple[StageName, ...] = tuple(stage.name for stage in CHAIN if stage.gate == "video")
GATES = {stage.name: stage.gate for stage in CHAIN}
MANY = {stage.name: stage.many for stage in CHAIN}
PATTERN = f"({'|'.join(STAGES)})"  # any stage's name, as a part of a regular expression


def in_use(stages: Iterable[str]) -> tuple[StageName, ...]:
    """The stages that every shot goes through, and of the others those that are named here, in the order of the chain."""
    named = {*NEEDED, *stages}
    return tuple(name for name in STAGES if name in named)
