"""`tower gate` on files as the world has them: hostile, odd, or simply not ours."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import threading
import time
from fractions import Fraction
from multiprocessing import active_children
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gates.decode import MAX_FRAMES, VideoReader, read_video
from gates.measures import VIDEO
from gates.rules import judge
from gates.still import Undecodable, read_still
from gates.verdict import LABELS, Finding
from gates.video import Expectation, measure_video
from pipeline.evidence.gate_file import Question, gate_files, judge_file
from pipeline.render.video_file import write_clip

from .conftest import Done, refused, tower
from .planted import ANIME, FPS, FRAMES, GOOD, HEIGHT, WIDTH

SMALL = np.stack([cv2.resize(f, (96, 64), interpolation=cv2.INTER_AREA) for f in GOOD[:25]])


def lines(done: Done) -> list[dict]:
    """The JSON of every line; nothing went wrong on the way."""
    assert done.code in (0, 1) and "Traceback" not in done.err, (done.code, done.err)
    rows = [json.loads(line) for line in done.out.splitlines()]
    for row in rows:
        assert {"file", "outcome", "failures", "warnings", "measures"} <= set(row)
        assert set(row["failures"]) | set(row["warnings"]) <= set(LABELS)
        assert row["outcome"] == ("fail" if row["failures"] else "warn" if row["warnings"] else "pass")
    assert done.code == int(any(r["outcome"] == "fail" for r in rows))
    return rows


def encode(path: Path, frames: np.ndarray, codec: str, pixel_format: str, times: list[int] | None = None, **options: str) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixel_format
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = times[i] if times else i
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_clip(tmp_path / "clip.mp4", SMALL, FPS)
    return tmp_path / "clip.mp4"


def test_two_hundred_bit_flipped_files_each_get_a_verdict(tmp_path, clip):
    whole = clip.read_bytes()
    for seed in range(200):
        rng, data = random.Random(seed), bytearray(whole)
        for _ in range(500):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / f"flipped-{seed:03d}.mp4").write_bytes(data)
    rows = lines(tower("gate", "video", *sorted(tmp_path.glob("flipped-*.mp4")), "--frames", "25", "--json", cwd=tmp_path))
    assert len(rows) == 200
    assert sum("undecodable" in r["failures"] for r in rows) >= 199


CONTAINERS = {
    "clip.mp4": ("libx264", "yuv420p"), "clip.mov": ("prores_ks", "yuv422p10le"), "clip.mkv": ("libx265", "yuv420p"), "clip.webm": ("libvpx-vp9", "yuv420p"),
    "old.webm": ("libvpx", "yuv420p"), "clip.avi": ("mpeg4", "yuv420p"), "clip.flv": ("flv", "yuv420p"), "clip.ts": ("mpeg2video", "yuv420p"),
    "clip.gif": ("gif", "rgb8"), "lossless.mkv": ("ffv1", "yuv420p"), "clip.nut": ("huffyuv", "yuv422p"), "av1.mp4": ("libsvtav1", "yuv420p"),
    "clip.mpg": ("mpeg1video", "yuv420p"),
}  # fmt: skip
PICTURES = ("png", "jpg", "webp", "gif", "bmp", "tif", "avif", "tga", "ppm", "jp2", "ico", "dds")


def mutilated(whole: bytes, rng: random.Random) -> bytes:
    """The file as a bad disk or a broken transfer leaves it: cut, with wrong bits, with a hole, with a piece twice, or with a wrong head."""
    data, at, size = bytearray(whole), rng.randrange(len(whole)), rng.randrange(1, max(2, len(whole) // 4))
    match rng.randrange(5):
        case 0:
            return bytes(data[:at])
        case 1:
            for _ in range(rng.choice((1, 20, 500))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 2:
            data[at : at + size] = bytes(len(data[at : at + size]))
        case 3:
            data[at:at] = data[at : at + size]
        case _:
            for _ in range(8):
                data[rng.randrange(min(256, len(data)))] = rng.randrange(256)
    return bytes(data)


def mutilations(files: list[Path], folder: Path, number: int) -> list[Path]:
    made = []
    for n in range(number):
        whole = files[n % len(files)]
        made.append(folder / f"{n:03d}-{whole.name}")
        made[-1].write_bytes(mutilated(whole.read_bytes(), random.Random(n)))
    return made


def test_five_hundred_mutilated_files_of_every_format_each_get_a_verdict(tmp_path):
    clips = [encode(tmp_path / name, SMALL, *how) for name, how in CONTAINERS.items()]
    stills = [tmp_path / f"still.{suffix}" for suffix in PICTURES]
    for still in stills:
        Image.fromarray(SMALL[0]).resize((96, 64)).save(still)
    for kind, files in (("video", clips), ("image", stills)):
        whole = lines(tower("gate", kind, *files, "--json", cwd=tmp_path))
        assert not [row for row in whole if "undecodable" in row["failures"]], "before they are mutilated, all are read"
        damaged = mutilations(files, tmp_path, 250)
        done = tower("gate", kind, *damaged, "--json", cwd=tmp_path, timeout=300)
        assert done.code in (0, 1) and "Traceback" not in done.err
        assert [row["file"] for row in lines(done)] == [str(file) for file in damaged]
        assert any("undecodable" in row["failures"] for row in lines(done))


def test_truncated_empty_and_disguised_files_fail_as_undecodable(tmp_path, clip):
    whole = clip.read_bytes()
    damaged = {
        "half": whole[: len(whole) // 2],
        "nearly": whole[:-200],
        "head": whole[:64],
        "empty": b"",
        "text": b"once upon a time\n" * 99,
    }
    for name, data in damaged.items():
        (tmp_path / f"{name}.mp4").write_bytes(data)
        (tmp_path / f"{name}.png").write_bytes(data)
    done = tower("gate", "video", *(f"{n}.mp4" for n in damaged), "--frames", "25", "--json", cwd=tmp_path)
    assert [r["failures"] for r in lines(done)] == [["undecodable"]] * len(damaged)
    done = tower("gate", "image", *(f"{n}.png" for n in damaged), "--json", cwd=tmp_path)
    assert [r["failures"] for r in lines(done)] == [["undecodable"]] * len(damaged)


def test_a_video_without_frames_and_one_without_end(tmp_path):
    with av.open(str(tmp_path / "none.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        out.start_encoding()
    noise = np.random.default_rng(0).integers(0, 255, (50, 32, 32, 3), np.uint8)
    encode(tmp_path / "endless.mp4", np.tile(noise, (400, 1, 1, 1)), "libx264", "yuv420p", preset="ultrafast")
    none, endless = lines(tower("gate", "video", "none.mp4", "endless.mp4", "--json", cwd=tmp_path))
    assert none["failures"] == ["undecodable"]
    assert "wrong_frame_count" in endless["failures"] and endless["measures"]["frames"] == MAX_FRAMES + 1


def test_odd_codecs_depths_and_sizes_are_judged(tmp_path):
    odd = SMALL[:, :63, :95]
    files = [
        encode(tmp_path / "hevc10.mp4", SMALL, "libx265", "yuv420p10le", **{"x265-params": "log-level=none"}),
        encode(tmp_path / "vp9.webm", SMALL, "libvpx-vp9", "yuv420p", **{"cpu-used": "8"}),
        encode(tmp_path / "odd.mp4", odd, "libx264", "yuv444p"),
        encode(tmp_path / "lossless.mkv", SMALL, "ffv1", "yuv444p"),
    ]
    rows = lines(tower("gate", "video", *files, "--frames", "25", "--fps", "24", "--json", cwd=tmp_path))
    assert [r["failures"] for r in rows] == [[]] * len(files)
    assert (rows[2]["measures"]["width"], rows[2]["measures"]["height"]) == (95, 63)


def test_colours_come_back_as_they_were_written(tmp_path):
    bands = np.zeros((8, 64, 96, 3), np.uint8)
    bands[:, :, :32], bands[:, :, 32:64], bands[:, :, 64:] = (220, 40, 40), (40, 200, 60), (30, 60, 210)
    write_clip(tmp_path / "bands.mp4", bands, FPS)
    with VideoReader(tmp_path / "bands.mp4") as reader:
        frame = next(iter(reader))
        assert np.abs(frame.rgb().astype(int) - bands[0]).mean() < 4
        assert np.abs(frame.small.astype(int) - bands[0]).mean() < 4
        assert np.abs(frame.luma().astype(int) - cv2.cvtColor(frame.small, cv2.COLOR_RGB2GRAY)).mean() < 16  # bt709 against bt601


def test_a_variable_frame_rate_is_a_wrong_rate(tmp_path):
    file = encode(tmp_path / "vfr.mp4", SMALL, "libx264", "yuv420p", times=[i + 5 * (i > 12) for i in range(25)])
    (row,) = lines(tower("gate", "video", file, "--json", cwd=tmp_path))
    assert row["failures"] == ["wrong_fps"]


def test_pictures_of_every_kind_are_judged_as_what_they_show(tmp_path):
    picture = Image.fromarray(GOOD[0])
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    picture.quantize(256, dither=Image.Dither.NONE).save(tmp_path / "palette.png")
    picture.convert("RGBA").save(tmp_path / "alpha.webp", lossless=True)
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    files = ["cmyk.jpg", "palette.png", "alpha.webp", "deep.png"]
    for file in files:
        (row,) = lines(tower("gate", "image", file, "--size", f"{WIDTH}x{HEIGHT}", "--json", cwd=tmp_path))
        assert row["failures"] == [], row


def test_a_picture_that_moves_that_is_a_bomb_or_that_holds_nan_fails(tmp_path):
    stills = [Image.fromarray(f) for f in GOOD[:3]]
    stills[0].save(tmp_path / "moving.png", save_all=True, append_images=stills[1:])
    Image.new("1", (16_000, 16_000)).save(tmp_path / "bomb.png")
    deep = np.asarray(stills[0].convert("L"), np.float32) / 255
    deep[3, 3] = np.nan
    Image.fromarray(deep).save(tmp_path / "nan.tif")
    rows = lines(tower("gate", "image", "moving.png", "bomb.png", "nan.tif", "--json", cwd=tmp_path))
    assert [r["failures"] for r in rows] == [["wrong_frame_count"], ["undecodable"], ["non_finite"]]


def test_a_decoder_that_crashes_takes_only_its_own_file_with_it(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (60, 256, 256, 3), np.uint8)
    slow = encode(tmp_path / "slow.mp4", np.tile(frames, (4, 1, 1, 1)), "libx264", "yuv420p", preset="ultrafast")
    answers: list = []
    thread = threading.Thread(target=lambda: answers.extend(gate_files([slow], Question("video", ANIME))))
    thread.start()
    while not active_children():
        time.sleep(0.01)
    os.kill(active_children()[0].pid, 11)  # type: ignore[arg-type]
    thread.join(60)
    assert answers[0].verdict.failures == ("undecodable",) and "crashed (exit code -11)" in answers[0].verdict.findings[0].text
    assert not [p for p in psutil.Process().children(recursive=True) if p.name() == "slow.mp4"]
    assert gate_files([slow], Question("video", ANIME))[0].verdict.measures["undecodable"] == 0


def test_the_same_bytes_get_the_same_verdict_under_any_name_in_any_order(tmp_path, clip):
    write_clip(tmp_path / "other.mp4", SMALL[::-1], FPS)
    names = ["a.mp4", "zz top.mp4", "ünïcode-名.mp4", "--odd.mp4"]
    for name in names:
        shutil.copy(clip, tmp_path / name)
    files = [tmp_path / n for n in [*names, "other.mp4"]]
    there, back = (lines(tower("gate", "video", *order, "--json", cwd=tmp_path)) for order in (files, files[::-1]))
    by_file = [{r.pop("file"): r for r in rows} for rows in (there, back)]
    assert by_file[0] == by_file[1]
    assert all(by_file[0][str(tmp_path / n)] == by_file[0][str(tmp_path / names[0])] for n in names)


def test_thread_counts_change_nothing(clip):
    before = measure_video(clip, Expectation(keyframe=SMALL[0])).values
    cv2.setNumThreads(4)
    try:
        assert measure_video(clip, Expectation(keyframe=SMALL[0])).values == before
    finally:
        cv2.setNumThreads(1)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    frames=st.integers(1, 14),
    height=st.sampled_from([16, 34, 64, 300]),
    width=st.sampled_from([16, 50, 96, 420]),
    kind=st.sampled_from(["noise", "ramps", "flat", "blocks", "flashes"]),
)
def test_whatever_the_pixels_measures_are_finite_and_in_their_ranges(tmp_path, seed, frames, height, width, kind):
    rng = np.random.default_rng(seed)
    shape = (frames, height, width, 3)
    pixels = {
        "noise": lambda: rng.integers(0, 256, shape),
        "ramps": lambda: np.broadcast_to(np.linspace(0, 255, width)[None, None, :, None], shape) * rng.uniform(0, 1, (frames, 1, 1, 3)),
        "flat": lambda: np.broadcast_to(rng.integers(0, 256, (1, 1, 1, 3)), shape),
        "blocks": lambda: rng.integers(0, 256, (frames, height // 8, width // 8, 3)).repeat(8, 1).repeat(8, 2),
        "flashes": lambda: np.broadcast_to(rng.integers(0, 2, (frames, 1, 1, 1)) * 255, shape),
    }[kind]()
    pixels = np.ascontiguousarray(pixels[:, : pixels.shape[1] // 2 * 2, : pixels.shape[2] // 2 * 2]).astype(np.uint8)
    write_clip(tmp_path / "any.mp4", pixels, Fraction(24))
    measured = measure_video(tmp_path / "any.mp4", Expectation(keyframe=pixels[0]))
    for name, value in measured.values.items():
        if name in VIDEO:
            assert VIDEO[name].low <= value <= VIDEO[name].high, (name, value)
        assert np.isfinite(value), (name, value)


def test_bad_usage_is_one_sentence_and_nothing_is_judged(tmp_path, clip):
    refused(tower("gate", "video", clip, "nowhere.mp4", "--json", cwd=tmp_path), "nowhere.mp4", "does not exist")
    refused(tower("gate", "video", tmp_path, cwd=tmp_path), "is a folder")
    refused(tower("gate", "video", clip, "--size", "768", cwd=tmp_path), "--size", "WIDTHxHEIGHT")
    refused(tower("gate", "video", clip, "--fps", "often", cwd=tmp_path), "--fps", "often")
    refused(tower("gate", "video", clip, "--profile", "animee", cwd=tmp_path), "animee", "did you mean 'anime'")
    refused(tower("gate", "video", clip, "--keyframe", clip, cwd=tmp_path), "clip.mp4", "not a picture")
    refused(tower("gate", "video", clip, "--declare", "nightmare", cwd=tmp_path), "nightmare", "known are")
    refused(tower("gate", "image", clip, clip, "--explain", "x.png", cwd=tmp_path), "--explain")


@pytest.mark.parametrize(
    ("written", "wanted"), [("24", 24), ("23.976", Fraction(24000, 1001)), ("24000/1001", Fraction(24000, 1001)), ("12.5", 12.5)]
)
def test_broadcast_rates_are_meant_exactly(written, wanted):
    from pipeline.evidence.gate_file import parse_fps

    assert parse_fps(written) == wanted


def test_a_person_gets_a_table_and_a_picture_that_explains(tmp_path):
    frames = GOOD.copy()
    frames[20:26] = 0
    write_clip(tmp_path / "black.mp4", frames, FPS)
    Image.fromarray(GOOD[0]).save(tmp_path / "key.png")
    done = tower("gate", "video", "black.mp4", "--keyframe", "key.png", "--frames", str(FRAMES), "--explain", "why.png", cwd=tmp_path)
    assert done.code == 1 and "black_frames 6" in done.out and "20" in done.out
    with Image.open(tmp_path / "why.png") as picture:
        assert picture.width > 800 and np.asarray(picture.convert("L")).std() > 20


def test_a_keyframe_of_another_size_is_fitted_as_a_render_fits_it(tmp_path, clip):
    Image.fromarray(GOOD[0]).save(tmp_path / "large.png")
    (row,) = lines(tower("gate", "video", clip, "--keyframe", "large.png", "--json", cwd=tmp_path))
    assert row["outcome"] == "pass" and row["measures"]["first_frame_ssim"] > 0.8


@pytest.mark.models
def test_learned_judges_are_off_unless_asked_and_say_when_they_did_not_look(tmp_path, clip):
    (silent,) = lines(tower("gate", "video", clip, "--json", cwd=tmp_path))
    assert silent["judges"] == []
    (row,) = lines(tower("gate", "video", clip, "--judge", "clip,text", "--prompt", "a girl", "--json", cwd=tmp_path))
    by_name = {j["judge"]: j for j in row["judges"]}
    assert not by_name["clip"]["looked"] and "models/clip" in by_name["clip"]["why"]
    assert by_name["text"]["looked"] and "text_boxes" in row["measures"]
    assert row["outcome"] == silent["outcome"]
    refused(tower("gate", "video", clip, "--judge", "taste", cwd=tmp_path), "--judge", "taste")


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (32, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    image = read_still(tmp_path / "ramp.png").image
    assert image[0, 0, 0] == 0 and image[0, -1, 0] == 255 and 120 <= image[0, 32, 0] <= 135
    with pytest.raises(Undecodable):
        read_still(b"")


def shown(path: Path, frames: np.ndarray, *, aspect: Fraction | None = None, turn: tuple[int, bool, bool] | None = None) -> Path:
    """A clip that is stored otherwise than it is shown. turn: degrees, counter-clockwise; mirrored left-right, top-bottom after that."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=24, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if turn:
            stream.set_display_rotation(turn[0], *turn[1:])
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def stored(frame: np.ndarray, turn: tuple[int, bool, bool]) -> np.ndarray:
    """What has to be stored, for the frame to be shown as it is after the turn: everything backwards."""
    frame = frame[::-1] if turn[2] else frame
    frame = frame[:, ::-1] if turn[1] else frame
    return np.ascontiguousarray(np.rot90(frame, -turn[0] // 90 % 4))


@pytest.mark.parametrize("mirror", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_clip_is_turned_as_a_player_turns_it(tmp_path, degrees, mirror):
    turn = (degrees, *mirror)
    file = shown(tmp_path / "turned.mp4", np.stack([stored(f, turn) for f in SMALL]), turn=turn)
    frames, rate = read_video(file)
    assert rate == 24 and frames.shape == SMALL.shape and np.abs(frames.astype(int) - SMALL).mean() < 8
    Image.fromarray(SMALL[0]).save(tmp_path / "key.png")
    verdict = judge_file(file, Question("video", ANIME, size=(96, 64), keyframe=tmp_path / "key.png")).verdict
    assert verdict.failures == () and verdict.measures["first_frame_ssim"] > 0.8


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(3, 4), Fraction(2)])
def test_pixels_that_are_not_square_are_scaled_in_width(tmp_path, aspect):
    narrow = np.stack([cv2.resize(f, (round(96 / aspect), 64), interpolation=cv2.INTER_AREA) for f in SMALL])
    file = shown(tmp_path / "narrow.mp4", narrow, aspect=aspect)
    Image.fromarray(SMALL[0]).save(tmp_path / "key.png")
    verdict = judge_file(file, Question("video", ANIME, size=(96, 64), keyframe=tmp_path / "key.png")).verdict
    assert verdict.failures == () and (verdict.measures["width"], verdict.measures["height"]) == (96, 64)
    with VideoReader(
        shown(tmp_path / "both.mp4", np.stack([np.rot90(f) for f in SMALL[:2]]), aspect=Fraction(2), turn=(270, False, False))
    ) as reader:
        assert [f.rgb().shape for f in reader] == [(128, 96, 3)] * 2, "pixels are scaled as they are stored, then turned"


def copied_to(file: Path, target: Path) -> Path:
    """The same packets in another container, whose clock rounds their times once more."""
    with av.open(str(file)) as there, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(there.streams.video[0])
        for packet in there.demux(there.streams.video[0]):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return target


def constant(path: Path, rate: Fraction, count: int = 41) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg2video" if path.suffix == ".mpg" else "libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i in range(count):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(GOOD[i % len(GOOD)][::2, ::2].copy(), format="rgb24")))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    "rate", [24, Fraction(24000, 1001), 25, Fraction(30000, 1001), Fraction(25, 2), Fraction(60000, 1001), 120], ids=str
)
@pytest.mark.parametrize("kind", ["mkv", "flv", "ts", "avi", "mov"])
def test_a_constant_rate_is_one_in_whatever_clock(tmp_path, kind, rate):
    file = constant(tmp_path / f"a.{kind}", Fraction(rate))
    for name in (file, copied_to(file, tmp_path / "copy.mp4")) if kind in ("mkv", "flv") else (file,):
        values = measure_video(name, Expectation(fps=Fraction(rate))).values
        assert values["uneven"] == 0 and values["fps"] == float(rate), (name.name, values["fps"])


