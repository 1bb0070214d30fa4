"""Kitsu's list of shots (CSV), as it exports and imports them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from pipeline.story.errors import InputError
from pipeline.story.rate import parse_rate
from pipeline.story.text_file import decoded, read_bytes
from pipeline.story.yaml_values import shortened

from .draft import Draft, Sequence, Shot, Todo, ids_from, printable

MAX_BYTES = 4_000_000  # a hundred thousand shots
LONGEST_SHOT = 24 * 600  # frames, as in episode files
COLUMNS = {  # heading in small letters to what it is here
    "episode": "episode",
    "sequence": "sequence",
    "name": "name",
    "description": "description",
    "nb frames": "frames",
    "frames": "frames",
    "frame in": "first",
    "in": "first",
    "frame out": "last",
    "out": "last",
    "fps": "fps",
}
SEPARATORS = (",", ";", "\t")
LISTED = 12  # episodes that an error names


@dataclass(frozen=True)
class _Row:
    """A shot's row. line: where it begins, from 1. cells: by what they are here."""

    line: int
    cells: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.cells.get(name, "")


def read_kitsu(path: Path, episode: str) -> Draft:
    """The draft of a Kitsu CSV file, with Kitsu's numbers as ids where they are good ones.

    Args:
        episode: id of the episode that is wanted; "" where the file holds only one.

    Raises:
        InputError: the file cannot be read, is no list of shots, or holds several episodes, of which none is named.
    """
    draft = Draft()
    rows = _rows(path, decoded(path, read_bytes(path, MAX_BYTES, "a CSV file")), draft)
    draft.id, rows = _episode(path, rows, episode)
    by_sequence: dict[str, list[_Row]] = {}
    for row in rows:
        by_sequence.setdefault(row["sequence"], []).append(row)
    ordered = [row for group in by_sequence.values() for row in group]
    shot_ids = dict(zip(map(id, ordered), ids_from([row["name"] for row in ordered], "SH", 4, 6), strict=True))
    meeting = _meeting(rows)
    for name, own in zip(by_sequence, ids_from(by_sequence, "S", 3, 5), strict=True):
        group = by_sequence[name]
        sequence = Sequence([f"row {group[0].line}: {name or 'without a sequence'}"], id=own)
        sequence.shots = [_shot(draft, row, shot_ids[id(row)], meeting) for row in group]
        draft.sequences.append(sequence)
    draft.fps = _fps(draft, rows)
    return draft


