"""Decodes videos completely, so that gates judge the frames that a player shows and not the claims of a header.

This module, `display` and `frames` are the only ones of `gates` that import PyAV.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from .display import HDR, Display
from .still import MAX_PIXELS, Undecodable, words, working_size
from .timing import Timing

MAX_FRAMES = 4096  # longest clip that gates read: workflows make at most 1,025 frames, and longer videos could fill the memory


def ffmpeg_path(path: Path) -> str:
    """The path as FFmpeg takes it: the name of a file, whatever is in it. `ep1: take 2.mp4` alone would be a protocol called `ep1`."""
    return f"file:{path.absolute()}"


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    small: uint8 RGB (h, w, 3), area-resampled to `working_size`, about 384x256 pixels; smaller frames keep their size.
    picture: the frame at full size, as a player shows it. Only a few frames are converted from it, by `luma` and `rgb`.
    """

    small: np.ndarray
    picture: av.VideoFrame

    def luma(self) -> np.ndarray:
        """uint8 (height, width), full range."""
        return _luma(self.picture)

    def rgb(self) -> np.ndarray:
        """uint8 RGB (height, width, 3)."""
        return self.picture.to_ndarray(format="rgb24")


@dataclass
class Container:
    """Properties of a video file. `rate`, `frames` and `uneven` are right when all frames have been read; the others after the first.

    width, height: pixels, as shown. rate: frames a second (`Timing.rate`); before the end as the header has it, 0 where unknown.
    codec, pixel_format: FFmpeg's names. hint: number of frames that the header promises, 0 where it promises none; a file with fewer
    packets is damaged. frames: number of decoded frames. uneven: words that say which frame comes at another time than an even
    rate has it; empty where none does. hdr: the transfer curve of a clip for HDR screens; empty for others.
    """

    width: int
    height: int
    rate: Fraction
    codec: str
    pixel_format: str
    hint: int
    frames: int = 0
    uneven: str = ""
    hdr: str = ""


