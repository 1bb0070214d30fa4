"""The sounds of the demo episode: music and effects from tones and noise, lines spoken by espeak-ng.

    python -m benchmarks.demo_sound [--out configs/episodes]

They are committed; whoever changes one here makes them again. Needs Debian's espeak-ng.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pipeline import PROJECT
from pipeline.plan.sound_file import RATE, sound_blocks

BEAT = 0.75  # seconds
BARS = ("A2 C4 E4 A4 E4 C4 E4 B4", "F2 C4 F4 A4 C5 A4 F4 C4", "C3 G3 C4 E4 G4 E4 D4 E4", "G2 B3 D4 G4 B4 A4 G4 D4")  # two notes a beat
LINES = {  # file: voice, pitch (0 to 99), what is said
    "hana_1.ogg": ("en-us+f2", 78, "They light the lanterns tonight."),
    "aoi_1.ogg": ("en-gb+f4", 58, "Then let us hurry."),
    "hana_2.ogg": ("en-us+f2", 78, "Look! So many of them."),
}
WORDS_A_MINUTE = 165
SPEECH_BITS, EFFECT_BITS, MUSIC_BITS = 32_000, 40_000, 64_000  # a second, of Opus


def main(out: Path) -> None:
    write(out / "music.ogg", music(), MUSIC_BITS)
    write(out / "waves.ogg", waves(), EFFECT_BITS)
    write(out / "steps.ogg", steps(), EFFECT_BITS)
    write(out / "bell.ogg", bell(), EFFECT_BITS)
    for name, line in LINES.items():
        write(out / name, spoken(*line), SPEECH_BITS)


def music() -> np.ndarray:
    """Four bars of plucked strings that begin again without a gap: what rings at the end sounds at the beginning."""
    notes = " ".join(BARS).split()
    whole = np.zeros((round(len(notes) * BEAT / 2 * RATE), 2))
    for n, name in enumerate(notes):
        bass = n % 8 == 0
        sound = _plucked(_hertz(name), 3.0 if bass else 1.6) * (0.26 if bass else 0.14)
        places = (round(n * BEAT / 2 * RATE) + np.arange(len(sound))) % len(whole)
        right = 0.5 if bass else 0.5 + 0.3 * np.sin(n)
        whole[places] += sound[:, None] * np.sqrt([1 - right, right])
    return whole


def _hertz(name: str) -> float:
    """Equal temperament, A4 at 440."""
    steps = {"C": -9, "D": -7, "E": -5, "F": -4, "G": -2, "A": 0, "B": 2}[name[0]] + 12 * (int(name[1]) - 4)
    return 440 * 2 ** (steps / 12)


def _plucked(hertz: float, seconds: float) -> np.ndarray:
    times = np.arange(round(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * hertz * k * times) / k**2 * np.exp(-times * k * 2.2) for k in range(1, 6))
    return tones * np.minimum(1, times / 0.004) * np.minimum(1, (seconds - times) / 0.05)


def waves() -> np.ndarray:
    """Six seconds of the sea, without an end: two waves roll in, and out."""
    times = np.arange(6 * RATE) / RATE
    swell = 0.25 + 0.75 * np.sin(np.pi * times / 3) ** 4
    return 0.12 * _noise(len(times), 900, 1) * swell + 0.045 * _noise(len(times), 5000, 2) * swell**2


def steps() -> np.ndarray:
    """Two steps in sand, one second."""
    times = np.arange(RATE) / RATE
    return 0.16 * _noise(RATE, 1800, 3) * sum(np.exp(-(((times - at) / 0.045) ** 2)) for at in (0.2, 0.7))


def bell() -> np.ndarray:
    times = np.arange(round(2.5 * RATE)) / RATE
    partials = ((1.0, 1.0, 1.6), (2.0, 0.5, 2.2), (2.76, 0.35, 3.5), (5.4, 0.15, 6.0))  # of a bar's tone: height, strength, decay
    rings = sum(strength * np.sin(2 * np.pi * 880 * height * times) * np.exp(-times * decay) for height, strength, decay in partials)
    return 0.15 * rings * np.minimum(1, times / 0.003) * np.minimum(1, (2.5 - times) / 0.3)


def _noise(count: int, hertz: float, seed: int) -> np.ndarray:
    """Noise that gets quieter above a frequency, and whose end goes on at its beginning."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    heights = np.fft.rfftfreq(count, 1 / RATE)
    spectrum /= 1 + (heights / hertz) ** 2
    sound = np.fft.irfft(spectrum, count)
    return sound / np.abs(sound).max() * 3


def spoken(voice: str, pitch: int, text: str) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "line.wav"
        command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(WORDS_A_MINUTE), "-z", "-w", str(file), text]
        subprocess.run(command, check=True)
        sound = np.concatenate(list(sound_blocks(file)))[:, 0]
    heard = np.flatnonzero(np.abs(sound) > 0.01)
    return sound[heard[0] : heard[-1] + RATE // 20] * 0.7 / np.abs(sound).max()


def write(path: Path, sound: np.ndarray, bits: int) -> None:
    """Write float (n,) or (n, 2) as Ogg Opus. Equal samples give equal bytes."""
    layout = "mono" if sound.ndim == 1 else "stereo"
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream("libopus", rate=RATE)
        stream.layout, stream.bit_rate = layout, bits
        for frame in _frames(np.ascontiguousarray(sound, np.float32), layout, stream.codec_context):
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def _frames(sound: np.ndarray, layout: str, codec: av.AudioCodecContext) -> Iterator[av.AudioFrame]:
    cut = av.AudioResampler(format=codec.format.name, layout=layout, rate=RATE, frame_size=codec.frame_size)
    frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="flt", layout=layout)
    frame.rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    yield from cut.resample(frame)
    yield from cut.resample(None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PROJECT / "configs" / "episodes")
    main(parser.parse_args().out)
