"""Every kind of damage to a catalog: `verify` tells it, `repair` mends it or says what is lost, and the next render goes on."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from catalog.cache import FOLDER, Cache
from catalog.care import compact, vacuum, verify
from catalog.commit import COPIES, DATA, HINT, LOG, checkpoint
from catalog.damage import Checked
from catalog.place import Place
from catalog.repair import repair
from catalog.schema import TABLES, VERSION
from catalog.store import Catalog, CatalogError

from .conftest import refused, takes_of, tower
from .test_catalog import row


def cut(file: Path, _: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path, _: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def grow(file: Path, _: Path) -> None:
    with file.open("ab") as out:
        out.write(b"\0 more")


def swap(file: Path, other: Path) -> None:
    mine, yours = file.read_bytes(), other.read_bytes()
    file.write_bytes(yours)
    other.write_bytes(mine)


def miss(file: Path, _: Path) -> None:
    file.unlink()


FAULTS: dict[str, Callable[[Path, Path], None]] = {
    "missing": miss,
    "truncated": cut,
    "bit flipped": flip,
    "other size": grow,
    "swapped": swap,
}


def damage(file: Path, fault: str, other: Path) -> None:
    """As a disk does it: the file's time stays what it was."""
    times = [(f, f.stat()) for f in (file, other)]
    FAULTS[fault](file, other)
    for f, was in times:
        if f.exists():
            os.utime(f, (was.st_atime, was.st_mtime))


def with_checkpoint(folder: Path) -> Path:
    """The catalog in a folder, with a checkpoint of its takes and two commits after it."""
    catalog = Catalog.open(folder / "catalog-data")
    table = DeltaTable(catalog.place.table("takes"))
    checkpoint(catalog.place, "takes", table)
    for n in (91, 92):
        catalog.append("takes", [row(n)])
    return folder / "catalog-data"


def entries(catalog: Path) -> list[Path]:
    return sorted((catalog / "takes" / LOG).glob("*.json"))


def copy(catalog: Path, name: str) -> Path:
    (found,) = (catalog / "takes" / COPIES).rglob(f"{name}.*")
    return found


def data(catalog: Path, number: int) -> Path:
    return sorted((catalog / "takes").glob("*.parquet"))[number]


def clips(catalog: Path) -> list[Path]:
    return sorted((catalog / "media").rglob("*.mp4"))


