"""Writes small files whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.story.errors import StorageError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file; one that holds these bytes already stays as it is. An error leaves no partial file.

    Raises:
        StorageError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.is_file() and path.read_bytes() == data:
            return
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
