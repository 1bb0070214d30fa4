"""Planted faults: what goes wrong with clips and stills, in growing severity.

A fault takes a good clip, uint8 RGB (n, height, width, 3), and gives the clip that would reach the gate. From `floor` up
its recall is promised; what lies under it shows where a gate begins to see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from pipeline.render.video_file import VideoFile

Plant = Callable[[np.ndarray, float, np.random.Generator, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Fault:
    """`plant(frames, severity, rng, other)`: `other` is a clip of another artwork of the same half, as long and as large, where
    the fault `needs_other`; else the clip itself.

    keyframe: "kept" is the untouched base's; "of the fault" where the still is made with the fault already.
    """

    label: str
    name: str
    unit: str
    severities: tuple[float, ...]
    floor: float
    plant: Plant
    keyframe: str = "kept"
    needs_other: bool = False


def _uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _ramp(frames: np.ndarray) -> np.ndarray:
    return np.linspace(0, 1, len(frames), dtype=np.float32)[:, None, None, None]


# Nothing moves, or not for long enough.
def _frozen(frames: np.ndarray, sigma: float, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    still = frames[:1].astype(np.float32)
    return _uint8(still + rng.normal(0, sigma, (len(frames), *still.shape[1:3], 1)))


def _held(frames: np.ndarray, share: float, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    length = round(share * len(frames))
    at = int(rng.integers(1, len(frames) - length))
    held = frames.copy()
    held[at : at + length] = frames[at]
    return held


# Another shot's picture.
def _cut(frames: np.ndarray, pictures: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    places = np.linspace(0, len(frames), int(pictures) + 1).round().astype(int)[1:-1] + rng.integers(-4, 5, int(pictures) - 1)
    shown = frames.copy()
    for k, at in enumerate(places):
        shown[at:] = (other, other[:, :, ::-1] // 2, frames[:, ::-1])[k % 3][at:]
    return shown


def _late_cut(frames: np.ndarray, share: float, _: np.random.Generator, other: np.ndarray) -> np.ndarray:
    at = round(len(frames) * (1 - share))
    return np.concatenate([frames[:at], other[at:]])


def _other_clip(frames: np.ndarray, _: float, __: np.random.Generator, other: np.ndarray) -> np.ndarray:
    return other


def _mirrored(frames: np.ndarray, _: float, __: np.random.Generator, ___: np.ndarray) -> np.ndarray:
    return frames[:, :, ::-1]


def _shifted(frames: np.ndarray, share: float, _: np.random.Generator, __: np.ndarray) -> np.ndarray:
    by = round(share * frames.shape[2])
    return np.concatenate([frames[:, :, by:], frames[:, :, :by][:, :, ::-1]], axis=2)


def _patched(frames: np.ndarray, share: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    """A part of the picture shows something else: a figure that is missing, or another."""
    h, w = (round(x * share**0.5) for x in frames.shape[1:3])
    y, x = int(rng.integers(0, frames.shape[1] - h + 1)), int(rng.integers(0, frames.shape[2] - w + 1))
    shown = frames.copy()
    shown[:, y : y + h, x : x + w] = other[:, y : y + h, x : x + w]
    return shown


def _hue(frames: np.ndarray, degrees: float, _: np.random.Generator, __: np.ndarray) -> np.ndarray:
    def turn(frame: np.ndarray) -> np.ndarray:
        hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV).astype(np.int16)
        hsv[..., 0] = (hsv[..., 0] + degrees / 2) % 180
        return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)

    return np.stack([turn(f) for f in frames])


# Light that is not steady.
def _luma_flicker(frames: np.ndarray, sigma: float, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    gain = 1 + rng.normal(0, sigma, (len(frames), 1, 1, 1))
    gain[0] = 1
    return _uint8(frames * gain)


def _alternating(frames: np.ndarray, step: float, _: np.random.Generator, __: np.ndarray) -> np.ndarray:
    return _uint8(frames * (1 - step * (np.arange(len(frames)) % 2))[:, None, None, None])


def _texture_flicker(frames: np.ndarray, sigma: float, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    n, h, w, _c = frames.shape
    patches = rng.normal(0, sigma, (n, max(2, h // 12), max(2, w // 12))).astype(np.float32)
    patches[0] = 0
    return _uint8(frames + np.stack([cv2.resize(p, (w, h), interpolation=cv2.INTER_CUBIC) for p in patches])[..., None])


def _strobe(frames: np.ndarray, per_second: float, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    """A second and a half of flashes that take three quarters of the light."""
    at = int(rng.integers(2, max(3, len(frames) - 40)))
    phase = (np.arange(len(frames)) - at) * per_second / 24
    dark = (phase >= 0) & (phase < 1.5 * per_second) & (phase % 1 >= 0.5)
    return _uint8(frames * np.where(dark, 0.25, 1.0)[:, None, None, None])


def _white_strobe(frames: np.ndarray, per_second: float, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    phase = (np.arange(len(frames)) - int(rng.integers(2, 10))) * per_second / 24
    lit = (phase >= 0) & (phase < 1.5 * per_second) & (phase % 1 >= 0.5)
    return _uint8(np.where(lit[:, None, None, None], 255, frames * 0.6))


def _red_strobe(frames: np.ndarray, per_second: float, _: np.random.Generator, __: np.ndarray) -> np.ndarray:
    phase = np.arange(len(frames)) * per_second / 24
    lit = (phase >= 1) & (phase % 1 >= 0.5)
    return _uint8(np.where(lit[:, None, None, None], np.array([190, 0, 0]), frames * 0.25))


def _black(frames: np.ndarray, count: float, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    at = int(rng.integers(2, max(3, len(frames) - int(count) - 8)))
    shown = frames.copy()
    shown[at : at + int(count)] = 0
    return shown


def _black_noise(frames: np.ndarray, sigma: float, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    return _uint8(np.abs(rng.normal(4, sigma, frames.shape)))


def _colour_drift(frames: np.ndarray, shift: float, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    """a and b move by `shift` from the first frame to the last."""
    angle = rng.uniform(0, 2 * np.pi)
    towards = np.array([0, np.cos(angle), np.sin(angle)], np.float32) * shift
    return _lab(frames, lambda lab, t: lab + towards * t)


def _desaturated(frames: np.ndarray, share: float, _: np.random.Generator, __: np.ndarray) -> np.ndarray:
    return _lab(frames, lambda lab, t: lab * (1, 1 - share * t, 1 - share * t))


def _exposure_drift(frames: np.ndarray, shift: float, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    """L moves by `shift` from the first frame to the last, to where there is room."""
    sign = -1 if frames.mean() > 100 else 1
    return _lab(frames, lambda lab, t: lab + np.array([sign * shift, 0, 0], np.float32) * t)


def _lab(frames: np.ndarray, change: Callable[[np.ndarray, float], np.ndarray]) -> np.ndarray:
    shown = []
    for t, frame in zip(np.linspace(0, 1, len(frames)), frames, strict=True):
        lab = change(cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), float(t)).astype(np.float32)
        lab[..., 0] = np.clip(lab[..., 0], 0, 100)
        shown.append(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255)
    return _uint8(np.stack(shown))


# A picture that is damaged.
def _blur(frames: np.ndarray, sigma: float, _: np.random.Generator, __: np.ndarray) -> np.ndarray:
    return np.stack([f if i == 0 else cv2.GaussianBlur(f, (0, 0), sigma) for i, f in enumerate(frames)])


def _creeping_blur(frames: np.ndarray, sigma: float, _: np.random.Generator, __: np.ndarray) -> np.ndarray:
    grown = np.clip(np.arange(len(frames)) / (0.35 * len(frames)), 0, 1) * sigma
    return np.stack([f if s < 0.2 else cv2.GaussianBlur(f, (0, 0), s) for f, s in zip(frames, grown, strict=True)])


def _letterbox(frames: np.ndarray, share: float, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    shown, bar = frames.copy(), round(share * frames.shape[1] / 2)
    shown[:, :bar] = shown[:, -bar:] = rng.integers(0, 9)
    return shown


def _pillarbox(frames: np.ndarray, share: float, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    shown, bar = frames.copy(), round(share * frames.shape[2])
    shown[:, :, :bar] = rng.integers(0, 9)
    return shown


def _over_exposed(frames: np.ndarray, share: float, _: np.random.Generator, __: np.ndarray) -> np.ndarray:
    """Gain that burns out `share` of the picture."""
    darkest = np.percentile(frames.min(axis=3), 100 * (1 - share))
    shown = _uint8(frames * (255.0 / max(darkest, 1.0)))
    shown[0] = frames[0]
    return shown


def _noise(frames: np.ndarray, sigma: float, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    return _uint8(frames + rng.normal(0, sigma, frames.shape))


def _empty(frames: np.ndarray, spread: float, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
    """One colour, and a slope of so many levels from left to right."""
    slope = np.linspace(-spread / 2, spread / 2, frames.shape[2])[None, None, :, None]
    return np.broadcast_to(_uint8(rng.integers(60, 200, 3) + slope), frames.shape).copy()


# What the container says.
def _frames_missing(frames: np.ndarray, count: float, _: np.random.Generator, __: np.ndarray) -> np.ndarray:
    return frames[: -int(count)]


def _frames_too_many(frames: np.ndarray, count: float, _: np.random.Generator, __: np.ndarray) -> np.ndarray:
    return np.concatenate([frames, frames[-int(count) :]])


def _smaller(frames: np.ndarray, pixels: float, _: np.random.Generator, __: np.ndarray) -> np.ndarray:
    return frames[:, :, : -int(pixels)]


def _same(frames: np.ndarray, _: float, __: np.random.Generator, ___: np.ndarray) -> np.ndarray:
    return frames


CLIP_FAULTS = (
    Fault("wrong_frame_count", "frames missing", "frames", (1, 30), 1, _frames_missing),
    Fault("wrong_frame_count", "frames too many", "frames", (1, 30), 1, _frames_too_many),
    Fault("wrong_fps", "another rate", "fps", (23, 25, 30), 23, _same),
    Fault("wrong_size", "narrower", "pixels", (2, 64), 2, _smaller),
    Fault("undecodable", "truncated", "share lost", (0.02, 0.3, 0.9), 0.02, _same),
    Fault("undecodable", "bits flipped", "bits", (20, 100, 500), 100, _same),
    Fault("undecodable", "zeroed", "bytes", (512, 4096), 512, _same),
    Fault("frozen", "one picture", "noise sigma", (0, 0.5, 1, 1.5), 0, _frozen),
    Fault("long_hold", "held", "share", (0.55, 0.65, 0.8, 0.9), 0.8, _held),
    Fault("cut", "spliced", "pictures", (2, 3, 5), 2, _cut, needs_other=True),
    Fault("cut", "another end", "share", (0.05, 0.15, 0.4), 0.15, _late_cut, needs_other=True),
    Fault("flicker", "luma flicker", "sigma", (0.01, 0.02, 0.03, 0.05, 0.08), 0.03, _luma_flicker),
    Fault("flicker", "light alternates", "step", (0.02, 0.04, 0.07, 0.12), 0.04, _alternating),
    Fault("flicker", "texture flicker", "levels", (3, 6, 9, 14, 20), 9, _texture_flicker),
    Fault("strobe", "dark strobe", "flashes/s", (3, 4, 6, 12), 4, _strobe),
    Fault("strobe", "white strobe", "flashes/s", (3, 4, 6, 12), 4, _white_strobe),
    Fault("strobe", "red strobe", "flashes/s", (3, 4, 6), 4, _red_strobe, "of the fault"),
    Fault("black", "black frames", "frames", (1, 2, 4, 12), 2, _black),
    Fault("black", "all black", "noise sigma", (0, 2), 0, _black_noise),
    Fault("colour_drift", "palette drifts", "Delta E", (6, 12, 20, 30, 45), 20, _colour_drift),
    Fault("colour_drift", "colour drains", "share", (0.3, 0.6, 0.9), 0.9, _desaturated),
    Fault("exposure_drift", "light drifts", "L", (5, 10, 20, 30), 20, _exposure_drift),
    Fault("wrong_first_frame", "another clip", "", (1,), 1, _other_clip, needs_other=True),
    Fault("wrong_first_frame", "mirrored", "", (1,), 1, _mirrored),
    Fault("wrong_first_frame", "shifted", "share of width", (0.05, 0.15, 0.3), 0.15, _shifted),
    Fault("wrong_first_frame", "a part is another", "share of area", (0.03, 0.08, 0.2), 0.08, _patched, needs_other=True),
    Fault("wrong_first_frame", "other colours", "degrees", (15, 60, 120), 60, _hue),
    Fault("blur", "blurred", "pixels", (0.7, 1.0, 1.5, 2.5, 4), 1.5, _blur),
    Fault("blur", "blur creeps in", "pixels", (1.0, 1.5, 2.5, 4), 2.5, _creeping_blur),
    Fault("bars", "letterbox", "share", (0.03, 0.06, 0.12, 0.2), 0.06, _letterbox, "of the fault"),
    Fault("bars", "pillarbox", "share", (0.03, 0.06, 0.12), 0.06, _pillarbox, "of the fault"),
    Fault("over_exposed", "burnt out", "share", (0.15, 0.4, 0.6), 0.4, _over_exposed),
    Fault("noise", "noise", "levels", (10, 20, 35, 60), 35, _noise),
    Fault("empty", "one colour", "levels", (0, 8), 0, _empty),
)


def _still_blur(frames: np.ndarray, sigma: float, _: np.random.Generator, __: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(frames[0], (0, 0), sigma)[None]


def _still_burnt(frames: np.ndarray, share: float, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    return _over_exposed(frames[[0, 0]], share, rng, other)[1:]


STILL_FAULTS = (
    Fault("wrong_size", "narrower", "pixels", (2, 64), 2, _smaller),
    Fault("black", "all black", "noise sigma", (0, 2), 0, _black_noise),
    Fault("empty", "one colour", "levels", (0, 8), 0, _empty),
    Fault("over_exposed", "burnt out", "share", (0.3, 0.6, 0.8), 0.6, _still_burnt),
    Fault("noise", "noise", "levels", (10, 20, 35, 60), 35, _noise),
    Fault("blur", "blurred", "pixels", (2, 4, 8, 12), 8, _still_blur),
    Fault("bars", "letterbox", "share", (0.03, 0.06, 0.12), 0.06, _letterbox),
    Fault("bars", "pillarbox", "share", (0.03, 0.06, 0.12), 0.06, _pillarbox),
)  # fmt: skip


def applies(fault: Fault, frames: np.ndarray) -> bool:
    """Whether the fault would be one in this clip."""
    light, colour = frames.mean(), np.abs(np.ptp(frames[0].astype(int), axis=2)).mean()
    if fault.label in ("exposure_drift", "strobe", "over_exposed", "flicker"):
        return light > 45  # in the dark there is no light to lose, and a gain burns nothing out
    if fault.name in ("colour drains", "other colours"):
        return colour > 40  # a gray picture has no colours to lose
    if fault.name == "mirrored":
        return float(np.abs(frames[0].astype(int) - frames[0, :, ::-1]).mean()) > 25
    return True


def write(fault: Fault | None, severity: float, frames: np.ndarray, fps: int, path: Path, rng: np.random.Generator) -> None:
    """The clip as a file, with what a fault does to files."""
    rate = int(severity) if fault and fault.label == "wrong_fps" else fps
    with VideoFile(path, frames.shape[2], frames.shape[1], Fraction(rate), 12) as out:
        for frame in frames:
            out.write(frame)
    if fault is None or fault.label != "undecodable":
        return
    data = bytearray(path.read_bytes())
    if fault.name == "truncated":
        del data[round(len(data) * (1 - severity)) :]
    elif fault.name == "zeroed":
        at = int(rng.integers(len(data) // 4, len(data) - int(severity)))
        data[at : at + int(severity)] = bytes(int(severity))
    else:
        for place in rng.integers(64, len(data), int(severity)):
            data[place] ^= 1 << int(rng.integers(0, 8))
    path.write_bytes(data)
