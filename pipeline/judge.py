"""CPU tasks: write a take's media, decode it again, and let its gate judge what is really there."""

from __future__ import annotations

import io
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from catalog.media import Media, MediaStore
from gates.image import judge_image
from gates.verdict import Finding, Verdict
from gates.video import ClipExpectation, judge_video

from .picture import fill
from .video_file import write_clip


@dataclass(frozen=True)
class Judged:
    """A verdict and where the judged bytes lie. Small: it passes through the driver."""

    verdict: Verdict
    media: Media
    width: int
    height: int
    frames: int
    seconds: float


def judge_keyframe(image: np.ndarray, finite: bool, width: int, height: int, root: Path) -> Judged:
    """Store a still as PNG and judge the stored bytes.

    Args:
        image: uint8 RGB (height, width, 3). finite: what the model said before its cast to uint8.
        width, height: what was asked for. root: the catalog's folder.
    """
    started = time.monotonic()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return _judge_still(buffer.getvalue(), finite, width, height, root, started)


def judge_given(path: Path, width: int, height: int, root: Path) -> Judged:
    """A still that a person gave, scaled to the workflow's size (the middle, if the shapes differ), then as a keyframe."""
    started = time.monotonic()
    with Image.open(path) as source:
        picture = np.asarray(source.convert("RGB"))
    buffer = io.BytesIO()
    Image.fromarray(fill(picture, width, height)).save(buffer, "PNG")
    return _judge_still(buffer.getvalue(), True, width, height, root, started)


def _judge_still(data: bytes, finite: bool, width: int, height: int, root: Path, started: float) -> Judged:
    media = MediaStore(root).put(data, ".png")
    image = decode_still(data)
    verdict = _with_finite(judge_image(image, width, height), finite)
    return Judged(verdict, media, image.shape[1], image.shape[0], 1, time.monotonic() - started)


def judge_clip(frames: np.ndarray, finite: bool, keyframe: Media, expect: ClipExpectation, root: Path) -> Judged:
    """Encode a clip, decode the file again, judge it against its keyframe, and store it.

    Args:
        frames: uint8 RGB (frames, height, width, 3). keyframe: the still that it must start from.
        expect: what the workflow promises; the file must hold exactly that.
    """
    started = time.monotonic()
    still = decode_still(MediaStore(root).read(keyframe.path, keyframe.digest))
    with tempfile.TemporaryDirectory(prefix="tower-clip-") as folder:
        file = Path(folder) / "clip.mp4"
        write_clip(file, frames, Fraction(expect.fps))
        verdict = _with_finite(judge_video(file, expect, fill(still, expect.width, expect.height)), finite)
        media = MediaStore(root).put(file.read_bytes(), ".mp4")
    return Judged(verdict, media, frames.shape[2], frames.shape[1], len(frames), time.monotonic() - started)


def read_still(media: Media, width: int, height: int, root: Path) -> list[np.ndarray]:
    """The stored keyframe, proven and scaled to the clip's size, for the object store: [uint8 RGB]."""
    return [fill(decode_still(MediaStore(root).read(media.path, media.digest)), width, height)]


def decode_still(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"not a picture: {error}") from error


def _with_finite(verdict: Verdict, finite: bool) -> Verdict:
    if finite:
        return verdict
    found = Finding("non_finite", "NaN or infinity in the model's output", "every value finite")
    return Verdict(verdict.gate, (found, *verdict.findings), verdict.measures)


def findings_json(verdict: Verdict) -> list[dict[str, Any]]:
    return verdict.to_dict()["findings"]
