"""Segments: the parts of the movie that are encoded once. Each shot is one, and each dissolve, between two shots, is one.

A segment is kept in the catalog's cache under a key of all that decides its bytes. It is decoded and checked once, when it is made.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
import PIL
from PIL import Image

from catalog.cache import Cache
from catalog.media import MediaStore
from catalog.place import Place
from catalog.standing import Row
from gates.decode import ffmpeg_path
from pipeline.render.video_file import VideoFile
from pipeline.story.cues import Cue
from pipeline.story.episode import Episode, Shot
from pipeline.story.errors import StorageError
from pipeline.story.fingerprint import digest
from pipeline.story.subtitle import Burnt, burnt, subtitle_layer
from pipeline.story.title import overlay

from .shown import Canvas, Part, Picture, rgb, shown

CRF = 16  # visually lossless for drawings; libx264's scale, 0..51
VERSION = 1  # of what this module and `shown` make from equal settings
MOMENTS = 5  # pictures of a strip, from the shot's first frame to its last
CELL_WIDTH = 216  # pixels of each
LIBRARIES = [av.__version__, cv2.__version__, np.__version__, PIL.__version__]  # what draws and encodes
VIDEO, STRIP = ".mp4", ".jpg"


@dataclass(frozen=True)
class Segment:
    """Frames `first` to `first + frames - 1` of a shot. In a dissolve the next shot's beginning lies over them.

    frames: 0 where dissolves take the whole shot; then there is only a strip. burnt: subtitles in the picture, with their frames in the
    segment.
    """

    name: str  # for people: SH0010, or SH0010-SH0020
    canvas: Canvas
    part: Part
    first: int
    frames: int
    over: Part | None = None
    burnt: tuple[Burnt, ...] = ()

    @cached_property
    def key(self) -> str:
        """SHA-256 of all that decides the bytes: pixels of the clips, the shots' fields, the canvas, the encoder."""
        told = asdict(self) | {"name": "", "fps": str(self.canvas.fps), "crf": CRF, "version": VERSION, "libraries": LIBRARIES}
        told["canvas"] = told["canvas"] | {"fps": ""}
        for part in ("part", "over"):
            told[part] = told[part] and told[part] | {"path": ""}
        return digest(told)

    @property
    def files(self) -> list[str]:
        """Names in the cache of what is made."""
        return [f"{self.key}{suffix}" for suffix, made in ((VIDEO, self.frames > 0), (STRIP, self.over is None)) if made]


def segments_of(episode: Episode, clips: Mapping[str, Row], cues: Sequence[Cue], font: str) -> list[Segment]:
    """The segments of an episode in the order of the movie, as far as there are clips.

    Args:
        clips: shot id to the row of the take that the movie shows. font: SHA-256 of the title font; "" for the built-in.
    """
    in_picture, made = cues if episode.subtitles == "burnt" else (), list[Segment]()
    plain = Canvas(episode.width, episode.height, episode.fps, "")

    def add(name: str, part: Part, first: int, frames: int, over: Part | None, text: list[Burnt]) -> None:
        lettered = part.title or (over and over.title) or text
        made.append(Segment(name, replace(plain, font=font) if lettered else plain, part, first, frames, over, tuple(text)))

    shots = [shot for _, shot in episode.shots]
    parts = {s.id: _part(s, clips[s.id]) for s in shots if s.id in clips}
    for before, (_, shot, start), after in zip([None, *shots], episode.cut, [*shots[1:], None], strict=False):
        begins, ends = shot.transition.frames, after.transition.frames if after else 0
        alone, end = start + begins, start + shot.frames - ends  # the frames of the cut in which the shot is seen alone
        if before and begins and before.id in parts and shot.id in parts:
            name, first = f"{before.id}-{shot.id}", before.frames - begins
            add(name, parts[before.id], first, begins, parts[shot.id], burnt(episode, in_picture, start, alone))
        if shot.id in parts:
            add(shot.id, parts[shot.id], begins, end - alone, None, burnt(episode, in_picture, alone, end))
    return made


def _part(shot: Shot, clip: Row) -> Part:
    return Part(clip["media"], clip["media_path"], shot.frames, shot.fit, shot.title or "", shot.first_frame)


