"""The catalog: media before row, all or nothing, many writers."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from catalog.media import MediaDamaged, MediaStore
from catalog.place import Place
from catalog.store import Catalog, CatalogError
from catalog.writer import Writer
from pipeline.plan.history import past_takes
from pipeline.plan.plan import accepted_take


def row(n: int, **more) -> dict:
    return {
        "take": f"E01/SH0010/clip/v{n:03d}",
        "episode": "E01",
        "shot": "SH0010",
        "stage": "clip",
        "attempt": n,
        "at": datetime.now(UTC),
    } | more


def test_rows_come_back_as_they_were_written(tmp_path):
    catalog = Catalog.open(tmp_path / "catalog")
    catalog.append("takes", [row(1, measures={"motion": 1.5}, labels=["frozen"], seed=2**32 - 1, prompt="海 — ش")])
    (back,) = catalog.rows("takes", "E01")
    assert (back["measures"], back["labels"], back["seed"], back["prompt"]) == ({"motion": 1.5}, ["frozen"], 2**32 - 1, "海 — ش")
    assert catalog.rows("takes", "E02") == []


def test_a_misspelt_column_is_an_error_and_not_a_new_column(tmp_path):
    catalog = Catalog.open(tmp_path / "catalog")
    with pytest.raises(CatalogError, match="outcom"):
        catalog.append("takes", [row(1, outcom="accepted")])
    assert catalog.rows("takes") == []


def test_the_writer_commits_together_and_tells_each_when_it_is_safe(tmp_path):
    async def story() -> int:
        catalog = Catalog.open(tmp_path / "catalog")
        async with Writer(catalog) as writer:
            await asyncio.gather(*(writer.add("takes", row(n)) for n in range(50)))
            assert len(catalog.rows("takes")) == 50
        return len(list((tmp_path / "catalog" / "takes" / "_delta_log").glob("*.json")))

    assert asyncio.run(story()) <= 3, "fifty rows, one commit or two, and the one that made the table"


def test_a_row_that_cannot_be_written_is_an_error_for_its_own_writer(tmp_path):
    async def story() -> None:
        async with Writer(Catalog.open(tmp_path / "catalog")) as writer:
            with pytest.raises(CatalogError):
                await writer.add("takes", row(1, nonsense=1))
            await writer.add("takes", row(2))

    asyncio.run(story())
    assert [r["attempt"] for r in Catalog.open(tmp_path / "catalog").rows("takes")] == [2]


def write_some(root: Path, writer: int) -> None:
    catalog = Catalog.open(root)
    for n in range(8):
        catalog.append("takes", [row(n, episode=f"E{writer:02d}")])


def test_several_drivers_write_without_losing_a_row(tmp_path):
    Catalog.open(tmp_path / "catalog")
    context = multiprocessing.get_context("spawn")
    drivers = [context.Process(target=write_some, args=(tmp_path / "catalog", n)) for n in range(3)]
    for d in drivers:
        d.start()
    for d in drivers:
        d.join(120)
    assert [d.exitcode for d in drivers] == [0, 0, 0]
    assert len(Catalog.open(tmp_path / "catalog").rows("takes")) == 24


def test_equal_bytes_are_stored_once_and_changed_bytes_are_noticed(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    first, second = store.put(b"frames", ".mp4"), store.put(b"frames", ".mp4")
    assert first == second and len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1
    assert store.read(first.path, first.digest) == b"frames"
    (tmp_path / first.path).write_bytes(b"fram3s")
    with pytest.raises(MediaDamaged, match="promises"):
        store.read(first.path, first.digest)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        MediaStore(Place.of(tmp_path)).put(b"frames", ".mp4")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_an_accepted_row_without_its_file_does_not_count(tmp_path):
    catalog = Catalog.open(tmp_path / "catalog")
    media = catalog.media.put(b"frames", ".mp4")
    catalog.append("takes", [row(1, outcome="accepted", inputs="x", variation=0, media=media.digest, media_path=media.path, media_bytes=6)])
    ((good,),) = past_takes(catalog, "E01").values()
    assert accepted_take(catalog, [good], "x") == good
    assert accepted_take(catalog, [good], "y") is None
    assert accepted_take(catalog, [good._replace(outcome="rejected")], "x") is None
    file = tmp_path / "catalog" / media.path
    os.utime(file, (time.time() + 60, time.time() + 60))
    assert accepted_take(catalog, [good], "x") == good, "a younger file is hashed, and holds what its name promises"
    file.write_bytes(b"fram3s")
    os.utime(file, (time.time() + 60, time.time() + 60))
    assert accepted_take(catalog, [good], "x") is None, "and here it does not"
    file.unlink()
    assert accepted_take(catalog, [good], "x") is None


def test_a_folder_that_is_no_catalog_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CatalogError, match="cannot be opened"):
        Catalog.open(tmp_path / "file")