# Part of a catalog to (the damaged file, the file that it is swapped with, kind of the problem, whether rows or media are lost).
PARTS: dict[str, Callable[[Path], tuple[Path, Path, str, bool]]] = {
    "data file": lambda c: (data(c, 0), data(c, 1), "data", True),
    "first log entry": lambda c: (entries(c)[0], entries(c)[1], "log", False),
    "log entry": lambda c: (entries(c)[2], entries(c)[1], "log", False),
    "newest log entry": lambda c: (entries(c)[-1], entries(c)[-2], "log", False),
    "checkpoint": lambda c: (next((c / "takes" / LOG).glob("*.checkpoint.parquet")), data(c, 0), "log", False),
    "hint": lambda c: (c / "takes" / LOG / HINT, entries(c)[0], "log", False),
    "copy": lambda c: (copy(c, entries(c)[2].name), copy(c, entries(c)[1].name), "copy", False),
    "head": lambda c: (copy(c, entries(c)[-1].name), copy(c, entries(c)[-2].name), "copy", False),
    "media": lambda c: (clips(c)[0], clips(c)[1], "corrupt", True),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("part", PARTS)
def test_every_damage_is_told_and_mended(copied, part, fault):
    folder = with_checkpoint(copied)
    before = Catalog.open(folder).rows("takes")
    file, other, kind, loses = PARTS[part](folder)
    if (part, fault) in {("checkpoint", "swapped"), ("hint", "swapped")}:
        other = file.with_name("other")  # a file of the same kind from elsewhere
        other.write_bytes(file.read_bytes()[::-1])
    damage(file, fault, other)
    place = Place.of(folder)
    told = [p for p in verify(place, Checked()) if str(file.relative_to(folder)) in p.path]
    expected = {"missing": {"media": "missing", "copy": "unsealed", "head": "unsealed"}.get(part, kind)}.get(fault, kind)
    if expected == "unsealed":  # of a copy that is gone, the file that it was of is told
        told = [p for p in verify(place, Checked()) if p.kind == "unsealed"]
    assert [p.kind for p in told] == [expected], told
    if part == "newest log entry" and fault == "missing":
        with pytest.raises(CatalogError, match=r"has lost commit \d+ of takes; `tower catalog repair` puts it back"):
            Catalog.open(folder)
    mended = list(repair(place))
    for problem in [p for p in verify(place, Checked()) if p.kind == "corrupt"]:
        place.set_aside(problem.path)
    left = {p.kind for p in verify(place, Checked())}
    after = Catalog.open(folder).rows("takes")
    if part == "media":
        assert left == {"missing"} and after == before
        return
    assert mended and left <= {"orphan", "unfinished"}, "mended once, nothing is left to mend"
    if loses:
        assert any(m.lost for m in mended) and all(r in before for r in after) and len(after) < len(before)
    else:
        assert after == before, "no row is lost"
    Catalog.open(folder).append("takes", [row(93)])
    assert not [p for p in verify(place, Checked()) if p.harmful]


@pytest.mark.ray
def test_after_damage_of_every_part_a_repair_and_a_render_give_the_same_episode(copied, here, rendered):
    folder = with_checkpoint(copied)
    for part, fault in {
        "newest log entry": "missing",
        "first log entry": "bit flipped",
        "checkpoint": "truncated",
        "hint": "other size",
        "copy": "bit flipped",
        "data file": "bit flipped",
        "media": "bit flipped",
    }.items():
        file, other, *_ = PARTS[part](folder)
        damage(file, fault, other)
    clips(folder)[1].unlink()
    refused(here("plan", "episode.yaml"), "tower catalog repair")
    assert here("catalog", "verify").code == 1
    done = here("catalog", "repair")
    assert done.code == 0 and "`tower render` makes again what is missing" in done.out
    done = tower("render", "episode.yaml", cwd=copied)
    assert done.code == 0, done.out + done.err
    assert here("catalog", "verify").code == 0
    media = {
        (t["shot"], t["stage"]): t["media"]
        for t in takes_of(copied)
        if t["outcome"] == "accepted" and t["shot"] in ("SH0010", "SH0020", "SH0030")
    }
    assert media == {(t["shot"], t["stage"]): t["media"] for t in rendered.takes if t["outcome"] == "accepted"}, "the same bits again"
    assert (copied / "out" / "E90" / "episode.mp4").read_bytes() == (rendered.out / "episode.mp4").read_bytes()


def test_a_log_whose_entry_and_copy_are_both_damaged_loses_that_commit_and_no_other(copied):
    folder = with_checkpoint(copied)
    catalog = Catalog.open(folder)
    for n in (94, 95, 96):
        catalog.append("takes", [row(n)])
    before = catalog.rows("takes")
    middle = entries(folder)[-2]
    damage(copy(folder, middle.name), "truncated", middle)
    damage(middle, "truncated", middle)
    mended = list(repair(Place.of(folder)))
    assert any(m.lost and "no whole copy" in m.done for m in mended)
    assert [r["take"] for r in Catalog.open(folder).rows("takes")] == [r["take"] for r in before if r != before[-2]]


def test_a_table_that_has_lost_its_first_entry_and_the_copy_is_told_to_be_beyond_repair(copied, here):
    folder = copied / "catalog-data"
    copy(folder, entries(folder)[0].name).unlink()
    entries(folder)[0].unlink()
    assert here("catalog", "verify").code == 1
    refused(here("catalog", "repair"), "takes", "cannot be repaired", "a backup or an export")


def test_a_commit_that_another_took_the_number_of_is_told_and_committed_again(copied):
    folder = with_checkpoint(copied)
    entries(folder)[-1].unlink()
    late = Catalog(Place.of(folder), 0)  # opened by a driver before the entry was lost
    late.append("takes", [row(97)])
    (problem,) = [p for p in verify(Place.of(folder), Checked()) if p.harmful]
    assert "was written twice" in problem.what
    assert [m.done for m in repair(Place.of(folder)) if m.problem.kind == "log"] == ["committed once more"]
    assert {r["take"] for r in Catalog.open(folder).rows("takes")} >= {row(n)["take"] for n in (91, 92, 97)}
    assert not [p for p in verify(Place.of(folder), Checked()) if p.harmful]


def test_a_writer_that_was_killed_before_its_copy_was_made_is_told_and_the_next_writer_makes_it(copied, here):
    folder = copied / "catalog-data"
    copy(folder, entries(folder)[-1].name).unlink()
    done = here("catalog", "verify", "--json")
    assert done.code == 0 and "no copy to compare it with" in done.out
    Catalog.open(folder).append("takes", [row(98)])
    assert not [p for p in verify(Place.of(folder), Checked()) if p.kind == "unsealed"]


def test_a_data_file_that_rotted_is_told_by_whoever_reads_it(tmp_path):
    catalog = Catalog.open(tmp_path)
    catalog.append("takes", [row(n) for n in range(40)])
    file = data(tmp_path, 0)
    whole = file.read_bytes()
    for position in range(0, len(whole), len(whole) // 50):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(CatalogError, match=r"data file .* does not hold the bytes that its name promises"):
            Catalog(Place.of(tmp_path), VERSION).rows("takes")


def test_random_faults_anywhere_are_told_or_change_nothing_that_is_read(copied):
    folder, rng = with_checkpoint(copied), random.Random(0)
    compact(Catalog.open(folder), ["takes"])
    place = Place.of(folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    for file in rng.sample(files, 60):
        whole, was = file.read_bytes(), file.stat()
        position = rng.randrange(len(whole))
        file.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << rng.randrange(8))]) + whole[position + 1 :])
        os.utime(file, (was.st_atime, was.st_mtime))
        told = any(p.path.endswith(file.name) and p.harmful for p in verify(place, Checked()))
        told = told or (file.is_relative_to(folder / FOLDER) and not Cache(place).whole(str(file.relative_to(folder))))
        assert told or file.name in ("model-digests.json", "sound-files.json"), (file, position)
        file.write_bytes(whole)
        os.utime(file, (was.st_atime, was.st_mtime))


