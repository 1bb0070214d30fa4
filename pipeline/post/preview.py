"""A small copy of a clip, to be mailed and to be stepped through in a browser."""

from __future__ import annotations

import io
import tempfile
from fractions import Fraction
from itertools import chain
from pathlib import Path

import cv2

from gates.decode import VideoReader
from gates.frames import listing
from pipeline.render.marks import xmp_box, xmp_in
from pipeline.render.video_file import VideoFile

CRF = 28  # libx264's scale, 0..51; lines of drawings stay clean
STEPPING = {"bf": "0", "g": "24"}  # no B-frames, a keyframe a second at 24 frames: browsers seek to the frame that is asked for


def preview(data: bytes, width: int) -> bytes:
    """The clip as H.264 in MP4 of at most this width: the same frames at the same rate, no B-frames, short groups of pictures.

    It says what the clip says of itself.

    Args:
        data: bytes of the clip's file. width: pixels; a clip that is no wider keeps its size, but for an odd row or column.

    Raises:
        Undecodable: the clip cannot be decoded to its end.
    """
    with tempfile.TemporaryDirectory(prefix="tower-preview-") as folder:
        source, out = Path(folder) / "clip", Path(folder) / "preview.mp4"
        source.write_bytes(data)
        rate = listing(source).fps or Fraction(24)
        with VideoReader(source) as reader:
            pictures = (frame.rgb() for frame in reader)
            first = next(pictures)
            size = small_size(first.shape[1], first.shape[0], width)
            with VideoFile(out, *size, rate, CRF, STEPPING) as file:
                for picture in chain((first,), pictures):
                    file.write(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
        said = xmp_in(io.BytesIO(data))
        return out.read_bytes() + (xmp_box(said) if said else b"")


def small_size(width: int, height: int, most: int) -> tuple[int, int]:
    """(width, height) in even numbers of pixels, of the same shape and at most `most` wide."""
    across = min(width, most)
    return max(2, across // 2 * 2), max(2, min(height // 2, round(height * across / width / 2)) * 2)
