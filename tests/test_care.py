"""Care of a catalog: faults are planted, found, told in a sentence, and do not stop what can go on."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from catalog.care import collect_garbage, compact, verify
from catalog.damage import Checked
from catalog.schema import TABLES
from catalog.store import Catalog, CatalogError

from .conftest import Done, environment, refused, takes_of, tower
from .test_catalog import row


def clip_of(folder: Path, shot: str) -> Path:
    (take,) = [t for t in takes_of(folder) if t["stage"] == "clip" and t["outcome"] == "accepted" and t["shot"] == shot]
    return folder / "catalog-data" / take["media_path"]


def kinds(done) -> list[str]:
    return [problem["kind"] for problem in json.loads(done.out)]


def test_a_whole_catalog_verifies(copied, here):
    done = here("catalog", "verify")
    assert done.code == 0 and "everything that was looked at" in done.out


def test_missing_corrupt_orphaned_and_unfinished_files_are_found(copied, here):
    clip_of(copied, "SH0010").unlink()
    flip_a_bit(clip_of(copied, "SH0020"))
    orphan = copied / "catalog-data" / "media" / "ab" / ("ab" * 32 + ".mp4")
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"nobody's")
    (orphan.parent / ".part-xyz").write_bytes(b"half")
    done = here("catalog", "verify", "--json")
    assert done.code == 1 and sorted(kinds(done)) == ["corrupt", "missing", "orphan", "unfinished"]


def test_garbage_and_parts_of_movies_are_collected_when_they_are_old_and_never_a_takes_media(copied, here):
    catalog = Catalog.open(copied / "catalog-data")
    lost = catalog.media.put(b"a take that a crash left without its row", ".mp4")
    wanted = {p for p in (copied / "catalog-data" / "media").rglob("*.*") if p.name != Path(lost.path).name}
    assert "0 files" in here("catalog", "gc").out, "it is young: its row may be on its way"
    parts = {str(p.relative_to(catalog.place.folder)) for p in (copied / "catalog-data" / "made").rglob("*.*")}
    assert parts and f"{1 + len(parts)} files" in here("catalog", "gc", "--older-than", "0", "--dry-run").out
    assert (catalog.place.folder / lost.path).exists()
    time.sleep(0.01)
    assert {path for path, _ in collect_garbage(catalog, timedelta(0), False)} == {lost.path, *parts}
    assert {p for p in (copied / "catalog-data" / "media").rglob("*.*")} == wanted
    assert here("catalog", "verify").code == 0


def flip_a_bit(file: Path) -> None:
    """As a dying disk does it: size and time stay the same."""
    before, data = file.stat(), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    os.utime(file, (before.st_atime, before.st_mtime))


def test_a_keyframe_that_rotted_is_found_when_its_clip_is_made_and_both_render_again(copied, rendered):
    clip_of(copied, "SH0020").unlink()
    flip_a_bit(copied / "catalog-data" / rendered.accepted("keyframe")["SH0020"]["media_path"])
    done = tower("render", "episode.yaml", cwd=copied)
    assert done.code == 0, done.out + done.err
    assert "is set aside, and its take renders again" in done.out
    new = [t for t in takes_of(copied)[len(rendered.takes) :] if t["outcome"] == "accepted"]
    assert {(t["shot"], t["stage"]): t["media"] for t in new} == {
        ("SH0020", stage): rendered.accepted(stage)["SH0020"]["media"] for stage in ("keyframe", "clip")
    }


def test_a_deleted_and_a_corrupt_file_render_again_and_nothing_else_does(copied, rendered):
    clip_of(copied, "SH0010").unlink()
    flip_a_bit(clip_of(copied, "SH0020"))
    done = tower("render", "episode.yaml", cwd=copied)
    assert done.code == 0, done.out + done.err
    assert "is set aside, and its take renders again" in done.out
    new = takes_of(copied)[len(rendered.takes) :]
    assert {(t["shot"], t["stage"], t["outcome"]) for t in new} == {("SH0010", "clip", "accepted"), ("SH0020", "clip", "accepted")}
    assert {t["media"] for t in new} == {rendered.accepted("clip")[s]["media"] for s in ("SH0010", "SH0020")}, "the same bits again"
    assert (copied / "out" / "E90" / "episode.mp4").read_bytes() == (rendered.out / "episode.mp4").read_bytes()
    assert tower("catalog", "verify", cwd=copied).code == 0


def live_file(folder: Path, table: str) -> Path:
    return Path(max(DeltaTable(str(folder / "catalog-data" / table)).file_uris(), key=lambda f: os.stat(f).st_mtime))


def test_a_truncated_data_file_is_a_sentence_and_repair_lets_the_render_go_on(copied, here, rendered):
    file = live_file(copied, "takes")
    file.write_bytes(file.read_bytes()[:-50])
    refused(here("takes", "E90"), file.name, "its commit says", "tower catalog repair")
    refused(here("plan", "episode.yaml"), file.name, "tower catalog repair")
    done = here("catalog", "verify", "--json")
    assert done.code == 1 and kinds(done) == ["data"]
    assert here("catalog", "repair").code == 0
    assert (copied / "catalog-data" / "damaged" / "takes" / file.name).exists(), "set aside, not deleted"
    left = {t["take"] for t in takes_of(copied)}
    assert left < {t["take"] for t in rendered.takes}
    assert here("plan", "episode.yaml").code == 0
    done = here("catalog", "verify", "--json")
    assert done.code == 0 and set(kinds(done)) <= {"orphan"}


def test_a_half_written_log_entry_is_a_sentence_and_repair_lets_the_render_go_on(copied, here):
    log = sorted((copied / "catalog-data" / "takes" / "_delta_log").glob("*.json"))[-1]
    before = takes_of(copied)
    log.write_text(log.read_text()[: log.stat().st_size // 2])
    refused(here("takes", "E90"), log.name, "is not as it was written", "tower catalog repair")
    done = here("catalog", "verify", "--json")
    assert done.code == 1 and kinds(done) == ["log"]
    assert here("catalog", "repair").code == 0
    assert takes_of(copied) == before and here("plan", "episode.yaml").code == 0
    catalog = Catalog.open(copied / "catalog-data")
    catalog.append("takes", [row(7)])
    assert {p.kind for p in verify(catalog.place, Checked())} <= {"orphan"}


def test_a_lost_data_file_is_a_sentence(copied, here):
    live_file(copied, "takes").unlink()
    refused(here("takes", "E90"), "is missing", "tower catalog repair")
    assert here("catalog", "verify").code == 1
    assert here("catalog", "repair").code == 0 and here("takes", "E90").code == 0


LIBC = ctypes.CDLL(None, use_errno=True)
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # of Linux: <linux/prctl.h>, <linux/capability.h>


def bound_by_modes() -> None:
    """In a child of root, before its exec: what it runs may no longer write whatever root owns. Others are bound anyway."""
    if os.geteuid() == 0 and LIBC.prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the capability cannot be dropped")


def told_to_a_reader(cwd: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command that file modes bind, whoever runs the tests."""
    try:
        return subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=cwd, env=environment(cwd), preexec_fn=bound_by_modes, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    except subprocess.SubprocessError:
        pytest.skip("root here cannot drop the right to write anywhere")


