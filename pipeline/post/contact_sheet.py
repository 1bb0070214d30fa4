"""The contact sheet: a row for each shot, with its outcome, its keyframe and some of its frames in the movie; in pages."""

from __future__ import annotations

import io
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from catalog.cache import Cache
from catalog.media import MediaStore
from catalog.store import Catalog
from cluster.cores import cores
from gates.still import read_still
from pipeline.render.context import Context
from pipeline.render.marks import Marks, marked
from pipeline.story.episode import Episode, Sequence, Shot
from pipeline.story.fingerprint import digest
from pipeline.story.letters import Fonts, built_in, face, lines_of, missing, width, write

from .edit import Edit
from .making import make_missing
from .remembered import as_it_is, unchanged
from .result import Result
from .segments import CELL_WIDTH, MOMENTS, Segment, strip_of

PAPER, INK, QUIET, GOOD, BAD = (246, 243, 236), (40, 36, 52), (128, 122, 138), (58, 132, 96), (190, 64, 64)
GAP, MARGIN, TEXT_WIDTH = 10, 28, 340
VERSION = 2  # of what this module draws of equal rows
PAGE = 40  # rows of a page: about 6,300 pixels high at 3:2
MOST_LETTERS = 200  # of a text that are looked at; no line of the sheet has room for more


def contact_sheet(edit: Edit, results: list[Result], counts: dict[str, int], before: Any, here: Context, first: Path) -> dict[str, Any]:
    """Draw the pages of the sheet that have changed, and remove those that a longer sheet left.

    Args:
        results: one for each row. counts: shot to its number of takes, of all stages, over all runs. before: what an earlier call gave.
        first: the first page; the others are beside it, `contact_sheet_02.png` and on. An error leaves no partial page.

    Returns:
        Each page's name, in order, to what the next call wants to know of it.

    Raises:
        MediaDamaged: a keyframe's file is missing or damaged. Others as `make_missing`.
    """
    known, segments = before if isinstance(before, dict) else {}, {segment.name: segment for segment in edit.segments}
    places = {shot.id: (sequence, shot) for sequence, shot in edit.episode.shots}
    pages = _pages(edit, [_Row(*places[r.shot], r, counts[r.shot], segments.get(r.shot)) for r in results], first)
    stale = [page for page in pages if not unchanged(page.file, page.of, known.get(page.file.name))]
    make_missing([row.segment for page in stale for row in page.rows if row.segment], edit.font, here)
    made = Cache(here.catalog.place).there() if stale else {}
    for page in stale:
        _draw(page, edit, here.catalog, made)
    _sweep(pages)
    return {page.file.name: as_it_is(page.file, page.of) for page in pages}


@dataclass(frozen=True)
class _Row:
    """A row of the sheet. takes: number of the shot's takes, of all stages, over all runs. segment: of its clip, if it has one."""

    sequence: Sequence
    shot: Shot
    result: Result
    takes: int
    segment: Segment | None


@dataclass(frozen=True)
class _Page:
    """A page of the sheet. line: what it says of the episode. of: digest of all that it shows."""

    file: Path
    rows: list[_Row]
    line: str
    of: str


def _pages(edit: Edit, rows: list[_Row], out: Path) -> list[_Page]:
    episode = edit.episode
    parts = [rows[i : i + PAGE] for i in range(0, len(rows), PAGE)] or [[]]
    done = sum(row.result.outcome == "accepted" for row in rows)
    seconds = float(episode.total_frames / episode.fps)
    takes = sum(row.takes for row in rows)
    line = f"{done} of {len(rows)} shots, {takes} takes, {seconds:.1f} s at {float(episode.fps):.5g} fps"
    pages = []
    for n, part in enumerate(parts, 1):
        told = f"{line}; page {n} of {len(parts)}" if len(parts) > 1 else line
        of = digest([VERSION, episode.id, episode.title, told, edit.letters, _marks(edit).keys, [_shows(edit, row) for row in part]])
        pages.append(_Page(out.with_stem(f"{out.stem}_{n:02}") if n > 1 else out, part, told, of))
    return pages


def _shows(edit: Edit, row: _Row) -> list[Any]:
    keyframe, result = row.result.takes.get("keyframe"), row.result
    strip = row.segment.key if row.segment else ""
    return [_said(edit.episode, row), result.shot, result.outcome, row.takes, keyframe["media"] if keyframe else "", strip]


def _draw(page: _Page, edit: Edit, catalog: Catalog, made: dict[str, str]) -> None:
    fonts = (edit.font, *built_in()) if edit.font else built_in()  # the episode's own font, as far as it has the letters
    cache = Cache(catalog.place)
    with ThreadPoolExecutor(cores()) as readers:
        pictures = list(readers.map(lambda row: _keyframe(row, catalog.media) + _strip(row, cache, made), page.rows))
    _save(_drawn(edit.episode, page, pictures, fonts), page.file, _marks(edit))