def test_tables_from_before_digests_are_told_so_and_compacting_gives_them_digests(tmp_path, here):
    from .test_migrations import unpack

    unpack(5, tmp_path / "catalog-data")
    Catalog.open(tmp_path / "catalog-data")
    done = here("catalog", "verify")
    assert done.code == 0 and "are older than digests and could only be read" in done.out
    assert here("catalog", "compact").code == 0
    assert here("catalog", "vacuum", "--retain", "0").code == 0
    done = here("catalog", "verify")
    assert done.code == 0 and "older than digests" not in done.out
    live = [f for name in TABLES for f in DeltaTable(str(tmp_path / "catalog-data" / name)).file_uris()]
    assert live and all(DATA.fullmatch(Path(f).name) for f in live)


def test_vacuum_deletes_old_entries_that_a_checkpoint_stands_for_with_their_copies(tmp_path):
    catalog = Catalog.open(tmp_path)
    for n in range(5):
        catalog.append("takes", [row(n)])
    compact(catalog, ["takes"])
    catalog.append("takes", [row(9)])
    log = tmp_path / "takes" / LOG
    for file in log.iterdir():
        os.utime(file, (0, 0))  # older than any table keeps its entries
    before = catalog.rows("takes")
    vacuum(catalog, timedelta(0), dry_run=False)
    assert not (log / f"{1:020}.json").exists() and not list((tmp_path / "takes" / COPIES).rglob(f"{1:020}.json.*"))
    catalog = Catalog.open(tmp_path)
    assert catalog.rows("takes") == before and not [p for p in verify(catalog.place, Checked()) if p.harmful]
    catalog.append("takes", [row(10)])
    assert len(catalog.rows("takes")) == 7
