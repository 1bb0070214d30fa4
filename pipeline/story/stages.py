"""The chain that every shot goes through. Each stage has a workflow, a family of models, a gate and a retry policy of its own.

A stage more is a row here, its families in `actors/families.py`, its workflow fields in the episode, and its maker in `render/studio.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StageName = Literal["keyframe", "clip"]


@dataclass(frozen=True)
class Stage:
    """gate: which of the two judges its takes. suffix: of their files."""

    name: StageName
    gate: Literal["image", "video"]
    suffix: str


CHAIN = (Stage("keyframe", "image", ".png"), Stage("clip", "video", ".mp4"))
STAGES: tuple[StageName, ...] = tuple(stage.name for stage in CHAIN)
GATES = {stage.name: stage.gate for stage in CHAIN}
