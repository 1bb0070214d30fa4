"""The pictures and clips of a report, small enough to be mailed. Each is a file in one folder, made once."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from catalog.media import MediaDamaged, MediaStore
from cluster.cores import cores
from gates.frames import filmstrip, jpeg, moments
from gates.still import Undecodable, read_still
from pipeline.render.marks import xmp_in

from .preview import preview, small_size
from .report_facts import Facts, ShotFacts, Take

THUMB, MOMENTS, QUALITY = 224, 8, 78  # pixels at most; frames of a strip; Pillow's scale for JPEG
# Bytes for each pixel of width, measured on drawn clips: what a drawing takes are its outlines, which grow with its width.
FRAME_BYTES, PICTURE_BYTES, STRIP_BYTES = 1.5, 26, 33
ROW_BYTES = 1500  # of the page, for each take


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
        said = xmp_in(io.BytesIO(data))
        thumbs[take.take] = put(f"{_file(take)}_thumb.jpg", jpeg(picture, _thumb(width), QUALITY))
        if take == shot.keyframe:
            keyframe = put(f"{_file(take)}.jpg", jpeg(picture, width, QUALITY, said))
        if take == shot.clip:
            clip = put(f"{_file(take)}.mp4", preview(data, width))
            poster = put(f"{_file(take)}.jpg", jpeg(picture, width, QUALITY, said))
            size = small_size(picture.shape[1], picture.shape[0], width)
            strip = put(f"{_file(take)}_strip.jpg", jpeg(filmstrip(data, MOMENTS, max(1, size[1] // 4)), quality=QUALITY))
    return ShotMedia(keyframe, clip, poster, strip, size, thumbs, lost)


def _thumb(width: int) -> int:
    return min(THUMB, width // 2)


def _file(take: Take) -> str:
    return take.take.split("/", 1)[1].replace("/", "_")


def likely_bytes(facts: Facts, width: int) -> int:
    """About how large the report's files will be. Photographs and grain take more."""
    total = 0.0
    for shot in facts.shots:
        total += sum(ROW_BYTES + min(_thumb(width), take.size[0]) * PICTURE_BYTES for take in shot.takes)
        total += sum(min(width, take.size[0]) * PICTURE_BYTES for take in (shot.keyframe, shot.clip) if take)
        if shot.clip:
            total += min(width, shot.clip.size[0]) * (shot.clip.frames * FRAME_BYTES + STRIP_BYTES)
    return round(total)
