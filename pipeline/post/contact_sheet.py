"""The contact sheet: one row for each shot, with its outcome, its keyframe and some frames of its clip; in pages."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from catalog.media import MediaStore
from gates.frames import moments
from gates.still import read_still
from pipeline.story.episode import Episode
from pipeline.story.letters import Fonts, built_in, face, lines_of, missing, width, write
from pipeline.story.stages import MOVING

from .result import Result

PAPER, INK, QUIET, GOOD, BAD = (246, 243, 236), (40, 36, 52), (128, 122, 138), (58, 132, 96), (190, 64, 64)
MOMENTS = 5  # frames of each clip, evenly spaced
CELL_WIDTH, GAP, MARGIN, TEXT_WIDTH = 216, 10, 28, 340
PAGE = 40  # rows of a page: about 6,300 pixels high at 3:2
MOST_LETTERS = 200  # of a text that are looked at; no line of the sheet has room for more


def contact_sheet(
    episode: Episode, outcomes: list[Result], takes: dict[str, int], store: MediaStore, out: Path, font: Path | None = None
) -> list[Path]:
    """Write the sheet as PNG, and remove the pages that a longer one left. Gives its pages in order.

    Args:
        outcomes: one for each row of the sheet. takes: shot id to its number of takes, of both stages, over all runs.
        out: the first page; the others are beside it, `contact_sheet_02.png` and on. An error leaves no partial page.
        font: the episode's own for titles, which writes its words here too as far as it has the letters; None for the built-in ones.
    """
    fonts = (font, *built_in()) if font else built_in()
    parts = [outcomes[i : i + PAGE] for i in range(0, len(outcomes), PAGE)] or [[]]
    done = sum(o.outcome == "accepted" for o in outcomes)
    seconds = float(episode.total_frames / episode.fps)
    line = f"{done} of {len(outcomes)} shots, {sum(takes.values())} takes, {seconds:.1f} s at {float(episode.fps):.5g} fps"
    pages = [out.with_stem(f"{out.stem}_{n:02}") if n > 1 else out for n in range(1, len(parts) + 1)]
    for n, (page, rows) in enumerate(zip(pages, parts, strict=True), 1):
        told = f"{line}; page {n} of {len(pages)}" if len(pages) > 1 else line
        _save(_page(episode, rows, takes, store, told, fonts), page)
    for file in out.parent.glob(f"{out.stem}_*"):
        if re.fullmatch(rf"{re.escape(out.stem)}_\d{{2,}}\.(png|part)", file.name) and file not in pages:
            file.unlink(missing_ok=True)
    return pages


def _page(episode: Episode, outcomes: list[Result], takes: dict[str, int], store: MediaStore, line: str, fonts: Fonts) -> Image.Image:
    cell_height = round(CELL_WIDTH * episode.height / episode.width)
    row_height = cell_height + GAP + 4
    across = 2 * MARGIN + TEXT_WIDTH + (MOMENTS + 1) * (CELL_WIDTH + GAP)
    sheet = Image.new("RGB", (across, 2 * MARGIN + 64 + row_height * len(outcomes)), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, MARGIN, MARGIN - 6, f"{episode.id}  {episode.title}", fonts, 30, INK, across - 2 * MARGIN)
    _write(draw, MARGIN, MARGIN + 32, line, built_in(), 15, QUIET, across - 2 * MARGIN)
    for i, outcome in enumerate(outcomes):
        top = MARGIN + 64 + i * row_height
        _words(draw, episode, outcome, takes[outcome.shot], top, fonts)
        for k, picture in enumerate(_pictures(outcome, store)):
            left = MARGIN + TEXT_WIDTH + k * (CELL_WIDTH + GAP)
            sheet.paste(Image.fromarray(picture).resize((CELL_WIDTH, cell_height), Image.Resampling.LANCZOS), (left, top))
            if k == 0:
                draw.rectangle((left - 2, top - 2, left + CELL_WIDTH + 1, top + cell_height + 1), outline=INK, width=2)
    return sheet


def _save(sheet: Image.Image, out: Path) -> None:
    part = out.with_suffix(".part")
    try:
        sheet.save(part, "PNG")
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)


def _words(draw: ImageDraw.ImageDraw, episode: Episode, outcome: Result, takes: int, top: int, fonts: Fonts) -> None:
    sequence, shot = next((q, s) for q, s in episode.shots if s.id == outcome.shot)
    good = outcome.outcome == "accepted"
    _write(draw, MARGIN, top, shot.id, built_in(), 22, INK, 108)
    said = f"{outcome.outcome}, {takes} take{'s' if takes != 1 else ''}"
    _write(draw, MARGIN + 108, top + 6, said, built_in(), 14, GOOD if good else BAD, TEXT_WIDTH - 108)
    row = outcome.last or {}
    people = ", ".join(episode.characters[c].name for c in shot.characters)
    lines = [
        f"{sequence.title or sequence.id}: {people}".rstrip(": "),
        f"{shot.framing}, {shot.action}".strip(", "),
        shot.camera + (f", {shot.transition.type}" if shot.transition.frames else ""),
        f"{shot.frames} frames, {row.get('workflow', 'no clip')}, seed {row.get('seed')}",
    ]
    if not good:
        lines[-1] = outcome.why
    for i, text in enumerate(x for x in lines if x):
        _write(draw, MARGIN, top + 32 + 20 * i, text, fonts, 14, QUIET, TEXT_WIDTH - GAP)


def _write(draw: ImageDraw.ImageDraw, x: int, top: int, text: str, fonts: Fonts, size: int, ink: tuple[int, int, int], room: int) -> None:
    """Write a text in one line, cut off where it gets wider than the room, in pixels. A letter that no font has is a question mark."""
    line = " ".join(lines_of(text))[:MOST_LETTERS]
    for letter in missing(line, fonts):
        line = line.replace(letter, "?")
    while line and width(line, fonts, size) > room:
        line = line[:-1]
    write(draw, (x, top + face(built_in()[0], size).getmetrics()[0]), line, fonts, size, fill=ink)


def _pictures(outcome: Result, store: MediaStore) -> list[np.ndarray]:
    pictures = []
    if keyframe := outcome.takes.get("keyframe"):
        pictures.append(read_still(store.read(keyframe["media_path"], keyframe["media"])).image)
    if clip := next((outcome.takes[stage] for stage in reversed(MOVING) if stage in outcome.takes), None):
        pictures.extend(moments(store.read(clip["media_path"], clip["media"]), MOMENTS))
    return pictures
