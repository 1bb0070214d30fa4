"""CPU tasks: write a take's media file, decode the file again, and judge the decoded pictures with the take's gate."""

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

from actors.values import Passage
from catalog.media import Media, MediaStore
from catalog.place import Place
from gates.decode import VideoReader
from gates.image import judge_image
from gates.rules import Profile
from gates.still import Undecodable, read_still
from gates.verdict import Verdict
from gates.video import Expectation, judge_video
from pipeline.plan.guides import Guide

from .marks import Marks, marked
from .picture import fill
from .video_file import write_clip


@dataclass(frozen=True)
class Standard:
    """What a take is judged by: a gate profile, and what its shot declares."""

    profile: Profile
    declared: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the profile only once for all tasks. Every task carries a standard, and a profile has dozens of rules."""
        return _standard, (_pickled(self.profile), self.declared)


# id() of a profile to the profile and its pickle. The profile is kept, because Python could give its id to another object otherwise.
WRITTEN: dict[int, tuple[Profile, bytes]] = {}


def _pickled(profile: Profile) -> bytes:
    if id(profile) not in WRITTEN:
        WRITTEN[id(profile)] = profile, pickle.dumps(profile)
    return WRITTEN[id(profile)][1]


def _standard(pickled: bytes, declared: tuple[str, ...]) -> Standard:
    return Standard(_profile(pickled), declared)


@lru_cache
def _profile(pickled: bytes) -> Profile:
    """Cached: each worker unpickles a profile once."""
    return pickle.loads(pickled)


@dataclass(frozen=True)
class Judged:
    """A verdict, and where the judged file is stored. It holds no pixels, because it passes through the driver.

    width, height: pixels. frames: 1 for a still. seconds: of the whole task.
    """

    verdict: Verdict
    media: Media
    width: int
    height: int
    frames: int
    seconds: float
    encode_seconds: float  # the part of `seconds` in which the file was encoded


def warm() -> None:
    """Do nothing. A worker that runs this task imports this module, which takes seconds, while models still load."""


def judge_keyframe(
    image: np.ndarray, not_finite: str, width: int, height: int, root: Place, standard: Standard, marks: Marks | None = None
) -> Judged:
    """Store a still as PNG and judge the stored bytes.

    Args:
        image: uint8 RGB (height, width, 3). not_finite: as in a receipt.
        width, height: the size that the workflow asks for. root: the catalog's place. marks: what the file says of itself; None: nothing.
    """
    started = time.monotonic()
    return _judge_still(_png(image, marks), not_finite, width, height, root, standard, started)


def judge_given(
    path: Path, width: int, height: int, root: Place, standard: Standard, frame: int | None = None, marks: Marks | None = None
) -> Judged:
    """Judge a person's still as a keyframe. It is scaled and cropped to the workflow's (width, height) first.

    Args:
        frame: of a clip; None for a picture. marks: as in `judge_keyframe`.

    Raises:
        Undecodable: the file is not a readable picture.
    """
    started = time.monotonic()
    (picture,) = pictures(path, frame, 1)
    return _judge_still(_png(fill(picture, width, height), marks), "", width, height, root, standard, started)


def pictures(path: Path, start: int | None, count: int) -> list[np.ndarray]:
    """A picture, or `count` frames of a clip from `start` on: uint8 RGB (height, width, 3).

    Raises:
        Undecodable: the file cannot be read, or has fewer frames.
    """
    if start is None:
        return [read_still(path).image]
    with VideoReader(path) as reader:
        found = [frame.rgb() for number, frame in enumerate(reader) if start <= number < start + count]
    if len(found) < count:
        raise Undecodable(f"{path} has fewer than the {start + count} frames that it had")
    return found


def passages_part(guides: tuple[Guide, ...], width: int, height: int) -> list[tuple[Passage, ...]]:
    """What a clip passes through, in its size, in a list of one: `Stored` names an item of a list in the object store."""
    read = [np.stack([fill(picture, width, height) for picture in pictures(g.path, g.start, g.frames)]) for g in guides]
    return [tuple(Passage(guide.frame, guide.strength, found) for guide, found in zip(guides, read, strict=True))]


def _png(image: np.ndarray, marks: Marks | None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return marked(buffer.getvalue(), ".png", marks) if marks else buffer.getvalue()


def _judge_still(data: bytes, not_finite: str, width: int, height: int, root: Place, standard: Standard, started: float) -> Judged:
    encoded = time.monotonic() - started
    media = MediaStore(root).put(data, ".png")
    verdict = judge_image(data, standard.profile, (width, height), standard.declared, not_finite)
    got = verdict.measures
    return Judged(verdict, media, int(got["width"]), int(got["height"]), 1, time.monotonic() - started, encoded)


def judge_clip(
    frames: np.ndarray,
    not_finite: str,
    keyframe: Media,
    expect: Expectation,
    root: Place,
    standard: Standard,
    last: Guide | None = None,
    marks: Marks | None = None,
) -> Judged:
    """Encode a clip, decode the file again, judge it against its keyframe, and store it.

    Args:
        frames: uint8 RGB (frames, height, width, 3). not_finite: as in a receipt. keyframe: the still that the clip must start from.
        expect: frame count, fps, size and codec that the file must have. last: a person's picture that the clip must end in.
        marks: as in `judge_keyframe`.

    Raises:
        MediaDamaged: the keyframe's file is missing or damaged.
    """
    started = time.monotonic()
    fps = expect.fps
    assert fps and expect.width and expect.height
    ends = None if last is None else fill(pictures(last.path, last.start, last.frames)[-1], expect.width, expect.height)
    expect = replace(expect, keyframe=read_keyframe(keyframe, expect.width, expect.height, root), last=ends)
    with tempfile.TemporaryDirectory(prefix="tower-clip-") as folder:
        file = Path(folder) / "clip.mp4"
        write_clip(file, frames, fps)
        if marks:
            file.write_bytes(marked(file.read_bytes(), ".mp4", marks))
        encoded = time.monotonic() - started
        verdict = judge_video(file, expect, standard.profile, standard.declared, not_finite)
        media = MediaStore(root).put(file.read_bytes(), ".mp4")
    return Judged(verdict, media, frames.shape[2], frames.shape[1], len(frames), time.monotonic() - started, encoded)


def read_keyframe(media: Media, width: int, height: int, root: Place) -> np.ndarray:
    """A stored keyframe, scaled and cropped to the clip's size: uint8 RGB (height, width, 3).

    Raises:
        MediaDamaged: the file is missing, or its digest is wrong.
    """
    return fill(read_still(MediaStore(root).read(media.path, media.digest)).image, width, height)


def keyframe_part(media: Media, width: int, height: int, root: Place) -> list[np.ndarray]:
    """As `read_keyframe`, in a list of one: `Stored` names an item of a list in the object store."""
    return [read_keyframe(media, width, height, root)]
