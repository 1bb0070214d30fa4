"""Assemble accepted clips into one episode, exact to the frame."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av import FFmpegError

from catalog.media import MediaStore
from gates.decode import ffmpeg_path, read_video
from pipeline.render.picture import fill
from pipeline.render.video_file import VideoFile
from pipeline.story.episode import Episode, Shot
from pipeline.story.errors import StorageError
from pipeline.story.rate import played_at
from pipeline.story.stages import CHAIN
from pipeline.story.title import overlay, title_layer, title_opacity

LONGEST_SECONDS = 24 * 3600.0  # the longest assembly; an older temporary folder belongs to a killed process
EPISODE_CRF = 16  # visually lossless for drawings; libx264's scale, 0..51


def assemble(episode: Episode, clips: dict[str, dict[str, Any]], store: MediaStore, font: Path | None, out: Path) -> None:
    """Write the episode: every shot's accepted clip, scaled, resampled, titled and joined.

    Args:
        clips: shot id to the row of its accepted clip.
        font: TrueType file for titles; None for the built-in font.
        out: path of the movie. An error leaves no partial file there.

    Raises:
        MediaDamaged: a clip's file is missing or damaged.
        StorageError: the movie cannot be written.
    """
    _sweep(out.parent)
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".part-") as folder:
            part = Path(folder) / out.name
            with VideoFile(part, episode.width, episode.height, episode.fps, EPISODE_CRF) as file:
                for frame in timeline(episode, clips, store, font):
                    file.write(frame)
            _prove(part, episode)
            os.replace(part, out)
    except (OSError, FFmpegError) as error:
        raise StorageError(f"{out} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _sweep(folder: Path) -> None:
    """Remove the temporary folders that killed assemblies left behind."""
    for part in folder.glob(".part-*"):
        if time.time() - part.stat().st_mtime > LONGEST_SECONDS:
            shutil.rmtree(part, ignore_errors=True)


def timeline(episode: Episode, clips: dict[str, dict[str, Any]], store: MediaStore, font: Path | None) -> Iterator[np.ndarray]:
    """The episode's frames in order, uint8 RGB (height, width, 3). Memory holds one clip and one dissolve at a time."""
    shots = [shot for _, shot in episode.shots]
    held: deque[np.ndarray] = deque()  # the previous shot's last frames, kept for the dissolve
    for i, shot in enumerate(shots):
        keep = shots[i + 1].transition.frames if i + 1 < len(shots) else 0
        before, held = held, deque()
        for n, frame in enumerate(shot_frames(episode, shot, clips[shot.id], store, font)):
            if before:
                weight = (n + 1) / (shot.transition.frames + 1)
                frame = (before.popleft() * (1 - weight) + frame * weight).round().astype(np.uint8)
            held.append(frame)
            if len(held) > keep:
                yield held.popleft()


def shot_frames(episode: Episode, shot: Shot, clip: dict[str, Any], store: MediaStore, font: Path | None) -> Iterator[np.ndarray]:
    """Exactly `shot.frames` frames, uint8 RGB, at the episode's size and fps, with the shot's title."""
    frames, fps = clip_frames(clip, store)
    layer = title_layer(shot.title, episode.width, episode.height, font) if shot.title else None
    scaled = lru_cache(maxsize=1)(lambda source: fill(frames[source], episode.width, episode.height))  # one frame may be shown for long
    for n in range(shot.frames):
        frame = scaled(_source_frame(n, shot, len(frames), fps, episode.fps))
        yield frame if layer is None else overlay(frame, layer, title_opacity(n, shot.frames, episode.fps))


def _source_frame(n: int, shot: Shot, have: int, fps: Fraction, episode_fps: Fraction) -> int:
    """Index of the clip's frame that frame n of the shot shows. Frames are repeated, never blended, as drawn animation does it."""
    if shot.fit == "stretch":
        return n * have // shot.frames
    return min(have - 1, int((shot.first_frame + n) * played_at(fps, episode_fps) / episode_fps))


def clip_frames(clip: dict[str, Any], store: MediaStore) -> tuple[np.ndarray, Fraction]:
    """A stored clip's frames, uint8 RGB (n, height, width, 3), and its fps.

    Raises:
        MediaDamaged: the file is missing, or is not the file that was judged.
    """
    data = store.read(clip["media_path"], clip["media"])
    with tempfile.TemporaryDirectory(prefix="tower-clip-") as folder:
        file = Path(folder) / "clip.mp4"
        file.write_bytes(data)
        return read_video(file)


def _prove(path: Path, episode: Episode) -> None:
    """Decode the written movie, and check its frame count, size and fps.

    Raises:
        StorageError: they are not the episode's.
    """
    with av.open(ffmpeg_path(path)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        size, rate = (stream.width, stream.height), stream.average_rate
    if (frames, size, rate) != (episode.total_frames, (episode.width, episode.height), episode.fps):
        raise StorageError(
            f"{path.name} has {frames} frames of {size[0]}x{size[1]} at {rate} fps; "
            f"{episode.total_frames} of {episode.width}x{episode.height} at {episode.fps} were meant"
        )


def link_takes(folder: Path, takes: dict[str, dict[str, dict[str, Any]]], store: MediaStore) -> None:
    """Copy the accepted media to files that are named by shot: `shots/SH0010.png`, `shots/SH0010.mp4`.

    If a stage of a shot is not accepted now, the file that an earlier run left for it is removed. Other files stay.

    Args:
        takes: shot id to stage to the row of the accepted take.

    Raises:
        MediaDamaged: a media file is missing or damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for shot, stages in takes.items():
        for stage in CHAIN:
            row, target = stages.get(stage.name), folder / f"{shot}{stage.suffix}"
            if row is None:
                target.unlink(missing_ok=True)
                continue
            part = folder / f".{target.name}.{os.getpid()}.part"
            part.write_bytes(store.read(row["media_path"], row["media"]))
            os.replace(part, target)