@pytest.mark.parametrize("count", [2, 3, 9])
def test_a_short_clips_rounded_times_fit_the_rate_that_is_wanted(tmp_path, count):
    rate = Fraction(24000, 1001)
    file = copied_to(constant(tmp_path / "a.mkv", rate, count), tmp_path / "a.mp4")
    assert measure_video(file, Expectation(fps=rate)).values["fps"] in (float(rate), 24.0)
    assert measure_video(file, Expectation(fps=Fraction(25))).values["fps"] != 25 or count == 2


UNEVEN = {
    "a frame is missing": [i + (i > 20) for i in range(41)],
    "every third is missing": [i + i // 2 for i in range(41)],
    "3:2 pulldown": [(5 * i + i % 2) // 2 for i in range(41)],
    "each second one is late": [5 * i + i % 2 for i in range(41)],
}


@pytest.mark.parametrize("kind", UNEVEN)
@pytest.mark.parametrize("through", ["mp4", "mkv"])
def test_frames_at_uneven_times_are_refused_in_whatever_clock(tmp_path, kind, through):
    times = UNEVEN[kind]
    frames = np.concatenate([SMALL, SMALL])[:41]
    file = encode(tmp_path / f"uneven.{through}", frames, "libx264", "yuv420p", times=times)
    verdict = judge_file(file, Question("video", ANIME)).verdict
    assert "wrong_fps" in verdict.failures
    assert any(re.search(r"not evenly spaced in time: frame \d+ comes [\d.]+ ms after", f.text) for f in verdict.findings)


@pytest.mark.parametrize(
    ("value", "threshold"), [(29.97003, 29.97), (23.976, 23.97602), (24.0, 24.00001), (1e-9, 1.1e-9), (0.5, 0.5000001)]
)
def test_a_finding_shows_the_difference(value, threshold):
    text = str(Finding("wrong_fps", "fps", value, threshold))
    one, other = re.search(r"fps (\S+), threshold (\S+)\)", text).groups()  # type: ignore[union-attr]
    assert one != other
    assert str(Finding("frozen", "reach", 0.42, 1.6)) == "frozen (reach 0.42, threshold 1.6)"


def test_a_person_is_shown_the_difference(tmp_path):
    file = constant(tmp_path / "a.mp4", Fraction(2997, 100))
    done = tower("gate", "video", file, "--fps", "30000/1001", cwd=tmp_path)
    assert done.code == 1 and "29.97003" in done.out, done.out


def tagged(path: Path, image: np.ndarray, matrix: int, *, tag: int = 2, curve: int = 2) -> Path:
    """Three frames of a picture. matrix: FFmpeg's number of the colours it is encoded in; tag: of those that the file claims; 2: none."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=24, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = image.shape[0], image.shape[1], "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_trc = tag, curve
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=1)
            frame.colorspace, frame.color_trc, frame.pts = tag, curve, i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("width", "height", "matrix"), [(1280, 720, 1), (1920, 1080, 1), (720, 1280, 1), (640, 480, 5), (96, 64, 5), (720, 576, 5)]
)
def test_colours_that_a_file_does_not_name_are_guessed_as_players_guess(tmp_path, width, height, matrix):
    image = np.empty((height, width, 3), np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = (220, 40, 40), (40, 200, 60)
    with VideoReader(tagged(tmp_path / "plain.mp4", image, matrix)) as reader:
        frame = next(iter(reader))
        assert np.abs(frame.rgb().astype(int) - image).mean() < 4
        small = cv2.resize(image, frame.small.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(frame.small.astype(int) - small).mean() < 4


@pytest.mark.parametrize(("curve", "name"), [(16, "PQ"), (18, "HLG")])
def test_a_clip_for_hdr_screens_is_said_to_be_judged_as_sdr(tmp_path, curve, name):
    hdr, sdr = (tagged(tmp_path / f"{c}.mp4", GOOD[0], 9, tag=9, curve=c) for c in (curve, 1))
    there, plain = lines(tower("gate", "video", hdr, sdr, "--declare", "hold", "--json", cwd=tmp_path))
    assert [f["text"].split(" (")[0] for f in there["findings"] if f["measure"] == "hdr" and f["outcome"] == "warn"] == [f"HDR, {name}"]
    assert "undecodable" in there["warnings"] and "undecodable" not in there["failures"]
    assert "undecodable" not in plain["warnings"] and "hdr" not in plain["measures"]
    assert judge("video", there["measures"], ANIME, ("hold",)).warnings == tuple(there["warnings"]), "judged again without the file"
