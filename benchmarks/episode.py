"""An episode of the size of a real one, from accepted clips to the movie: 300 shots, 24 minutes, 1280x720, 24 frames a second.

    python -m benchmarks.episode             half an hour on two quiet cores and 3 GB of disk; rows in the table `measurements`
    python -m benchmarks.episode --quick     12 shots, 640x360

Clips are stand-ins with drawn pictures, 121 frames each. Beside the segments, as many bare `ffmpeg -preset medium` as there are cores
encode the same frames (Debian's package `ffmpeg`; without it that line is missing). Then one shot is changed, then nothing. At the end,
tasks that sleep in place of encoding are given to 2, 4 and 8 workers: how much of their time is work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from typing import Any

import psutil
import ray
from PIL import Image
from rich.console import Console

from actors.demo.train import scenes
from actors.loading import device_name
from catalog.media import Media
from catalog.store import Catalog
from cluster.cores import cores
from cluster.cpu import run_all
from pipeline import PROJECT
from pipeline.plan.history import rows_of
from pipeline.plan.plan import make_plan
from pipeline.plan.resolve import inputs_from
from pipeline.post.edit import Edit, edit_of
from pipeline.post.making import SENT, make_missing
from pipeline.post.movie import make_movie
from pipeline.post.segments import CRF
from pipeline.registry.open_catalog import open_catalog
from pipeline.render.context import context
from pipeline.render.marks import Marks, marked
from pipeline.render.video_file import write_clip
from pipeline.story.episode import Episode, load_episode
from pipeline.story.settings import Settings, load_settings

from .catalog import take_row

CLIP, DRAWN = 121, 12  # frames of each clip; clips that are drawn; the others are theirs under another digest
DISSOLVE, EVERY = 12, 10  # frames; one shot in ten begins with a dissolve
SLEEP, TASKS = 0.5, 24  # seconds of a stand-in's task; tasks for each worker


@dataclass(frozen=True)
class Size:
    shots: int
    width: int
    height: int
    frames: int  # of the movie


FULL, QUICK = Size(300, 1280, 720, 34_560), Size(12, 640, 360, 1_300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    size, console, at = QUICK if parser.parse_args().quick else FULL, Console(width=150), datetime.now(UTC)
    device = f"{device_name('cpu')}, {platform.machine()}"
    console.print(f"{device}, {cpu_count()} cores, Python {platform.python_version()}", highlight=False)
    with tempfile.TemporaryDirectory(prefix="tower-episode-") as folder:
        figures = list(measure(Path(folder), size, console))
    head = {"job": "episode", "run": f"episode-{at:%Y%m%d}-{uuid.uuid4().hex[:6]}", "at": at, "device": device, "cores": cpu_count()}
    bounds = {"least": None, "most": None}
    rows = [head | bounds | {"what": what, "value": value, "unit": unit} for what, value, unit in figures]
    open_catalog(load_settings()).append("measurements", rows)


def measure(folder: Path, size: Size, console: Console) -> Iterator[tuple[str, float, str]]:
    """What was measured, each printed as it comes: words, value, unit."""

    def told(what: str, value: float, unit: str) -> tuple[str, float, str]:
        console.print(f"{what:<80}{value:>10.2f} {unit}", highlight=False)
        return what, value, unit

    settings = Settings(catalog_uri=str(folder / "catalog"))
    file = write_episode(folder, size)
    episode, catalog = load_episode(file), open_catalog(settings)
    started = time.monotonic()
    accepted_takes(catalog, episode, file, settings, folder)
    yield told(f"{size.shots} clips of {CLIP} frames of {size.width}x{size.height} made", time.monotonic() - started, "s")
    with memory() as peak, context(settings, catalog, Console(quiet=True)) as here:
        seconds, plan = timed(lambda: make_plan(episode, file, settings, catalog))
        assert not plan.stale, "every shot has its takes"
        yield told("plan", seconds, "s")
        rows = rows_of(catalog, [take.take for s in plan.shots for take in s.accepted])
        edit = edit_of(plan, {s.shot.id: {take.stage: rows[take.take] for take in s.accepted} for s in plan.shots})
        seconds, made = timed(lambda: make_missing(edit.segments, None, here))
        yield told(f"{len(made)} segments, {episode.total_frames} frames", seconds, "s")
        mine = episode.total_frames / seconds
        joining, _ = timed(lambda: make_movie(edit, here, folder / "episode.mp4"))
        yield told("joined and proven", joining, "s")
    yield told("memory at most, driver", peak.driver / 1e6, "MB")
    yield told("memory at most, driver and the workers that encode", peak.all / 1e6, "MB")
    yield told("frames a second, segments", mine, "1/s")
    if shutil.which("ffmpeg"):
        bare = bare_encoders(edit, catalog, folder)
        yield told(f"frames a second, {cores()} bare ffmpeg -preset medium -crf {CRF}", bare, "1/s")
        yield told("segments in proportion to them", mine / bare, "")
    render = [sys.executable, "-m", "pipeline.cli", "render", str(file), "--out", str(folder / "out"), "--allow-experimental"]
    yield told("tower render, all parts made: movie, sheet, shots", run(render, folder), "s")
    yield told("tower render, nothing changed", run(render, folder), "s")
    change(file)
    yield told("tower render, one shot retitled", run(render, folder), "s")
    report = [sys.executable, "-m", "pipeline.cli", "report", str(file), "--out", str(folder / "report")]
    yield told("tower report", run(report, folder), "s")
    for workers in (2, 4, 8):
        yield told(f"{workers} workers, tasks that sleep: share of their time that is work", efficiency(workers), "")


def write_episode(folder: Path, size: Size) -> Path:
    """300 shots of 115 frames and some, one in ten of which dissolves in and one in thirty of which has a title."""
    dissolves = len(range(EVERY, size.shots, EVERY))
    each, more = divmod(size.frames + DISSOLVE * dissolves, size.shots)
    shots = [
        {"id": f"SH{10 * (n + 1):04d}", "frames": each + (n < more), "framing": "wide shot", "action": f"walking right, step {n}"}
        | ({"transition": {"type": "dissolve", "frames": DISSOLVE}} if n and n % EVERY == 0 else {})
        | ({"title": f"Chapter {n // 30 + 1}"} if n % 30 == 0 else {})
        for n in range(size.shots)
    ]
    story = {
        "id": "E77",
        "title": "Twenty-four minutes",
        "width": size.width,
        "height": size.height,
        "fps": 24,
        "keyframe_workflow": "sd15_keyframe_demo",
        "clip_workflow": "ltx_video_2b_demo",
        "sequences": [{"id": f"S{i // 30 + 1:03d}", "shots": shots[i : i + 30]} for i in range(0, size.shots, 30)],
    }
    file = folder / "episode.json"
    file.write_text(json.dumps(story))
    return file


def accepted_takes(catalog: Catalog, episode: Episode, file: Path, settings: Settings, folder: Path) -> None:
    """A still and a clip for each shot, with the inputs that its plan asks for."""
    with ProcessPoolExecutor(cores(), get_context("spawn")) as pool:  # their memory is not this process's
        drawn = list(pool.map(partial(draw, episode.width, episode.height, folder), range(min(DRAWN, len(episode.shots)))))
    still = catalog.media.put(drawn[0].with_suffix(".png").read_bytes(), ".png")
    rows = []
    for n, shot in enumerate(make_plan(episode, file, settings, catalog).shots):
        before: Media | None = None
        for stage, made in zip(shot.stages, (still, named(drawn[n % len(drawn)], n, catalog)), strict=True):
            is_clip = before is not None
            rows.append(
                take_row(episode.id, n)
                | {"take": f"{episode.id}/{shot.shot.id}/{stage.stage}/v001", "shot": shot.shot.id, "stage": stage.stage}
                | {"inputs": inputs_from(stage, before.digest if before else None), "outcome": "accepted", "labels": []}
                | {"media": made.digest, "media_path": made.path, "media_bytes": made.bytes}
                | {"frames": CLIP if is_clip else 1, "fps": 24.0 if is_clip else None}
                | {"width": episode.width, "height": episode.height, "workflow": stage.ready.workflow.name}
                | {"profile": stage.ready.profile_identity, "workflow_digest": stage.ready.digest}
            )
            os.utime(catalog.place.folder / made.path, (0, 0))  # older than its row, else every plan hashes it again
            before = made
    catalog.append("takes", rows)


def draw(width: int, height: int, folder: Path, n: int) -> Path:
    motion = scenes.MOTIONS[n % len(scenes.MOTIONS)]
    frames = scenes.clip(replace(scenes.sample(n), motion=motion), range(CLIP), height, width)
    clip = folder / f"drawn{n}.mp4"
    write_clip(clip, frames, Fraction(24))
    Image.fromarray(frames[0]).save(clip.with_suffix(".png"))
    return clip


def named(clip: Path, n: int, catalog: Catalog) -> Media:
    """The clip with a mark of its own, so that it is another file, whose segment is made for itself."""
    return catalog.media.put(marked(clip.read_bytes(), ".mp4", Marks(None, {"comment": f"shot {n}"})), ".mp4")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.monotonic()
    result = work()
    return time.monotonic() - started, result


@dataclass
class Peak:
    """Bytes of memory (RSS), at most: of this process, and of it and the workers in which tasks run."""

    driver: int = 0
    all: int = 0


@contextmanager
def memory() -> Iterator[Peak]:
    """Looks twice a second, for the length of a `with` block."""
    peak, over, me = Peak(), threading.Event(), psutil.Process()

    def look() -> None:
        while not over.wait(0.5):
            mine, workers = me.memory_info().rss, 0
            for child in me.children(recursive=True):
                try:
                    workers += child.memory_info().rss if child.name().startswith("ray::") else 0
                except psutil.NoSuchProcess:
                    continue
            peak.driver, peak.all = max(peak.driver, mine), max(peak.all, mine + workers)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def bare_encoders(edit: Edit, catalog: Catalog, folder: Path) -> float:
    """Frames a second of as many ffmpeg as there are cores, each with a segment's number of frames of its clip at a time."""

    def encode(n: int, clip: str, frames: int) -> None:
        out = folder / f"bare{n}.mp4"
        options = ["-frames:v", str(frames), "-an", "-c:v", "libx264", "-preset", "medium", "-crf", str(CRF), "-pix_fmt", "yuv420p"]
        subprocess.run(["ffmpeg", "-y", "-v", "error", "-i", str(catalog.place.folder / clip), *options, str(out)], check=True)
        out.unlink()

    work = [(n, segment.part.path, segment.frames) for n, segment in enumerate(edit.segments) if segment.frames]
    started = time.monotonic()
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(lambda call: encode(*call), work))
    return sum(frames for *_, frames in work) / (time.monotonic() - started)


def run(command: list[str], folder: Path) -> float:
    env = os.environ | {"TOWER_CATALOG_URI": str(folder / "catalog"), "PYTHONPATH": str(PROJECT)}
    seconds, done = timed(lambda: subprocess.run(command, env=env, capture_output=True, text=True, cwd=folder, check=False))
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:5])} ended with exit {done.returncode}: {done.stderr[-800:]}")
    return seconds


def change(file: Path) -> None:
    story = json.loads(file.read_text())
    story["sequences"][0]["shots"][2]["title"] = "Another title"
    file.write_text(json.dumps(story))


def efficiency(workers: int) -> float:
    """Work in proportion to the workers' time, of tasks that sleep where a segment would be encoded; workers that run already."""
    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    try:
        calls = [(time.sleep, (SLEEP,))] * (TASKS * workers)
        asyncio.run(run_all(calls[: 2 * workers], "warm", workers, lambda: None))
        seconds, _ = timed(lambda: asyncio.run(run_all(calls, "segment", SENT * workers, lambda: None)))
    finally:
        ray.shutdown()
    return len(calls) * SLEEP / (seconds * workers)


if __name__ == "__main__":
    main()
