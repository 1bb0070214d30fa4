"""A still is what a viewer shows, for the gate, the plan and the render alike; and a bad one is told before anything renders."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from gates.image import judge_image
from gates.still import MAX_PIXELS, PAPER, Undecodable, read_still
from pipeline.plan.resolve import given_keyframe
from pipeline.render.picture import fill
from pipeline.story.errors import InputError

from .conftest import EPISODE, Done, refused
from .planted import ANIME, GOOD

PICTURE = Image.fromarray(GOOD[0]).resize((96, 64), Image.Resampling.LANCZOS)
UPRIGHT = np.asarray(PICTURE)
T = Image.Transpose
# What a camera does to a picture that it stores with this orientation: the reverse of what a viewer has to do.
STORED = {2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE, 6: T.ROTATE_90, 7: T.TRANSVERSE, 8: T.ROTATE_270}


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.copy().save(buffer, kind, **options)  # type: ignore[arg-type] # a copy, because Pillow leaves the options in what it saved
    return buffer.getvalue()


def off(data: bytes, wanted: np.ndarray = UPRIGHT) -> float:
    """Mean difference in levels between what is read and what is wanted."""
    image = read_still(data).image
    assert image.dtype == np.uint8 and image.shape == wanted.shape, image.shape
    return float(np.abs(image.astype(int) - wanted).mean())


@pytest.mark.parametrize("turn", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_picture_is_turned_as_its_orientation_says(kind, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    quality = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind in ("JPEG", "AVIF") else {}
    assert (
        off(saved(PICTURE.transpose(STORED[turn]), kind, exif=exif.tobytes(), **quality)) < 8
    )  # turned otherwise it is 30 levels off, and more


@pytest.mark.parametrize("mode", ["L", "I;16", "CMYK", "P", "RGBA", "1"])
def test_every_mode_is_turned(mode):
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = deep(PICTURE) if mode == "I;16" else PICTURE.convert(mode)
    wanted = read_still(saved(plain, "TIFF")).image
    assert off(saved(plain.transpose(STORED[6]), "TIFF", exif=exif), wanted) == 0


def test_damaged_metadata_leave_the_picture_as_it_is_stored():
    assert off(saved(PICTURE, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage", icc_profile=b"no profile at all")) == 0


def deep(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)


def hidden(mode: str) -> Image.Image:
    """A picture whose right half is transparent and holds noise that nobody may see."""
    noise = np.random.default_rng(0).integers(0, 256, UPRIGHT.shape, np.uint8)
    image = UPRIGHT.copy()
    image[:, 48:] = noise[:, 48:]
    alpha = np.full(image.shape[:2], 255, np.uint8)
    alpha[:, 48:] = 0
    picture = Image.fromarray(np.dstack([image, alpha]))
    return picture.convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGBA", "PNG"), ("RGBA", "TIFF"), ("RGBA", "WEBP"), ("LA", "PNG"), ("LA", "TIFF"), ("RGBA", "ICO")]
)
def test_what_is_transparent_shows_white(mode, kind):
    options = {"lossless": True} if kind == "WEBP" else {"sizes": [(96, 64)]} if kind == "ICO" else {}
    image = read_still(saved(hidden(mode), kind, **options)).image
    wanted = np.asarray(PICTURE.convert("L").convert("RGB")) if mode == "LA" else UPRIGHT
    assert (image[:, 48:] == PAPER).all() and np.abs(image[:, :48].astype(int) - wanted[:, :48]).mean() < 1


def test_a_transparent_colour_of_a_palette_or_of_plain_pixels_shows_white():
    flat = Image.new("P", (8, 8), 1)
    flat.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    flat.paste(2, (4, 0, 8, 8))
    for kind in ("PNG", "GIF"):
        image = read_still(saved(flat, kind, transparency=2)).image
        assert (image[:, 4:] == PAPER).all() and (image[:, :4] == (10, 200, 10)).all(), kind
    half = read_still(saved(flat, "PNG", transparency=bytes([255, 255, 128]))).image
    assert np.abs(half[0, 7].astype(int) - (132, 132, 227)).max() <= 1
    for mode, clear, shade in (("RGB", (9, 9, 9), (9, 9, 9)), ("L", 9, 9), ("I;16", 9, 9)):
        picture = Image.new(mode, (4, 4), shade)
        assert (read_still(saved(picture, "PNG", transparency=clear)).image == PAPER).all(), mode


def test_half_transparent_pixels_are_mixed_with_white():
    assert (read_still(saved(Image.new("RGBA", (4, 4), (0, 0, 0, 51)), "PNG")).image == 204).all()


def test_sixteen_bits_one_bit_and_gray_stay_right():
    gray = np.asarray(PICTURE.convert("L").convert("RGB"))
    assert off(saved(deep(PICTURE), "PNG"), gray) == 0 and off(saved(deep(PICTURE), "TIFF"), gray) == 0
    assert off(saved(PICTURE.convert("L"), "PNG"), gray) == 0
    assert set(np.unique(read_still(saved(PICTURE.convert("1"), "PNG")).image)) == {0, 255}


def wide_profile() -> bytes:
    """A profile of wide primaries: as sRGB, with other red, green and blue."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for tag, xyz in ((b"rXYZ", (0.6097, 0.3111, 0.0195)), (b"gXYZ", (0.2053, 0.6257, 0.0609)), (b"bXYZ", (0.1492, 0.0632, 0.7446))):
        at = profile.index(tag, 128)
        start = int.from_bytes(profile[at + 4 : at + 8], "big") + 8
        profile[start : start + 12] = b"".join(round(v * 65536).to_bytes(4, "big") for v in xyz)
    return bytes(profile)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_colour_profile_is_converted(mode, kind):
    wide = wide_profile()
    there = ImageCms.profileToProfile(PICTURE, ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(wide)), outputMode="RGB")
    assert there is not None and np.abs(np.asarray(there).astype(int) - UPRIGHT).mean() > 4
    picture = there.quantize(256, dither=Image.Dither.NONE) if mode == "P" else there.convert(mode)
    assert off(saved(picture, kind, icc_profile=wide)) < (4 if mode == "P" else 2)


