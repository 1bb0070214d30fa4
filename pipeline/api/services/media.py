"""Media of takes: whole files, single frames, filmstrips, curves. What is given was compared with the digest of the take's row."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from catalog.media import MediaDamaged
from catalog.place import Place
from gates.frames import filmstrip, frames_at, jpeg
from gates.still import read_still
from gates.video import Expectation, measure_video
from pipeline.render.marks import xmp_in

SHARP, THUMBNAIL = 95, 82  # JPEG's quality of a frame to be judged, and of one to be found
KEPT_FILES = 2048  # files whose digests are remembered


def stamp(place: Place, path: str, folder: Path) -> tuple[int, int] | None:
    """Size of a media file and when it was written, by which a change is noticed; None where it is not on this machine."""
    try:
        stat = os.stat(f"{place.uri if place.is_local else folder}/{path}")
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def local_file(place: Place, path: str, digest: str, folder: Path) -> Path:
    """Path, on this machine, of a media file whose bytes were compared with its digest.

    Args:
        path: relative to the catalog. folder: where a file of a bucket is kept.

    Raises:
        MediaDamaged: the file is missing, or does not hold the bytes that its row promises.
    """
    file = place.folder / path if place.is_local else _fetched(place, path, folder)
    try:
        stat = file.stat()
        found = _digest(file, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise MediaDamaged(path, "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}") from error
    if found != digest:
        raise MediaDamaged(path, "does not hold the bytes that its name promises")
    return file


@lru_cache(maxsize=KEPT_FILES)
def _digest(file: Path, _size: int, _changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _fetched(place: Place, path: str, folder: Path) -> Path:
    target = folder / path
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(place.read(path))
        os.replace(part, target)
    except FileNotFoundError as error:
        raise MediaDamaged(path, "is missing") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def frame_jpeg(file: Path, number: int, width: int | None) -> bytes:
    """One frame of a clip, or a still as frame 0, as JPEG. In its own size it says what its file says of itself.

    Args:
        number: counted from 0. width: pixels; None for the file's own.

    Raises:
        IndexError: there is no such frame.
        Undecodable: the file cannot be decoded.
    """
    if number and file.suffix == ".png":
        raise IndexError(f"there is no frame {number}; a still has one, number 0")
    picture = read_still(file).image if file.suffix == ".png" else frames_at(file, [number])[0]
    if width is not None:
        return jpeg(picture, width, THUMBNAIL)
    with file.open("rb") as opened:
        return jpeg(picture, None, SHARP, xmp_in(opened))


def strip_jpeg(file: Path, frames: int, height: int) -> bytes:
    """A filmstrip of a clip as JPEG; of a still, the still alone. Raises Undecodable."""
    if file.suffix == ".png":
        picture = read_still(file).image
        return jpeg(picture, round(picture.shape[1] * height / picture.shape[0]), THUMBNAIL)
    return jpeg(filmstrip(file, frames, height), None, THUMBNAIL)


@lru_cache(maxsize=64)
def curves(file: Path) -> tuple[dict[str, list[float]], int, float]:
    """The gate's curves of a clip: measure to its value in each frame; the number of frames; frames a second."""
    measured = measure_video(file, Expectation())
    found = {name: [round(float(value), 5) for value in curve] for name, curve in measured.curves.items()}
    return found, int(measured.values.get("frames", 0)), measured.values.get("fps", 0.0)
