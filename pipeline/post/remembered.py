"""What a run wrote into an episode's folder, as its summary remembers it: the next run writes nothing again that has not changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# of: digest of what the file was made of. bytes: its size. at: when it was written, nanoseconds since 1970.
Remembered = dict[str, Any]


def as_it_is(file: Path, of: str) -> Remembered | None:
    """What to remember of a file that was made of `of`; None if it is not there."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return {"of": of, "bytes": found.st_size, "at": found.st_mtime_ns}


def unchanged(file: Path, of: str, before: Any) -> bool:
    """Whether a file is the one that was remembered, and would be made of the same today."""
    return isinstance(before, dict) and before == as_it_is(file, of)
