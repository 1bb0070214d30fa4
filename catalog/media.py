"""Media: files named by the SHA-256 of their bytes, written once, whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.fs as pafs

from .place import Place

# Seconds. A file that is younger than its row by more than this was not written for that row, so `has` hashes it.
CLOCK_SLACK = 2.0


class MediaDamaged(RuntimeError):
    """A stored file is missing, or its bytes are not the ones that its name promises. path: relative to the catalog."""

    def __init__(self, path: str, what: str):
        super().__init__(path, what)  # both arguments, so that pickle can rebuild the error that a CPU task raised
        self.path = path

    def __str__(self) -> str:
        return " ".join(self.args)


def digest_in(path: str) -> str:
    """The SHA-256 in the name of a media file; "" where there is no file."""
    return path.rpartition("/")[2].partition(".")[0]


@dataclass(frozen=True)
class Media:
    digest: str
    path: str  # relative to the catalog
    bytes: int


@dataclass(frozen=True)
class MediaStore:
    """The media files of a catalog.

    Safe for many writers: equal bytes are the same file, and a file appears only when it is complete.
    """

    place: Place

    def put(self, data: bytes, suffix: str) -> Media:
        """Store the bytes; on return they are safe on disk. A failed write leaves nothing behind.

        Args:
            suffix: of the file's name, with its dot, such as ".mp4".
        """
        digest = hashlib.sha256(data).hexdigest()
        media = Media(digest, f"media/{digest[:2]}/{digest}{suffix}", len(data))
        if self.place.is_local and self._holds(media.path, digest):  # a damaged file is written again
            os.utime(self.place.folder / media.path)  # an old orphan is needed again, and must look young to `tower catalog gc`
        else:
            self.place.write(media.path, data)
        return media

    def has(self, path: str | None, digest: str | None, size: int | None, committed: float) -> bool:
        """Whether the file exists unchanged since its row was committed.

        The file's size is checked. Its bytes are hashed only where the file is younger than its row: a render of a million
        shots must not read a terabyte before it begins. `tower catalog verify` hashes every file.

        Args:
            path: relative to the catalog. size: bytes. committed: when the row was committed, seconds since 1970.
        """
        if not path or not digest:
            return False
        written = self._written(path, size)
        return written is not None and (written <= committed + CLOCK_SLACK or self._holds(path, digest))

    def _written(self, path: str, size: int | None) -> float | None:
        """When the file was written, seconds since 1970; None where there is no file of that size."""
        if self.place.is_local:
            try:
                found = os.stat(f"{self.place.uri}/{path}")
            except OSError:
                return None
            return found.st_mtime if found.st_size == size else None
        info = self.place.files.get_file_info(path)
        return info.mtime.timestamp() if info.type == pafs.FileType.File and info.size == size else None

    def damage(self, path: str, digest: str) -> str | None:
        """Read all bytes of the file. Returns what is wrong with them, or None."""
        try:
            self.read(path, digest)
        except MediaDamaged as error:
            return str(error)
        return None

    def read(self, path: str, digest: str) -> bytes:
        """The file's bytes, checked against the digest.

        Raises:
            MediaDamaged: the file is missing, cannot be read, or holds other bytes.
        """
        try:
            data = self.place.read(path)
        except OSError as error:
            raise MediaDamaged(path, "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise MediaDamaged(path, "does not hold the bytes that its name promises")
        return data

    def all(self) -> Iterator[pafs.FileInfo]:
        """Every file below `media/`, including parts of unfinished writes."""
        found = self.place.infos("media", recursive=True)
        return (info for info in found if info.type == pafs.FileType.File)

    def _holds(self, path: str, digest: str) -> bool:
        try:
            self.read(path, digest)
        except MediaDamaged:
            return False
        return True
