"""What a commit leaves in a table's folder: a data file, its entry, and a copy of it; what is done where a writer was killed before all were there."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

import catalog.commit as module
import catalog.place
from catalog.commit import (
    COPIES,
    HINT,
    LOG,
    check_writable,
    checkpoint,
    commit,
    copies,
    copy_of,
    dataset,
    entry,
    live_files,
    log_cleaned,
    lost_commit,
    newest_copied,
    promised,
    removed,
    seal,
    seal_new,
    write_data,
)
from catalog.place import Place

SCHEMA = pa.schema([("episode", pa.string()), ("n", pa.int32())])
PLAIN = pa.schema([("n", pa.int32())])
COUNTED = "0000000000000000"  # before the number of a thousand of versions


@pytest.fixture
def place(tmp_path) -> Place:
    """A catalog with one table `t`, which Delta would give a checkpoint at every commit and clean at once."""
    place = Place.of(tmp_path / "catalog")
    place.make()
    told = {"delta.checkpointInterval": "1", "delta.logRetentionDuration": "interval 0 seconds", "delta.enableExpiredLogCleanup": "true"}
    DeltaTable.create(place.table("t"), SCHEMA, configuration=dict[str, str | None](told))
    seal_new(place, "t")
    return place


def table(place: Place) -> DeltaTable:
    return DeltaTable(place.table("t"))


def batch(*rows: tuple[str | None, int], schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([dict(zip(("episode", "n"), row, strict=True)) for row in rows], schema=schema)


def add(place: Place, *rows: tuple[str | None, int]) -> int:
    return commit(place, "t", table(place), [write_data(place, "t", [batch(*rows)], SCHEMA)])


def log(place: Place) -> list[str]:
    return sorted(place.list(f"t/{LOG}"))


def read(place: Place) -> list[int]:
    return sorted(dataset(table(place), place, "t", SCHEMA).to_table()["n"].to_pylist())


def age(milliseconds: int) -> float:
    return abs(datetime.now(UTC).timestamp() - milliseconds / 1000)


# --- before -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["", "t", f"t/{LOG}"])
def test_a_folder_that_is_read_only_is_told_by_its_name(place, monkeypatch, folder):
    check_writable(place, "t")
    check_writable(place, "new")
    wanted = place.folder / folder
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path) == wanted and mode == os.W_OK))
    with pytest.raises(OSError, match=f"^{wanted} is read-only here$"):
        check_writable(place, "t")
    check_writable(Place("s3://films/one"), "t")


def test_a_disk_has_room_for_a_commit_or_says_how_little_it_has(place, tmp_path, monkeypatch):
    free = 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    check_writable(place, "t")
    free -= 1
    with pytest.raises(OSError, match=r"^its disk has 1\.0 MB free; make room$"):
        check_writable(place, "t")
    check_writable(Place.of(tmp_path / "none"), "t")


# --- a data file --------------------------------------------------------------------------------------------------------


def test_a_data_file_is_named_by_its_bytes_and_its_action_tells_its_rows_and_episodes(place):
    batches = [batch(("E02", 1), (None, 2)), batch(), batch(("E03", 3), ("E01", 4)), batch((None, 5))]
    file = write_data(place, "t", batches, SCHEMA)
    assert promised(f"t/{file.path}") == promised(file.path) == place.digest(f"t/{file.path}")
    assert (file.size, file.partition_values, file.data_change) == (len(place.read(f"t/{file.path}")), {}, True) and age(
        file.modification_time
    ) < 60
    assert json.loads(file.stats) == {
        "numRecords": 5, "minValues": {"episode": "E01"}, "maxValues": {"episode": "E03"}, "nullCount": {"episode": 2},
    }  # fmt: skip
    assert pq.read_table(place.folder / "t" / file.path)["n"].to_pylist() == [1, 2, 3, 4, 5]
    again = write_data(place, "t", [batch((None, 1))], SCHEMA, new=False)
    assert (json.loads(again.stats), again.data_change) == ({"numRecords": 1, "nullCount": {"episode": 1}}, False)
    plain = write_data(place, "t", [pa.RecordBatch.from_pylist([{"n": 1}], schema=PLAIN)], PLAIN)
    assert json.loads(plain.stats) == {"numRecords": 1}
    assert promised("part-0.parquet") is None


def test_rows_that_moved_take_their_old_file_out_and_are_no_change(place):
    gone = removed("old.parquet", 7)
    assert (gone.path, gone.size, gone.data_change) == ("old.parquet", 7, False)
    assert gone.deletion_timestamp is not None and age(gone.deletion_timestamp) < 60


def test_live_files_are_those_of_the_log_with_their_sizes(place):
    add(place, ("E01", 1))
    add(place, ("E01", 2))
    files = live_files(table(place))
    assert files == {p.name: p.stat().st_size for p in (place.folder / "t").glob("*.parquet")} and len(files) == 2
    first = next(iter(files))
    commit(place, "t", table(place), [removed(first, files[first])])
    assert live_files(table(place)).keys() == files.keys() - {first}


# --- a commit -----------------------------------------------------------------------------------------------------------


def test_a_commit_is_an_entry_and_its_copy_and_nothing_else(place):
    open_table = table(place)
    for n in (1, 2):
        assert commit(place, "t", open_table, [write_data(place, "t", [batch(("E01", n))], SCHEMA)]) == n
    assert log(place) == [entry(n) for n in range(3)], "Delta makes no checkpoint and cleans nothing by itself: that would have no copies"
    assert copies(place, "t") == {name: [place.digest(f"t/{LOG}/{name}")] for name in log(place)}
    assert (place.folder / "t" / COPIES / f"{COUNTED}0" / f"{entry(2)}.{place.digest(f't/{LOG}/{entry(2)}')}").is_file()
    assert read(place) == [1, 2]


def test_a_table_that_others_wrote_to_is_brought_up_to_date_first(place):
    behind = table(place)
    add(place, ("E01", 1))
    assert commit(place, "t", behind, [write_data(place, "t", [batch(("E01", 2))], SCHEMA)]) == 2


def test_who_loses_the_race_for_a_version_has_committed_nothing(place):
    class Late:
        """A table between whose look at the log and whose commit another one commits."""

        def __init__(self) -> None:
            self.table = table(place)

        def __getattr__(self, name: str) -> Any:
            return (lambda: None) if name == "update_incremental" else getattr(self.table, name)

    late: Any = Late()
    add(place, ("E01", 1))
    with pytest.raises(CommitFailedError):
        commit(place, "t", late, [write_data(place, "t", [batch(("E01", 2))], SCHEMA)])
    assert read(place) == [1]


def test_every_so_many_commits_are_a_checkpoint_of_all_that_is_committed(place, monkeypatch):
    monkeypatch.setattr(module, "CHECKPOINT_EVERY", 3)
    for n in range(1, 5):
        add(place, ("E01", n))
    made = f"{3:020}.checkpoint.parquet"
    assert [name for name in log(place) if not name.endswith(".json")] == [made, HINT]
    assert copies(place, "t").keys() == set(log(place)) and json.loads(place.read(f"t/{LOG}/{HINT}"))["version"] == 3
    added = [row["add"]["path"] for row in pq.read_table(place.folder / "t" / LOG / made).to_pylist() if row["add"]]
    assert len(added) == 3 and set(added) < live_files(table(place)).keys()


def test_the_hint_alone_changes_so_its_older_copies_go(place):
    for n in (1, 2):
        add(place, ("E01", n))
        checkpoint(place, "t", table(place))
        (place.folder / "t" / COPIES / "a note").touch()
    assert copies(place, "t")[HINT] == [place.digest(f"t/{LOG}/{HINT}")]
    assert sorted(p.name for p in (place.folder / "t" / COPIES).iterdir() if p.is_file()) == [
        f"{HINT}.{place.digest(f't/{LOG}/{HINT}')}",
        "a note",
    ]
    assert len(copies(place, "t")) == len(log(place)) == 6, "three entries, two checkpoints, the hint"


def test_copies_lie_a_thousand_versions_in_a_folder():
    assert copy_of("t", entry(999), "d") == f"t/{COPIES}/{COUNTED}0/{entry(999)}.d"
    assert copy_of("t", f"{1000:020}.checkpoint.parquet", "d") == f"t/{COPIES}/{COUNTED}1/{1000:020}.checkpoint.parquet.d"
    assert copy_of("t", HINT, "d") == f"t/{COPIES}/{HINT}.d"


# --- writers that were killed -------------------------------------------------------------------------------------------


def test_the_newest_copy_is_found_in_any_folder_and_none_is_minus_one(place):
    assert newest_copied(place, "none") == -1
    for n in (1, 2):
        add(place, ("E01", n))
    checkpoint(place, "t", table(place))
    assert newest_copied(place, "t") == 2
    for name in (
        f"{COUNTED}2/{entry(2001)}.d",
        f"{COUNTED}2/{entry(2003)}.d",
        f"{COUNTED}2/{2004:020}.checkpoint.parquet.d",
        f"{COUNTED}3/a note",
        "more/x",
    ):
        place.write(f"t/{COPIES}/{name}", b"")
    assert newest_copied(place, "t") == 2003


def test_files_that_are_no_copies_are_not_counted(place):
    digest = "0" * 64
    for name in (f"a note.{digest}", f"{COUNTED}0/{entry(7)}.short", f"{COUNTED}0/{entry(0)}.{digest}/{entry(8)}.{digest}/x"):
        place.write(f"t/{COPIES}/{name}", b"")
    assert copies(place, "t").keys() == {entry(0)} and copies(place, "none") == {}


def test_entries_that_are_newer_than_all_copies_are_copied_and_no_others(place):
    for n in (1, 2, 3):
        add(place, ("E01", n))
    checkpoint(place, "t", table(place))
    for file in (place.folder / "t" / COPIES).rglob("*"):
        if file.is_file() and file.name.startswith((f"{1:020}", f"{3:020}", HINT)):
            file.unlink()
    place.write(f"t/{LOG}/.part-1", b"half")
    seal_new(place, "t")
    assert copies(place, "t").keys() == {entry(0), entry(2), entry(3)}, "an older one without a copy may be damaged: nobody can tell"
    shutil.rmtree(place.folder / "t" / COPIES)
    seal_new(place, "t")
    assert copies(place, "t").keys() == {*log(place)} - {".part-1"}, "a table from before copies gets all"


def test_an_entry_that_has_a_copy_gets_no_other_when_it_is_damaged(place):
    whole = place.digest(f"t/{LOG}/{entry(0)}")
    place.write(f"t/{LOG}/{entry(0)}", b"{}")
    seal_new(place, "t")
    assert copies(place, "t") == {entry(0): [whole]}, "else a repair could take the damage for what was written"


def test_a_commit_that_is_gone_from_the_log_is_named(place):
    assert lost_commit(place, "none") is None
    for n in (1, 2):
        add(place, ("E01", n))
    assert lost_commit(place, "t") is None
    (place.folder / "t" / LOG / entry(2)).unlink()
    assert lost_commit(place, "t") == 2
    shutil.rmtree(place.folder / "t" / COPIES / f"{COUNTED}0")
    place.write(copy_of("t", entry(0), "0" * 64), b"")
    (place.folder / "t" / LOG / entry(0)).unlink()
    assert lost_commit(place, "t") == 0, "the first one too"


def test_where_files_of_a_log_are_deleted_their_copies_go_and_no_others(place):
    for n in (1, 2):
        add(place, ("E01", n))
    (place.folder / "t" / LOG / entry(2)).unlink()
    with log_cleaned(place, "t"):
        pass
    assert copies(place, "t").keys() == {entry(0), entry(1), entry(2)}, "what was lost before was not deleted now"
    with log_cleaned(place, "t"):
        (place.folder / "t" / LOG / entry(0)).unlink()
    assert copies(place, "t").keys() == {entry(1), entry(2)}


# --- rows ---------------------------------------------------------------------------------------------------------------


def spoil(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(data)


def test_rows_are_compared_with_their_digest_once(place):
    add(place, ("E01", 1))
    add(place, ("E02", 2))
    assert read(place) == [1, 2]
    (first, _) = sorted((place.folder / "t").glob("*.parquet"))
    first.rename(first.with_name("aside"))
    with pytest.raises(OSError):
        read(place)
    first.with_name("aside").rename(first)
    module._prove.cache_clear()
    spoil(first)
    with pytest.raises(OSError, match=f"^data file t/{first.name} does not hold the bytes that its name promises$"):
        read(place)
    with pytest.raises(OSError, match="promises"):
        read(place)
    spoil(first)
    assert read(place) == read(place) == [1, 2] and module._prove.cache_info().hits >= 2


def test_rows_that_are_older_than_digests_are_read(place):
    pq.write_table(pa.Table.from_batches([batch(("E01", 7))]), place.folder / "t" / "part-0.parquet")
    action = write_data(place, "t", [batch(("E01", 7))], SCHEMA)
    size = (place.folder / "t" / "part-0.parquet").stat().st_size
    commit(place, "t", table(place), [type(action)("part-0.parquet", size, {}, 0, True, "{}")])
    assert read(place) == [7]


def test_rows_of_a_bucket_are_read_with_the_checksum_of_every_page(place, monkeypatch):
    add(place, *((f"E{n}", n) for n in range(50)))
    far, opened = Place("s3://films/one"), table(place)
    monkeypatch.setattr(catalog.place, "_files", lambda uri: pafs.SubTreeFileSystem(str(place.folder), pafs.LocalFileSystem()))
    assert dataset(opened, far, "t", SCHEMA).to_table()["n"].to_pylist() == list(range(50))
    (file,) = (place.folder / "t").glob("*.parquet")
    spoil(file)
    with pytest.raises(OSError, match=r"(?i)crc|checksum"):
        dataset(opened, far, "t", SCHEMA).to_table()


def test_only_a_bucket_is_not_flushed(place, monkeypatch):
    flushed: list[str] = []
    monkeypatch.setattr(Place, "flush", lambda self, path: flushed.append(path))
    seal(place, "t", [entry(0)])
    assert flushed == [f"t/{LOG}/{entry(0)}"]
    monkeypatch.setattr(catalog.place, "_files", lambda uri: pafs.SubTreeFileSystem(str(place.folder), pafs.LocalFileSystem()))
    seal(Place("s3://films/one"), "t", [entry(0)])
    assert len(flushed) == 1
