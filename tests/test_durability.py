"""What a row promises is on the disk before it counts, told by the kernel: every fsync and every rename of a child, in their order."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from .conftest import environment

STRACE = shutil.which("strace")
CALLS = "?fsync,?fdatasync,?rename,?renameat,?renameat2,?link,?linkat,?open,?openat,?mkdir,?mkdirat"

# A row goes before the first media file: whatever media needs on the disk must not be what makes the row's folders safe.
CHILD = """
import sys
from pathlib import Path
from deltalake import DeltaTable
from catalog.commit import checkpoint
from catalog.store import Catalog
from tests.test_catalog import row

here = Path(sys.argv[1])
catalog = Catalog.open(here / "made" / "catalog")
catalog.append("takes", [row(1)])
(here / "appended").touch()
media = catalog.media.put(b"frames", ".mp4")
(here / "stored").touch()
catalog.append("takes", [row(2, media_path=media.path)])
(here / "referenced").touch()
checkpoint(catalog.place, "takes", DeltaTable(catalog.place.table("takes")))
(here / "checkpointed").touch()
"""


@dataclass(frozen=True)
class Call:
    """A system call that succeeded. began, ended: lines of the record, since another thread may come between the two."""

    name: str
    paths: tuple[str, ...]
    began: int
    ended: int


@dataclass(frozen=True)
class Record:
    """What the child did, and the catalog that it left."""

    here: Path
    calls: list[Call]

    @property
    def catalog(self) -> Path:
        return self.here / "made" / "catalog"

    @cached_property
    def named(self) -> dict[Path, Call]:
        """Each file of the catalog to the call that gave it its name."""
        moves = [c for c in self.calls if c.name.startswith(("rename", "link"))]
        return {Path(c.paths[1]): c for c in moves if Path(c.paths[1]).is_relative_to(self.catalog)}

    def reached(self, moment: str) -> int:
        """When the child touched this file: the step before was done."""
        return next(c.began for c in self.calls if c.name.startswith("open") and c.paths[0] == str(self.here / moment))

    def flushed(self, path: str | Path, after: int, before: int) -> bool:
        flushes = (c for c in self.calls if c.name in ("fsync", "fdatasync") and c.paths[0] == str(path))
        return any(after < c.began and c.ended < before for c in flushes)

    def safe(self, file: Path, before: int) -> bool:
        """Whether the file's bytes and its name were on the disk."""
        call = self.named[file]
        by_engine = file.parent.name == "_delta_log"  # it gives the name first, and flushes nothing
        whole = self.flushed(file, call.ended, before) if by_engine else self.flushed(call.paths[0], -1, call.began)
        return whole and self.flushed(file.parent, call.ended, before)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    here = tmp_path_factory.mktemp("durability").resolve()
    if STRACE is None:
        pytest.skip("strace is not installed, and nothing else here tells a child's system calls")
    if subprocess.run([STRACE, "-o", here / "probe", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow a process to be traced")
    trace = here / "trace"
    command = [STRACE, "-f", "-y", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", trace, sys.executable, "-c", CHILD, here]
    subprocess.run(list(map(str, command)), env=environment(here), check=True, timeout=120)
    return Record(here, list(calls(trace.read_text().splitlines())))


def calls(lines: list[str]) -> Iterator[Call]:
    waiting: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        thread, text = line.split(maxsplit=1)
        began = number
        if text.endswith("<unfinished ...>"):
            waiting[thread] = number, text.removesuffix("<unfinished ...>")
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>", text):
            began, start = waiting.pop(thread)
            text = start + text[resumed.end() :]
        done = re.fullmatch(r"(\w+)\((.*)\)\s+= [0-9]+.*", text)
        if done:
            name, arguments = done.groups()
            paths = re.findall(r"<(.*)>", arguments) if name in ("fsync", "fdatasync") else re.findall(r'"([^"]*)"', arguments)
            yield Call(name, tuple(paths), began, number)


def files_like(record: Record, wanted: Callable[[Path], bool]) -> list[Path]:
    found = [file for file in record.catalog.rglob("*") if file.is_file() and wanted(file.relative_to(record.catalog))]
    assert found
    return found


def test_every_file_of_a_catalog_got_its_name_in_a_call_that_was_seen(record):
    assert set(files_like(record, lambda _: True)) == record.named.keys() & set(record.catalog.rglob("*"))
    assert not [file for file in record.named if file.name.startswith(".part-")]


def test_media_is_on_the_disk_before_its_store_returns(record):
    (media,) = files_like(record, lambda path: path.parts[0] == "media")
    assert record.safe(media, record.reached("stored"))


def test_a_data_file_is_on_the_disk_before_the_log_names_it(record):
    entries = files_like(record, lambda path: path.parts[1] == "_delta_log" and path.suffix == ".json")
    added = {
        entry.parent.parent / action["add"]["path"]: record.named[entry].began
        for entry in entries
        for action in map(json.loads, entry.read_text().splitlines())
        if "add" in action
    }
    assert added.keys() == set(files_like(record, lambda path: len(path.parts) == 2))
    assert [file for file, named in added.items() if not record.safe(file, named)] == []


@pytest.mark.parametrize(
    ("file", "moment"),
    [
        ("takes/_delta_log/00000000000000000001.json", "appended"),
        ("takes/_delta_log/00000000000000000002.json", "referenced"),
        ("takes/_delta_log/00000000000000000002.checkpoint.parquet", "checkpointed"),
        ("takes/_delta_log/_last_checkpoint", "checkpointed"),
    ],
)
def test_a_file_of_the_log_and_its_copy_are_on_the_disk_before_the_commit_counts(record, file, moment):
    logged = record.catalog / file
    (copy,) = files_like(record, lambda path: "_copies" in path.parts and path.parts[0] == "takes" and path.name.startswith(logged.name))
    assert record.safe(logged, record.reached(moment))
    assert record.safe(copy, record.reached(moment))


def test_every_table_of_a_new_catalog_is_on_the_disk_before_its_first_row_counts(record):
    files = files_like(record, lambda path: path.name.startswith("00000000000000000000.json"))
    assert len({file.relative_to(record.catalog).parts[0] for file in files}) * 2 == len(files)
    assert [file for file in files if not record.safe(file, record.reached("appended"))] == []


def test_a_new_folder_is_on_the_disk_before_what_it_holds_counts(record):
    made = {Path(c.paths[0]): c.ended for c in record.calls if c.name.startswith("mkdir") and c.paths[0].startswith(str(record.here))}
    folders = {folder for folder in record.here.rglob("*") if folder.is_dir()}
    assert made.keys() >= folders >= {record.catalog, record.catalog / "takes" / "_delta_log"}
    counts = {folder: record.reached("stored" if "media" in folder.parts else "appended") for folder in folders}
    assert [folder for folder in folders if not record.flushed(folder.parent, made[folder], counts[folder])] == []
