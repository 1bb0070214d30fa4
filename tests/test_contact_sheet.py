"""The contact sheet in pages: every shot is on one, in order, and no page of an earlier sheet is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from catalog.media import MediaDamaged, MediaStore
from catalog.place import Place
from catalog.store import Catalog
from pipeline.post import contact_sheet as module
from pipeline.post.contact_sheet import CELL_WIDTH, GAP, MARGIN, MOMENTS, PAGE, TEXT_WIDTH, contact_sheet
from pipeline.post.result import Result
from pipeline.render.context import context
from pipeline.story.episode import Episode
from pipeline.story.settings import Settings

from .test_movie import clip, edit_of_clips

ROW = CELL_WIDTH + GAP + 4  # of square pictures


def story(shots: int) -> Episode:
    base = {"id": "E01", "title": "t", "width": 64, "height": 64, "fps": 24, "keyframe_workflow": "k", "clip_workflow": "c"}
    listed = [{"id": f"SH{10 * (i + 1):04d}", "frames": 8} for i in range(shots)]
    return Episode.model_validate(base | {"sequences": [{"id": "S010", "shots": listed}]})


def sheet(folder: Path, shots: int, takes: list[dict] | None = None) -> list[str]:
    return list(drawn_sheet(folder, story(shots), takes or [{}] * shots))


def drawn_sheet(folder: Path, episode: Episode, takes: list[dict], before: object = None, font: Path | None = None) -> dict:
    """Draw the sheet of shots with these clips; {} for none. Gives what the next call wants to know."""
    ids, takes = [shot.id for _, shot in episode.shots], [take and take | {"workflow": "w", "seed": 1} for take in takes]
    results = [Result(s, "accepted" if t else "exhausted", "" if t else "flicker", {"clip": t} if t else {}) for s, t in zip(ids, takes, strict=True)]
    edit, catalog = edit_of_clips(episode, {s: t for s, t in zip(ids, takes, strict=True) if t}, font), Catalog(Place.of(folder), 0)
    (folder / "out").mkdir(exist_ok=True)
    with context(Settings(catalog_uri=str(folder)), catalog, Console(quiet=True)) as here:
        return contact_sheet(edit, results, dict.fromkeys(ids, 1), before, here, folder / "out" / "contact_sheet.png")


def there(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "out").iterdir())


@pytest.mark.parametrize(("shots", "pages"), [(1, 1), (PAGE, 1), (PAGE + 1, 2), (300, 8)])
def test_many_shots_are_many_pages_and_few_are_one(tmp_path, shots, pages):
    names = sheet(tmp_path, shots)
    assert names == there(tmp_path) == ["contact_sheet.png", *(f"contact_sheet_{n:02}.png" for n in range(2, pages + 1))]
    heights = []
    for name in names:
        with Image.open(tmp_path / "out" / name) as page:
            heights.append(page.height)
    rows = [(height - 2 * MARGIN - 64) / ROW for height in heights]
    assert sum(rows) == shots and max(rows) <= PAGE and heights[0] == max(heights)


def test_a_shorter_sheet_leaves_no_page_of_a_longer_one_and_strangers_stay(tmp_path):
    sheet(tmp_path, 3 * PAGE)
    strangers = ["contact_sheet_final.png", "contact_sheet_02.jpg", "notes.txt"]
    for name in (*strangers, "contact_sheet_07.part"):
        (tmp_path / "out" / name).touch()
    assert sheet(tmp_path, PAGE + 1) == ["contact_sheet.png", "contact_sheet_02.png"]
    assert there(tmp_path) == sorted([*strangers, "contact_sheet.png", "contact_sheet_02.png"])
    assert sheet(tmp_path, 2) == ["contact_sheet.png"]
    assert there(tmp_path) == sorted([*strangers, "contact_sheet.png"])


def test_the_first_and_the_last_moment_are_the_shots_first_and_last_frame(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 2)
    store = MediaStore(Place.of(tmp_path))
    takes = [clip(store, tmp_path, level, 41, 24) for level in (20, 90, 160)]
    names = sheet(tmp_path, 3, takes)
    assert len(names) == 2
    for name, row, level in ((names[0], 0, 20), (names[0], 1, 90), (names[1], 0, 160)):
        with Image.open(tmp_path / "out" / name) as page:
            grey = np.asarray(page.convert("L"), int)
        middles = [grey[MARGIN + 64 + row * ROW + 100, MARGIN + TEXT_WIDTH + k * (CELL_WIDTH + GAP) + 100] for k in range(MOMENTS)]
        assert np.abs(np.array(middles) - [level + n for n in (0, 1, 3, 5, 7)]).max() <= 2


def test_a_damaged_clip_is_told_and_leaves_no_partial_page(tmp_path):
    takes = [clip(MediaStore(Place.of(tmp_path)), tmp_path, level, 8, 24) for level in (20, 90)]
    sheet(tmp_path, 1, takes[:1])
    before = (tmp_path / "out" / "contact_sheet.png").read_bytes()
    (tmp_path / takes[1]["media_path"]).write_bytes(b"damaged")
    with pytest.raises(MediaDamaged):
        sheet(tmp_path, 1, takes[1:])
    assert there(tmp_path) == ["contact_sheet.png"] and (tmp_path / "out" / "contact_sheet.png").read_bytes() == before


def test_only_the_pages_that_show_something_else_are_drawn_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 2)
    takes = [clip(MediaStore(Place.of(tmp_path)), tmp_path, level, 8, 24) for level in (20, 90, 160, 200)]
    episode = story(3)
    before = drawn_sheet(tmp_path, episode, takes[:3])
    written = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before}
    for changed, pages in ((takes[:3], []), ([takes[0], takes[1], takes[3]], ["contact_sheet_02.png"])):
        before = drawn_sheet(tmp_path, episode, changed, before)
        assert [name for name in before if (tmp_path / "out" / name).stat().st_mtime_ns != written[name]] == pages
    (tmp_path / "out" / "contact_sheet.png").unlink()
    assert drawn_sheet(tmp_path, episode, changed, before).keys() == before.keys() and len(there(tmp_path)) == 2
