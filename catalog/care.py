"""Care of a catalog: find damage, set damaged files aside, delete files that nothing needs, compact and export tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from .damage import Problem, table_problems
from .place import Place
from .schema import TABLES
from .store import Catalog, CatalogError

READERS = 8  # files that `verify` reads at once
ROWS = 2_000_000  # most rows of a file that `export` writes
NAMED = re.compile(r"^media/([0-9a-f]{2})/(\1[0-9a-f]{62})\.[a-z0-9]+\Z")


def verify(catalog: Catalog) -> Iterator[Problem]:
    """Yield every problem of tables and media. All media bytes are hashed again.

    Orphans do no harm; problems of any other kind do.
    """
    broken = list(table_problems(catalog.place))
    yield from broken
    if any(p.path.startswith("takes/") for p in broken):
        return  # without readable takes, nobody knows which media belong to a row
    wanted = _media_of_rows(catalog)
    with ThreadPoolExecutor(READERS) as readers:
        for path, damage in zip(wanted, readers.map(catalog.media.damage, wanted, wanted.values()), strict=True):
            if damage:
                there = catalog.place.files.get_file_info(path).type == pafs.FileType.File
                yield Problem("corrupt" if there else "missing", path, damage)
    for info in catalog.media.all():
        if info.path not in wanted:
            known = NAMED.match(info.path)
            yield Problem("orphan" if known else "unfinished", info.path, f"{info.path} belongs to no take")


def _media_of_rows(catalog: Catalog) -> dict[str, str]:
    rows = catalog.dataset("takes").to_table(columns=["media_path", "media"]).to_pydict()
    return {path: digest for path, digest in zip(rows["media_path"], rows["media"], strict=True) if path and digest}


def repair(catalog_place: Place) -> list[Problem]:
    """Set damaged parts of tables aside, so that the rest can be read. Returns the problems that it found.

    Damaged files are moved to `damaged/`; nothing is deleted. The catalog loses the rows in these files, so Tower
    renders their takes again. The media of these takes are still stored, and equal bytes become the same files.

    Raises:
        CatalogError: a table cannot be repaired.
    """
    moved = list(table_problems(catalog_place))
    for problem in moved:
        if catalog_place.files.get_file_info(problem.path).type == pafs.FileType.File:
            target = f"damaged/{problem.path}"
            catalog_place.files.create_dir(str(Path(target).parent), recursive=True)
            catalog_place.files.move(problem.path, target)
    for name in dict.fromkeys(p.path.split("/")[0] for p in moved):
        try:
            DeltaTable(catalog_place.table(name)).repair()  # removes missing data files from the table's log
        except (DeltaError, OSError) as error:
            why = " ".join(str(error).split())[:200]
            raise CatalogError(f"{name} of catalog {catalog_place} cannot be repaired: {why}; its parts are in damaged/") from error
    return moved


def collect_garbage(catalog: Catalog, older_than: timedelta, dry_run: bool) -> list[tuple[str, int]]:
    """Delete media that belong to no take. Returns (path, bytes) of each.

    Args:
        older_than: younger files stay, because their rows may not be committed yet.
        dry_run: delete nothing.
    """
    before = datetime.now(UTC) - older_than
    old = [info for info in catalog.media.all() if info.mtime < before]
    wanted = _media_of_rows(catalog)  # read after the files were listed, so that a row committed meanwhile keeps its file
    found = [(info.path, info.size) for info in old if info.path not in wanted]
    for path, _ in [] if dry_run else found:
        now = catalog.place.files.get_file_info(path)
        if now.type == pafs.FileType.File and now.mtime < before:  # `MediaStore.put` has not made it young again for a new take
            catalog.place.files.delete_file(path)
    return found


def compact(catalog: Catalog, names: list[str]) -> dict[str, tuple[int, int]]:
    """Join small data files. Returns table to (live files before, live files after). Writers may go on meanwhile.

    Raises:
        CatalogError: a table does not exist, cannot be read, or cannot be compacted now.
    """
    result = {}
    for name in names:
        table = _table(catalog, name)
        before = len(table.file_uris())
        if before > 1:
            try:
                table.optimize.compact()
                table.create_checkpoint()
            except DeltaError as error:
                raise CatalogError(f"{name} cannot be compacted just now: {' '.join(str(error).split())[:200]}") from error
        result[name] = before, len(_table(catalog, name).file_uris())
    return result


def vacuum(catalog: Catalog, retain: timedelta, dry_run: bool) -> list[str]:
    """Delete data files that no version younger than `retain` needs. Returns those that are there, as table/file.

    Time travel then reaches back as far as `retain`, in whole hours, and no farther.
    """
    hours, deleted = int(retain.total_seconds() // 3600), []
    for name in TABLES:
        table = _table(catalog, name)
        unneeded = [f"{name}/{file}" for file in table.vacuum(hours, dry_run=True, enforce_retention_duration=False)]
        if unneeded:  # the log also names the files that an earlier vacuum deleted
            deleted += [info.path for info in catalog.place.files.get_file_info(unneeded) if info.type == pafs.FileType.File]
        if not dry_run:
            table.vacuum(hours, dry_run=False, enforce_retention_duration=False)
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
