"""The contact sheet: one row for each shot, with its outcome, its keyframe and some frames of its clip."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from catalog.media import MediaStore
from gates.still import read_still
from pipeline.story.episode import Episode

from .assemble import clip_frames
from .result import Result

PAPER, INK, QUIET, GOOD, BAD = (246, 243, 236), (40, 36, 52), (128, 122, 138), (58, 132, 96), (190, 64, 64)
MOMENTS = 5  # frames of each clip, evenly spaced
CELL_WIDTH, GAP, MARGIN, TEXT_WIDTH = 216, 10, 28, 340


def contact_sheet(episode: Episode, outcomes: list[Result], takes: dict[str, int], store: MediaStore, out: Path) -> None:
    """Write the sheet as PNG.

    Args:
        outcomes: one for each row of the sheet. takes: shot id to its number of takes, of both stages, over all runs.
    """
    cell_height = round(CELL_WIDTH * episode.height / episode.width)
    row_height = cell_height + GAP + 4
    width = 2 * MARGIN + TEXT_WIDTH + (MOMENTS + 1) * (CELL_WIDTH + GAP)
    sheet = Image.new("RGB", (width, 2 * MARGIN + 64 + row_height * len(outcomes)), PAPER)
    draw = ImageDraw.Draw(sheet)
    done = sum(o.outcome == "accepted" for o in outcomes)
    draw.text((MARGIN, MARGIN - 6), f"{episode.id}  {_plain(episode.title)}", font=_font(30), fill=INK)
    seconds = Fraction(episode.total_frames, episode.fps)
    line = f"{done} of {len(outcomes)} shots, {sum(takes.values())} takes, {float(seconds):.1f} s at {episode.fps} fps"
    draw.text((MARGIN, MARGIN + 32), line, font=_font(15), fill=QUIET)
    for i, outcome in enumerate(outcomes):
        top = MARGIN + 64 + i * row_height
        _words(draw, episode, outcome, takes[outcome.shot], top)
        for k, picture in enumerate(_pictures(outcome, store)):
            left = MARGIN + TEXT_WIDTH + k * (CELL_WIDTH + GAP)
            sheet.paste(Image.fromarray(picture).resize((CELL_WIDTH, cell_height), Image.Resampling.LANCZOS), (left, top))
            if k == 0:
                draw.rectangle((left - 2, top - 2, left + CELL_WIDTH + 1, top + cell_height + 1), outline=INK, width=2)
    part = out.with_suffix(".part")
    try:
        sheet.save(part, "PNG")
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)


def _words(draw: ImageDraw.ImageDraw, episode: Episode, outcome: Result, takes: int, top: int) -> None:
    sequence, shot = next((q, s) for q, s in episode.shots if s.id == outcome.shot)
    good = outcome.outcome == "accepted"
    draw.text((MARGIN, top), shot.id, font=_font(22), fill=INK)
    draw.text(
        (MARGIN + 108, top + 6), f"{outcome.outcome}, {takes} take{'s' if takes != 1 else ''}", font=_font(14), fill=GOOD if good else BAD
    )
    row = outcome.last or {}
    people = ", ".join(episode.characters[c].name for c in shot.characters)
    lines = [
        f"{_plain(sequence.title) or sequence.id}: {_plain(people)}".rstrip(": "),
        f"{_plain(shot.framing)}, {_plain(shot.action)}".strip(", "),
        _plain(shot.camera) + (f", {shot.transition.type}" if shot.transition.frames else ""),
        f"{shot.frames} frames, {row.get('workflow', 'no clip')}, seed {row.get('seed')}",
    ]
    if not good:
        lines[-1] = _plain(outcome.why)
    for i, text in enumerate(x for x in lines if x):
        draw.text((MARGIN, top + 32 + 20 * i), text[:44], font=_font(14), fill=QUIET)


def _pictures(outcome: Result, store: MediaStore) -> list[np.ndarray]:
    pictures = []
    if keyframe := outcome.takes.get("keyframe"):
        pictures.append(read_still(store.read(keyframe["media_path"], keyframe["media"])).image)
    if clip := outcome.takes.get("clip"):
        frames, _ = clip_frames(clip, store)
        pictures += [frames[i] for i in np.linspace(0, len(frames) - 1, MOMENTS).round().astype(int)]
    return pictures


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _plain(text: str) -> str:
    """The text in ASCII, because the sheet's font has no other letters. Others become escapes such as \\xe9."""
    return text.encode("ascii", "backslashreplace").decode()