def test_a_read_only_catalog_can_be_read(copied):
    catalog = copied / "catalog-data"
    for path in [catalog, *catalog.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        told = told_to_a_reader(copied, "-m", "pipeline.cli", "takes", "E90", "--json")
        assert told.returncode == 0 and len(json.loads(told.stdout)) == len(Catalog.open(catalog).rows("takes")), told.stderr
        for name in ("new", "takes/new", "takes/_delta_log/new"):
            assert "PermissionError" in told_to_a_reader(copied, "-c", f"open({str(catalog / name)!r}, 'w')").stderr
        told = told_to_a_reader(copied, "-m", "pipeline.cli", "review", "E90", "SH0010", "--approve")
        refused(Done(told.returncode, told.stdout, told.stderr), "is read-only here")
    finally:
        for folder in (path for path in [catalog, *catalog.rglob("*")] if path.is_dir()):
            folder.chmod(0o755)  # pytest removes it one day


def test_a_catalog_where_nothing_can_be_written_is_a_sentence(tmp_path, here):
    (tmp_path / "catalog-data").write_text("a file where the folder should be")
    refused(here("workflows", "list"), "catalog-data", "cannot be")


def live_files(folder: Path) -> int:
    return sum(len(DeltaTable(str(folder / "catalog-data" / name)).file_uris()) for name in TABLES)


def test_compacting_and_vacuuming_change_no_row(copied, here):
    before = takes_of(copied)
    for n in range(5):
        Catalog.open(copied / "catalog-data").append("takes", [row(n)])
    done = here("catalog", "compact")
    assert done.code == 0
    assert len(DeltaTable(str(copied / "catalog-data" / "takes")).file_uris()) == 1
    assert "0 data files" in here("catalog", "vacuum").out, "a week of history is kept"
    assert "data files would be deleted" in here("catalog", "vacuum", "--retain", "0", "--dry-run").out
    unneeded = len(list((copied / "catalog-data").glob("*/*.parquet"))) - live_files(copied)
    assert unneeded > 4 and here("catalog", "vacuum", "--retain", "0").out.strip() == f"{unneeded} data files deleted"
    assert here("catalog", "vacuum", "--retain", "0").out.strip() == "0 data files deleted", "what is gone counts once"
    assert len(list((copied / "catalog-data" / "takes").glob("*.parquet"))) == 1
    assert takes_of(copied) == before and len(takes_of(copied, "E01")) == 5
    assert here("catalog", "verify").code == 0


def test_compacting_joins_rows_that_came_one_by_one(seeded, tmp_path):
    shutil.copytree(seeded, tmp_path / "catalog-data")
    catalog = Catalog.open(tmp_path / "catalog-data")
    for n in range(20):
        catalog.append("takes", [row(n)])
    assert compact(catalog, ["takes"]) == {"takes": (20, 1)}
    (file,) = catalog.dataset("takes").files
    described = pq.read_metadata(tmp_path / "catalog-data" / "takes" / file)
    assert (described.num_rows, described.num_row_groups) == (20, 1), "else a large table's files are mostly descriptions of their parts"


def test_an_export_globs_to_exactly_the_live_rows(copied, here):
    for n in range(5):
        Catalog.open(copied / "catalog-data").append("takes", [row(n)])
    here("catalog", "compact")
    live = Catalog.open(copied / "catalog-data").dataset("takes").count_rows()
    assert len(ds.dataset(copied / "catalog-data" / "takes", exclude_invalid_files=True).files) > 1, (
        "a glob of the table itself counts dead files"
    )
    assert here("catalog", "export", copied / "plain").code == 0
    assert ds.dataset(copied / "plain" / "takes", format="parquet").count_rows() == live
    for name in TABLES:
        plain = ds.dataset(sorted(map(str, (copied / "plain" / name).glob("*.parquet"))), format="parquet")
        rows = Catalog.open(copied / "catalog-data").dataset(name)
        assert (plain.schema.names, plain.count_rows()) == (rows.schema.names, rows.count_rows()), "an empty table has its columns too"
    assert "reviews" in TABLES and not Catalog.open(copied / "catalog-data").rows("reviews"), "one of them is empty"
    refused(here("catalog", "export", copied / "plain"), "not empty")


def test_a_query_reads_tables_and_views_and_nothing_else(copied, here):
    rows = json.loads(here("catalog", "query", "SELECT shot, clip IS NOT NULL AS done FROM shots ORDER BY shot", "--json").out)
    assert rows == [{"shot": s, "done": True} for s in ("SH0010", "SH0020", "SH0030")]
    assert json.loads(here("catalog", "query", "SELECT count(*) AS n FROM takes", "--json").out)[0]["n"] == len(takes_of(copied))
    refused(here("catalog", "query", "SELECT nothing FROM takes"), "query:", "nothing")
    refused(here("catalog", "query", "SELECT at FROM takes"), '"at" needs its quotes')
    refused(here("catalog", "query", "SELECT * FROM read_text('/etc/hostname')"), "query:")
    refused(here("catalog", "query", f"COPY takes TO '{copied / 'x.csv'}'"), "query:")
    assert not (copied / "x.csv").exists()


def test_history_lists_the_commits(copied, here):
    commits = json.loads(here("catalog", "history", "takes", "--json").out)
    assert commits[-1]["operation"].startswith("CREATE") and commits[0]["version"] == len(commits) - 1
    refused(here("catalog", "history", "tooks"), "no table 'tooks'", "takes")


def test_commands_that_look_make_no_catalog(tmp_path, here):
    refused(here("catalog", "verify"), "there is no catalog")
    assert here("status").code == 0
    assert not (tmp_path / "catalog-data").exists()


def test_a_row_is_refused_before_it_could_be_half_written(tmp_path):
    catalog = Catalog.open(tmp_path)
    with pytest.raises(CatalogError, match="no such column"):
        catalog.append("takes", [row(1), row(2, tke="x")])
    assert catalog.rows("takes") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_fills_up_is_a_sentence_and_costs_no_row_that_was_safe(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False).returncode:
        pytest.skip("this machine does not allow mounting")
    try:
        catalog = Catalog.open(disk / "catalog")
        catalog.append("takes", [row(1)])
        filler = disk / "filler"
        with pytest.raises(OSError), filler.open("wb") as out:
            while True:
                out.write(b"x" * 4096)
                out.flush()
        with pytest.raises(CatalogError, match=r"cannot be written: its disk has 0.0 MB free"):
            catalog.append("takes", [row(2)])
        with pytest.raises(OSError, match="No space left"):
            catalog.media.put(b"frames" * 10_000, ".mp4")
        filler.unlink()
        assert [r["attempt"] for r in catalog.rows("takes")] == [1] and list(verify(catalog.place, Checked())) == []
        catalog.append("takes", [row(3)])
        assert [r["attempt"] for r in catalog.rows("takes")] == [1, 3]
    finally:
        subprocess.run(["umount", disk], check=True)