class VideoReader:
    """Reads the first video stream frame by frame, with one thread; use as a context manager.

    Args:
        wanted: frames a second that the file should have; taken for its rate where its rounded times fit several.

    Raises:
        Undecodable: the file is no video, is damaged, has no frames, or its frames change their size.
    """

    def __init__(self, path: Path, wanted: Fraction | None = None):
        self.packets, self.wanted = 0, wanted
        try:
            self.file = av.open(ffmpeg_path(path), options={"err_detect": "explode"}, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise Undecodable(words(error)) from error
        if not self.file.streams.video or self.file.streams.video[0].codec_context is None:
            found = "a codec that is not known" if self.file.streams.video else "no video stream"
            self.file.close()
            raise Undecodable(found)
        self.stream = self.file.streams.video[0]
        self.stream.thread_type = "NONE"
        context = self.stream.codec_context
        context.options = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}
        self.rates = [Fraction(r) for r in (self.stream.average_rate, self.stream.guessed_rate, self.stream.base_rate) if r]
        self.container = Container(
            width=context.width,
            height=context.height,
            rate=next(iter(self.rates), Fraction(0)),
            codec=context.name,
            pixel_format=context.pix_fmt or "",
            hint=max(0, self.stream.frames),
        )

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield all frames, but at most MAX_FRAMES + 1: the extra frame shows that the clip is too long."""
        return map(_reduced, self.pictures())

    def pictures(self) -> Iterator[av.VideoFrame]:
        """The frames as a player shows them, at full size. As many as there are `Frame`s."""
        times: list[Fraction | None] = []
        size, display = (0, 0), Display()
        try:
            for picture in self._pictures():
                if picture.is_corrupt:
                    raise Undecodable(f"frame {len(times)} is damaged")
                if not times:
                    size, display = (picture.width, picture.height), Display.of(picture, self.stream.sample_aspect_ratio)
                    self.container.hdr = HDR.get(picture.color_trc, "")
                if (picture.width, picture.height) != size:
                    raise Undecodable(f"frame {len(times)} has another size")
                times.append(None if picture.pts is None or picture.time_base is None else picture.pts * picture.time_base)
                self.container.pixel_format = picture.format.name
                shown = display.shown(picture)
                self.container.width, self.container.height = shown.width, shown.height
                yield shown
                if len(times) > MAX_FRAMES:
                    break
        except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
            raise error if isinstance(error, Undecodable) else Undecodable(words(error)) from error
        if not times:
            raise Undecodable("no frames")
        if len(times) <= MAX_FRAMES and self.packets < self.container.hint:
            raise Undecodable(f"the file ends after {self.packets} of {self.container.hint} frames")
        if self.file.format.name == "avi":  # it has no times of showing, only places in the file: one a frame, in the order of decoding
            times = [*sorted(time for time in times if time is not None)]
        timing = Timing(times)
        self.container.frames, self.container.uneven = len(times), timing.uneven()
        self.container.rate = timing.rate(self.rates, self.wanted)

    def _pictures(self) -> Iterator[av.VideoFrame]:
        for packet in self.file.demux(self.stream):
            self.packets += packet.size > 0
            yield from packet.decode()


def _reduced(picture: av.VideoFrame) -> Frame:
    size = working_size(picture.width, picture.height)
    if (picture.format.name, picture.colorspace, picture.color_range) == ("yuv420p", 1, 1) and size != (picture.width, picture.height):
        return Frame(_small_bt709(picture, size), picture)
    small = picture.reformat(width=size[0], height=size[1], format="rgb24", interpolation="AREA")
    return Frame(_plane(small), picture)


def _small_bt709(picture: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """What `reformat` does, four times as fast: it resizes the planes before converting, and the chroma planes are half-size."""
    planes = [cv2.resize(_plane(picture, i), size, interpolation=cv2.INTER_AREA) for i in range(3)]
    return cv2.transform(cv2.merge(planes), BT709_TO_RGB)


def _luma(picture: av.VideoFrame) -> np.ndarray:
    """Full-range luma, uint8 (height, width). For yuv420p it comes straight from the first plane, which is the fastest way."""
    if picture.format.name == "yuvj420p" or (picture.format.name == "yuv420p" and picture.color_range == 2):
        return _plane(picture)
    if picture.format.name == "yuv420p":
        return LIMITED_TO_FULL[_plane(picture)]
    return _plane(picture.reformat(format="gray"))


def _plane(picture: av.VideoFrame, index: int = 0) -> np.ndarray:
    """A plane of 8-bit samples without a copy: (height, width), or (height, width, 3) where the format is packed RGB."""
    plane, channels = picture.planes[index], 3 if picture.format.name == "rgb24" else 1
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width * channels]
    return rows.reshape(plane.height, plane.width, 3) if channels == 3 else rows


def read_video(path: Path) -> tuple[np.ndarray, Fraction]:
    """Every frame of a video file, uint8 RGB (frames, height, width, 3), and its frames a second.

    Raises:
        Undecodable: as VideoReader.
    """
    with VideoReader(path) as reader:
        return np.stack([frame.rgb() for frame in reader]), reader.container.rate


def length_of(path: Path) -> tuple[int, Fraction]:
    """How many frames a video file has, all of them decoded, and its frames a second.

    Raises:
        Undecodable: as VideoReader.
    """
    with VideoReader(path) as reader:
        for _ in reader:
            pass
    return reader.container.frames, reader.container.rate


# Matrix from ITU-R BT.709 in limited range to full-range RGB; the last column is the offset.
BT709_TO_RGB = np.array(
    [[1.16438, 0.0, 1.79274, -248.1006], [1.16438, -0.21325, -0.53291, 76.8783], [1.16438, 2.1124, 0.0, -289.0175]], np.float32
)
LIMITED_TO_FULL = np.clip(np.round((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)
