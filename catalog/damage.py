"""Finds damage in the files of tables, without opening the catalog. Every byte of a log and of a data file is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from .commit import HINT, LOG, LOGGED, READERS, copies, copy_of, live_files, promised
from .place import PART, Place
from .schema import TABLES

Kind = Literal["missing", "corrupt", "log", "copy", "data", "old data", "unsealed", "orphan", "unfinished"]
HARMLESS = ("unsealed", "orphan", "unfinished")  # nothing that was recorded is lost


@dataclass(frozen=True)
class Problem:
    """One damaged or unneeded file.

    kind: "missing" and "corrupt": a media file that a take needs. "log", "copy": a file of a table's log, or its copy, is gone or
        not as it was written. "data": a data file with live rows. "old data": one that only older versions of a table need.
        "unsealed": a log file without a copy, because its writer was killed; nobody can tell whether it is as it was written.
        "orphan": a media file of no take. "unfinished": what a write left that never ended.
    path: relative to the catalog. what: the problem in words.
    """

    kind: Kind
    path: str
    what: str

    @property
    def harmful(self) -> bool:
        return self.kind not in HARMLESS


@dataclass
class Checked:
    """How many files were compared with a digest; data files from before catalogs had digests could only be read."""

    log_files: int = 0
    data_files: int = 0
    without_digest: int = 0
    media: int = 0


def table_problems(place: Place, checked: Checked | None = None) -> Iterator[Problem]:
    """Yield every damage of the tables. The data files of a table are only looked at where its log is whole."""
    checked = checked or Checked()
    for name in TABLES:
        logged = list(log_problems(place, name, checked))
        yield from logged
        if not any(p.kind == "log" for p in logged):
            yield from data_problems(place, name, checked)


def log_problems(place: Place, name: str, checked: Checked) -> Iterator[Problem]:
    """Compare each file of a table's log with the copies of it, and each copy with the digest in its name."""
    copied = copies(place, name)  # listed first, since a commit is in the log before it has a copy
    listed = place.list(f"{name}/{LOG}")
    for left in sorted(f for f in listed if not LOGGED.fullmatch(f)):
        yield Problem("unfinished", f"{name}/{LOG}/{left}", f"{name}/{LOG}/{left} was never finished")
    log = {f for f in listed if LOGGED.fullmatch(f)}
    checked.log_files += len(log)
    with ThreadPoolExecutor(READERS) as readers:
        for found in readers.map(lambda f: _logged(place, name, f, copied.get(f, []), f in log), sorted(log | copied.keys())):
            yield from found


def _logged(place: Place, name: str, file: str, digests: list[str], there: bool) -> list[Problem]:
    path, found = f"{name}/{LOG}/{file}", []
    for digest in digests:
        copy = copy_of(name, file, digest)
        if place.digest(copy) != digest:
            found.append(Problem("copy", copy, f"copy {copy} is not as it was written"))
    if not there:
        return [*found, Problem("log", path, f"{_told(name, file)} is gone: {path} is missing")]
    actual = place.digest(path)
    if not digests:
        if not _whole(place, path):
            return [Problem("log", path, f"log entry {path} is not whole: that commit never ended, or the disk lost it")]
        return [Problem("unsealed", path, f"{path} has no copy to compare it with: its writer was killed, or the copy is gone")]
    if actual not in digests:
        found.append(Problem("log", path, f"{_told(name, file)} is not as it was written: {path} was changed or cut"))
    for digest in digests if len(digests) > 1 else []:
        if digest != actual:
            found.append(Problem("log", copy_of(name, file, digest), f"{_told(name, file)} was written twice, and one of them is gone"))
    return found


def _told(name: str, file: str) -> str:
    if file == HINT:
        return f"the log's hint of {name}"
    return f"{'commit' if file.endswith('.json') else 'checkpoint'} {int(file[:20])} of {name}"


def _whole(place: Place, path: str) -> bool:
    """Whether a log file is of its form; a checkpoint and the hint are only looked at by Delta."""
    data = place.read(path)
    if not path.endswith(".json"):
        return bool(data)
    try:
        return bool(data.strip()) and all(isinstance(json.loads(line), dict) for line in data.decode().splitlines())
    except ValueError:
        return False


def data_problems(place: Place, name: str, checked: Checked) -> Iterator[Problem]:
    """Compare each data file of a table with the digest in its name and the size in the log."""
    try:
        live = live_files(DeltaTable(place.table(name)))
    except TableNotFoundError:
        return
    except (DeltaError, OSError, ValueError) as error:
        yield Problem("log", f"{name}/{LOG}", f"the log of {name} cannot be read: {' '.join(str(error).split())[:200]}")
        return
    there = {
        i.base_name: i.size
        for i in place.infos(name)
        if i.type == pafs.FileType.File
    }
    for left in sorted(f for f in there if f.startswith(PART)):
        yield Problem("unfinished", f"{name}/{left}", f"{name}/{left} was never finished")
    files = sorted(live.keys() | {f for f in there if f.endswith(".parquet") and not f.startswith(PART)})
    checked.data_files += len(files)
    checked.without_digest += sum(promised(f) is None for f in files)
    with ThreadPoolExecutor(READERS) as readers:
        faults = readers.map(lambda f: _data_fault(place, f"{name}/{f}", there.get(f), live.get(f)), files)
        for file, fault in zip(files, faults, strict=True):
            if fault:
                old = "" if file in live else "; only older versions of the table need it"
                yield Problem("data" if file in live else "old data", f"{name}/{file}", f"data file {name}/{file} {fault}{old}")


def _data_fault(place: Place, path: str, size: int | None, logged: int | None) -> str | None:
    """What is wrong with a data file; None where nothing is. size: in bytes; None where it is missing. logged: the size in the log."""
    if size is None:
        return "is missing"
    if logged is not None and size != logged:
        return f"has {size} bytes, and its commit says {logged}"
    digest = promised(path)
    try:
        if digest:
            return None if place.digest(path) == digest else "does not hold the bytes that its name promises"
        with place.files.open_input_file(path) as file:
            pq.ParquetFile(file).read()
    except (pa.ArrowException, OSError) as error:
        return f"cannot be read: {' '.join(str(error).split())[:120]}"
    return None
