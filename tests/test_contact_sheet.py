"""The contact sheet in pages: every shot is on one, in order, and no page of an earlier sheet is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog.media import MediaDamaged, MediaStore
from catalog.place import Place
from pipeline.post import contact_sheet as module
from pipeline.post.contact_sheet import CELL_WIDTH, GAP, MARGIN, MOMENTS, PAGE, TEXT_WIDTH, contact_sheet
from pipeline.post.result import Result
from pipeline.story.episode import Episode

from .test_assemble import clip

ROW = CELL_WIDTH + GAP + 4  # of square pictures


def story(shots: int) -> Episode:
    base = {"id": "E01", "title": "t", "width": 64, "height": 64, "fps": 24, "keyframe_workflow": "k", "clip_workflow": "c"}
    listed = [{"id": f"SH{10 * (i + 1):04d}", "frames": 8} for i in range(shots)]
    return Episode.model_validate(base | {"sequences": [{"id": "S010", "shots": listed}]})


def sheet(folder: Path, shots: int, takes: list[dict] | None = None) -> list[str]:
    store, episode = MediaStore(Place.of(folder)), story(shots)
    taken = takes or [{}] * shots
    results = [Result(s.id, "accepted" if t else "exhausted", "", {"clip": t} if t else {}) for (_, s), t in zip(episode.shots, taken, strict=True)]
    (folder / "out").mkdir(exist_ok=True)
    return [p.name for p in contact_sheet(episode, results, {s.id: 1 for _, s in episode.shots}, store, folder / "out" / "contact_sheet.png")]


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


def test_the_first_and_the_last_moment_are_the_clips_first_and_last_frame(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 2)
    store = MediaStore(Place.of(tmp_path))
    takes = [clip(store, tmp_path, level, 41, 24) for level in (20, 90, 160)]
    names = sheet(tmp_path, 3, takes)
    assert len(names) == 2
    for name, row, level in ((names[0], 0, 20), (names[0], 1, 90), (names[1], 0, 160)):
        with Image.open(tmp_path / "out" / name) as page:
            grey = np.asarray(page.convert("L"), int)
        middles = [grey[MARGIN + 64 + row * ROW + 100, MARGIN + TEXT_WIDTH + k * (CELL_WIDTH + GAP) + 100] for k in range(MOMENTS)]
        assert np.abs(np.array(middles) - [level + n for n in (0, 10, 20, 30, 40)]).max() <= 2


def test_a_damaged_clip_is_told_and_leaves_no_partial_page(tmp_path):
    takes = [clip(MediaStore(Place.of(tmp_path)), tmp_path, 20, 8, 24)]
    sheet(tmp_path, 1, takes)
    before = (tmp_path / "out" / "contact_sheet.png").read_bytes()
    (tmp_path / takes[0]["media_path"]).write_bytes(b"damaged")
    with pytest.raises(MediaDamaged):
        sheet(tmp_path, 1, takes)
    assert there(tmp_path) == ["contact_sheet.png"] and (tmp_path / "out" / "contact_sheet.png").read_bytes() == before
