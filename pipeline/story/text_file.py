"""Text files that people hand over: read whole and within a limit, and written only where none is yet."""

from __future__ import annotations

import codecs
import errno
from pathlib import Path

from .errors import InputError, StorageError
from .yaml_values import shortened

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_bytes(path: Path, most: int, wanted: str) -> bytes:
    """The file's bytes, at most `most` of them.

    Args:
        wanted: what the file should be, such as "a YAML file", for the error message.

    Raises:
        InputError: there is no such file, it is a folder, it is too large, or it cannot be read.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; {wanted} is wanted")
        size = path.stat().st_size
        if size > most:
            raise InputError(f"{path} has {size / 1e6:.0f} MB; a file of at most {most / 1e6:.0f} MB is read")
        with path.open("rb") as file:
            data = file.read(most + 1)  # a device says that it has no bytes, and has no end
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{shortened(str(path), 200)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > most:
        raise InputError(f"{path} has more than {most / 1e6:.0f} MB, which are the most that are read")
    return data


def decoded(path: Path, data: bytes) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises:
        InputError: it is in neither, or holds a NUL, which no text has.
    """
    encoding = "utf-16" if data.startswith(UTF16) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line, name = data.count(b"\n", 0, error.start) + 1, encoding.removesuffix("-sig").upper()
        right = "save the file as UTF-8, or as UTF-16 with a byte order mark"
        raise InputError(f"{path}:{line}: byte {error.start} is not {name}; {right}") from None
    at = text.find("\0")
    if at >= 0:
        raise InputError(f"{path}:{text.count(chr(10), 0, at) + 1}: the file holds a NUL, so it is no text; save it as UTF-8")
    return text


def write_new(path: Path, text: str, choose: str) -> None:
    """Write a file that is not there yet.

    Args:
        choose: how another name is given, for the error message.

    Raises:
        InputError: something of that name is there already, or the name is none.
        StorageError: the disk refused. No partial file is left behind.
    """
    try:
        file = path.open("x", encoding="utf-8", newline="\n")
    except FileExistsError:
        raise InputError(f"{path} is there already, and is not written over; {choose}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{shortened(str(path), 200)!r} cannot be written: {why}; {choose}") from None
    try:
        with file:
            file.write(text)
    except OSError as error:
        path.unlink(missing_ok=True)
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise StorageError(f"{path} cannot be written: {what}") from error