def test_a_profile_that_is_damaged_or_for_other_pictures_is_passed_over():
    wide = wide_profile()
    for bad in (b"", b"ICC" * 99, wide[:200], wide[:128] + b"\xff" * 300):
        assert off(saved(PICTURE, "PNG", icc_profile=bad)) == 0
    cmyk = PICTURE.convert("CMYK")
    plain = read_still(saved(cmyk, "JPEG", quality=95)).image
    assert off(saved(cmyk, "JPEG", quality=95, icc_profile=wide), plain) == 0
    lab = ImageCms.profileToProfile(PICTURE, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    assert lab is not None and off(saved(lab, "TIFF")) < 2


ONE = {
    "a phone's second picture": lambda other: saved(PICTURE, "MPO", save_all=True, append_images=[other]),
    "a thumbnail behind it": lambda other: saved(PICTURE, "TIFF", save_all=True, append_images=[other.resize((24, 16))]),
    "several sizes": lambda other: saved(PICTURE, "ICO", sizes=[(24, 16), (96, 64)]),
}


@pytest.mark.parametrize("kind", ONE)
def test_pictures_beside_the_one_that_is_shown_are_no_animation(kind):
    data = ONE[kind](PICTURE.rotate(90))
    assert read_still(data).frames == 1 and off(data) < 8
    assert "wrong_frame_count" not in judge_image(data, ANIME).failures


def test_a_thumbnail_before_the_picture_is_not_what_is_shown():
    large = PICTURE.copy()
    large.encoderinfo = {"tiffinfo": {254: 0}}  # how Pillow takes options of a single page
    data = saved(PICTURE.resize((24, 16)), "TIFF", save_all=True, append_images=[large], tiffinfo={254: 1})
    assert off(data) == 0 and read_still(data).frames == 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_an_animation_is_one_and_is_told_by_the_plan(tmp_path, here, kind):
    data = saved(PICTURE, kind, save_all=True, append_images=[PICTURE.rotate(90), PICTURE.rotate(180)], duration=100)
    assert judge_image(data, ANIME).failures[0] == "wrong_frame_count"
    refused(planned(tmp_path, here, data), "SH0010", "keyframe", "still.png", "animation of 3 pictures")


def planned(tmp_path: Path, here: Callable[..., Done], data: bytes) -> Done:
    (tmp_path / "still.png").write_bytes(data)
    (tmp_path / "episode.yaml").write_text(EPISODE.replace("title: A test}", "keyframe: still.png}"))
    return here("plan", "episode.yaml")


BAD = {
    "not a picture": (b"once upon a time", "not a picture"),
    "cut off": (saved(PICTURE, "PNG")[:-2000], "not a picture"),
    "no numbers": (saved(Image.fromarray(np.full((64, 96), np.nan, np.float32)), "TIFF"), "no numbers"),
    "too many pixels": (saved(Image.new("1", (16_000, 16_000)), "PNG"), f"{MAX_PIXELS:,}"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_still_is_one_sentence_of_the_plan(tmp_path, here, kind):
    data, words = BAD[kind]
    refused(planned(tmp_path, here, data), "SH0010", "keyframe", "still.png", words)


def test_a_still_that_a_viewer_shows_is_planned(tmp_path, here):
    for data in (
        saved(PICTURE, "MPO", save_all=True, append_images=[PICTURE]),
        saved(hidden("RGBA"), "WEBP"),
        saved(PICTURE.convert("CMYK"), "JPEG"),
    ):
        assert planned(tmp_path, here, data).code == 0


def test_a_narrow_strip_fills_a_picture_without_filling_the_memory():
    for shape in ((1, 1), (2, 40_000), (40_000, 2)):
        filled = fill(np.full((*shape, 3), 77, np.uint8), 768, 512)
        assert filled.shape == (512, 768, 3) and (filled == 77).all()


def test_a_given_still_that_cannot_be_read_names_file_and_shot(tmp_path):
    (tmp_path / "still.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"shot SH0010: keyframe: file .*still\.png is not a picture"):
        given_keyframe(tmp_path / "episode.yaml", "still.png", "episode.yaml: shot SH0010")
    with pytest.raises(Undecodable):
        read_still(b"")
