"""Models that sleep: what hollow shots have on their devices. Little is imported here, as each device imports it."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from actors.values import ClipRequest, KeyframeRequest, PromptEmbedding, PromptReceipt, PromptRequest, Receipt

from .work import Stage, Work


class HollowTexts:
    def __init__(self, identity: str):
        self.identity = identity

    def prepare(self) -> None:
        """There is nothing to load."""

    def generate(self, requests: list[PromptRequest]) -> tuple[list[PromptReceipt], list[PromptEmbedding]]:
        empty = PromptEmbedding(np.zeros((1, 1), np.float32), np.ones(1, bool))
        return [PromptReceipt(self.identity, None, 0.0) for _ in requests], [empty for _ in requests]


class Hollow:
    """A model that sleeps, and gives the numbers that its gate reads.

    Args:
        frames: bytes of each result beside them, such as a clip's 143 MB; 0 for none.
        load: seconds to build. memory: bytes that it claims to need.
    """

    def __init__(
        self, identity: str, stage: Stage, work: Work, log: str = "", frames: int = 0, load: float = 0.0, memory: int | None = None
    ):
        self.identity, self.stage, self.work, self.log, self.frames, self.memory_bytes = identity, stage, work, log, frames, memory
        time.sleep(load)

    def prepare(self, loras: tuple) -> None:
        """There are none."""

    def generate(self, requests: list[KeyframeRequest | ClipRequest]) -> tuple[list[Receipt], list[np.ndarray]]:
        made = [self._one(r) for r in requests]
        return [receipt for receipt, _ in made], [result for _, result in made]

    def _one(self, request: Any) -> tuple[Receipt, np.ndarray]:
        shot, attempt = shot_and_attempt(request.take)
        seconds, began = self.work.seconds(shot, self.stage, attempt), time.time()
        if seconds:
            time.sleep(seconds)
        if self.log:
            with open(self.log, "a") as file:  # one short line, which appends whole
                file.write(f"{began:.4f} {time.time():.4f} {os.getpid()} {request.take}\n")
        passes = self.work.passes(shot, self.stage, attempt)
        result = np.array([shot, attempt, passes, 0]) if not self.frames else np.full(self.frames, passes, np.uint8)
        return Receipt(request.take, self.identity, request.seed, "", seconds, 0, "hollow"), result


def shot_and_attempt(take: str) -> tuple[int, int]:
    _, shot, _, version = take.split("/")
    return int(shot[2:]), int(version[1:])
