"""Decode a video file completely: what a player would show, not what its header claims."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


class Undecodable(ValueError):
    """The file cannot be decoded from its first frame to its last."""


@dataclass(frozen=True)
class Video:
    """Decoded frames, uint8 RGB of shape (frames, height, width, 3), and what the container says."""

    frames: np.ndarray
    fps: Fraction
    codec: str
    pixel_format: str


def decode(path: Path) -> Video:
    """Decode every frame of the first video stream.

    Raises:
        Undecodable: not a video, damaged, without frames, or with frames at uneven times.
    """
    try:
        with av.open(str(path), options={"err_detect": "explode"}) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            frames: list[np.ndarray] = []
            times: list[Any] = []
            stream.codec_context.options = {"err_detect": "explode"}
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise Undecodable(f"{path.name}: frame {len(frames)} is damaged")
                frames.append(frame.to_ndarray(format="rgb24"))
                times.append(frame.pts)
            codec, pixel_format, rate = stream.codec_context.name, stream.codec_context.pix_fmt or "", stream.average_rate
    except (av.FFmpegError, IndexError, OSError, ValueError) as error:
        raise Undecodable(f"{path.name}: {error}") from error
    if not frames or rate is None:
        raise Undecodable(f"{path.name}: no frames")
    if len({f.shape for f in frames}) != 1:
        raise Undecodable(f"{path.name}: frames of different sizes")
    steps = {b - a for a, b in itertools.pairwise(times)}
    if None in times or len(steps) > 1:
        raise Undecodable(f"{path.name}: frames are not evenly spaced in time")
    return Video(np.stack(frames), Fraction(rate), codec, pixel_format)
