"""The chain that every shot goes through. Each stage has a workflow, a family of models, a gate and a retry policy of its own.

To add a stage: add a row to CHAIN, its families to `actors/families.py`, its fields to the episode, and its method to `render/studio.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StageName = Literal["keyframe", "clip"]


@dataclass(frozen=True)
class Stage:
    """gate: the gate that judges the stage's takes. suffix: suffix of their media files."""

    name: StageName
    gate: Literal["image", "video"]
    suffix: str


CHAIN = (Stage("keyframe", "image", ".png"), Stage("clip", "video", ".mp4"))
STAGES: tuple[StageName, ...] = tuple(stage.name for stage in CHAIN)
GATES = {stage.name: stage.gate for stage in CHAIN}
