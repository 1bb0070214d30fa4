"""What other processes do with a clip, as a render's CPU tasks do it: write it, decode it again, judge it. No torch is imported here.

What is written is a drawn scene of the clip's size: random weights draw noise, which no encoder is made for. Without PyAV nothing is.
"""

from __future__ import annotations

import time
from fractions import Fraction
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

from actors.demo.train import scenes
from actors.values import ClipSettings
from benchmarks.gpu.report import has_av
from catalog.place import Place
from pipeline.story.gate_profile import load_profile

_here: tuple[Path, ClipSettings, np.ndarray] | None = None  # of this process: folder, settings, and frames to write


def prepare(folder: str, s: ClipSettings) -> None:
    global _here
    _here = Path(folder), s, drawn(s)


def ready(_: int) -> None:
    """Long enough that every process of a pool is asked once."""
    time.sleep(0.05)


def drawn(s: ClipSettings) -> np.ndarray:
    """A scene of the clip's size: uint8 RGB (frames, height, width, 3)."""
    return scenes.clip(scenes.sample(0, motion="walk right"), range(s.num_frames), s.height, s.width)


def take_shared(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Take a clip out of shared memory, then `write_and_judge`."""
    shared = SharedMemory(name=name)
    assert np.ndarray(shape, np.uint8, shared.buf).any(), "the clip did not arrive"
    shared.close()
    shared.unlink()
    return write_and_judge() if has_av() else (0.0, 0.0)


def write_and_judge() -> tuple[float, float]:
    """Seconds of writing, and of the whole task, as the product's CPU task counts them."""
    from gates.video import Expectation
    from pipeline.render.gate_tasks import Standard, judge_clip, judge_keyframe

    assert _here is not None
    folder, s, frames = _here
    place, standard = Place.of(folder), Standard(load_profile("anime"))
    keyframe = judge_keyframe(frames[0], "", s.width, s.height, place, standard).media
    expect = Expectation(s.num_frames, Fraction(s.fps), s.width, s.height, "h264", "yuv420p")
    judged = judge_clip(frames, "", keyframe, expect, place, standard)
    return judged.encode_seconds, judged.seconds


def write(file: Path, frames: np.ndarray, s: ClipSettings) -> None:
    from pipeline.render.video_file import write_clip

    write_clip(file, frames, Fraction(s.fps))
