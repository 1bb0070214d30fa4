"""Stand-in models: the interface of `actors/`, with drawings for networks and milliseconds for minutes.

For jobs that try the path around the models. A result depends on nothing but its seed, its prompt and its keyframe, as a
model's does. Most pass the gates; one in five is faulty on purpose, so that retries happen. torch is never imported.
"""

from __future__ import annotations

import os
import platform
import random
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from actors.demo.train import scenes
from actors.values import (
    ClipRequest,
    ClipSettings,
    KeyframeRequest,
    KeyframeSettings,
    ModelFiles,
    PromptEmbedding,
    PromptReceipt,
    PromptRequest,
    Receipt,
    TextSettings,
)

KEYFRAMES, CLIPS, PROMPTS = (f"benchmarks.stand_ins:{kind}StandIn" for kind in ("Keyframe", "Clip", "Prompt"))
EXECUTIONS = "SOAK_EXECUTIONS"  # environment: the file that gets one line an execution begun, `seconds since 1970, take`
KEYFRAME_SECONDS, CLIP_SECONDS = 0.05, 0.2
FAULTY = 0.2  # share of takes


class PromptStandIn:
    """The text's own bytes for an embedding, so that whoever gets it can read the text again."""

    def __init__(self, identity: str, files: ModelFiles, settings: TextSettings = TextSettings()):
        self.identity = identity

    def generate(self, requests: list[PromptRequest]) -> tuple[list[PromptReceipt], list[PromptEmbedding]]:
        return [PromptReceipt(self.identity, None, 0.0) for _ in requests], [_embedding(r.text) for r in requests]


class KeyframeStandIn:
    """Draws one scene a request; a faulty one is flat, or its values were not finite."""

    def __init__(self, identity: str, files: ModelFiles, settings: KeyframeSettings):
        self.identity, self.settings = identity, settings

    def prepare(self, loras: tuple) -> None:
        """There are none."""

    def again(self, identity: str, settings: Any) -> Any:
        return type(self)(identity, ModelFiles(""), settings)

    def generate(self, requests: list[KeyframeRequest]) -> tuple[list[Receipt], list[np.ndarray]]:
        made = [_made(self.identity, r, KEYFRAME_SECONDS, self._draw) for r in requests]
        return [receipt for receipt, _ in made], [still for _, still in made]

    def _draw(self, request: KeyframeRequest, faulty: bool) -> np.ndarray:
        s = self.settings
        if faulty:
            return np.full((s.height, s.width, 3), 128, np.uint8)
        scene = scenes.sample(zlib.crc32(f"{_text(request.prompt)} {request.seed}".encode()))
        return scenes.draw(scene, 0, s.height, s.width)


class ClipStandIn:
    """Pans over the keyframe and its mirror image; a faulty clip is frozen."""

    def __init__(self, identity: str, files: ModelFiles, settings: ClipSettings):
        self.identity, self.settings = identity, settings

    def prepare(self, loras: tuple) -> None:
        """There are none."""

    def again(self, identity: str, settings: Any) -> Any:
        return type(self)(identity, ModelFiles(""), settings)

    def generate(self, requests: list[ClipRequest]) -> tuple[list[Receipt], list[np.ndarray]]:
        made = [_made(self.identity, r, CLIP_SECONDS, self._pan) for r in requests]
        return [receipt for receipt, _ in made], [clip for _, clip in made]

    def _pan(self, request: ClipRequest, faulty: bool) -> np.ndarray:
        s, still = self.settings, request.keyframe
        if faulty:
            return np.repeat(still[None], s.num_frames, axis=0)
        wide = np.concatenate([still, still[:, ::-1]], axis=1)
        step = 12 / s.fps if request.seed % 2 else -12 / s.fps  # pixels a frame; whole pixels only, which blur nothing
        return np.stack([np.roll(wide, int(n * step), axis=1)[:, : s.width] for n in range(s.num_frames)])


def _made(identity: str, request: Any, seconds: float, draw: Callable[[Any, bool], np.ndarray]) -> tuple[Receipt, np.ndarray]:
    """One result and its receipt, after the time that a small model might take."""
    _note(request.take)
    started, rng = time.monotonic(), random.Random(request.seed)
    faulty = rng.random() < FAULTY
    time.sleep(seconds * rng.uniform(0.7, 1.3))
    result = draw(request, faulty)
    return Receipt(request.take, identity, request.seed, "", time.monotonic() - started, 0, cpu_name()), result


def _note(take: str) -> None:
    """Tell that a take is being executed, whatever becomes of it. Short lines that are appended stay whole."""
    if EXECUTIONS in os.environ:
        with open(os.environ[EXECUTIONS], "a") as file:
            file.write(f"{time.time():.3f} {take}\n")


def _embedding(text: str) -> PromptEmbedding:
    letters = np.frombuffer(text.encode(), np.uint8).astype(np.float32)[:, None]
    return PromptEmbedding(letters, np.ones(len(letters), bool))


def _text(embedding: PromptEmbedding) -> str:
    return embedding.embeds[:, 0].astype(np.uint8).tobytes().decode()


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return f"{platform.processor() or platform.machine()} CPU"
