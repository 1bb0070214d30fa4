"""Clips for the gates' tests: a good one and, for every measure, a fault that only this measure sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from actors.demo.train import scenes
from gates.rules import Profile
from gates.verdict import Verdict
from gates.video import Expectation, judge_video
from pipeline.render.video_file import write_clip
from pipeline.story.gate_profile import load_profile

ANIME = load_profile("anime")
WIDTH, HEIGHT, FRAMES, FPS = 192, 128, 41, Fraction(24)
SCENE = scenes.Scene("day", "sea", "red", "pink", "wide", "walk right", 7)
OTHER = scenes.Scene("night", "city", "blue", "black", "close", "pan left", 3)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def draw(scene: scenes.Scene) -> np.ndarray:
    return scenes.clip(scene, range(0, 121, 3), HEIGHT, WIDTH)


GOOD, ANOTHER = draw(SCENE), draw(OTHER)


def uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Planted:
    """A clip with a fault. `measure` is the one that sees it; `expect` what the clip should have been."""

    label: str
    measure: str
    make: Callable[[], np.ndarray]
    keyframe: Callable[[], np.ndarray | None] = lambda: GOOD[0]
    last: Callable[[], np.ndarray | None] = lambda: None
    expect: dict[str, object] = field(default_factory=dict)
    declared: tuple[str, ...] = ()
    finite: bool = True
    fps: Fraction = FPS


JUDGED: dict[tuple[int, str], Verdict] = {}  # of the faults that several tests look at


def judged(tmp_path: Path, planted: Planted, profile: Profile = ANIME) -> Verdict:
    """Written to disk, decoded again, judged; each planted fault once for all tests."""
    if planted not in PLANTED or profile is not ANIME:
        return _judged(tmp_path, planted, profile)
    key = PLANTED.index(planted), profile.name
    if key not in JUDGED:
        JUDGED[key] = _judged(tmp_path, planted, profile)
    return JUDGED[key]


def _judged(tmp_path: Path, planted: Planted, profile: Profile) -> Verdict:
    frames = planted.make()
    file = tmp_path / "clip.mp4"
    write_clip(file, frames, planted.fps)
    wanted = {"frames": FRAMES, "fps": FPS, "width": WIDTH, "height": HEIGHT, "codec": "h264", "pixel_format": "yuv420p"}
    expect = Expectation(**(wanted | planted.expect), keyframe=planted.keyframe(), last=planted.last())  # type: ignore[arg-type]
    return judge_video(file, expect, profile, planted.declared, "" if planted.finite else "decode")


def good(frames: np.ndarray = GOOD, declared: tuple[str, ...] = (), keyframe: np.ndarray | None = None) -> Planted:
    return Planted(
        "", "", lambda: frames, lambda: frames[0] if keyframe is None else keyframe, declared=declared, expect={"frames": len(frames)}
    )


def _with(at: range, value: int | np.ndarray) -> np.ndarray:
    frames = GOOD.copy()
    frames[at.start : at.stop : at.step] = value
    return frames


def _flicker() -> np.ndarray:
    gains = 1 + np.random.default_rng(0).normal(0, 0.05, (FRAMES, 1, 1, 1))
    gains[0] = 1
    return uint8(GOOD * gains)


def _boiling() -> np.ndarray:
    """Patches of the picture get lighter and darker, each by itself; the whole keeps its light."""
    patches = np.random.default_rng(4).normal(0, 14, (FRAMES, 12, 18)).astype(np.float32)
    patches[0] = 0
    return uint8(GOOD + np.stack([cv2.resize(p, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for p in patches])[..., None])


def _strobe() -> np.ndarray:
    frames = GOOD.astype(float)
    frames[[i for i in range(8, 32) if i // 3 % 2]] *= 0.35
    return uint8(frames)


def _red_strobe() -> np.ndarray:
    """Saturated red against black: hardly any luminance, all of it red."""
    frames = uint8(GOOD * 0.2)
    frames[[i for i in range(8, 32) if i // 3 % 2]] = (128, 0, 0)
    return frames


def _drift(gain: tuple[float, float, float]) -> np.ndarray:
    ramp = np.linspace(0, 1, FRAMES)[:, None, None, None]
    return uint8(GOOD * (1 + ramp * (np.array(gain) - 1)))


def _tint() -> np.ndarray:
    """A little darker and warmer everywhere: no shape and no single tile is far off."""
    return uint8(GOOD * np.array([0.86, 0.78, 0.70]))


def _recoloured() -> np.ndarray:
    return draw(scenes.Scene("day", "sea", "blue", "pink", "wide", "walk right", 7))


def _hatched() -> np.ndarray:
    """Fine hatching over a part: no light and no colour is another, but the drawing is."""
    frames = GOOD.astype(float)
    frames[:, 16:64, 16:80] += np.where(np.arange(64)[None, None, :, None] % 4 < 2, 18.0, -18.0)
    return uint8(frames)


def _blurred() -> np.ndarray:
    return np.stack([f if i == 0 else cv2.GaussianBlur(f, (0, 0), 2.0) for i, f in enumerate(GOOD)])


def _letterboxed() -> np.ndarray:
    frames = GOOD.copy()
    frames[:, :8] = frames[:, -8:] = 0
    return frames


def _burnt() -> np.ndarray:
    frames = GOOD.copy()
    frames[1:, :, : WIDTH // 2] = 255
    return frames


def _noisy() -> np.ndarray:
    return uint8(GOOD + np.random.default_rng(1).normal(0, 35, GOOD.shape))


def _twilight() -> np.ndarray:
    """Nearly black, with shapes that can be seen: black unless the shot declares a night."""
    return uint8(GOOD * 0.09)


def _held(share: float) -> np.ndarray:
    frames, count = GOOD.copy(), round(FRAMES * share)
    frames[5 : 5 + count] = frames[5]
    return frames


WHITE_PAPER = uint8(np.where(np.arange(WIDTH)[None, None, :, None] < 0.75 * WIDTH, 255.0, GOOD.astype(float)))

PLANTED = [
    Planted("wrong_frame_count", "frames", lambda: GOOD[:-1]),
    Planted("wrong_fps", "fps", lambda: GOOD, fps=Fraction(25)),
    Planted("wrong_size", "width", lambda: GOOD[:, :, :-16], keyframe=lambda: None),
    Planted("wrong_size", "height", lambda: GOOD[:, :-16], keyframe=lambda: None),
    Planted("undecodable", "undecodable", lambda: GOOD, expect={"codec": "hevc"}),
    Planted("non_finite", "non_finite", lambda: GOOD, finite=False),
    Planted("frozen", "reach", lambda: np.repeat(GOOD[:1], FRAMES, axis=0)),
    Planted("long_hold", "hold", lambda: _held(0.8)),
    Planted("cut", "cut", lambda: np.concatenate([GOOD[:20], ANOTHER[20:]])),
    Planted("flicker", "flicker", _flicker),
    Planted("flicker", "texture_flicker", _boiling),
    Planted("strobe", "flashes", _strobe),
    Planted("strobe", "red_flashes", _red_strobe, keyframe=lambda: None),
    Planted("black", "black_frames", _twilight, keyframe=lambda: None),
    Planted("black", "pitch_black_frames", lambda: _with(range(12, 18), 0), declared=("night",)),
    Planted("colour_drift", "colour_drift", lambda: _drift((1.25, 0.95, 0.55))),
    Planted("exposure_drift", "exposure_drift", lambda: _drift((0.55, 0.55, 0.55))),
    Planted("wrong_first_frame", "first_frame_ssim", _hatched),
    Planted("wrong_first_frame", "first_frame_delta_e", _tint),
    Planted("wrong_first_frame", "first_frame_tile_delta_e", _recoloured),
    Planted("wrong_last_frame", "last_frame_ssim", _hatched, keyframe=lambda: None, last=lambda: GOOD[-1]),
    Planted("wrong_last_frame", "last_frame_delta_e", _tint, keyframe=lambda: None, last=lambda: GOOD[-1]),
    Planted("wrong_last_frame", "last_frame_tile_delta_e", _recoloured, keyframe=lambda: None, last=lambda: GOOD[-1]),
    Planted("blur", "sharpness_ratio", _blurred),
    Planted("bars", "bars", _letterboxed),
    Planted("over_exposed", "over_exposed_rise", _burnt),
    Planted("over_exposed", "over_exposed", lambda: WHITE_PAPER, keyframe=lambda: WHITE_PAPER[0]),
    Planted("noise", "flat", _noisy),
    Planted("empty", "contrast", lambda: np.full_like(GOOD, 120)),
]


def names(planted: Planted) -> str:
    return f"{planted.label}-{planted.measure}"
