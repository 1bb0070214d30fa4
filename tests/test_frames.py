"""Single frames are the frames that a player shows, whatever the file; PyAV's whole decode is what they are held against."""

from __future__ import annotations

import random
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from gates import frames as module
from gates.decode import read_video
from gates.frames import NARROW, filmstrip, frames_at, jpeg, listing, moments
from gates.still import Undecodable
from pipeline.render.video_file import write_clip


def pictures(count: int, height: int = 128, width: int = 192) -> np.ndarray:
    """A pan over coloured cells of 16 pixels: no two frames look alike, and each is predicted from its neighbours."""
    cells = np.random.default_rng(count).integers(0, 256, (height // 16 + 1, width // 16 + 1 + count, 3), np.uint8)
    wall = cells.repeat(16, 0).repeat(16, 1)
    return np.stack([wall[:height, 6 * n : 6 * n + width] for n in range(count)])


def write(path: Path, frames: np.ndarray, codec: str = "libx264", rate: Fraction | int = 24, pixels: str = "yuv420p", **options: str) -> Path:
    """Tagged as BT.709 in limited range, as Tower's own files are; `options`: the encoder's."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixels
        stream.codec_context.color_range, stream.codec_context.colorspace = 1, 1
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels, dst_colorspace=1, dst_color_range=1)
            picture.pts, picture.time_base = number, 1 / Fraction(rate)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


def off(file: Path, order: list[int], shift: int = 0) -> float:
    """Largest mean difference, in levels, of any frame to the one of the same number in a whole decode. shift: a planted miscount."""
    whole, _ = read_video(file)
    found = frames_at(file, [number + shift for number in order])
    assert found.shape == (len(order), *whole.shape[1:]) and found.dtype == np.uint8
    return float(np.abs(found.astype(int) - whole[order]).mean(axis=(1, 2, 3)).max())


SEEKABLE = {
    "as Tower writes": lambda p: write_clip(p / "a.mp4", pictures(61), Fraction(24)) or p / "a.mp4",
    "23.976": lambda p: write_clip(p / "a.mp4", pictures(61), Fraction(24000, 1001)) or p / "a.mp4",
    "one frame": lambda p: write_clip(p / "a.mp4", pictures(1), Fraction(24)) or p / "a.mp4",
    "two frames": lambda p: write_clip(p / "a.mp4", pictures(2), Fraction(8)) or p / "a.mp4",
    "odd size": lambda p: write(p / "a.mp4", pictures(20, 131, 199), pixels="yuv444p"),
    "many keyframes": lambda p: write(p / "a.mp4", pictures(61), g="7", bf="3"),
    "full range": lambda p: write(p / "a.mp4", pictures(20), pixels="yuvj420p"),
    "matroska": lambda p: write(p / "a.mkv", pictures(61), rate=Fraction(30000, 1001)),
    "VP9": lambda p: write(p / "a.webm", pictures(30), "libvpx-vp9"),
    "AV1": lambda p: write(p / "a.mp4", pictures(30), "libsvtav1", preset="12"),
    "MPEG-4": lambda p: write(p / "a.mp4", pictures(30), "mpeg4"),
}  # fmt: skip
OTHERS = {
    "open groups": lambda p: write(p / "a.mp4", pictures(61), **{"x264-params": "open-gop=1:keyint=9:bframes=3"}),
    "10 bits": lambda p: write(p / "a.mp4", pictures(20), pixels="yuv420p10le"),
    "interlaced": lambda p: write(p / "a.mp4", pictures(20), flags="+ildct+ilme", **{"x264-params": "tff=1"}),
    "AVI": lambda p: write(p / "a.avi", pictures(30)),
    "transport stream": lambda p: write(p / "a.ts", pictures(30)),
    "narrow": lambda p: write_clip(p / "a.mp4", pictures(30, 64, 96), Fraction(24)) or p / "a.mp4",
}


@pytest.mark.parametrize(("make", "seekable"), [*((m, True) for m in SEEKABLE.values()), *((m, False) for m in OTHERS.values())], ids=[*SEEKABLE, *OTHERS])
def test_a_frame_asked_for_by_its_number_is_that_frame(tmp_path, make, seekable):
    file = make(tmp_path)
    whole, fps = read_video(file)
    listed = listing(file)
    assert (listed.frames, listed.fps, listed.seekable) == (len(whole), fps, seekable)
    for seed in range(4):
        order = random.Random(seed).choices(range(len(whole)), k=9)
        assert off(file, [0, len(whole) - 1, *order]) == 0
    assert (frames_at(file.read_bytes(), [len(whole) - 1]) == whole[-1]).all()


def test_the_comparison_would_find_the_next_frame(tmp_path):
    assert off(SEEKABLE["as Tower writes"](tmp_path), list(range(60)), shift=1) > 20


def test_what_is_not_seekable_would_be_another_picture_by_seeking(tmp_path, monkeypatch):
    """Else the list of exceptions would be longer than it must be."""
    monkeypatch.setattr(module, "_closed", lambda _: True)
    assert off(OTHERS["open groups"](tmp_path), random.Random(0).choices(range(61), k=30)) > 3


def test_every_width_is_exact(tmp_path):
    """decord gives rows with their padding; from some widths on it never counts the padding for a channel."""
    for width in range(64, 420, 4):
        write_clip(tmp_path / "a.mp4", pictures(5, 64, width), Fraction(24))
        assert listing(tmp_path / "a.mp4").seekable == (width >= NARROW)
        assert off(tmp_path / "a.mp4", [4, 1]) == 0, width


@pytest.mark.parametrize("turned", [True, False], ids=["turned", "not square"])
def test_frames_are_shown_as_a_player_shows_them(tmp_path, turned):
    picture = np.concatenate([np.full((96, 384, 3), 40, np.uint8), np.full((96, 384, 3), 200, np.uint8)])
    stored = np.ascontiguousarray(np.rot90(picture, -1)) if turned else np.ascontiguousarray(picture[:, ::2])
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = stored.shape[1], stored.shape[0], "yuv420p"
        if turned:
            stream.set_display_rotation(90)
        else:
            stream.codec_context.sample_aspect_ratio = Fraction(2)
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        out.mux(stream.encode(None))
    (shown,) = frames_at(tmp_path / "a.mp4", [1])
    assert shown.shape == (192, 384, 3) and np.abs(shown.astype(int) - picture).mean() < 3


@pytest.mark.parametrize("number", [-1, 61, 10**12])
def test_a_number_that_the_file_does_not_have_is_an_error(tmp_path, number):
    with pytest.raises(IndexError, match=f"there is no frame {number}; the file has 61, counted from 0"):
        frames_at(SEEKABLE["as Tower writes"](tmp_path), [0, number])


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["as Tower writes", "open groups", "matroska"])
def test_a_file_that_is_cut_off_is_an_error_and_no_other_frame(tmp_path, kind, share):
    file = (SEEKABLE | OTHERS)[kind](tmp_path)
    whole, data = read_video(file)[0], file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    try:
        found = frames_at(file, [0, 30, 60])
    except (Undecodable, IndexError):
        return
    assert share > 0.99 and (found[:2] == whole[[0, 30]]).all(), "Matroska's last bytes are an index"


@pytest.mark.parametrize("data", [b"", b"no video", bytes(5000), random.Random(1).randbytes(5000)], ids=["empty", "text", "zeros", "noise"])
def test_what_is_no_video_is_an_error(tmp_path, data):
    (tmp_path / "a.mp4").write_bytes(data)
    for source in (tmp_path / "a.mp4", data):
        with pytest.raises(Undecodable):
            frames_at(source, [0])


def test_flipped_bits_crash_nothing(tmp_path):
    """What they do to a picture is for digests and gates to find: decoders paint over it."""
    whole = SEEKABLE["many keyframes"](tmp_path).read_bytes()
    for seed in range(60):
        rng, data = random.Random(seed), bytearray(whole)
        for _ in range(100):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            assert frames_at(bytes(data), [0, 30, 60]).shape[0] == 3
        except (Undecodable, IndexError):
            continue


def test_moments_are_the_first_the_last_and_some_between(tmp_path):
    file = SEEKABLE["as Tower writes"](tmp_path)
    whole, _ = read_video(file)
    assert (moments(file, 5) == whole[[0, 15, 30, 45, 60]]).all() and (moments(file, 1) == whole[[0]]).all()
    strip = filmstrip(file, 4, 64)
    assert strip.shape == (64, 4 * 96, 3)
    for k, number in enumerate((0, 20, 40, 60)):
        small = np.asarray(Image.fromarray(whole[number]).resize((96, 64), Image.Resampling.LANCZOS))
        assert (strip[:, 96 * k : 96 * (k + 1)] == small).all()
    assert moments(SEEKABLE["two frames"](tmp_path), 5).shape == (5, 128, 192, 3)


def test_a_jpeg_is_as_wide_as_asked_and_never_wider_than_its_picture():
    picture = np.full((100, 200, 3), (200, 60, 20), np.uint8)
    for width, size in ((None, (200, 100)), (50, (50, 25)), (900, (200, 100)), (1, (1, 1))):
        with Image.open(BytesIO(jpeg(picture, width))) as found:
            assert (found.format, found.size) == ("JPEG", size)
            assert np.abs(np.asarray(found, int).mean(axis=(0, 1)) - (200, 60, 20)).max() < 4
    assert len(jpeg(pictures(1)[0], quality=40)) < len(jpeg(pictures(1)[0]))
