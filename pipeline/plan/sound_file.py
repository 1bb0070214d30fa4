"""Reads sound files: as samples, block after block, and what a plan must know of each as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np

from gates.decode import ffmpeg_path
from gates.still import Undecodable, words
from pipeline.story.audio import FORMATS
from pipeline.story.fingerprint import FileDigests, remember, remembered

RATE = 48_000  # samples a second, of all that is read and made
MOST_BYTES = 500_000_000  # 24 minutes of stereo in 24 bits have 415 MB; the catalog keeps a file as a whole
MOST_SECONDS = 4 * 3600
READER = 1  # counts up where `sound_blocks` gives other samples; what was found out by another is found out again
QUIETEST = -200  # dBFS, of digital silence
CUT_OFF_SECONDS = 0.1  # by which a file may end before the length in its header


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a sound file.

    samples: its length at RATE. peaks: the highest sample of each second, in dBFS, QUIETEST for silence.
    """

    samples: int
    peaks: list[int]

    def peak(self, start: int, samples: int) -> int:
        """Highest sample of a part in dBFS, to the second. start, samples: at RATE."""
        return max(self.peaks[start // RATE : (start + samples - 1) // RATE + 1], default=QUIETEST)


class SoundFacts:
    """The facts of sound files, each read once for its bytes; kept between runs beside the digests of model files."""

    def __init__(self, digests: FileDigests):
        self.digests, self.memory = digests, digests.memory.with_name("sound-files.json")
        self.known: dict[str, list[Any]] = remembered(self.memory)
        self.changed = False

    def of(self, path: Path) -> tuple[str, Facts]:
        """The file's SHA-256, and its facts.

        Raises:
            Undecodable: as `sound_blocks`.
        """
        digest = self.digests.of(path)
        key = f"{READER}/{path.suffix.lower()}/{digest}"
        if key not in self.known:
            facts = _facts(path)
            self.known[key], self.changed = [facts.samples, facts.peaks], True
        return digest, Facts(*self.known[key])

    def save(self) -> None:
        if self.changed:
            remember(self.memory, self.known)


def _facts(path: Path) -> Facts:
    samples, highest = 0, [0.0]
    for block in sound_blocks(path):
        for part in np.split(block, range(RATE - samples % RATE, len(block), RATE)):
            second = samples // RATE
            highest += [0.0] * (second + 1 - len(highest))
            highest[second] = max(highest[second], float(np.abs(part).max(initial=0.0)))
            samples += len(part)
    return Facts(samples, [round(decibels(level)) for level in highest])


def decibels(level: float) -> float:
    """A level as dB: 1 is 0 dB, 0 is QUIETEST."""
    return max(QUIETEST, 20 * float(np.log10(level))) if level > 0 else QUIETEST


def sound_blocks(path: Path) -> Iterator[np.ndarray]:
    """A file's first sound stream from its beginning, resampled to RATE: float32 (n, 2), -1..1 being full scale.

    A mono file sounds in both channels as loud as it is. Of more than two channels, swresample makes two: centre and surrounds at
    -3 dB (ITU-R BS.775), without the LFE. What encoders pad at the beginning is left out.

    Raises:
        Undecodable: the file is no sound file of the type that its name says, is damaged or cut off, or has more than MOST_SECONDS.
    """
    size = path.stat().st_size
    if not 0 < size <= MOST_BYTES:
        limit = f"{size / 1e6:.0f} MB; at most {MOST_BYTES / 1e6:.0f} MB are read"
        raise Undecodable("the file is empty" if size == 0 else f"it has {limit}")
    _check_whole(path, size)
    try:
        with av.open(ffmpeg_path(path), format=FORMATS[path.suffix.lower()], metadata_errors="replace") as file:
            if not file.streams.audio:
                raise Undecodable("no sound in it")
            yield from _stereo(file, file.streams.audio[0])
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise error if isinstance(error, Undecodable) else Undecodable(words(error)) from error


def _check_whole(path: Path, size: int) -> None:
    """Raises Undecodable where a WAV file is shorter than its header says. FFmpeg reads what is there, and passes over that."""
    with path.open("rb") as file:
        kind, told = file.read(4), int.from_bytes(file.read(4), "little") + 8
    if kind == b"RIFF" and size < told <= MOST_BYTES:  # programs that write as they record leave 0 or the highest number there
        raise Undecodable(f"the file ends after {size} of {told} bytes")


def _stereo(file: av.container.InputContainer, stream: av.AudioStream) -> Iterator[np.ndarray]:
    mono = stream.codec_context.channels == 1
    resampler = av.AudioResampler(format="flt", layout="mono" if mono else "stereo", rate=RATE)
    promised = round(stream.duration * stream.time_base * RATE) if stream.duration and stream.time_base else 0
    padded = file.format.name.startswith("mov")  # AAC's last packet is padded, and the length is exact
    done = 0
    for frame in chain(file.decode(stream), [None]):
        for part in resampler.resample(frame):
            block = part.to_ndarray().reshape(-1, 1 if mono else 2)
            if padded and promised:
                block = block[: max(0, promised - done)]
            if not np.isfinite(block).all():
                raise Undecodable("it holds values that are no numbers")
            done += len(block)
            if done > MOST_SECONDS * RATE:
                raise Undecodable(f"it has more than {MOST_SECONDS // 3600} hours")
            yield np.repeat(block, 2, axis=1) if mono else block
    if done == 0:
        raise Undecodable("no sound in it")
    if stream.codec_context.name != "mp3" and done < promised - CUT_OFF_SECONDS * RATE:  # an MP3's length is a guess where it varies
        raise Undecodable(f"the file ends after {done / RATE:.3g} of {promised / RATE:.3g} s")
