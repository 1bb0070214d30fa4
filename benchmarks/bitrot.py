"""Single bits flipped anywhere in a catalog's folder: is each found by `tower catalog verify`, or read by nobody?

    python -m benchmarks.bitrot CATALOG [--faults 1000] [--seed 0]

CATALOG is a folder that a render has left. A copy of it gets one fault at a time, with the file's size and time kept; files are
chosen evenly, whatever their size. Besides, every fault in a data file of `takes` is read as a plan reads it: does a reader stop,
or read other rows?
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from catalog.care import verify
from catalog.commit import COPIES, LOG, _prove
from catalog.damage import Checked
from catalog.place import Place
from catalog.schema import VERSION
from catalog.store import Catalog, CatalogError


def part(file: Path) -> str:
    """What of a catalog a file is."""
    if "media" in file.parts:
        return "media"
    if COPIES in file.parts:
        return "copy of a log's file"
    if LOG in file.parts:
        return "log"
    return "data file" if file.suffix == ".parquet" else file.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalog", type=Path)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, counts, readers = random.Random(options.seed), Counter[tuple[str, str]](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="tower-bitrot-") as temporary:
        folder = Path(temporary) / "catalog"
        shutil.copytree(options.catalog, folder)
        takes, place = Catalog(Place.of(folder), VERSION).rows("takes"), Place.of(folder)
        files = sorted(f for f in folder.rglob("*") if f.is_file() and f.stat().st_size)
        for _ in range(options.faults):
            file = rng.choice(files)
            whole, was = file.read_bytes(), file.stat()
            position = rng.randrange(len(whole))
            file.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << rng.randrange(8))]) + whole[position + 1 :])
            os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
            seen = any(p.harmful and p.path.endswith(file.name) for p in verify(place, Checked()))
            counts[part(file.relative_to(folder)), "found" if seen else "not found"] += 1
            if part(file) == "data file" and file.parent.name == "takes":
                readers[_read(place, takes)] += 1
            file.write_bytes(whole)
            os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    shown = Table("part", "faults", "found by verify", "not found", box=None)
    for name in sorted({p for p, _ in counts}):
        found, missed = counts[name, "found"], counts[name, "not found"]
        shown.add_row(name, str(found + missed), str(found), str(missed))
    console = Console(width=150)
    console.print(shown)
    console.print(f"faults in data files of takes, as a plan reads them: {dict(readers)}", highlight=False)


def _read(place: Place, takes: list[dict]) -> str:
    _prove.cache_clear()  # as in a process of its own
    try:
        return "the same rows" if Catalog(place, VERSION).rows("takes") == takes else "other rows"
    except CatalogError:
        return "told"


if __name__ == "__main__":
    main()
