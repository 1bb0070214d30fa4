"""Media: files named by the SHA-256 of their bytes, written once, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


class MediaDamaged(RuntimeError):
    """A stored file is missing, or its bytes are not the ones that its name promises."""


@dataclass(frozen=True)
class Media:
    digest: str
    path: str  # relative to the catalog
    bytes: int


@dataclass(frozen=True)
class MediaStore:
    """A folder of files. Safe for many writers: equal bytes are the same file, and the rename is atomic."""

    root: Path

    def put(self, data: bytes, suffix: str) -> Media:
        """Store the bytes; on return they are on disk. Nothing is left behind if the disk is full."""
        digest = hashlib.sha256(data).hexdigest()
        relative = f"media/{digest[:2]}/{digest}{suffix}"
        target = self.root / relative
        if not self._holds(target, digest):  # a damaged file is written anew
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=target.parent, prefix=".part-")
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(data)
                    out.flush()
                    os.fsync(out.fileno())
                os.replace(part, target)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
            _fsync_folder(target.parent)
        return Media(digest, relative, len(data))

    def has(self, relative: str | None, digest: str | None) -> bool:
        """Whether the file is there and holds exactly the bytes that the digest names."""
        return bool(relative and digest) and self._holds(self.root / str(relative), str(digest))

    @staticmethod
    def _holds(file: Path, digest: str) -> bool:
        try:
            with file.open("rb") as data:
                return hashlib.file_digest(data, "sha256").hexdigest() == digest
        except OSError:
            return False

    def read(self, relative: str, digest: str) -> bytes:
        """The bytes, proven to be those that the digest names."""
        try:
            data = (self.root / relative).read_bytes()
        except OSError as error:
            raise MediaDamaged(f"{relative} cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise MediaDamaged(f"{relative} does not hold the bytes that its name promises")
        return data


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