def _rows(path: Path, text: str, draft: Draft) -> list[_Row]:
    """The rows that hold a shot. Columns that an episode has no place for are told once."""
    separator = max(SEPARATORS, key=lambda s: sum(_known(cell) in COLUMNS for cell in text.partition("\n")[0].split(s)))
    csv.field_size_limit(MAX_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    headings: list[str] = []
    rows = []
    try:
        line = 1
        for cells in reader:
            begins, line = line, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not headings:
                headings = [_known(cell) for cell in cells]
                _check_headings(path, begins, cells, headings, draft)
                continue
            named = {COLUMNS[h]: cell.strip() for h, cell in zip(headings, cells, strict=False) if h in COLUMNS}
            if not named.get("name"):
                told = f"a row without a shot's name: {shortened(separator.join(cells), 200)}"
                draft.last_comments.append(draft.warn(f"row {begins}", told))
                continue
            rows.append(_Row(begins, named))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not valid CSV: {error}") from None
    if not rows:
        raise InputError(f"{path}: there are no shots in the file")
    return rows


def _known(heading: str) -> str:
    return " ".join(heading.strip().strip('"').lower().split())


def _check_headings(path: Path, line: int, cells: list[str], headings: list[str], draft: Draft) -> None:
    if not {"name", "sequence"} <= set(headings):
        raise InputError(
            f"{path}:{line}: the first row is {shortened(', '.join(cells))!r}; Kitsu's columns Sequence and Name are wanted, and "
            "others such as Description, Nb Frames, Frame In, Frame Out, FPS are read"
        )
    twice = next((h for i, h in enumerate(headings) if h in COLUMNS and COLUMNS[h] in [COLUMNS.get(x) for x in headings[:i]]), None)
    if twice:
        raise InputError(f"{path}:{line}: the column {twice!r} is there twice; leave one")
    extra = [cell.strip() for cell, heading in zip(cells, headings, strict=True) if heading not in COLUMNS and cell.strip()]
    if extra:
        draft.comments.append(draft.warn(f"row {line}", f"an episode has no place for the columns {shortened(', '.join(extra), 300)}"))


def _episode(path: Path, rows: list[_Row], wanted: str) -> tuple[str, list[_Row]]:
    """Id and rows of the episode that is wanted, or of the only one; "" where the file has no episodes."""
    names = list(dict.fromkeys(row["episode"] for row in rows))
    if names == [""]:
        return "", rows
    ids = ids_from(names, "E", 2, 4, step=1)
    listed = [f"{own} ({shortened(name) or 'rows without one'})" if own != name else own for own, name in zip(ids, names, strict=True)]
    told = printable(", ".join(listed[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else ""))
    if wanted and wanted not in ids and len(names) > 1:
        raise InputError(f"{path}: there is no episode {wanted} in the file; there are {told}")
    if not wanted and len(names) > 1:
        raise InputError(f"{path}: the file has {len(names)} episodes; choose one with --id: {told}")
    name = names[ids.index(wanted)] if wanted in ids else names[0]
    return wanted or ids[0], [row for row in rows if row["episode"] == name]


def _meeting(rows: list[_Row]) -> bool:
    """Whether a shot begins with the frame that the one before ends with: then last frames are not counted."""
    return any(row["last"] and row["last"] == after["first"] for row, after in pairwise(rows))


def _shot(draft: Draft, row: _Row, own: str, meeting: bool) -> Shot:
    shot = Shot([f"row {row.line}: {row['name']}"], id=own, action=row["description"])
    first, last = _whole(row["first"]), _whole(row["last"])
    span = last - first + (not meeting) if first is not None and last is not None else None
    if row["frames"]:
        shot.frames = _frames(draft, shot, row, "Nb Frames", _whole(row["frames"]), row["frames"])
        if span is not None and isinstance(shot.frames, int) and shot.frames not in (last - first, last - first + 1):  # type: ignore[operator]
            told = f"{shot.frames} frames were taken, and {row['first']} to {row['last']} are {last - first + 1}"  # type: ignore[operator]
            shot.comments.append(draft.warn(f"row {row.line}", told))
    elif row["first"] or row["last"]:
        given = f"{row['first']} to {row['last']}"
        shot.frames = _frames(draft, shot, row, "Frame In and Frame Out", span, given)
        counted = "the last one not counted: shots begin with the last one of the shot before" if meeting else "both counted"
        shot.comments.append(f"frames {given}, {counted}")
    return shot


def _frames(draft: Draft, shot: Shot, row: _Row, column: str, value: int | None, given: str) -> int | Todo:
    if value is not None and 0 < value <= LONGEST_SHOT:
        return value
    shot.comments.append(draft.warn(f"row {row.line}", f"{column}: {shortened(given)} is no length of a shot"))
    return Todo()


def _whole(text: str) -> int | None:
    """The whole number of a cell, also where a spreadsheet wrote it as 24.0."""
    digits = text.removesuffix(".0")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else None


def _fps(draft: Draft, rows: list[_Row]) -> Fraction | Todo:
    given = list(dict.fromkeys(row["fps"] for row in rows if row["fps"]))
    rates = [parse_rate(text) for text in given]
    what = "frames a second, such as 24, 23.976 or 24000/1001"
    if not given:
        return Todo(what)
    if None not in rates and len(set(rates)) == 1 and 1 <= rates[0] <= 120:  # type: ignore[operator]
        return rates[0]  # type: ignore[return-value]
    told = f"FPS is {shortened(', '.join(given))}, and an episode has one rate"
    draft.comments.append(draft.warn("column FPS", told))
    return Todo(what)
