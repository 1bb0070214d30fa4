"""Brings sound to a loudness: measured by EBU R128, a static gain, a limiter, and measured again as it is decoded.

`loudnorm` is not used: where peak or range do not fit, its two passes change the level from moment to moment, and miss the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.filter import Graph

from pipeline.plan.sound_file import RATE, decibels, sound_blocks

from .aac import audio_frame, write_aac

Blocks = Callable[[], Iterable[np.ndarray]]  # makes float32 (n, 2) blocks of the same sound each time

NEAR = 0.5  # LU from the target, as EBU R128 allows
SETTLED = 0.1  # LU: how near the limited sound comes to it before AAC
HIGHEST = -1.01  # dBTP of what a player decodes: EBU R128 has at most -1, and the filter rounds by 0.01
HEADROOM = 0.5  # dB that the limiter leaves for AAC, whose quantisation moves peaks
AAC_MOVES = 0.1  # dB more, where it moved them by more than that
MOST_LIMITED = 12.0  # dB by which peaks may be lowered; beyond, limiting is heard as distortion
UNMEASURED = -70.0  # LUFS, the absolute gate: of what is shorter than 0.4 s, or quieter
ROUNDS = 6
STEP = RATE // 10  # samples, of ebur128


@dataclass(frozen=True)
class Loudness:
    """What was reached: integrated loudness in LUFS and true peak in dBTP, both of the decoded file; and what was wanted, in LUFS."""

    integrated: float
    true_peak: float
    wanted: float

    @property
    def reached(self) -> bool:
        return abs(self.integrated - self.wanted) <= NEAR

    def __str__(self) -> str:
        told = f"{self.integrated:.1f} LUFS, true peak {self.true_peak:.1f} dBTP"
        if self.integrated <= UNMEASURED:
            return f"too short or too quiet to be measured, true peak {self.true_peak:.1f} dBTP"
        return told if self.reached else f"{told}; {self.wanted:g} LUFS cannot be reached without distortion"


def write_at_loudness(blocks: Blocks, wanted: float, out: Path) -> Loudness:
    """Write a sound as AAC, at a loudness if its peaks allow that. Equal blocks give equal bytes.

    The peak goes before the loudness: where the decoded file is beyond HIGHEST, the limiter's ceiling is lowered by that. Peaks are
    lowered by at most MOST_LIMITED; what would need more stays quieter than wanted.

    Args:
        wanted: LUFS, integrated. out: path of the file, whose name ends in .m4a.
    """
    before, aim, ceiling = measured(blocks()), wanted, HIGHEST - HEADROOM
    for _ in range(ROUNDS):
        gain, is_most = _gain(blocks, before, aim, ceiling)
        write_aac(out, limited(blocks(), gain, ceiling))
        found = Loudness(*measured(sound_blocks(out)), wanted)
        beyond = found.true_peak - HIGHEST
        if beyond <= 0 and (found.reached or is_most):
            break
        ceiling -= beyond + AAC_MOVES if beyond > 0 else 0
        aim += 0 if is_most else wanted - found.integrated
    return found


def _gain(blocks: Blocks, before: tuple[float, float], aim: float, ceiling: float) -> tuple[float, bool]:
    """The gain in dB that brings a sound to a loudness before AAC, and whether it is the most that peaks allow.

    Args:
        before: loudness and true peak without gain. aim: LUFS. ceiling: of the limiter, in dBFS.
    """
    loudness, peak = before
    most = ceiling + MOST_LIMITED - peak
    if loudness <= UNMEASURED:
        return min(0.0, most), True
    gain = aim - loudness
    for _ in range(ROUNDS):
        if gain >= most:
            return most, True
        if peak + gain <= ceiling:  # the limiter has nothing to do
            break
        missing = aim - measured(limited(blocks(), gain, ceiling))[0]
        if abs(missing) <= SETTLED:
            break
        gain += missing
    return gain, False


def limited(blocks: Iterable[np.ndarray], gain: float, ceiling: float) -> Iterator[np.ndarray]:
    """Yield the sound with a gain in dB, no sample of it above the ceiling in dBFS; of the same length, and not delayed."""
    factor = np.float32(10 ** (gain / 20))
    limiter = ("alimiter", f"limit={10 ** (ceiling / 20):.6f}:level=false:latency=true")
    for frame in _through((block * factor for block in blocks), limiter, ("aformat", "sample_fmts=flt")):
        yield frame.to_ndarray().reshape(-1, 2)


def measured(blocks: Iterable[np.ndarray]) -> tuple[float, float]:
    """Integrated loudness in LUFS (UNMEASURED at least) and true peak in dBTP, as FFmpeg's ebur128 has them."""
    found: dict[str, str] = {}
    for frame in _through(_padded(blocks), ("ebur128", "metadata=1:peak=true")):
        found = frame.metadata
    return max(UNMEASURED, float(found["lavfi.r128.I"])), decibels(float(found["lavfi.r128.true_peak"]))


def _padded(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks, and silence up to a whole number of the steps in which the filter measures: it would pass over the rest."""
    samples = 0
    for block in blocks:
        samples += len(block)
        yield block
    yield np.zeros((STEP - samples % STEP, 2), np.float32)


def _through(blocks: Iterable[np.ndarray], *filters: tuple[str, str]) -> Iterator[av.AudioFrame]:
    """Push blocks, float32 (n, 2), through filters of FFmpeg, each a name and its options; yield what comes out."""
    graph = Graph()
    last = graph.add_abuffer(sample_rate=RATE, format="flt", layout="stereo", time_base=Fraction(1, RATE))
    for name, options in (*filters, ("abuffersink", "")):
        after = graph.add(name, options)
        last.link_to(after)
        last = after
    graph.configure()
    done = 0
    for block in blocks:
        graph.push(audio_frame(block, done))
        done += len(block)
        yield from _ready(graph)
    graph.push(None)
    yield from _ready(graph)


def _ready(graph: Graph) -> Iterator[av.AudioFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        assert isinstance(frame, av.AudioFrame)
        yield frame
