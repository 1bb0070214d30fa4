"""Joins segments, sound and subtitles to a movie: by copying packets, without encoding anything again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from heapq import merge
from itertools import accumulate
from pathlib import Path

import av
from av import FFmpegError

from gates.decode import ffmpeg_path
from pipeline.plan.sound_file import RATE
from pipeline.render.marks import MP4, Marks, xmp, xmp_box
from pipeline.story.cues import Cue
from pipeline.story.errors import StorageError

from .subtitles import subtitle_packets

TO_THE_SAMPLE = {"movie_timescale": str(RATE)}  # else edit lists are rounded to milliseconds, and the sound is longer than the picture
DELAY = 2  # frames by which x264 decodes ahead of showing, with the B-frames of its preset `medium`
VERSION = 1  # of what this module makes from equal segments


@dataclass(frozen=True)
class Reels:
    """What is joined. segments: H.264 in MP4, each with closed groups of pictures, all encoded with the same settings. frames: of each.

    sound: an MP4 with one stream, as long as all segments together; None for a silent movie. cues: of the track of subtitles.
    """

    segments: Sequence[Path]
    frames: Sequence[int]
    fps: Fraction
    sound: Path | None = None
    cues: Sequence[Cue] = ()


def join(reels: Reels, marks: Marks, out: Path) -> None:
    """Write a movie of segments, one after the other, with sound and subtitles.

    Args:
        marks: what the movie says of itself. out: path of the movie. An error leaves no partial file there.

    Raises:
        StorageError: the movie cannot be written, or is not what was meant.
    """
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".part-") as folder:
            part = Path(folder) / out.name
            _write(reels, marks, part)
            prove(part, reels.frames, reels.fps)
            os.replace(part, out)
    except (OSError, FFmpegError) as error:
        raise StorageError(f"{out} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _write(reels: Reels, marks: Marks, part: Path) -> None:
    with ExitStack() as stack:
        out = stack.enter_context(av.open(ffmpeg_path(part), "w", format="mp4", options=MP4 | TO_THE_SAMPLE))
        out.metadata.update(marks.keys)
        with av.open(ffmpeg_path(reels.segments[0])) as first:
            video = out.add_stream_from_template(first.streams.video[0])
        video.time_base = 1 / reels.fps
        tracks = [_pictures(reels, video)]
        if reels.sound:
            tracks.append(_sound(stack.enter_context(av.open(ffmpeg_path(reels.sound))), out))
        if reels.cues:
            tracks.append(iter(subtitle_packets(out, reels.cues, sum(reels.frames), reels.fps)))
        for packet in merge(*tracks, key=_decoded):
            out.mux_one(packet)
    with part.open("ab") as file:
        file.write(xmp_box(xmp(marks)))


def _decoded(packet: av.Packet) -> Fraction:
    """When a packet is decoded, in seconds."""
    assert packet.dts is not None
    return packet.dts * packet.time_base


def _pictures(reels: Reels, stream: av.VideoStream) -> Iterator[av.Packet]:
    """The packets of all segments with their times in the movie, in frames.

    Times of decoding are counted over the whole movie. Added to each segment's own they would go backwards: a segment of one frame
    has no frame that is decoded ahead.
    """
    before = decoded = 0
    for file, count in zip(reels.segments, reels.frames, strict=True):
        with av.open(ffmpeg_path(file)) as container:
            for packet in container.demux(video=0):
                if packet.pts is None:
                    continue  # the demuxer's last packet, which is empty
                packet.pts = before + round(packet.pts * packet.time_base * reels.fps)
                packet.dts, packet.duration, packet.time_base = decoded - DELAY, 1, 1 / reels.fps
                packet.stream = stream
                decoded += 1
                yield packet
        before += count


def _sound(source: av.container.InputContainer, out: av.container.OutputContainer) -> Iterator[av.Packet]:
    stream = out.add_stream_from_template(source.streams.audio[0])

    def packets() -> Iterator[av.Packet]:
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                yield packet

    return packets()


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
