"""Joins segments to a movie: by copying their packets, without encoding anything again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import av
from av import FFmpegError

from gates.decode import ffmpeg_path
from pipeline.story.errors import StorageError

DELAY = 2  # frames by which x264 decodes ahead of showing, with the B-frames of its preset `medium`
VERSION = 1  # of what this module makes from equal segments


def join(segments: Sequence[Path], frames: Sequence[int], fps: Fraction, marks: Mapping[str, str], out: Path) -> None:
    """Write a movie of segments, one after the other.

    Args:
        segments: H.264 in MP4, each with closed groups of pictures, all encoded with the same settings. frames: of each.
        marks: metadata of the file. out: path of the movie. An error leaves no partial file there.

    Raises:
        StorageError: the movie cannot be written, or is not what was meant.
    """
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".part-") as folder:
            part = Path(folder) / out.name
            _write(segments, frames, fps, marks, part)
            prove(part, frames, fps)
            os.replace(part, out)
    except (OSError, FFmpegError) as error:
        raise StorageError(f"{out} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _write(segments: Sequence[Path], frames: Sequence[int], fps: Fraction, marks: Mapping[str, str], part: Path) -> None:
    options = {"movflags": "+faststart+use_metadata_tags", "fflags": "+bitexact"}
    with av.open(ffmpeg_path(part), "w", format="mp4", options=options) as out:
        out.metadata.update(marks)
        with av.open(ffmpeg_path(segments[0])) as first:
            video = out.add_stream_from_template(first.streams.video[0])
        video.time_base = 1 / fps
        for packet in _packets(segments, frames, fps):
            packet.stream = video
            out.mux_one(packet)


def _packets(segments: Sequence[Path], frames: Sequence[int], fps: Fraction) -> Iterator[av.Packet]:
    """The packets of all segments with their times in the movie, in frames.

    Times of decoding are counted over the whole movie. Added to each segment's own they would go backwards: a segment of one frame
    has no frame that is decoded ahead.
    """
    before = decoded = 0
    for file, count in zip(segments, frames, strict=True):
        with av.open(ffmpeg_path(file)) as container:
            stream = container.streams.video[0]
            for packet in container.demux(stream):
                if packet.pts is None:
                    continue  # the demuxer's last packet, which is empty
                packet.pts = before + round(packet.pts * packet.time_base * fps)
                packet.dts, packet.duration, packet.time_base = decoded - DELAY, 1, 1 / fps
                decoded += 1
                yield packet
        before += count


def prove(movie: Path, frames: Sequence[int], fps: Fraction) -> None:
    """Read all packets of a movie: one frame after the other without a gap, and a keyframe where each segment begins.

    Raises:
        StorageError: it is not so.
    """
    with av.open(ffmpeg_path(movie)) as container:
        stream = container.streams.video[0]
        shown = sorted((round(p.pts * p.time_base * fps), p.is_keyframe) for p in container.demux(stream) if p.pts is not None)
        rate = stream.average_rate
    begins = list(accumulate(frames, initial=0))
    if [n for n, _ in shown] != list(range(begins[-1])) or rate != fps:
        meant = f"{begins[-1]} at {fps} fps, one after the other, were meant"
        raise StorageError(f"{movie.name} has {len(shown)} frames at {rate} fps; {meant}")
    if wrong := [n for n in begins[:-1] if not shown[n][1]]:
        raise StorageError(f"{movie.name} has no keyframe at frame {wrong[0] + 1}, where a shot begins")
