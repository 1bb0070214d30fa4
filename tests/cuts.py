"""Episodes with clips in a catalog, as renders leave them: what tests of timelines and of editors' changes begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from catalog.store import Catalog
from pipeline.render.video_file import write_clip
from pipeline.story.episode import Episode, load_episode

AT = datetime(2026, 11, 26, 12, tzinfo=UTC)
Clip = tuple[int, Fraction | int]  # frames, frames a second

HEAD = """\
id: E01
title: Lanterns
width: 128
height: 96
fps: {fps}
keyframe_workflow: k
clip_workflow: c
locations:
  shore: {{description: by the sea}}
  town: {{description: in the city}}
sequences:
"""


def written(folder: Path, sequences: Mapping[str, Sequence[str]], fps: object = 24) -> Path:
    """An episode file. sequences: id to its shots, each as it stands in the file behind the dash."""
    text = HEAD.format(fps=fps)
    for n, (sequence, shots) in enumerate(sequences.items()):
        text += f"  - id: {sequence}\n    location: {'town' if n % 2 else 'shore'}\n    time: by day\n    shots:\n"
        text += "".join(f"      - {shot}\n" for shot in shots)
    (folder / "episode.yaml").write_text(text)
    return folder / "episode.yaml"


@cache
def clip_bytes(frames: int, fps: Fraction | int) -> bytes:
    wall = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with TemporaryDirectory() as folder:
        write_clip(Path(folder) / "clip.mp4", np.stack([np.roll(wall, n, 1) for n in range(frames)]), Fraction(fps))
        return (Path(folder) / "clip.mp4").read_bytes()


@cache
def empty() -> TemporaryDirectory[str]:
    """A new catalog. To copy it is quicker than to make one for each test."""
    folder = TemporaryDirectory()
    Catalog.open(folder.name)
    return folder


def row_of(shot: str, clip: Clip, attempt: int = 1, **more: Any) -> dict[str, Any]:
    """The row of an accepted clip, without its media."""
    return {
        "take": f"E01/{shot}/clip/v{attempt:03}", "run": "r1", "at": AT + timedelta(seconds=attempt), "episode": "E01", "sequence": "S010", "shot": shot,
        "stage": "clip", "attempt": attempt, "outcome": "accepted", "workflow": "ltx", "workflow_version": 2, "workflow_digest": "d" * 64,
        "seed": 2**32 - attempt, "upstream": f"E01/{shot}/keyframe/v001", "frames": clip[0], "fps": float(clip[1]), "width": 64, "height": 48,
        "labels": [], "findings": "[]",
    } | more  # fmt: skip


def filmed(folder: Path, file: Path, clips: Mapping[str, Clip], fps: Fraction | int = 24) -> tuple[Catalog, Episode]:
    """A catalog in `folder` that has these clips of the episode: real files."""
    copytree(empty().name, folder / "catalog-data")
    catalog = Catalog.open(folder / "catalog-data")
    media = {clip: catalog.media.put(clip_bytes(*clip), ".mp4") for clip in set(clips.values())}
    catalog.append(
        "takes",
        [row_of(shot, clip, media=media[clip].digest, media_path=media[clip].path, media_bytes=media[clip].bytes) for shot, clip in clips.items()],
    )
    return catalog, load_episode(file)


def say(catalog: Catalog, shot: str, verdict: str, note: str = "", attempt: int = 1, **more: Any) -> None:
    said = {"take": f"E01/{shot}/clip/v{attempt:03}", "at": AT, "episode": "E01", "verdict": verdict, "note": note, "by": "Mika"}
    catalog.append_later("reviews", [said | more])