def _sweep(pages: list[_Page]) -> None:
    """Remove the pages that a longer sheet left."""
    first = pages[0].file
    for file in first.parent.glob(f"{first.stem}_*"):
        if re.fullmatch(rf"{re.escape(first.stem)}_\d{{2,}}\.(png|part)", file.name) and file not in [page.file for page in pages]:
            file.unlink(missing_ok=True)


def _drawn(episode: Episode, page: _Page, pictures: list[list[np.ndarray]], fonts: Fonts) -> Image.Image:
    cell_height = round(CELL_WIDTH * episode.height / episode.width)
    row_height = cell_height + GAP + 4
    across = 2 * MARGIN + TEXT_WIDTH + (MOMENTS + 1) * (CELL_WIDTH + GAP)
    sheet = Image.new("RGB", (across, 2 * MARGIN + 64 + row_height * len(page.rows)), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, MARGIN, MARGIN - 6, f"{episode.id}  {episode.title}", fonts, 30, INK, across - 2 * MARGIN)
    _write(draw, MARGIN, MARGIN + 32, page.line, built_in(), 15, QUIET, across - 2 * MARGIN)
    for i, (row, shown) in enumerate(zip(page.rows, pictures, strict=True)):
        top = MARGIN + 64 + i * row_height
        _words(draw, episode, row, top, fonts)
        for k, picture in enumerate(shown):
            left = MARGIN + TEXT_WIDTH + k * (CELL_WIDTH + GAP)
            sheet.paste(Image.fromarray(picture).resize((CELL_WIDTH, cell_height), Image.Resampling.LANCZOS), (left, top))
            if k == 0:
                draw.rectangle((left - 2, top - 2, left + CELL_WIDTH + 1, top + cell_height + 1), outline=INK, width=2)
    return sheet


def _marks(edit: Edit) -> Marks:
    """Those of the movie, without the digest of the whole episode: a page changes with what it shows, and with nothing else."""
    return replace(edit.marks, facts={name: text for name, text in edit.marks.facts.items() if name != "episode_digest"})


def _save(sheet: Image.Image, out: Path, marks: Marks) -> None:
    part, data = out.with_suffix(".part"), io.BytesIO()
    sheet.save(data, "PNG")
    try:
        part.write_bytes(marked(data.getvalue(), ".png", marks))
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)


def _words(draw: ImageDraw.ImageDraw, episode: Episode, row: _Row, top: int, fonts: Fonts) -> None:
    good = row.result.outcome == "accepted"
    _write(draw, MARGIN, top, row.result.shot, built_in(), 22, INK, 108)
    said = f"{row.result.outcome}, {row.takes} take{'s' if row.takes != 1 else ''}"
    _write(draw, MARGIN + 108, top + 6, said, built_in(), 14, GOOD if good else BAD, TEXT_WIDTH - 108)
    for i, text in enumerate(_said(episode, row)):
        _write(draw, MARGIN, top + 32 + 20 * i, text, fonts, 14, QUIET, TEXT_WIDTH - GAP)


def _said(episode: Episode, row: _Row) -> list[str]:
    """The lines beside a row's pictures."""
    sequence, shot, takes = row.sequence, row.shot, row.result.takes
    drawn = takes.get("clip") or takes.get("keyframe")  # a finish has neither prompt nor seed
    people = ", ".join(episode.characters[c].name for c in shot.characters)
    lines = [
        f"{sequence.title or sequence.id}: {people}".rstrip(": "),
        f"{shot.framing}, {shot.action}".strip(", "),
        shot.camera + (f", {shot.transition.type}" if shot.transition.frames else ""),
        f"{shot.frames} frames, " + (f"{drawn['workflow']}, seed {drawn['seed']}" if drawn else "no clip"),
    ]
    if row.result.outcome != "accepted":
        lines[-1] = row.result.why
    return [line for line in lines if line]


def _write(draw: ImageDraw.ImageDraw, x: int, top: int, text: str, fonts: Fonts, size: int, ink: tuple[int, int, int], room: int) -> None:
    """Write a text in one line, cut off where it gets wider than the room, in pixels. A letter that no font has is a question mark."""
    line = " ".join(lines_of(text))[:MOST_LETTERS]
    for letter in missing(line, fonts):
        line = line.replace(letter, "?")
    while line and width(line, fonts, size) > room:
        line = line[:-1]
    write(draw, (x, top + face(built_in()[0], size).getmetrics()[0]), line, fonts, size, fill=ink)


def _keyframe(row: _Row, store: MediaStore) -> list[np.ndarray]:
    take = row.result.takes.get("keyframe")
    return [read_still(store.read(take["media_path"], take["media"])).image] if take else []


def _strip(row: _Row, cache: Cache, made: dict[str, str]) -> list[np.ndarray]:
    return strip_of(row.segment, cache, made) if row.segment else []
