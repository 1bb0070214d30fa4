"""Single frames of a video file, for people and learned judges to look at: sheets, strips, pages. Gates judge whole files (`decode`)."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np
from PIL import Image

from .decode import VideoReader, ffmpeg_path
from .display import Display
from .still import Undecodable, words
from .timing import Timing

decord.logging.set_level(decord.logging.QUIET)
INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # FFmpeg's names; in AVI, decord gives other last frames from time to time
NARROW = 192  # pixels; decord takes the padding of some rows below it for a fourth channel: at 96 and 144, for one
JPEG_QUALITY = 88  # Pillow's scale, 1..95; drawings keep their lines


@dataclass(frozen=True)
class Listing:
    """What a file promises, told without decoding it: its number of frames, and frames a second (0 where unknown).

    seekable: whether decord shows its frames as a player does, whichever is asked for. See `frames_at`.
    """

    frames: int
    fps: Fraction
    seekable: bool


def listing(path: Path) -> Listing:
    """Read the times of all packets, and decode one frame.

    Raises:
        Undecodable: the file is no video, or is cut off.
    """
    try:
        with av.open(ffmpeg_path(path), metadata_errors="replace") as file:
            if not file.streams.video or file.streams.video[0].codec_context is None:
                raise Undecodable("no video stream" if not file.streams.video else "a codec that is not known")
            stream = file.streams.video[0]
            first = next(file.decode(stream), None)
            if first is None:
                raise Undecodable("no frames")
            file.seek(0)
            packets = [packet for packet in file.demux(stream) if packet.size]
            if len(packets) < stream.frames or any(packet.is_corrupt for packet in packets):
                raise Undecodable(f"the file ends after {len(packets)} of {stream.frames} frames")
            times = sorted(packet.pts * packet.time_base for packet in packets if packet.pts is not None and packet.time_base)
            rates = [Fraction(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
            timed = file.format.name in INDEXED and len(times) == len(packets)
            return Listing(len(packets), Timing(times).rate(rates), timed and _closed(packets) and _as_stored(first, stream))
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise error if isinstance(error, Undecodable) else Undecodable(words(error)) from error


def _closed(packets: Sequence[av.Packet]) -> bool:
    """Whether every group of pictures stands alone: in an open one, frames that are shown before its keyframe need the group before."""
    key: int | None = None
    for packet in packets:
        if packet.is_discard:
            return False
        if packet.is_keyframe:
            key = packet.pts or 0
        elif key is None or packet.pts is None or packet.pts < key:
            return False
    return True


def _as_stored(picture: av.VideoFrame, stream: av.VideoStream) -> bool:
    """Whether a player shows the pictures as decord reads them: upright, square pixels, whole frames, 8 bits, colours without a guess."""
    tagged, display = picture.colorspace, Display.of(picture, stream.sample_aspect_ratio)
    display.shown(picture)  # tags what players guess
    deep = any(part.bits != 8 for part in picture.format.components)
    plain = display == Display() and picture.colorspace == tagged and not deep and not picture.interlaced_frame
    return plain and picture.width >= NARROW


def frames_at(source: Path | bytes, numbers: Sequence[int]) -> np.ndarray:
    """The frames of these numbers, counted from 0 in the order shown, as a player shows them: uint8 RGB (n, height, width, 3).

    The same pictures as `decode.VideoReader` gives. decord seeks to them; where it would show others (open groups of pictures, pixels
    that are not square, turned or interlaced pictures, more than 8 bits, high definition without a colour tag, under NARROW pixels, other
    containers than MP4 and Matroska), the file is decoded from its beginning instead.

    As players do, decord paints over damage inside a frame. So the bytes must be known to be whole, by a digest or by a gate.

    Raises:
        Undecodable: the file is no video, is cut off, or one of the frames cannot be decoded.
        IndexError: the file has no frame of that number.
    """
    with _named(source) as path:
        listed = listing(path)
        for number in numbers:
            if not 0 <= number < listed.frames:
                raise IndexError(f"there is no frame {number}; the file has {listed.frames}, counted from 0")
        return _sought(path, numbers, listed.frames) if listed.seekable else _read(path, numbers)


@contextmanager
def _named(source: Path | bytes) -> Iterator[Path]:
    """A file's path; of bytes, that of a file that holds them for a while."""
    if isinstance(source, Path):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="tower-frames-") as folder:
        path = Path(folder) / "clip"
        path.write_bytes(source)
        yield path


def _sought(path: Path, numbers: Sequence[int], count: int) -> np.ndarray:
    try:
        reader = decord.VideoReader(ffmpeg_path(path), ctx=decord.cpu(0), num_threads=1)
        if len(reader) == count:
            return reader.get_batch(list(numbers)).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError, AssertionError) as error:
        raise Undecodable(f"frames {_listed(numbers)} cannot be decoded") from error
    raise Undecodable(f"{len(reader)} of {count} frames can be decoded")


def _read(path: Path, numbers: Sequence[int]) -> np.ndarray:
    found: dict[int, np.ndarray] = {}
    with VideoReader(path) as reader:
        for number, frame in enumerate(reader):
            if number in numbers:
                found[number] = frame.rgb()
            if len(found) == len(set(numbers)):
                return np.stack([found[number] for number in numbers])
    raise Undecodable(f"frames {_listed([number for number in numbers if number not in found])} cannot be decoded")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers))[:5])) + (" …" if len(set(numbers)) > 5 else "")


def moments(source: Path | bytes, count: int) -> np.ndarray:
    """Frames spaced evenly over a clip, its first and last among them: uint8 RGB (count, height, width, 3). Short clips repeat some.

    Raises:
        Undecodable: as `frames_at`.
    """
    with _named(source) as path:
        return frames_at(path, np.linspace(0, listing(path).frames - 1, count).round().astype(int).tolist())


def filmstrip(source: Path | bytes, count: int, height: int) -> np.ndarray:
    """`moments` side by side, each scaled to this height in pixels: uint8 RGB (height, width, 3).

    Raises:
        Undecodable: as `frames_at`.
    """
    pictures = moments(source, count)
    width = max(1, round(pictures.shape[2] * height / pictures.shape[1]))
    return np.concatenate([np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.LANCZOS)) for p in pictures], axis=1)


def jpeg(picture: np.ndarray, width: int | None = None, quality: int = JPEG_QUALITY, xmp: bytes = b"") -> bytes:
    """A picture, uint8 RGB (height, width, 3), as JPEG.

    Args:
        width: pixels to scale to; a picture that is no wider keeps its size. xmp: a packet that the file shall have; empty for none.
    """
    image, data = Image.fromarray(picture), io.BytesIO()
    if width and width < image.width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    image.save(data, "JPEG", quality=quality, optimize=True, **({"xmp": xmp} if xmp else {}))
    return data.getvalue()
