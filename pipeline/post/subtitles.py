"""Subtitles beside the movie, as SRT and ASS, and as a track in it that a player shows or not."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import pysubs2
from av.container import OutputContainer
from av.subtitles.stream import SubtitleStream

from pipeline.story.cues import Cue, spans
from pipeline.story.episode import Episode
from pipeline.story.subtitle import LOWEST, WIDEST, letter_size

from .whole import write_whole

SRT_UNIT, ASS_UNIT = 1, 10  # milliseconds: what the times of the format are whole numbers of
# Units a second of the track, at least: as many as any other track of a movie has. FFmpeg compares times of different tracks as if all had
# the same unit, and puts an empty text of no length between others where this track's numbers are the smaller ones.
FINEST = 120_000
WORD_JOINER = "\u2060"  # nobody sees it


def write_subtitles(episode: Episode, cues: Sequence[Cue], folder: Path) -> list[Path]:
    """Write `episode.srt` and `episode.ass` beside the movie. Where there are no cues, the files of an earlier run are removed.

    Args:
        cues: of the episode's plan.

    Returns:
        The files that are there now.

    Raises:
        StorageError: a file cannot be written. An error leaves no partial file.
    """
    files = {"episode.srt": _srt, "episode.ass": _ass}
    if not cues:
        for name in files:
            (folder / name).unlink(missing_ok=True)
        return []
    for name, text in files.items():
        write_whole(folder / name, text(episode, cues).encode())
    return [folder / name for name in files]


def _srt(episode: Episode, cues: Sequence[Cue]) -> str:
    file = pysubs2.SSAFile()
    file.events = [_event(cue, episode.fps, SRT_UNIT, _joined(cue.text)) for cue in cues]
    return file.to_string("srt", keep_ssa_tags=True)  # there are none: what looks like one was said


def _ass(episode: Episode, cues: Sequence[Cue]) -> str:
    """Each cue has its speaker as the actor's name. Sizes are those that burnt-in subtitles have."""
    file, size = pysubs2.SSAFile(), letter_size(episode.height)
    file.info |= {"Title": " ".join(episode.title.split()), "PlayResX": str(episode.width), "PlayResY": str(episode.height)}
    file.info |= {"WrapStyle": "0", "ScaledBorderAndShadow": "yes"}
    side, foot = round((1 - WIDEST) / 2 * episode.width), round((1 - LOWEST) * episode.height)
    file.styles["Default"] = pysubs2.SSAStyle(
        fontname="DejaVu Sans",
        fontsize=size,
        outline=max(1, size // 10),
        shadow=max(1, size // 14),
        marginl=side,
        marginr=side,
        marginv=foot,
        encoding=-1,  # each line has the direction of its own first letter; any other number lets all run from left to right
    )
    file.events = [_event(cue, episode.fps, ASS_UNIT, _escaped(cue.text)) for cue in cues]
    return file.to_string("ass", header_notice="")


def _event(cue: Cue, fps: Fraction, unit: int, text: str) -> pysubs2.SSAEvent:
    # Both are rounded alike: what does not overlap in frames does not overlap in the file.
    start, end = (round(frame / fps * 1000 / unit) * unit for frame in (cue.start, cue.end))
    return pysubs2.SSAEvent(start=start, end=end, name=" ".join(cue.who.replace(",", " ").split()), text=text)


def _escaped(text: str) -> str:
    """The text as ASS writes it, where braces hold orders."""
    return _joined(text).replace("{", r"\{").replace("}", r"\}").replace("\n", r"\N")


def _joined(text: str) -> str:
    r"""The text with its backslashes away from what is beside them: `\N` would be the end of a line, and `{\` the beginning of an order."""
    return text.replace("\\", f"{WORD_JOINER}\\{WORD_JOINER}")


def subtitle_packets(container: OutputContainer, cues: Sequence[Cue], frames: int, fps: Fraction) -> list[av.Packet]:
    """Add a track of subtitles (3GPP timed text) to an MP4 that is being written, before its first packet. Its language is undetermined.

    Times are exact to the frame. A track can show only one text at a time, so cues that overlap share it.

    Args:
        cues: of the episode's plan. frames, fps: of the movie.

    Returns:
        The track's packets in the order of their times, one after the other without gaps, from frame 0 to the movie's end. The caller muxes
        them with those of other streams, by their time of decoding.
    """
    track = container.add_stream("mov_text")
    assert isinstance(track, SubtitleStream)
    styles = pysubs2.SSAFile().to_string("ass", header_notice="")  # without any, FFmpeg writes no mov_text
    track.codec_context.subtitle_header = styles.encode()
    units = -(-FINEST // fps.numerator) * fps.denominator  # of a frame
    track.time_base = 1 / (units * fps)
    packets = []
    for span in spans(cues, 0, frames):
        text = span.text.encode()
        packet = av.Packet(struct.pack(">H", len(text)) + text)  # an empty text clears the picture
        packet.stream, packet.time_base = track, track.time_base
        packet.pts = packet.dts = span.start * units
        packet.duration = (span.end - span.start) * units
        packets.append(packet)
    return packets
