"""The catalog: media before row, all or nothing, many writers."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from catalog.media import CLOCK_SLACK, MediaDamaged, MediaStore
from catalog.place import Place
from catalog.store import Catalog, CatalogError
from catalog.writer import GATHER_FEW, GATHER_MANY, MANY, Writer
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


class Ledger:
    """Stands for the catalog where only the commits count: (table, numbers of the rows) of each."""

    def __init__(self) -> None:
        self.commits: list[tuple[str, list[int]]] = []

    def append(self, name: str, rows: list[dict]) -> None:
        self.commits.append((name, [r["n"] for r in rows]))
        if name == "full":
            raise CatalogError("no room")


def add(writer: Writer, *rows: tuple[str, int]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(writer.add(name, {"n": n})) for name, n in rows]


def test_rows_are_gathered_for_a_moment_and_for_longer_after_many(monkeypatch):
    waits, ledger, sleep = [], Ledger(), asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    async def story() -> None:
        async with Writer(ledger) as writer:  # type: ignore[arg-type]
            for count in (MANY + 1, MANY, 1):
                await asyncio.gather(*add(writer, *(("takes", n) for n in range(count))))

    monkeypatch.setattr("catalog.writer.asyncio.sleep", noted)
    asyncio.run(story())
    assert [len(rows) for _, rows in ledger.commits] == [MANY + 1, MANY, 1]
    assert waits == [GATHER_FEW, GATHER_MANY, GATHER_FEW], "and nobody waits for rows that cannot come any more"
    assert 0 < GATHER_FEW < GATHER_MANY < 1, "shots wait for it"


def test_leaving_commits_what_still_waits():
    async def story() -> list[asyncio.Task[None]]:
        async with Writer(ledger) as writer:  # type: ignore[arg-type]
            waiting = add(writer, ("takes", 1), ("runs", 2), ("takes", 3))
            await asyncio.sleep(0)
        assert ledger.commits == [("takes", [1, 3]), ("runs", [2])], "a commit for each table"
        return [one for one in waiting if await one is None]

    ledger = Ledger()
    assert len(asyncio.run(story())) == 3


def test_an_error_and_a_caller_who_left_are_nobody_elses():
    async def story() -> None:
        async with Writer(ledger) as writer:  # type: ignore[arg-type]
            fails, leaves, stays, also = add(writer, ("full", 1), ("takes", 2), ("takes", 3), ("full", 4))
            await asyncio.sleep(0)
            leaves.cancel()
            assert await stays is None
            for one in (fails, also):
                with pytest.raises(CatalogError, match="no room"):
                    await one
        assert ledger.commits == [("full", [1, 4]), ("takes", [2, 3])], "what was asked for is written"

    ledger = Ledger()
    asyncio.run(story())


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


def test_a_file_is_hashed_only_where_it_is_younger_than_its_row(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    media = store.put(b"frames", ".mp4")
    file, row_at = tmp_path / media.path, 1_000_000.0

    def has(seconds: float, content: bytes) -> bool:
        file.write_bytes(content)
        os.utime(file, (row_at + seconds,) * 2)
        return store.has(media.path, media.digest, 6, row_at)

    assert [has(s, b"frames") for s in (-9, 0, CLOCK_SLACK, CLOCK_SLACK + 0.5)] == [True] * 4
    assert [has(s, b"fram3s") for s in (-9, 0, CLOCK_SLACK, CLOCK_SLACK + 0.5)] == [True, True, True, False]
    assert not has(-9, b"frame"), "its size is looked at always"
    assert has(-9, b"frames")
    assert not any(store.has(path, digest, 6, row_at) for path, digest in ((None, media.digest), (media.path, None), ("media/none", media.digest)))


def test_what_is_wrong_with_a_file_is_told(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    media = store.put(b"frames", ".mp4")
    assert store.damage(media.path, media.digest) is None
    assert store.damage(media.path, "0" * 64) == f"{media.path} does not hold the bytes that its name promises"
    assert store.damage("media/none.mp4", media.digest) == "media/none.mp4 is missing"
    assert str(store.damage("media", media.digest)).startswith("media cannot be read: ")
    with pytest.raises(MediaDamaged) as told:
        store.read("media/none.mp4", media.digest)
    again = pickle.loads(pickle.dumps(told.value))
    assert (again.path, str(again)) == ("media/none.mp4", "media/none.mp4 is missing"), "also when a worker told it"


def test_bytes_that_are_asked_for_again_look_young_and_damaged_ones_are_written_again(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    media = store.put(b"frames", ".mp4")
    os.utime(tmp_path / media.path, (1000, 1000))
    inode = (tmp_path / media.path).stat().st_ino
    assert store.put(b"frames", ".mp4") == media
    assert (tmp_path / media.path).stat().st_mtime > 1000 and (tmp_path / media.path).stat().st_ino == inode
    (tmp_path / media.path).write_bytes(b"fram3s")
    assert store.put(b"frames", ".mp4") == media and store.read(media.path, media.digest) == b"frames"
    assert media.path == f"media/{media.digest[:2]}/{media.digest}.mp4" and media.bytes == 6


def test_all_media_are_files_whole_or_not(tmp_path):
    store = MediaStore(Place.of(tmp_path))
    assert list(store.all()) == []
    media = store.put(b"frames", ".mp4")
    (tmp_path / "media" / "ab").mkdir()
    (tmp_path / "media" / "ab" / ".part-1").write_bytes(b"fra")
    assert sorted(info.path for info in store.all()) == sorted([media.path, "media/ab/.part-1"])


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


def test_a_signal_that_comes_while_rows_are_read_is_no_damage(tmp_path):
    """DuckDB asks Python for rows, and makes an error of its own of whatever is raised there."""

    def interrupted() -> Iterator[pa.RecordBatch]:
        raise KeyboardInterrupt
        yield

    rows = pa.RecordBatchReader.from_batches(pa.schema([("id", pa.string())]), interrupted())
    with pytest.raises(KeyboardInterrupt):
        Catalog.open(tmp_path).sql("SELECT count(*) FROM ids", (), given={"ids": rows})  # type: ignore[dict-item]
