"""CPU tasks: write a take's media, decode it again, and let its gate judge what is really there."""

from __future__ import annotations

import io
import pickle
import tempfile
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from catalog.media import Media, MediaStore
from catalog.place import Place
from gates.image import judge_image
from gates.rules import Profile
from gates.still import read_still
from gates.verdict import Verdict
from gates.video import Expectation, judge_video

from .picture import fill
from .video_file import write_clip


@dataclass(frozen=True)
class Standard:
    """What a take is held to: a profile, and what its shot declares."""

    profile: Profile
    declared: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """It goes with every task, with sixty rules in it: they are written once here, and read once by each worker."""
        return _standard, (_written(self.profile), self.declared)


WRITTEN: dict[int, tuple[Profile, bytes]] = {}  # by identity; each is kept, so that its identity stays its own


def _written(profile: Profile) -> bytes:
    if id(profile) not in WRITTEN:
        WRITTEN[id(profile)] = profile, pickle.dumps(profile)
    return WRITTEN[id(profile)][1]


def _standard(written: bytes, declared: tuple[str, ...]) -> Standard:
    return Standard(_profile(written), declared)


@lru_cache
def _profile(written: bytes) -> Profile:
    return pickle.loads(written)


@dataclass(frozen=True)
class Judged:
    """A verdict and where the judged bytes lie. Small: it passes through the driver."""

    verdict: Verdict
    media: Media
    width: int
    height: int
    frames: int
    seconds: float
    encode_seconds: float  # of `seconds`, writing the file


def warm() -> None:
    """Nothing but the imports of this module, which take a worker seconds: done while models load, not before the first verdict."""


def judge_keyframe(image: np.ndarray, finite: bool, width: int, height: int, root: Place, standard: Standard) -> Judged:
    """Store a still as PNG and judge the stored bytes.

    Args:
        image: uint8 RGB (height, width, 3). finite: what the model said before its cast to uint8.
        width, height: what was asked for. root: where the catalog is.
    """
    started = time.monotonic()
    return _judge_still(_png(image), finite, width, height, root, standard, started)


def judge_given(path: Path, width: int, height: int, root: Place, standard: Standard) -> Judged:
    """A still that a person gave, scaled to the workflow's size (the middle, if the shapes differ), then as a keyframe."""
    started = time.monotonic()
    return _judge_still(_png(fill(read_still(path).image, width, height)), True, width, height, root, standard, started)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _judge_still(data: bytes, finite: bool, width: int, height: int, root: Place, standard: Standard, started: float) -> Judged:
    encoded = time.monotonic() - started
    media = MediaStore(root).put(data, ".png")
    verdict = judge_image(data, standard.profile, (width, height), standard.declared, finite)
    got = verdict.measures
    return Judged(verdict, media, int(got["width"]), int(got["height"]), 1, time.monotonic() - started, encoded)


def judge_clip(frames: np.ndarray, finite: bool, keyframe: Media, expect: Expectation, root: Place, standard: Standard) -> Judged:
    """Encode a clip, decode the file again, judge it against its keyframe, and store it.

    Args:
        frames: uint8 RGB (frames, height, width, 3). keyframe: the still that it must start from.
        expect: what the workflow promises; the file must hold exactly that.
    """
    started = time.monotonic()
    fps = expect.fps
    assert fps and expect.width and expect.height
    expect = replace(expect, keyframe=read_keyframe(keyframe, expect.width, expect.height, root))
    with tempfile.TemporaryDirectory(prefix="tower-clip-") as folder:
        file = Path(folder) / "clip.mp4"
        write_clip(file, frames, fps)
        encoded = time.monotonic() - started
        verdict = judge_video(file, expect, standard.profile, standard.declared, finite)
        media = MediaStore(root).put(file.read_bytes(), ".mp4")
    return Judged(verdict, media, frames.shape[2], frames.shape[1], len(frames), time.monotonic() - started, encoded)


def read_keyframe(media: Media, width: int, height: int, root: Place) -> np.ndarray:
    """The stored keyframe, proven, scaled to the clip's size: uint8 RGB (height, width, 3)."""
    return fill(read_still(MediaStore(root).read(media.path, media.digest)).image, width, height)


def keyframe_part(media: Media, width: int, height: int, root: Place) -> list[np.ndarray]:
    """`read_keyframe` for the object store, which indexes lists."""
    return [read_keyframe(media, width, height, root)]