def make_segment(segment: Segment, place: Place, font: bytes | None) -> None:
    """Encode a segment, check it, and keep it in the cache.

    Args:
        place: of the catalog. font: bytes of the title font's file; None for the built-in fonts.

    Raises:
        MediaDamaged: a clip's file is missing, or is not the file that was judged.
        Undecodable: a clip cannot be decoded.
        StorageError: the file is not what was meant, or cannot be written.
    """
    cv2.setNumThreads(1)  # a task has one core
    cache = Cache(place)
    try:
        with tempfile.TemporaryDirectory(prefix="tower-segment-") as folder:
            file = Path(folder) / f"segment{VIDEO}"
            strip = _encode(segment, _Sources(MediaStore(place), font, Path(folder)), file)
            if segment.frames:
                prove(file, segment)
                cache.put(segment.key, VIDEO, file.read_bytes())
            if segment.over is None:
                cache.put(segment.key, STRIP, _jpeg(strip))
    except (OSError, av.FFmpegError) as error:
        raise StorageError(f"segment {segment.name} cannot be written: {getattr(error, 'strerror', None) or error}") from error


@dataclass(frozen=True)
class _Sources:
    """Clips and the font, as files in a folder of the task."""

    store: MediaStore
    font: bytes | None
    folder: Path

    def pictures(self, part: Part, canvas: Canvas, window: range) -> Iterator[Picture]:
        clip = self.folder / f"{part.media}{VIDEO}"
        clip.write_bytes(self.store.read(part.path, part.media))
        return shown(part, canvas, clip, self.font_file, window)

    @cached_property
    def font_file(self) -> Path | None:
        file = self.folder / "font"
        return file if self.font is not None and file.write_bytes(self.font) else None


def _encode(segment: Segment, sources: _Sources, file: Path) -> list[np.ndarray]:
    """Write the segment's file, if it has frames. Gives small pictures of it, or of the whole shot where it has none, evenly spaced."""
    canvas, frames = segment.canvas, segment.frames or segment.part.frames
    moments, strip = [(frames - 1) * k // (MOMENTS - 1) for k in range(MOMENTS)], list[np.ndarray]()
    with VideoFile(file, canvas.width, canvas.height, canvas.fps, CRF) if segment.frames else nullcontext() as video:
        for n, picture in enumerate(_pictures(segment, sources)):
            if video:
                video.write(picture) if isinstance(picture, np.ndarray) else video.add(picture)
            if n in moments:
                strip += [_cell(picture)] * moments.count(n)
    return strip


def _pictures(segment: Segment, sources: _Sources) -> Iterator[Picture]:
    layer = lru_cache(maxsize=1)(lambda one: subtitle_layer(one, segment.canvas.width, segment.canvas.height, sources.font_file))
    for n, picture in enumerate(_blended(segment, sources)):
        one = next((one for one in segment.burnt if one.start <= n < one.end), None)
        yield overlay(rgb(picture), layer(one), 1.0) if one else picture


def _blended(segment: Segment, sources: _Sources) -> Iterator[Picture]:
    window = range(segment.first, segment.first + segment.frames) if segment.frames else range(segment.part.frames)
    mine = sources.pictures(segment.part, segment.canvas, window)
    if segment.over is None:
        yield from mine
        return
    others = sources.pictures(segment.over, segment.canvas, range(segment.frames))
    for n, (one, other) in enumerate(zip(mine, others, strict=True), 1):
        weight = n / (segment.frames + 1)
        yield (rgb(one) * (1 - weight) + rgb(other) * weight).round().astype(np.uint8)


def _cell(picture: Picture) -> np.ndarray:
    image = rgb(picture)
    height = max(1, round(CELL_WIDTH * image.shape[0] / image.shape[1]))
    return cv2.resize(image, (CELL_WIDTH, height), interpolation=cv2.INTER_AREA)


def _jpeg(strip: list[np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.hstack(strip)).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def prove(file: Path, segment: Segment) -> None:
    """Decode a segment completely, and check what `join` relies on.

    Raises:
        StorageError: frames, size or rate are not what was meant, or it does not begin with a keyframe.
    """
    with av.open(ffmpeg_path(file)) as container:
        stream = container.streams.video[0]
        begins = next(container.demux(stream)).is_keyframe
        container.seek(0)
        found = sum(1 for _ in container.decode(stream)), stream.width, stream.height, stream.average_rate, begins
    canvas = segment.canvas
    if found != (segment.frames, canvas.width, canvas.height, canvas.fps, True):
        raise StorageError(
            f"segment {segment.name} has {found[0]} frames of {found[1]}x{found[2]} at {found[3]} fps; "
            f"{segment.frames} of {canvas.width}x{canvas.height} at {canvas.fps} were meant"
        )


def strip_of(segment: Segment, cache: Cache, made: dict[str, str]) -> list[np.ndarray]:
    """The small pictures of a shot's segment: MOMENTS of uint8 RGB (height, CELL_WIDTH, 3). made: what is in the cache. Raises OSError."""
    with cache.opened(made[f"{segment.key}{STRIP}"]) as file, Image.open(file) as strip:
        return np.split(np.asarray(strip), MOMENTS, axis=1)
