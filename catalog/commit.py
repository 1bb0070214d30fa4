"""A commit to a table: a data file that is named by its bytes, an entry in the table's log, and a copy of that entry.

Delta reads the log; whoever damages it changes rows in silence, or loses a commit that nobody misses. So each file of a log has a
copy, named by the SHA-256 of its bytes: `catalog/damage.py` compares the two, and `catalog/repair.py` puts one in the place of the other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties
from deltalake.transaction import AddAction, RemoveAction

from .place import Place

LEAST_BYTES = 2**20  # that a disk must have free for a commit: a data file, a log entry, and its copy
CHECKPOINT_EVERY = 100  # commits, so that a reader never reads many entries

LOG, COPIES = "_delta_log", "_copies"  # folders of a table; Delta takes no file below a name with "_" for a data file
HINT = "_last_checkpoint"  # the log's file that says where to begin
LOGGED = re.compile(r"([0-9]{20})\.(json|checkpoint\.parquet)|_last_checkpoint")
COPY = re.compile(r"(.+)\.([0-9a-f]{64})")
DATA = re.compile(r"[0-9a-f]{32}-([0-9a-f]{64})\.parquet")
READERS = 8  # files that are read at once
PER_FOLDER = 1000  # versions, so that the newest copy is found by two short listings

# Tower makes checkpoints and removes old entries itself, since their copies come and go with them.
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
ONE_TRY = CommitProperties(max_commit_retries=0)  # a commit is the version after the one that the table was at, or it fails


def check_writable(place: Place, name: str) -> None:
    """Ask the disk before a commit. The table library prints a panic of its own where it finds this out by itself.

    Raises:
        OSError: the table's folder is read-only here, or the disk has less than LEAST_BYTES free.
    """
    if not place.is_local:
        return
    for folder in (place.folder, place.folder / name, place.folder / name / LOG):
        if folder.is_dir() and not os.access(folder, os.W_OK):
            raise OSError(f"{folder} is read-only here")
    if place.folder.is_dir() and (free := shutil.disk_usage(place.folder).free) < LEAST_BYTES:
        raise OSError(f"its disk has {free / 1e6:.1f} MB free; make room")


def write_data(place: Place, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema, new: bool = True) -> AddAction:
    """Write a data file, named by its bytes, with a checksum for every page. It belongs to the table when it is committed.

    Args:
        new: the rows are new; False where they were in other files of the table.
    """
    sink, rows, low, high, nulls = pa.BufferOutputStream(), 0, [], [], 0
    with pq.ParquetWriter(sink, schema, write_page_checksum=True) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
            if "episode" in schema.names and batch.num_rows:
                column = batch.column(schema.names.index("episode"))
                nulls += column.null_count
                bounds = pc.min_max(column).as_py()
                low += [bounds["min"]] if bounds["min"] is not None else []
                high += [bounds["max"]] if bounds["max"] is not None else []
    data = sink.getvalue().to_pybytes()
    file = f"{uuid.uuid4().hex}-{hashlib.sha256(data).hexdigest()}.parquet"
    place.write(f"{name}/{file}", data)
    stats = {"numRecords": rows}
    if "episode" in schema.names:
        bounds = {"minValues": {"episode": min(low)}, "maxValues": {"episode": max(high)}} if low else {}
        stats |= bounds | {"nullCount": {"episode": nulls}}
    return AddAction(file, len(data), {}, int(time.time() * 1000), new, json.dumps(stats))


def commit(place: Place, name: str, table: DeltaTable, actions: Sequence[AddAction | RemoveAction]) -> int:
    """Commit the actions: all of them or none. On return they are safe on disk. Returns the table's new version.

    Args:
        table: is brought up to date, but not to the new version.

    Raises:
        CommitFailedError: another writer was faster. OSError, DeltaError: the commit could not be written.
    """
    table.update_incremental()
    version = table.version() + 1
    table.create_write_transaction([*actions], "append", table.schema(), commit_properties=ONE_TRY, post_commithook_properties=NO_HOOKS)
    seal(place, name, [entry(version)])
    if version % CHECKPOINT_EVERY == 0:
        table.update_incremental()
        checkpoint(place, name, table)
    return version


def live_files(table: DeltaTable) -> dict[str, int]:
    """Name of each data file with live rows, to its size in bytes as the log has it."""
    actions = pa.table(table.get_add_actions())
    return dict(zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True))


def promised(path: str) -> str | None:
    """The SHA-256 that a data file's name promises; None where the file is older than such names."""
    named = DATA.fullmatch(path.rpartition("/")[2])
    return named[1] if named else None


@cache
def _prove(place: Place, path: str) -> None:
    digest = promised(path)
    if digest and place.digest(path) != digest:
        raise OSError(f"data file {path} does not hold the bytes that its name promises")


