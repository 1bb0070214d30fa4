"""Storyboarder's scenes (.storyboarder): boards with times, pictures, words and sounds."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

from pipeline.story.audio import FORMATS
from pipeline.story.errors import InputError
from pipeline.story.rate import exact
from pipeline.story.text_file import decoded, read_bytes
from pipeline.story.yaml_values import number, shortened

from .draft import Cast, Draft, Keys, Sequence, Shot, Sound, Speech, Todo

MAX_BYTES = 20_000_000
IMAGES = "images"  # the folder beside a scene that holds its pictures and sounds
SHOT_OF_LABEL = re.compile(r"([0-9]+)[A-Z]*\Z")
NAMED = re.compile(r"([^\s:][^:\n]{0,40}):\s+(\S.*)", re.S)
LONGEST_SHOT = 24 * 600  # frames, as in episode files


@dataclass(frozen=True)
class _Board:
    """A board. number: from 1. start, length: milliseconds. new: begins a shot."""

    number: int
    label: str
    start: Fraction
    length: Fraction | None
    new: bool
    data: dict[str, Any]

    def text(self, name: str) -> str:
        value = self.data.get(name)
        return value.strip() if isinstance(value, str) else ""


def read_storyboarder(path: Path, folder: Path) -> Draft:
    """The draft of a Storyboarder scene, without ids.

    Args:
        folder: where the episode file will be: pictures and sounds must lie in it.

    Raises:
        InputError: the file cannot be read, is not JSON, or holds no boards.
    """
    data = _json(path)
    boards = _boards(path, data)
    draft = Draft()
    fps = _number(path, "'fps'", data.get("fps"))
    if fps is not None and 1 <= fps <= 120:
        draft.fps = exact(float(fps))
    ratio = data.get("aspectRatio")
    if isinstance(ratio, str | int | float) and not isinstance(ratio, bool):
        draft.size_remark = f"; the boards' width is {shortened(str(ratio), 12)} of their height"
    sequence = Sequence([f"the scene of {path.name}"])
    draft.sequences.append(sequence)
    places = _Places(path, folder)
    people = Keys("character")
    for group in _shots(boards):
        sequence.shots.append(_shot(draft, group, places, people))
    return draft


def _json(path: Path) -> dict[str, Any]:
    text = decoded(path, read_bytes(path, MAX_BYTES, "a Storyboarder scene"))
    if not text.strip():
        raise InputError(f"{path}:1: the file is empty")
    try:
        data = json.loads(text, parse_float=number)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{path}: values are nested too deep") from None
    except ValueError:  # the one other fault that the parser finds
        raise InputError(f"{path}: a number has too many digits") from None
    if not isinstance(data, dict) or not isinstance(data.get("boards"), list):
        raise InputError(f"{path}:1: there are no `boards` in the file, so it is no scene of Storyboarder's")
    if not data["boards"]:
        raise InputError(f"{path}: the scene has no boards")
    return data


def _number(path: Path, what: str, value: Any) -> Fraction | None:
    """A number, which Storyboarder sometimes writes as text; None where there is none.

    Raises:
        InputError: something else stands there.
    """
    if value in (None, ""):
        return None
    text = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,20})?", text):
        return Fraction(text)
    raise InputError(f"{path}: {what} is {shortened(repr(value))}; a number is wanted")


def _boards(path: Path, data: dict[str, Any]) -> list[_Board]:
    """The boards with their times: each begins where the one before ends, so that rounding to frames adds nothing up."""
    usual = _number(path, "'defaultBoardTiming'", data.get("defaultBoardTiming"))
    boards: list[_Board] = []
    start = Fraction(0)
    for index, board in enumerate(data["boards"], 1):
        if not isinstance(board, dict):
            raise InputError(f"{path}: board {index} is {shortened(repr(board))}; an object is wanted")
        own = _number(path, f"board {index}: 'duration'", board.get("duration"))
        length = own if own is not None else usual
        label = board["shot"] if isinstance(board.get("shot"), str) else ""
        before = boards[-1].label if boards else ""
        found, last = SHOT_OF_LABEL.match(label), SHOT_OF_LABEL.match(before)
        new = not boards or board.get("newShot") is True or bool(found and last and found[1] != last[1])
        boards.append(_Board(index, label, start, length, new, board))
        start += length or 0
    return boards


def _shots(boards: list[_Board]) -> list[list[_Board]]:
    groups: list[list[_Board]] = []
    for board in boards:
        if board.new:
            groups.append([])
        groups[-1].append(board)
    return groups


def _shot(draft: Draft, boards: list[_Board], places: _Places, people: Keys) -> Shot:
    first, last = boards[0], boards[-1]
    where = f"board {first.number}" if first is last else f"boards {first.number}-{last.number}"
    shot = Shot([f"{where}, shot {first.label}" if first.label else where])
    shot.frames = _frames(draft, boards, where, shot)
    shot.action = " ".join(dict.fromkeys(text for board in boards if (text := board.text("action"))))
    for board in boards:
        _told(draft, shot, board, board.start - first.start, places, people)
    return shot


def _frames(draft: Draft, boards: list[_Board], where: str, shot: Shot) -> int | Todo:
    """The shot's length: from the frame nearest to its beginning to the one nearest to its end, both counted from the scene's beginning."""
    last = boards[-1]
    if isinstance(draft.fps, Todo) or any(board.length is None for board in boards):
        return Todo()
    begins, ends = (round(ms * draft.fps / 1000) for ms in (boards[0].start, last.start + (last.length or 0)))
    if 0 < ends - begins <= LONGEST_SHOT:
        return ends - begins
    shot.comments.append(draft.warn(where, f"{ends - begins} frames are no length of a shot"))
    return Todo()


def _told(draft: Draft, shot: Shot, board: _Board, at: Fraction, places: _Places, people: Keys) -> None:
    """Put on the shot what a board says: its words and sound as fields, what a shot has no field for as comments."""
    name = f"board {board.number}"
    begins = round(float(at / 1000), 3)
    if board.number == 1 or board.new:
        picture = _file(draft, shot, name, "url", board.data.get("url"), places)
        shot.keyframe = picture or ""
    else:
        action = f", {board.text('action')}" if board.text("action") else ""
        shot.comments.append(f"{name} from {begins} s: picture {shortened(str(board.data.get('url')), 120)}{action}")
    if board.text("notes"):
        shot.comments.append(f"{name}: {board.text('notes')}")
    if board.text("dialogue"):
        ends = round(float((at + (board.length or 0)) / 1000), 3)
        shot.speeches.append(_speech(draft, shot, board, begins, ends if ends > begins else Todo(), people))
    audio = board.data.get("audio")
    if isinstance(audio, dict) and audio.get("filename"):
        file = _file(draft, shot, name, "audio", audio["filename"], places)
        if file and PurePath(file).suffix.lower() not in FORMATS:
            told = f"audio {shortened(file, 120)} is no sound file that is read; those end in {', '.join(FORMATS)}"
            shot.comments.append(draft.warn(name, told))
        elif file:
            shot.sounds.append(Sound(file, begins))


def _speech(draft: Draft, shot: Shot, board: _Board, begins: float, ends: float | Todo, people: Keys) -> Speech:
    """What a board's dialogue says. Many write the name before it, as in `HANA: Hello!`."""
    said, place = board.text("dialogue"), f"board {board.number}, for as long as the board"
    named = NAMED.fullmatch(said)
    if not named or named[1] != named[1].upper() or not any(c.isalpha() for c in named[1]):
        return Speech(Todo("who says this"), said, begins, ends, [place])
    key = people.of(named[1])
    draft.characters.setdefault(key, Cast(named[1], f"board {board.number}"))
    if key not in shot.characters:
        shot.characters.append(key)
    return Speech(key, named[2], begins, ends, [place])


