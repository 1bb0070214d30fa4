"""Writes files whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.story.errors import StorageError


def put_whole(path: Path, data: bytes) -> None:
    """Write a file. An error leaves no partial file, and no process reads one. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file; one that holds these bytes already stays as it is. An error leaves no partial file.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        if not path.is_file() or path.read_bytes() != data:
            put_whole(path, data)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
