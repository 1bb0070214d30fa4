"""The work that contenders orchestrate: takes that cost time and nothing else.

A device sleeps as long as a model would think. What is made, how long it takes and what the gates say of it follows from
the shot, the stage, the attempt and a seed alone, so every contender makes exactly the same takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

Stage = Literal["keyframe", "clip"]

STAGES: tuple[Stage, ...] = ("keyframe", "clip")
SECONDS: dict[Stage, float] = {"keyframe": 0.2, "clip": 1.0}
JITTER = 0.2  # uniform, of the seconds, up or down
CAP = 20  # the attempt that passes whatever the draw: reached by no seed in practice


@dataclass(frozen=True)
class Work:
    """So many shots, each a keyframe and a clip, each made again until its gate accepts it.

    rejected: share of takes that a gate rejects, 0 ≤ rejected < 1. Attempts count from 1. pace: times the seconds of a take; at
    0 devices do nothing, and what is left is the orchestration.
    """

    shots: int = 200
    rejected: float = 0.2
    seed: int = 0
    pace: float = 1.0

    def seconds(self, shot: int, stage: Stage, attempt: int) -> float:
        """That a device needs for this take."""
        return self.pace * SECONDS[stage] * (1 + JITTER * (2 * self._draw("seconds", shot, stage, attempt) - 1))

    def passes(self, shot: int, stage: Stage, attempt: int) -> bool:
        """What the gate says. Costs microseconds."""
        return attempt >= CAP or self._draw("verdict", shot, stage, attempt) >= self.rejected

    def attempts(self, shot: int, stage: Stage) -> int:
        """Takes made, the accepted one too."""
        return next(n for n in range(1, CAP + 1) if self.passes(shot, stage, n))

    def takes(self) -> int:
        return sum(self.attempts(shot, stage) for shot in range(self.shots) for stage in STAGES)

    def device_seconds(self) -> float:
        """Of all takes; by the number of devices, the least time that anyone could need."""
        each = ((shot, stage) for shot in range(self.shots) for stage in STAGES)
        return sum(self.seconds(*one, n) for one in each for n in range(1, self.attempts(*one) + 1))

    def _draw(self, what: str, shot: int, stage: Stage, attempt: int) -> float:
        """0 ≤ draw < 1, the same on every machine."""
        text = f"{self.seed} {what} {shot} {stage} {attempt}".encode()
        return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") / 2**64
