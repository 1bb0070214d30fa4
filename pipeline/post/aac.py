"""Writes sound as AAC in an MP4 of its own, exact to the sample."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np

from gates.decode import ffmpeg_path
from pipeline.plan.sound_file import RATE

BITS = 192_000  # a second
PACKET = 1024  # samples of a packet of AAC
# The length in the file is counted in samples, not in milliseconds. Equal samples give equal bytes.
OPTIONS = {"movflags": "+faststart", "fflags": "+bitexact", "movie_timescale": str(RATE)}


def write_aac(path: Path, blocks: Iterable[np.ndarray]) -> None:
    """Write blocks, float32 (n, 2) at RATE, as an MP4 with one stream of AAC-LC.

    AAC begins with a packet of priming. An edit list says so: players, and FFmpeg, begin behind it, at 0.
    """
    with av.open(ffmpeg_path(path), "w", format="ipod", options=OPTIONS) as file:
        # The faster search is also the better one at this rate, says FFmpeg of its encoder.
        stream = file.add_stream("aac", rate=RATE, options={"aac_coder": "fast"})
        stream.layout, stream.bit_rate = "stereo", BITS
        cut = av.AudioResampler(format="fltp", layout="stereo", rate=RATE, frame_size=PACKET)
        done = 0
        for block in chain(blocks, [None]):
            for frame in cut.resample(None if block is None else audio_frame(block, done)):
                file.mux(stream.encode(frame))
            done += 0 if block is None else len(block)
        file.mux(stream.encode(None))


def audio_frame(block: np.ndarray, start: int) -> av.AudioFrame:
    """Samples, float32 (n, 2) at RATE, as FFmpeg has them. start: of the first, in samples from the beginning."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block, np.float32).reshape(1, -1), format="flt", layout="stereo")
    frame.rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
    return frame
