"""Sound for tests: files that are written as people's are, and an episode around them."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import yaml

from pipeline.plan.sound_file import SoundFacts
from pipeline.plan.sounds import Placed, placed_sounds
from pipeline.story.episode import Episode, load_episode
from pipeline.story.fingerprint import FileDigests

RATE = 48_000
CODECS = {".wav": "pcm_s16le", ".flac": "flac", ".ogg": "libopus", ".opus": "libopus", ".mp3": "libmp3lame", ".m4a": "aac"}
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def write_sound(path: Path, samples: np.ndarray, rate: int = RATE, codec: str = "") -> Path:
    """Write a file of the type that its name says. samples: float (n,) or (n, channels), -1..1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.atleast_2d(samples.T).T.astype(np.float32)
    layout = LAYOUTS[samples.shape[1]]
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec or CODECS[path.suffix], rate=rate)
        stream.layout = layout
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), format="flt", layout=layout)
        frame.rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        cut = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate, frame_size=stream.codec_context.frame_size or None)
        for part in [*cut.resample(frame), *cut.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return path


def click(seconds: float = 0.1, at: float = 0.0, rate: int = RATE, level: float = 0.8) -> np.ndarray:
    """Silence with a short pulse that any codec and any rate keeps in its place."""
    times = np.arange(round(seconds * rate)) / rate - at
    return level * np.exp(-((times * 4000) ** 2))


def tone(seconds: float, hertz: float = 440.0, level: float = 0.2) -> np.ndarray:
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def decoded(path: Path) -> np.ndarray:
    """What a player decodes, float32 (n, 2), without our own reader."""
    with av.open(str(path)) as file:
        return np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1).T


def episode_with(folder: Path, shots: Iterable[dict[str, Any]] = (), fps: Any = 24, **more: Any) -> tuple[Episode, Path]:
    """An episode in a folder; without shots, one of two seconds."""
    file = folder / "episode.yaml"
    written = [{"id": f"SH{10 * n:04d}", "frames": 48, "action": "a girl walking right"} | shot for n, shot in enumerate(shots or [{}], 1)]
    head = {"id": "E90", "title": "A test", "width": 192, "height": 128, "fps": fps}
    flows = {"keyframe_workflow": "sd15_keyframe_demo", "clip_workflow": "ltx_video_2b_demo"}
    sequence = more.pop("sequence", {})
    file.write_text(yaml.safe_dump(head | flows | more | {"sequences": [{"id": "S010", "shots": written} | sequence]}, sort_keys=False))
    return load_episode(file), file


def placed(episode: Episode, file: Path) -> tuple[Placed, ...]:
    return placed_sounds(episode, file, SoundFacts(FileDigests(file.parent / "model-digests.json")))
