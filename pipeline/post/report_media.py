"""The pictures and clips of a report, small enough to be mailed. Each is a file in one folder, made once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from catalog.media import MediaStore
from gates.frames import filmstrip, jpeg, moments
from gates.still import read_still

from .preview import preview, small_size
from .report_facts import Facts, ShotFacts, Take

THUMB, MOMENTS, STRIP_HEIGHT = 224, 8, 96  # pixels; frames of a strip; pixels
# Measured on the demo's clips scaled up; photographs take more. Bytes of a pixel of a clip, and of one of a picture.
CLIP_BYTES, PICTURE_BYTES = 0.006, 0.16


@dataclass(frozen=True)
class ShotMedia:
    """Names of a shot's files in the report's folder; "" where the shot has none.

    thumbs: take id to its thumbnail. Every take with a file has one.
    """

    keyframe: str
    clip: str
    poster: str
    strip: str
    size: tuple[int, int]
    thumbs: dict[str, str]


def write_media(facts: Facts, store: MediaStore, width: int, folder: Path) -> Iterator[tuple[str, ShotMedia]]:
    """Write the files of every shot, one shot at a time. Gives the shot's id with the names of its files.

    Args:
        width: pixels, of clips and of keyframes; what is narrower keeps its size.

    Raises:
        MediaDamaged: a take's file is missing or damaged.
        Undecodable: it cannot be decoded.
    """
    for shot in facts.shots:
        yield shot.id, _shot(shot, store, width, folder)


def _shot(shot: ShotFacts, store: MediaStore, width: int, folder: Path) -> ShotMedia:
    def put(name: str, data: bytes) -> str:
        (folder / name).write_bytes(data)
        return name

    keyframe = clip = poster = strip = ""
    size, thumbs = (0, 0), {}
    for take in shot.takes:
        if not take.media_path:
            continue
        data = store.read(take.media_path, take.media)
        picture = read_still(data).image if take.stage == "keyframe" else moments(data, 3)[1]
        thumbs[take.take] = put(f"{_file(take)}_thumb.jpg", jpeg(picture, THUMB))
        if take == shot.keyframe:
            keyframe = put(f"{_file(take)}.jpg", jpeg(picture, width))
        if take == shot.clip:
            clip, poster = put(f"{_file(take)}.mp4", preview(data, width)), put(f"{_file(take)}.jpg", jpeg(picture, width))
            strip = put(f"{_file(take)}_strip.jpg", jpeg(filmstrip(data, MOMENTS, STRIP_HEIGHT)))
            size = small_size(picture.shape[1], picture.shape[0], width)
    return ShotMedia(keyframe, clip, poster, strip, size, thumbs)


def _file(take: Take) -> str:
    return take.take.split("/", 1)[1].replace("/", "_")


def likely_bytes(facts: Facts, width: int) -> int:
    """About how large the report's files will be, from the numbers of pixels in them."""
    total = 0.0
    for shot in facts.shots:
        for take in shot.takes:
            total += _pixels(take, THUMB) * PICTURE_BYTES if take.media_path else 0
        for large in filter(None, (shot.keyframe, shot.clip)):
            total += _pixels(large, width) * PICTURE_BYTES
        total += _pixels(shot.clip, width) * shot.clip.frames * CLIP_BYTES if shot.clip else 0
    return round(total)


def _pixels(take: Take, width: int) -> int:
    across, high = small_size(max(2, take.size[0]), max(2, take.size[1]), width)
    return across * high
