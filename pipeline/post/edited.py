"""Read what an editor made of a timeline: which part of which clip stands where."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from pipeline import PROJECT
from pipeline.story.episode import Episode
from pipeline.story.errors import InputError
from pipeline.story.yaml_values import shortened

from .otio_facts import Facts

MOST_BYTES = 64_000_000  # an episode of 300 shots has 1 MB
SECONDS = 120.0  # for the reading process, on a busy machine
MOST_FRAMES = 120 * 24 * 3600  # of an edit: a day at the highest rate
OFF = Fraction(1, 4)  # of a frame: rounding in editors is less, another rate is more
SHOT = re.compile(r"(SH[0-9]{4,6})(\.\w+)?", re.ASCII)
DISSOLVE = "SMPTE_Dissolve"


@dataclass(frozen=True)
class Piece:
    """A part of the edit that shows one clip, from cut to cut, with its share of the dissolves on both sides. Counts are frames.

    name: as the editor has it. shot, take: whose clip it is; "" where that is not known. at: where the piece begins in the edit.
    first: how far into the clip it begins, in the episode's frames. moving: how many are shown at `speed`; held: how
    many frames the last of them stands on. dissolve: length of the dissolve that it begins with. gap: whether it shows no clip.
    """

    name: str
    shot: str
    take: str
    at: int
    first: Fraction
    moving: int
    held: int = 0
    speed: float = 1.0
    dissolve: int = 0
    gap: bool = False

    @property
    def frames(self) -> int:
        return self.moving + self.held


@dataclass(frozen=True)
class Edit:
    """pieces: of the video track that holds most of the episode's clips, in order. told: what else there is, and is not looked at."""

    pieces: list[Piece]
    told: list[str]


def read_edit(file: Path, episode: Episode) -> Edit:
    """Read an .otio file.

    Raises:
        InputError: it is none, has no video, or has another rate than the episode.
    """
    try:
        size = file.stat().st_size
    except (OSError, ValueError) as error:
        raise InputError(f"{shortened(str(file), 200)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if size > MOST_BYTES:
        raise InputError(f"{file} has {size / 1e6:.0f} MB; an .otio file of at most {MOST_BYTES / 1e6:.0f} MB is read")
    command = [sys.executable, "-m", "pipeline.post.otio_facts", str(file.absolute())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, cwd=PROJECT, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{file} takes more than {SECONDS:.0f} s to read; it is no timeline that an editor made") from error
    if done.returncode:
        why = done.stdout.decode(errors="replace") or "OpenTimelineIO cannot read it"
        raise InputError(f"{file} is not a timeline that can be read: {why}")
    return edit_of(json.loads(done.stdout), episode, str(file))


def edit_of(facts: Facts, episode: Episode, where: str) -> Edit:
    """What the facts of a timeline mean for the episode. where: the file, for the error message.

    Raises:
        InputError: it has no video, or another rate than the episode.
    """
    tracks = [track for track in facts["tracks"] if track["enabled"]]
    if not tracks:
        raise InputError(f"{where} has no video track")
    main = max(tracks, key=lambda track: sum(bool(_shot(item, episode)) for item in track["items"]))
    told = []
    for track in tracks:
        for item in track["items"] if track is not main else ():
            if item["kind"] == "Clip":
                told.append(f"{item['name']} on track {track['name']} is not looked at: an episode has one track of pictures")
    pieces = list(_joined(_pieces(main["items"], episode, where, told)))
    return Edit(pieces, told)


def _pieces(items: list[Facts], episode: Episode, where: str, told: list[str]) -> Iterator[Piece]:
    """One piece an item, in order, with the frames that dissolves add to it before and behind its cuts."""
    at, cut = 0, (0, 0)
    for n, item in enumerate(items):
        if item["kind"] == "Transition":
            continue
        length = _frames(item["duration"], episode, f"{where}: {item['name']}")
        after = items[n + 1] if n + 1 < len(items) else None
        leaving = _offsets(after, episode, where, told) if after and after["kind"] == "Transition" else (0, 0)
        yield _piece(item, episode, at, length, cut, leaving[1], where)
        at, cut = at + length, leaving


def _piece(item: Facts, episode: Episode, at: int, length: int, cut: tuple[int, int], tail: int, where: str) -> Piece:
    """Args: cut: frames of the dissolve before and behind the cut that the item begins with. tail: of the next, behind the next cut."""
    head, name, shot = cut[0], item["name"], _shot(item, episode)
    own = item["tower"] if item["tower"].get("episode") == episode.id else {}
    take = str(own.get("take", ""))
    shown = head + length + tail
    if item["kind"] != "Clip" or not item["enabled"]:
        gap, whose = item["kind"] == "Gap" or not item["enabled"], shot if item["kind"] == "Gap" else ""
        return Piece(name, whose, "", at - head, Fraction(0), shown, dissolve=sum(cut), gap=gap)
    speed, frozen = item["speed"], item["speed"] == 0
    first = Fraction(item["start"]) * episode.fps - Fraction(head * speed)
    return Piece(name, shot, take, at - head, first, 0 if frozen else shown, shown if frozen else 0, 1.0 if frozen else speed, sum(cut))


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The pieces; those that go on in the same clip where the one before ends, or hold its last frame, are one."""
    before: Piece | None = None
    for piece in pieces:
        if before and _goes_on(before, piece):
            before = replace(before, moving=before.moving + piece.moving, held=before.held + piece.held)
            continue
        if before:
            yield before
        before = piece
    if before:
        yield before


def _goes_on(before: Piece, piece: Piece) -> bool:
    same = before.shot == piece.shot and before.take == piece.take and bool(piece.shot) and not piece.gap and not before.gap
    if not same or piece.dissolve:
        return False
    end = before.first + Fraction(before.moving * before.speed)
    if not piece.moving:
        return not before.moving or -2 < piece.first - end < 1 or bool(before.held)
    return not before.held and before.speed == piece.speed and abs(piece.first - end) < OFF


def _offsets(item: Facts, episode: Episode, where: str, told: list[str]) -> tuple[int, int]:
    """Frames of a dissolve before and behind its cut. Another transition is told, and counts as a cut."""
    if item["type"] != DISSOLVE:
        told.append(f"transition {item['type']!r} cannot be said in an episode, which has cuts and dissolves; it counts as a cut")
        return 0, 0
    return _frames(item["in"], episode, f"{where}: a dissolve"), _frames(item["out"], episode, f"{where}: a dissolve")


def _shot(item: Facts, episode: Episode) -> str:
    """The shot whose clip an item is: as the metadata says, else by the name of item or media; "" for what is not the episode's."""
    own = item.get("tower")
    if own:
        return str(own.get("shot", "")) if own.get("episode") == episode.id else ""
    names = [SHOT.fullmatch(str(item.get(key, "")).rpartition("/")[2]) for key in ("name", "media")]
    return next((found[1] for found in names if found), "")


def _frames(seconds: float, episode: Episode, where: str) -> int:
    """Whole frames of the episode.

    Raises:
        InputError: they are not whole, or too many.
    """
    count = Fraction(seconds) * episode.fps
    if abs(count - round(count)) > OFF:
        raise InputError(f"{where} is {float(count):.2f} frames long at the episode's {episode.fps}; the edit has another rate")
    if not 0 <= count <= MOST_FRAMES:
        raise InputError(f"{where} is {float(count):.0f} frames long, which no edit of an episode is")
    return round(count)
