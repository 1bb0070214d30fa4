"""Mixes an episode's sounds: each at its place, with its gain and fades, music quieter under dialogue."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.plan.sound_file import RATE, sound_blocks
from pipeline.plan.sounds import Placed

BLOCK = RATE  # samples that are mixed at once
HELD = 10 * RATE  # longest part of a looped file that memory holds; what is longer is read again

HOP = RATE // 100  # samples over which dialogue is looked at
SPOKEN = -30.0  # dB below a file's loudest hop: breath and room, which music is not ducked for
DUCKED = -12.0  # dB, of music under dialogue
AHEAD, AFTER = 20, 50  # hops before and after dialogue over which the music stays down; pauses between words are shorter
RAMP = 41  # hops over which it goes down and up, half of them before and half after that: it is down when somebody begins to speak


class Mix:
    """The episode's sound before its loudness is set; `blocks` may be called again and again.

    Args:
        samples: length of the episode's sound.
    """

    def __init__(self, sounds: Sequence[Placed], samples: int):
        self.sounds, self.samples = sorted(sounds, key=lambda sound: sound.start), samples
        self.ducking = _ducking(self.sounds, samples)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield float32 (n, 2), 1 being full scale; values may be beyond. Memory holds a block, and one of each file that sounds."""
        waiting, sounding = deque(self.sounds), list[_Voice]()
        for begin in range(0, self.samples, BLOCK):
            block = np.zeros((min(BLOCK, self.samples - begin), 2), np.float32)
            while waiting and waiting[0].start < begin + len(block):
                sounding.append(_Voice(waiting.popleft()))
            for voice in sounding:
                at, samples = voice.next(begin, len(block))
                if voice.sound.kind == "music" and self.ducking is not None:
                    samples *= _at(self.ducking, begin + at, len(samples))
                block[at : at + len(samples)] += samples
            sounding = [voice for voice in sounding if voice.done < voice.sound.length]
            yield block


class _Voice:
    """One sound while it sounds. done: samples that were taken of it."""

    def __init__(self, sound: Placed):
        self.sound, self.done = sound, 0
        self.source, self.rest = _samples(sound), np.zeros((0, 2), np.float32)

    def next(self, begin: int, length: int) -> tuple[int, np.ndarray]:
        """Where in a block of the episode the sound goes on, and its samples there, with gain and fades: float32 (n, 2)."""
        at = self.sound.start + self.done - begin
        count = min(length - at, self.sound.length - self.done)
        while len(self.rest) < count:
            self.rest = np.concatenate([self.rest, next(self.source)])
        samples, self.rest = self.rest[:count] * self._gain(count), self.rest[count:]
        self.done += count
        return at, samples

    def _gain(self, count: int) -> np.ndarray:
        """Factors of the next samples, float32 (count, 1). Fades are a quarter of a sine: two that cross keep the power."""
        sound, gain = self.sound, np.full(count, 10 ** (self.sound.gain / 20))
        if self.done < sound.fade_in:
            gain *= np.sin(np.pi / 2 * np.minimum(1, np.arange(self.done, self.done + count) / sound.fade_in))
        left = sound.length - self.done
        if left - count < sound.fade_out:
            gain *= np.sin(np.pi / 2 * np.minimum(1, np.arange(left, left - count, -1) / sound.fade_out))
        return gain.astype(np.float32)[:, None]


def _samples(sound: Placed) -> Iterator[np.ndarray]:
    """The file's samples from the offset on; looped, without end."""
    if sound.loop and sound.part <= HELD:
        part = np.concatenate(list(_part(sound)))
        part = np.tile(part, (math.ceil(BLOCK / len(part)), 1))
        while True:
            yield part
    yield from _part(sound)
    while sound.loop:
        yield from _part(sound)


def _part(sound: Placed) -> Iterator[np.ndarray]:
    skip = sound.offset
    for block in sound_blocks(sound.path):
        if skip < len(block):
            yield block[skip:]
        skip = max(0, skip - len(block))


def _ducking(sounds: list[Placed], samples: int) -> np.ndarray | None:
    """What music is multiplied by, at the middle of each hop; None where there is nothing to duck, or to duck it for."""
    dialogue = [sound for sound in sounds if sound.kind == "dialogue"]
    if not dialogue or not any(sound.kind == "music" for sound in sounds):
        return None
    hops = samples // HOP + 1
    down = np.zeros(hops + 1, np.int32)
    for sound in dialogue:
        spoken = sound.start // HOP + np.flatnonzero(_levels(sound) > SPOKEN)
        np.add.at(down, np.clip(spoken - AHEAD, 0, hops), 1)
        np.add.at(down, np.clip(spoken + AFTER + 1, 0, hops), -1)
    window = np.hanning(RAMP + 2)[1:-1]
    depth = np.convolve(np.pad(np.cumsum(down[:-1]) > 0, RAMP // 2, mode="edge"), window / window.sum(), mode="valid")
    return 10 ** (DUCKED * depth / 20)


def _levels(sound: Placed) -> np.ndarray:
    """How loud each hop is, in dB of the loudest: float (hops,)."""
    voice, powers = _Voice(sound), []
    while voice.done < sound.length:
        _, samples = voice.next(sound.start + voice.done, BLOCK)
        samples = np.pad(samples, ((0, -len(samples) % HOP), (0, 0)))
        powers.append(np.square(samples, dtype=np.float64).reshape(-1, 2 * HOP).mean(axis=1))
    power = np.concatenate(powers)
    return 10 * np.log10(np.maximum(power, 1e-20) / max(power.max(), 1e-20))


def _at(ducking: np.ndarray, start: int, count: int) -> np.ndarray:
    """Factors of a run of samples, float32 (count, 1)."""
    hops = (np.arange(start, start + count) - HOP / 2) / HOP
    return np.interp(hops, np.arange(len(ducking)), ducking).astype(np.float32)[:, None]
