"""Single frames of a clip and of a movie: by decord, and by PyAV's seek.

    python -m benchmarks.frames           CPU seconds, median of five; half a minute, and rows in the table `measurements`
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from os import cpu_count
from pathlib import Path

import av
import numpy as np
from rich.console import Console

from actors.demo.train import scenes
from actors.loading import device_name
from gates.decode import read_video
from gates.frames import frames_at
from pipeline.post.segments import CRF as EPISODE_CRF
from pipeline.registry.open_catalog import open_catalog
from pipeline.render.video_file import VideoFile, write_clip
from pipeline.story.settings import load_settings

from .gate_speed import median_seconds

CLIP, MOVIE = 121, 1440  # frames of 768x512; the movie lasts a minute


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    console, at = Console(width=150), datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="tower-frames-") as folder:
        figures = measure(Path(folder))
    device = f"{device_name('cpu')}, {platform.machine()}"
    console.print(f"{device}, {cpu_count()} cores, Python {platform.python_version()}", highlight=False)
    for what, seconds in figures.items():
        console.print(f"{what:<72}{seconds:.3f} s", highlight=False)
    head = {"job": "frames", "run": f"frames-{at:%Y%m%d}-{uuid.uuid4().hex[:6]}", "at": at, "device": device, "cores": cpu_count()}
    bounds = {"least": None, "most": None}
    rows = [head | bounds | {"what": what, "value": seconds, "unit": "s"} for what, seconds in figures.items()]
    open_catalog(load_settings()).append("measurements", rows)


def measure(folder: Path) -> dict[str, float]:
    """CPU seconds by what was read. Fails where the two ways show other pictures."""
    clip, movie = folder / "clip.mp4", folder / "movie.mp4"
    frames = scenes.clip(replace(scenes.sample(1), motion="walk right"), range(CLIP), 512, 768)
    write_clip(clip, frames, Fraction(24))
    with VideoFile(movie, 768, 512, Fraction(24), EPISODE_CRF) as out:
        for number in range(MOVIE):
            out.write(frames[number % CLIP])
    asked = {
        f"five frames of a clip of {CLIP}": (clip, np.linspace(0, CLIP - 1, 5).round().astype(int).tolist()),
        f"the middle frame of a clip of {CLIP}": (clip, [CLIP // 2]),
        f"the middle frame of a movie of {MOVIE:,}": (movie, [MOVIE // 2]),
        f"the last frame of a movie of {MOVIE:,}": (movie, [MOVIE - 1]),
    }
    figures = {}
    for what, (file, numbers) in asked.items():
        for name, way in {"decord": frames_at, "PyAV": by_pyav}.items():
            figures[f"{what}, {name}"] = median_seconds(partial(_once, way, file, numbers))
        assert (frames_at(file, numbers) == by_pyav(file, numbers)).all(), what
    return figures | {f"all {CLIP} frames of the clip, PyAV": median_seconds(partial(read_video, clip))}


def _once(way: Callable[[Path, list[int]], np.ndarray], file: Path, numbers: list[int]) -> None:
    way(file, numbers)


def by_pyav(file: Path, numbers: list[int]) -> np.ndarray:
    """The frames of these numbers, in ascending order, by PyAV alone: to the keyframe before the first of them, and on from there."""
    with av.open(str(file)) as video:
        stream = video.streams.video[0]
        stream.thread_type = "NONE"
        rate, unit = stream.average_rate, stream.time_base
        assert rate and unit
        times = [round(number / rate / unit) for number in numbers]
        video.seek(times[0], stream=stream)
        wanted = (frame for frame in video.decode(stream) if frame.pts in times)
        return np.stack([next(wanted).to_ndarray(format="rgb24") for _ in times])


if __name__ == "__main__":
    main()
