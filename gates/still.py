"""Decodes still pictures as a viewer shows them."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

MAX_PIXELS = 64_000_000  # about twice an 8K frame; a larger picture is a decompression bomb and no keyframe
WORK_WIDTH, WORK_HEIGHT = 384, 256  # pixels: clips are measured at about this size, at their own aspect ratio
PAPER = 255  # level, in all channels, of what shows through transparent pixels: white, as viewers and browsers have it

# Formats whose further pictures follow in time. Elsewhere they are thumbnails, sizes, layers or pages beside the one that is shown.
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "FLI")
REDUCED_COPY = 254  # TIFF's tag NewSubfileType; its bit 0 marks a page as a smaller copy of another
BROKEN = (OSError, ValueError, SyntaxError, KeyError, TypeError, IndexError, struct.error)  # what damaged metadata make Pillow raise
SRGB = ImageCms.createProfile("sRGB")


class Undecodable(ValueError):
    """The file cannot be decoded from its first frame to its last."""


@dataclass(frozen=True)
class Still:
    """A decoded picture.

    image: uint8 RGB (height, width, 3), upright, in sRGB, without alpha.
    frames: number of pictures that the file shows one after another; 1 where it is no animation.
    finite: whether all values in the file were finite.
    """

    image: np.ndarray
    frames: int = 1
    finite: bool = True


def read_still(source: Path | bytes) -> Still:
    """Decode a picture file of any kind that Pillow reads, as a viewer shows it.

    It is turned as its EXIF or XMP orientation says. Its colour profile, CMYK's too, is converted to sRGB; a damaged profile is
    passed over. What is transparent shows PAPER. 16-bit and floating-point pictures are scaled to 8 bits. Of an animation this is
    the first picture.

    Raises:
        Undecodable: the file is no picture, is damaged, or has more than MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            _check_size(picture)
            frames = getattr(picture, "n_frames", 1) if picture.format in ANIMATED else 1
            _seek_full(picture)
            profile, clear = picture.info.get("icc_profile"), picture.info.get("transparency")
            picture.load()  # a PNG may have its orientation after its pixels
            upright = _upright(picture)
            if upright.mode == "F" or upright.mode.startswith("I"):
                return _deep(np.asarray(upright), frames, clear)
            return Still(_flat(upright, profile), frames)
    except Undecodable:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them raise
        raise Undecodable(words(error)) from error


def _check_size(picture: Image.Image) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise Undecodable(f"{picture.width}x{picture.height} pixels are more than the {MAX_PIXELS:,} that are read")


def _seek_full(picture: Image.Image) -> None:
    """Go to the first page that is no smaller copy of another. Cameras put a thumbnail before the picture in some TIFFs."""
    if not isinstance(picture, TiffImageFile):
        return
    for page in range(picture.n_frames):
        picture.seek(page)
        if not int(picture.tag_v2.get(REDUCED_COPY, 0)) & 1:
            break
    else:
        picture.seek(0)
    _check_size(picture)


def _upright(picture: Image.Image) -> Image.Image:
    """The picture, turned and mirrored as its metadata say; as it is stored where they are damaged."""
    try:
        return ImageOps.exif_transpose(picture)
    except BROKEN:
        return picture


def _flat(picture: Image.Image, profile: bytes | None) -> np.ndarray:
    """uint8 RGB (height, width, 3) in sRGB, composed over PAPER.

    Args:
        profile: an ICC profile; None where the picture has none, and is in sRGB.
    """
    if not (picture.has_transparency_data or picture.mode in ("La", "RGBa")):
        return np.asarray(_in_srgb(picture, profile))
    gray = picture.mode in ("1", "L", "LA", "La")
    whole = picture.convert("LA" if picture.mode == "La" else "RGBA")
    alpha = whole.getchannel("A")
    colours = np.asarray(_in_srgb(whole.convert("L" if gray else "RGB"), profile))
    if alpha.getextrema() == (255, 255):
        return colours
    share = np.asarray(alpha, np.float32)[..., None] / 255
    return (colours * share + PAPER * (1 - share)).round().astype(np.uint8)


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture as RGB. A profile that is damaged, or is for another kind of picture, is passed over, as viewers do."""
    try:
        if profile and (managed := _managed(picture, ImageCms.ImageCmsProfile(io.BytesIO(profile)))):
            return managed
        if picture.mode == "LAB":  # CIELAB is a colour space of its own, which Pillow converts only this way
            return _managed(picture, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))) or picture.convert("RGB")
    except (ImageCms.PyCMSError, *BROKEN):
        pass
    return picture.convert("RGB")


def _managed(picture: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image | None:
    """RGB, converted from the profile's colours to sRGB; None where the profile is not for this kind of picture."""
    space = profile.profile.xcolor_space.strip().upper()
    ours = {"CMYK": "CMYK", "LAB": "LAB", "L": "GRAY", "1": "GRAY"}.get(picture.mode, "RGB")
    if space == "RGB" and ours == "GRAY":
        ours = "RGB"  # a gray picture that was saved with the profile of its coloured kin
    if space != ours:
        return None
    mode = {"GRAY": "L", "RGB": "RGB"}.get(ours, ours)
    return ImageCms.profileToProfile(picture.convert(mode), profile, SRGB, outputMode="RGB")


def _deep(values: np.ndarray, frames: int, clear: Any) -> Still:
    """A gray picture with more than 8 bits: integers of 0..65535, or floats of 0..1.

    Args:
        clear: the value that is transparent; None where there is none.
    """
    finite = bool(np.isfinite(values).all())
    scaled = np.nan_to_num(values.astype(np.float64)) * (255 if values.dtype.kind == "f" else 255 / 65535)
    gray = np.clip(np.round(scaled), 0, 255).astype(np.uint8)
    if isinstance(clear, int):
        gray[values == clear] = PAPER
    return Still(np.repeat(gray[..., None], 3, axis=2), frames, finite)


def words(error: Any) -> str:
    """The decoder's own message without the file's name, in one line of at most 200 characters."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than the {MAX_PIXELS:,} pixels that are read"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).replace("<_io.BytesIO object", "<the file").split())[:200]


def working_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of at most about 384x256 pixels with the same aspect ratio. Smaller pictures keep their size.

    No side is below 16 pixels.
    """
    factor = min(1.0, (WORK_WIDTH * WORK_HEIGHT / (height * width)) ** 0.5)
    return max(16, round(width * factor)), max(16, round(height * factor))
