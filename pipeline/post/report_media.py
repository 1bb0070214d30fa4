"""The pictures and clips of a report, small enough to be mailed. Each is a file in one folder, made once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from catalog.media import MediaDamaged, MediaStore
from cluster.cores import cores
from gates.frames import filmstrip, jpeg, moments
from gates.still import Undecodable, read_still

from .preview import preview, small_size
from .report_facts import Facts, ShotFacts, Take

THUMB, MOMENTS, QUALITY = 224, 8, 78  # pixels at most; frames of a strip; Pillow's scale for JPEG
# Bytes of a pixel of clips, pictures and strips, measured on drawn clips of 768x512 at a width of 320. Smaller pictures take more of each.
CLIP_BYTES, PICTURE_BYTES, STRIP_BYTES = 0.008, 0.13, 0.28


@dataclass(frozen=True)
class ShotMedia:
    """Names of a shot's files in the report's folder; "" where the shot has none.

    thumbs: take id to its thumbnail. lost: take id to why it has none, though it has a file.
    """

    keyframe: str
    clip: str
    poster: str
    strip: str
    size: tuple[int, int]
    thumbs: dict[str, str]
    lost: dict[str, str]


def write_media(facts: Facts, store: MediaStore, width: int, folder: Path) -> dict[str, ShotMedia]:
    """Write the files of every shot, as many shots at once as there are cores. Gives the shot's id with the names of its files.

    Args:
        width: pixels, of clips and of keyframes; what is narrower keeps its size. Thumbnails and strips are smaller with it.

    Raises:
        MediaDamaged: the file of a take that stands is missing or damaged.
        Undecodable: it cannot be decoded.
    """
    with ThreadPoolExecutor(cores()) as workers:
        made = [workers.submit(_shot, shot, store, width, folder) for shot in facts.shots]
        try:
            return {shot.id: future.result() for shot, future in zip(facts.shots, made, strict=True)}
        finally:
            workers.shutdown(cancel_futures=True)  # after an error nothing more is begun


def _shot(shot: ShotFacts, store: MediaStore, width: int, folder: Path) -> ShotMedia:
    def put(name: str, data: bytes) -> str:
        (folder / name).write_bytes(data)
        return name

    keyframe = clip = poster = strip = ""
    size, thumbs, lost = (0, 0), {}, {}
    for take in shot.takes:
        if not take.media_path:
            continue
        try:
            data = store.read(take.media_path, take.media)
            picture = read_still(data).image if take.stage == "keyframe" else moments(data, 3)[1]
        except (MediaDamaged, Undecodable) as error:
            if take in (shot.keyframe, shot.clip):
                raise
            lost[take.take] = str(error)
            continue
        thumbs[take.take] = put(f"{_file(take)}_thumb.jpg", jpeg(picture, _thumb(width), QUALITY))
        if take == shot.keyframe:
            keyframe = put(f"{_file(take)}.jpg", jpeg(picture, width, QUALITY))
        if take == shot.clip:
            clip, poster = put(f"{_file(take)}.mp4", preview(data, width)), put(f"{_file(take)}.jpg", jpeg(picture, width, QUALITY))
            size = small_size(picture.shape[1], picture.shape[0], width)
            strip = put(f"{_file(take)}_strip.jpg", jpeg(filmstrip(data, MOMENTS, max(1, size[1] // 4)), quality=QUALITY))
    return ShotMedia(keyframe, clip, poster, strip, size, thumbs, lost)


def _thumb(width: int) -> int:
    return min(THUMB, width // 2)


def _file(take: Take) -> str:
    return take.take.split("/", 1)[1].replace("/", "_")


def likely_bytes(facts: Facts, width: int) -> int:
    """About how large the report's files will be, from the numbers of pixels in them."""
    total = 0.0
    for shot in facts.shots:
        total += sum(_pixels(take, _thumb(width)) for take in shot.takes if take.media_path) * PICTURE_BYTES
        total += sum(_pixels(take, width) for take in (shot.keyframe, shot.clip) if take) * PICTURE_BYTES
        if shot.clip:
            total += _pixels(shot.clip, width) * (shot.clip.frames * CLIP_BYTES + MOMENTS / 16 * STRIP_BYTES)
    return round(total)


def _pixels(take: Take, width: int) -> int:
    across, high = small_size(max(2, take.size[0]), max(2, take.size[1]), width)
    return across * high