def removed(path: str, size: int) -> RemoveAction:
    """The action that takes a data file out of the table, where its rows are in other files now or are lost."""
    return RemoveAction(path, data_change=False, deletion_timestamp=int(time.time() * 1000), size=size)


def checkpoint(place: Place, name: str, table: DeltaTable) -> None:
    """Write the table's state into one file, so that readers need no older entries."""
    table.create_checkpoint()
    seal(place, name, [f"{table.version():020}.checkpoint.parquet", HINT])


def entry(version: int) -> str:
    """Name of a commit's file in the log."""
    return f"{version:020}.json"


def seal(place: Place, name: str, files: Iterable[str]) -> None:
    """Flush files of a table's log to the disk, and write the copy of each.

    A writer that was killed before this leaves a whole commit without a copy; `seal_new` makes up for it.
    """
    for file in files:
        path = f"{name}/{LOG}/{file}"
        if place.is_local:
            place.flush(path)
        data = place.read(path)
        copy = copy_of(name, file, hashlib.sha256(data).hexdigest())
        place.write(copy, data)
        if file == HINT:  # the only file of a log that changes
            for old in place.list(str(Path(copy).parent)):
                if old.startswith(f"{HINT}.") and old != Path(copy).name:
                    place.files.delete_file(f"{name}/{COPIES}/{old}")


def copy_of(name: str, file: str, digest: str) -> str:
    """Path, below the catalog, of a log file's copy."""
    folder = f"{name}/{COPIES}" if file == HINT else f"{name}/{COPIES}/{int(file[:20]) // PER_FOLDER:017}"
    return f"{folder}/{file}.{digest}"


@contextmanager
def log_cleaned(place: Place, name: str) -> Iterator[None]:
    """For work that deletes files of a table's log: their copies go with them."""
    before = set(place.list(f"{name}/{LOG}"))
    yield
    gone = before - set(place.list(f"{name}/{LOG}"))
    for file, digests in copies(place, name).items() if gone else ():
        for digest in digests if file in gone else ():
            place.files.delete_file(copy_of(name, file, digest))


def copies(place: Place, name: str) -> dict[str, list[str]]:
    """Every file of the log that has copies, to the SHA-256 in each copy's name."""
    found: dict[str, list[str]] = {}
    for info in place.infos(f"{name}/{COPIES}", recursive=True):
        if info.type == pafs.FileType.File and (match := COPY.fullmatch(info.base_name)) and LOGGED.fullmatch(match[1]):
            found.setdefault(match[1], []).append(match[2])
    return found


def newest_copied(place: Place, name: str) -> int:
    """The newest version whose entry has a copy; -1 where none has."""
    folders = sorted((f for f in place.list(f"{name}/{COPIES}") if f.isdecimal()), reverse=True)
    for folder in folders:
        versions = [int(file[:20]) for file in place.list(f"{name}/{COPIES}/{folder}") if re.match(r"[0-9]{20}\.json\.", file)]
        if versions:
            return max(versions)
    return -1


def seal_new(place: Place, name: str) -> None:
    """Copy the entries that are newer than all copies: their writers were killed before they had done it."""
    after = newest_copied(place, name)
    log = sorted(f for f in place.list(f"{name}/{LOG}") if LOGGED.fullmatch(f))
    seal(place, name, [f for f in log if after < 0 or (f.endswith(".json") and int(f[:20]) > after)])


def lost_commit(place: Place, name: str) -> int | None:
    """The newest commit that has a copy, if it is gone from the log; None if it is there."""
    newest = newest_copied(place, name)
    there = newest < 0 or place.files.get_file_info(f"{name}/{LOG}/{entry(newest)}").type == pafs.FileType.File
    return None if there else newest


def dataset(table: DeltaTable, place: Place, name: str, schema: pa.Schema) -> ds.FileSystemDataset:
    """The table's live rows.

    Whoever reads a file of this machine's compares it with its digest, once; of a bucket's, every page that is read with its checksum.

    Raises:
        OSError: a data file is missing, or does not hold the bytes that its name promises.
    """
    files = pafs.SubTreeFileSystem(name, place.files)
    plain = table.to_pyarrow_dataset(schema=schema, filesystem=files)
    if place.is_local:
        with ThreadPoolExecutor(READERS) as readers:
            list(readers.map(lambda path: _prove(place, f"{name}/{path}"), plain.files))
    checked = ds.ParquetFileFormat(
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True, page_checksum_verification=True)
    )
    fragments = [
        checked.make_fragment(f.path, filesystem=files, partition_expression=f.partition_expression) for f in plain.get_fragments()
    ]
    return ds.FileSystemDataset(fragments, schema, checked, files)
