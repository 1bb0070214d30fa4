"""Write H.264 files, frame by frame. Equal frames give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace

from gates.decode import ffmpeg_path

# OpenCV lists the CPU features that it was built for. A question mark follows those that this machine lacks.
HAS_AVX512 = any("AVX512" in name and not name.endswith("?") for name in cv2.getCPUFeaturesLine().split())


class VideoFile:
    """An MP4 being written: libx264 High, yuv420p, bt709, constant frame rate, moov at the front.

    Use as a context manager. Width and height, in pixels, must be even. crf: libx264's scale, 0 (lossless) to 51. more: further
    options of libx264.

    One encoder thread: with more, x264's output depends on the number of cores. No AVX-512: with it, x264's macroblock
    tree reads uninitialised memory, so that equal frames sometimes give different bytes.
    """

    def __init__(self, path: Path, width: int, height: int, fps: Fraction, crf: int, more: Mapping[str, str] | None = None):
        self.container = av.open(ffmpeg_path(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"})
        options = {"crf": str(crf), "preset": "medium", "profile": "high", "threads": "1"} | dict(more or {})
        if HAS_AVX512:
            options["x264-params"] = "asm=avx2"
        stream = self.container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.color_range, stream.codec_context.colorspace = 1, 1  # limited range, bt709
        stream.codec_context.color_primaries, stream.codec_context.color_trc = 1, 1
        stream.codec_context.time_base = stream.time_base = 1 / fps
        self.stream, self.count = stream, 0

    def write(self, frame: np.ndarray) -> None:
        """Add one frame: uint8 RGB (height, width, 3)."""
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        self.add(picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG))

    def add(self, picture: av.VideoFrame) -> None:
        """Add one frame that has the file's size, format, matrix and range already (`as_written`)."""
        picture.pict_type = PictureType.NONE  # a decoded frame remembers its own, which would be forced upon the encoder
        picture.pts, picture.time_base = self.count, self.stream.codec_context.time_base
        self.count += 1
        self.container.mux(self.stream.encode(picture))

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.container.mux(self.stream.encode(None))
        finally:
            self.container.close()


def as_written(picture: av.VideoFrame, width: int, height: int) -> bool:
    """Whether a decoded frame is as a VideoFile of that size, in pixels, holds them: it can be added without a conversion."""
    form = picture.width, picture.height, picture.format.name, picture.colorspace, picture.color_range
    return form == (width, height, "yuv420p", Colorspace.ITU709, ColorRange.MPEG)


def write_clip(path: Path, frames: np.ndarray, fps: Fraction, crf: int = 12) -> None:
    """Write frames, uint8 RGB (n, height, width, 3), as a clip. Near-lossless, because clips are encoded again for the episode."""
    with VideoFile(path, frames.shape[2], frames.shape[1], fps, crf) as out:
        for frame in frames:
            out.write(frame)
