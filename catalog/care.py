"""Care of a catalog: prove it, delete files that nothing needs, compact and export tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from .cache import Cache
from .commit import (
    NO_HOOKS,
    READERS,
    check_writable,
    checkpoint,
    commit,
    dataset,
    live_files,
    log_cleaned,
    promised,
    removed,
    seal_new,
    write_data,
)
from .damage import Checked, Problem, table_problems
from .media import digest_in
from .place import Place
from .schema import TABLES, VERSION
from .store import Catalog, CatalogError

SMALL = 64 * 2**20  # bytes of a data file that is not joined with others
FULL = 256 * 2**20  # bytes of rows in memory that become one data file
TOGETHER = 10_000  # rows that a data file describes together; to describe each commit's few would take more room than the rows
ROWS = 2_000_000  # most rows of a file that `export` writes
NAMED = re.compile(r"^media/([0-9a-f]{2})/(\1[0-9a-f]{62})\.[a-z0-9]+\Z")


def verify(place: Place, checked: Checked, media: bool = True) -> Iterator[Problem]:
    """Yield every problem of tables and media. All bytes of both are read and hashed again.

    Args:
        checked: counts what was looked at. media: whether to look at media too.
    """
    broken = list(table_problems(place, checked))
    yield from broken
    if not media or any(p.kind in ("log", "data") and p.path.startswith(("takes/", "stories/")) for p in broken):
        return  # without readable rows, nobody knows which media belong to a row
    catalog = Catalog(place, VERSION)
    wanted = _media_of_rows(catalog)
    checked.media = len(wanted)
    with ThreadPoolExecutor(READERS) as readers:
        for path, damage in zip(wanted, readers.map(catalog.media.damage, wanted, wanted.values()), strict=True):
            if damage:
                there = place.files.get_file_info(path).type == pafs.FileType.File
                yield Problem("corrupt" if there else "missing", path, f"media {path} {damage.removeprefix(path).strip()}")
    for info in catalog.media.all():
        if info.path not in wanted:
            known = NAMED.match(info.path)
            yield Problem("orphan" if known else "unfinished", info.path, f"{info.path} belongs to no take and no story")


def _media_of_rows(catalog: Catalog) -> dict[str, str]:
    """Path of every media file that a take or a story names, to its digest."""
    table = catalog.dataset("takes").to_table(columns=["media_path", "media"])
    table = table.filter(pc.field("media_path").is_valid() & pc.field("media").is_valid()).group_by(["media_path", "media"]).aggregate([])
    there = "stories" in catalog.place.list("")  # the table came with version 8, and an older catalog can be looked at too
    stories = [path for row in catalog.rows("stories", columns=["files"]) for path in row["files"].values()] if there else []
    return dict(zip(table["media_path"].to_pylist(), table["media"].to_pylist(), strict=True)) | {path: digest_in(path) for path in stories}


def collect_garbage(catalog: Catalog, older_than: timedelta, dry_run: bool) -> list[tuple[str, int]]:
    """Delete media that belong to no take and no story, and what can be made again and was not used. Returns (path, bytes) of each.

    Args:
        older_than: younger files stay, because their rows may not be committed yet.
        dry_run: delete nothing.
    """
    before = datetime.now(UTC) - older_than
    old = [info for info in (*catalog.media.all(), *Cache(catalog.place).all()) if info.mtime < before]
    wanted = _media_of_rows(catalog)  # read after the files were listed, so that a row committed meanwhile keeps its file
    found = [(info.path, info.size) for info in old if info.path not in wanted]
    for path, _ in [] if dry_run else found:
        now = catalog.place.files.get_file_info(path)
        if now.type == pafs.FileType.File and now.mtime < before:  # nobody has made it young again meanwhile, for a new take or movie
            catalog.place.files.delete_file(path)
    return found


def compact(catalog: Catalog, names: list[str]) -> dict[str, tuple[int, int]]:
    """Join small data files, and give those a digest that have none. Returns table to (live files before, live files after).

    Writers may go on meanwhile.

    Raises:
        CatalogError: a table does not exist, cannot be read, or cannot be compacted now.
    """
    return {name: _compact(catalog, name) for name in names}


def _compact(catalog: Catalog, name: str) -> tuple[int, int]:
    place, table = catalog.place, _table(catalog, name)
    live = live_files(table)
    chosen = {path for path, size in live.items() if size < SMALL or not promised(path)}
    if len(chosen) < 2 and all(map(promised, live)):
        return len(live), len(live)
    rows = dataset(table, place, name, TABLES[name].schema)
    joined = ds.FileSystemDataset([f for f in rows.get_fragments() if f.path in chosen], rows.schema, rows.format, rows.filesystem)
    try:
        check_writable(place, name)
        seal_new(place, name)
        made = [write_data(place, name, batches, rows.schema, new=False) for batches in _in_files(joined)]
        commit(place, name, table, [*(removed(path, live[path]) for path in chosen), *made])
        table.update_incremental()
        checkpoint(place, name, table)
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise CatalogError(f"{name} cannot be compacted just now: {' '.join(str(error).split())[:200]}") from error
    return len(live), len(live) - len(chosen) + len(made)


def _in_files(rows: ds.Dataset) -> Iterator[list[pa.RecordBatch]]:
    """The rows, in lists of batches that each become a data file."""
    batches, size = [], 0
    for batch in rows.to_batches():
        batches.append(batch)
        size += batch.nbytes
        if size > FULL:
            yield _joined(batches)
            batches, size = [], 0
    if batches:
        yield _joined(batches)


def _joined(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    return pa.Table.from_batches(batches).combine_chunks().to_batches(max_chunksize=TOGETHER)


def vacuum(catalog: Catalog, retain: timedelta, dry_run: bool) -> list[str]:
    """Delete data files that no version younger than `retain` needs. Returns those that are there, as table/file.

    Time travel then reaches back as far as `retain`, in whole hours, and no farther. Log entries go too, where a checkpoint stands for
    them and they are older than Delta keeps them (30 days).

    Raises:
        CatalogError: a table cannot be read or written.
    """
    hours, deleted, place = int(retain.total_seconds() // 3600), [], catalog.place
    for name in TABLES:
        table = _table(catalog, name)
        unneeded = [f"{name}/{file}" for file in table.vacuum(hours, dry_run=True, enforce_retention_duration=False)]
        if unneeded:  # the log also names the files that an earlier vacuum deleted
            deleted += [info.path for info in place.files.get_file_info(unneeded) if info.type == pafs.FileType.File]
        if not dry_run:
            try:
                check_writable(place, name)
                seal_new(place, name)
                with log_cleaned(place, name):
                    table.vacuum(hours, dry_run=False, enforce_retention_duration=False, post_commithook_properties=NO_HOOKS)
                    seal_new(place, name)
                    _table(catalog, name).cleanup_metadata()
            except (DeltaError, OSError) as error:
                raise CatalogError(f"{name} of catalog {place} cannot be written: {' '.join(str(error).split())[:200]}") from error
    return deleted


def export(catalog: Catalog, folder: Path) -> dict[str, int]:
    """Write the live rows as plain Parquet files, `<folder>/<table>/part-0.parquet`. Returns table to number of rows.

    Raises:
        CatalogError: the folder is not empty or cannot be written, or a table cannot be read.
    """
    here, counts = pafs.LocalFileSystem(), {}  # given, because pyarrow would take `s3:x` for an address
    try:
        if folder.exists() and any(folder.iterdir()):
            raise CatalogError(f"folder {folder} is not empty; an export goes to a new one, so that a glob finds nothing else")
        for name in TABLES:
            rows, target = catalog.dataset(name), str(folder.absolute() / name)
            ds.write_dataset(rows, target, filesystem=here, format="parquet", max_rows_per_file=ROWS, existing_data_behavior="error")
            counts[name] = rows.count_rows()
            if not counts[name]:  # pyarrow writes no file for no rows, and a reader's glob would find nothing
                Path(target).mkdir(parents=True, exist_ok=True)
                pq.write_table(rows.schema.empty_table(), Path(target) / "part-0.parquet", filesystem=here)
    except (OSError, ValueError) as error:
        raise CatalogError(f"folder {folder} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    return counts


def history(catalog: Catalog, name: str) -> list[dict[str, Any]]:
    """The commits of a table, newest first."""
    return [
        {
            "version": h["version"],
            "at": datetime.fromtimestamp(h["timestamp"] / 1000, UTC),
            "operation": h["operation"],
            "rows": (h.get("operationMetrics") or {}).get("num_added_rows"),
        }
        for h in _table(catalog, name).history()
    ]


def _table(catalog: Catalog, name: str) -> DeltaTable:
    if name not in TABLES:
        raise CatalogError(f"there is no table {name!r}; the tables are {', '.join(TABLES)}")
    try:
        return DeltaTable(catalog.place.table(name))
    except (DeltaError, OSError) as error:
        raise CatalogError(f"{name} of catalog {catalog.place} cannot be read: {' '.join(str(error).split())[:200]}") from error
