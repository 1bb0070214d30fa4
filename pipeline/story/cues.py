"""Cues: what is said when, in frames of the cut. Subtitle files, the soft track and burnt-in subtitles are made from them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from .dialogue import Line
from .episode import Episode
from .errors import InputError
from .letters import LINE_ENDS, lines_of

SHORTEST = 0.1  # seconds; nobody can read what is shown for less, and every format can tell its beginning from its end
ROOM = 2**16 - 1  # bytes, in UTF-8, of what the soft track shows at once: 16 bits say the length of a text (3GPP TS 26.245)
DASH = "\u2013 "  # before what each of several people says at once


@dataclass(frozen=True, slots=True)
class Cue:
    """A line of dialogue.

    start, end: frames of the cut; `end` is the first that no longer shows it. who: as it is shown. text: its lines, none of them empty.
    where: the shot and the line, for error messages.
    """

    start: int
    end: int
    who: str
    text: str
    where: str


@dataclass(frozen=True, slots=True)
class Span:
    """Frames that all show the same cues, or none. start, end: as in a cue."""

    start: int
    end: int
    cues: tuple[Cue, ...]

    @property
    def text(self) -> str:
        """What is shown. Where several people speak at once, a dash begins what each says."""
        if len({cue.who for cue in self.cues}) < 2:
            return "\n".join(cue.text for cue in self.cues)
        return "\n".join(DASH + cue.text for cue in self.cues)


def cues(episode: Episode, seconds: Callable[[str, str], float], file: str) -> tuple[Cue, ...]:
    """The episode's lines of dialogue, by their beginnings.

    A line may ring on after the end of its shot. One that goes by its audio ends with the movie at the latest.

    Args:
        seconds: gives the length of a sound file; its arguments are the name in the episode's file, and who names it.
        file: the episode's file, for error messages.

    Raises:
        InputError: a line has no text that can be shown, ends after the movie, or is too short to be read; or more is said at once than a
            soft track holds.
    """
    found = [
        _cue(episode, line, start, f"shot {shot.id}: dialogue {n}", seconds, file)
        for _, shot, start in episode.cut
        for n, line in enumerate(shot.dialogue, 1)
    ]
    found.sort(key=lambda cue: (cue.start, cue.end))
    if episode.subtitles == "soft":
        _check_room(found, file)
    return tuple(found)


def spans(every: Sequence[Cue], first: int, last: int) -> list[Span]:
    """The frames from `first` up to and without `last`, divided where what is shown changes."""
    here = [cue for cue in every if cue.start < last and cue.end > first]
    edges = sorted({first, last, *(edge for cue in here for edge in (cue.start, cue.end) if first < edge < last)})
    return [Span(start, end, tuple(cue for cue in here if cue.start < end and cue.end > start)) for start, end in pairwise(edges)]


def _cue(episode: Episode, line: Line, shot_start: int, place: str, seconds: Callable[[str, str], float], file: str) -> Cue:
    where = f"{file}: {place}"
    text = _shown(line.text, where)
    left = episode.total_frames - shot_start
    until = line.end if line.end is not None else line.start + seconds(line.audio or "", where)
    start, end = round(Fraction(line.start) * episode.fps), round(Fraction(until) * episode.fps)
    if line.end is not None and end > left:
        raise InputError(f"{where}: it ends at {until:g} s, {float(until - left / episode.fps):.3f} s after the movie; let it end sooner")
    end = min(end, left)
    if (end - start) / episode.fps < SHORTEST:
        raise InputError(f"{where}: it is shown for {float((end - start) / episode.fps):.2f} s; nobody can read less than {SHORTEST} s")
    who = episode.characters[line.who].name if line.who in episode.characters else line.who
    return Cue(shot_start + start, shot_start + end, who, text, place)


def _check_room(every: Sequence[Cue], file: str) -> None:
    """Check that what is shown at once fits into the soft track. every: by their beginnings."""
    shown: list[Cue] = []
    for cue in every:
        shown = [*(one for one in shown if one.end > cue.start), cue]
        size = len(Span(cue.start, cue.end, tuple(shown)).text.encode())
        if size > ROOM:
            said = f"{len(shown)} lines are shown at once, {size:,} bytes of text"
            raise InputError(f"{file}: {cue.where}: {said}, and a soft track holds {ROOM:,}; let some end sooner, or write less")


def _shown(text: str, where: str) -> str:
    """The text in NFC, its lines without spaces at their ends, and no empty ones."""
    for c in text:
        if unicodedata.category(c) in ("Cc", "Cs") and c not in LINE_ENDS and c != "\t":
            raise InputError(f"{where}: text: it holds U+{ord(c):04X}, which cannot be shown; leave it out")
    if not any(lines_of(text)):
        raise InputError(f"{where}: text: nothing of it can be seen; leave the line out, or write what is said")
    for end in LINE_ENDS:
        text = text.replace(end, "\n")
    return "\n".join(line.strip() for line in unicodedata.normalize("NFC", text).split("\n") if any(lines_of(line)))
