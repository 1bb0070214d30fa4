"""Files that can be made again, each under a key that says all that decides it. The folder may be emptied at any time."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from .place import Place

FOLDER = "made"
NAMED = re.compile(rf"^{FOLDER}/([0-9a-f]{{2}})/(\1[0-9a-f]{{62}})-([0-9a-f]{{64}})(\.[a-z0-9]+)\Z")


@dataclass(frozen=True)
class Cache:
    """The files in `made/` of a catalog, named `KEY-DIGEST.suffix`: the digest is of the bytes, so that damage is found.

    Safe for many writers. A file appears only when it is complete; on a machine that loses its power it may be lost or damaged.
    """

    place: Place

    def put(self, key: str, suffix: str, data: bytes) -> None:
        """Keep the bytes. key: SHA-256 in hexadecimal of all that decides them. suffix: with its dot, such as ".mp4"."""
        self.place.show(f"{FOLDER}/{key[:2]}/{key}-{hashlib.sha256(data).hexdigest()}{suffix}", data)

    def there(self) -> dict[str, str]:
        """`KEY.suffix` of every file, to its path."""
        found = self.place.infos(FOLDER, recursive=True)
        return {f"{m[2]}{m[4]}": info.path for info in found if info.type == pafs.FileType.File and (m := NAMED.match(info.path))}

    def whole(self, path: str) -> bool:
        """Whether a file holds the bytes that its name promises. One that does not is removed.

        One that does looks young to `gc`, where the catalog is a folder.
        """
        try:
            digest = self.place.digest(path)
        except OSError:
            return False
        if f"-{digest}." not in path:
            self.place.remove(path)
            return False
        if self.place.is_local:
            os.utime(self.place.folder / path)
        return True

    @contextmanager
    def opened(self, path: str) -> Iterator[Path]:
        """A local file with the bytes of a file. Raises OSError."""
        if self.place.is_local:
            yield self.place.folder / path
            return
        with tempfile.TemporaryDirectory(prefix="tower-made-") as folder:  # and no open file: a movie has hundreds of parts
            file = Path(folder) / Path(path).name
            file.write_bytes(self.place.read(path))
            yield file

    def all(self) -> Iterator[pafs.FileInfo]:
        """Every file in the folder, including parts of unfinished writes."""
        return (info for info in self.place.infos(FOLDER, recursive=True) if info.type == pafs.FileType.File)