def _file(draft: Draft, shot: Shot, name: str, what: str, given: Any, places: _Places) -> str | None:
    """The file as the episode would name it; None, with a comment on the shot, where it cannot."""
    if not given:
        return None
    file, why = places.relative(given)
    if file is None:
        told = f"{what} {shortened(str(given), 120)} {why}"
        shot.comments.append(f"{name}: {told}" if why == NOT_THERE else draft.warn(name, told))
    return file


NOT_THERE = "is not there"


@dataclass(frozen=True)
class _Places:
    """Where a scene's files are, and where the episode will be."""

    scene: Path
    folder: Path

    def relative(self, given: Any) -> tuple[str | None, str]:
        """The path of a picture or sound from the episode's folder; or None, and why not."""
        if not isinstance(given, str) or "\0" in given or "/" in given or "\\" in given or given in (".", ".."):
            return None, "is no file's name"
        try:
            images = (self.scene.parent / IMAGES).resolve()
            path = (images / given).resolve()
            if not path.is_relative_to(images):
                return None, "leads outside the scene's folder"
            if not path.is_file():
                return None, NOT_THERE
            folder = self.folder.resolve()
        except (OSError, ValueError, RuntimeError):
            return None, "is not a name that can be read"
        if not path.is_relative_to(folder):
            return None, f"lies outside {self.folder}, where the episode is; write the episode beside the scene to have it"
        return path.relative_to(folder).as_posix(), ""
