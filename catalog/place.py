"""Where a catalog is: a folder, or a prefix in S3-compatible storage."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.fs as pafs

# The engine of the tables (delta-rs) makes URLs of paths, and takes some of them apart twice: it would open `season 1` for `season%201`.
# No way of escaping prevents that, and it follows links to the true folder, so a catalog under such a path is refused before it is made.
UNFIT = re.compile(r"%[0-9A-Fa-f]{2}|[\[\]^|\\]|[\x00-\x1f\x7f]")
PART = ".part-"  # begins the name of a file that is not whole yet
IN_URLS = "/!$&'()*+,;=:@-._~"  # what a URL's path holds as it is


class PlaceError(RuntimeError):
    """No catalog can be in that place. The message goes on after its name and a colon."""


@dataclass(frozen=True)
class Place:
    """An absolute folder or `s3://bucket/prefix`. It holds no connection, so it can be sent to CPU tasks.

    S3 storage is configured by the usual environment variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
    AWS_REGION, AWS_ENDPOINT_URL for storage that is not Amazon's, and AWS_ALLOW_HTTP=true where that
    endpoint has no TLS.
    """

    uri: str

    @classmethod
    def of(cls, place: Path | str | Place) -> Place:
        """The place at a path or an `s3://` address.

        Raises:
            PlaceError: no catalog can be there.
        """
        if isinstance(place, Place):
            return place
        text = str(place)
        if "://" in text:
            return cls(_fit(text.rstrip("/"), "prefix"))
        path = str(Path(text).absolute())
        try:
            _fit(os.path.realpath(path), "folder")
        except (OSError, ValueError) as error:  # ValueError: a NUL
            raise PlaceError(f"no folder can have that name ({error})") from error
        return cls(path)

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri

    @property
    def folder(self) -> Path:
        """The folder of a local catalog."""
        assert self.is_local
        return Path(self.uri)

    def __str__(self) -> str:
        return self.uri

    def table(self, name: str) -> str:
        """Address of the Delta table of that name, as deltalake takes it: a path of this machine as it is, a URL escaped once."""
        return f"{self.uri if self.is_local else _escaped(self.uri)}/{name}"

    def make(self) -> None:
        """Make the folder of a local catalog, and those above it; on return they are safe on disk."""
        if self.is_local:
            _make(self.folder)

    def write(self, path: str, data: bytes) -> None:
        """Write a file, whole or not at all; on return it is safe on disk. A failed write leaves nothing behind.

        Args:
            path: relative to the catalog.
        """
        self._put(path, data, flushed=True)
        if self.is_local:
            _flush((self.folder / path).parent)

    def show(self, path: str, data: bytes) -> None:
        """Write a file that is no record: readers see it whole, but a machine that loses its power may lose it.

        Args:
            path: relative to the catalog.
        """
        self._put(path, data, flushed=False)

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""
        if self.files.get_file_info(path).type == pafs.FileType.File:
            self.files.delete_file(path)

    def _put(self, path: str, data: bytes, flushed: bool) -> None:
        if not self.is_local:
            with self.files.open_output_stream(path) as out:  # object storage shows an object only when it is complete
                out.write(data)
            return
        target = self.folder / path
        _make(target.parent)
        handle, part = tempfile.mkstemp(dir=target.parent, prefix=PART)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                if flushed:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(part, target)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise

    def flush(self, path: str) -> None:
        """Flush a file or a folder of a local catalog, and the folder that holds it, to the disk (fsync)."""
        _flush(self.folder / path)
        _flush((self.folder / path).parent)

    def read(self, path: str) -> bytes:
        """All bytes of a file. Raises OSError."""
        with self.files.open_input_stream(path) as file:
            return file.read()

    def digest(self, path: str) -> str:
        """SHA-256 of a file's bytes, in hexadecimal."""
        with self.files.open_input_stream(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def set_aside(self, path: str) -> None:
        """Move a damaged file to `damaged/`, so that it counts as missing. A file that is missing already stays missing."""
        if self.files.get_file_info(path).type == pafs.FileType.File:
            self.files.create_dir(f"damaged/{Path(path).parent}", recursive=True)
            self.files.move(path, f"damaged/{path}")

    def list(self, folder: str) -> list[str]:
        """Names in a folder; none where it does not exist."""
        return [info.base_name for info in self.infos(folder)]

    def infos(self, folder: str, recursive: bool = False) -> Sequence[pafs.FileInfo]:
        """What is in a folder; nothing where it does not exist."""
        selector = pafs.FileSelector(folder, recursive=recursive, allow_not_found=True)
        try:
            return self.files.get_file_info(selector)
        except FileNotFoundError:  # another process made the folder between two looks of the library
            return self.files.get_file_info(selector)

    @property
    def files(self) -> pafs.FileSystem:
        """The file system; its paths are relative to the catalog."""
        return _files(self.uri)


def _fit(text: str, what: str) -> str:
    found = UNFIT.search(text)
    if found:
        raise PlaceError(f"the engine of the tables cannot read {found[0]!r} in a path; give a {what} whose whole path is without it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PlaceError(f"its name is not text; give a {what} with a name in UTF-8") from error
    return text


def _make(folder: Path) -> None:
    """Make a folder and those above it. A new folder is safe on disk when the folder that holds it was flushed."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush(folder.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _escaped(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{quote(rest, safe=IN_URLS)}"


@cache
def _files(uri: str) -> pafs.FileSystem:
    if "://" not in uri:
        return pafs.SubTreeFileSystem(uri, pafs.LocalFileSystem())
    options: dict[str, Any] = {"region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"}
    if os.environ.get("AWS_ENDPOINT_URL"):
        options["endpoint_override"] = os.environ["AWS_ENDPOINT_URL"]
    return pafs.SubTreeFileSystem(uri.removeprefix("s3://"), pafs.S3FileSystem(**options))
