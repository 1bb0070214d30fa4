"""Gate 2: is this clip what was asked for, and does it move from its keyframe?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from . import light, motion
from . import picture as p
from .clip import Reduced, reduce_clip
from .decode import MAX_FRAMES, Container, VideoReader
from .pair import likeness
from .rules import Profile, judge, no_numbers
from .source import Beside
from .still import Undecodable, working_size
from .verdict import Verdict


@dataclass(frozen=True)
class Expectation:
    """What a clip must be, exactly. A field that is None allows anything.

    Args:
        frames: number of frames. fps: frames a second. width, height: pixels.
        codec, pixel_format: FFmpeg's names, such as h264 and yuv420p.
        keyframe, last: uint8 RGB (height, width, 3), the stills that the clip must start and end with.
        source: path of the clip that a finished clip was made from.
    """

    frames: int | None = None
    fps: Fraction | None = None
    width: int | None = None
    height: int | None = None
    codec: str | None = None
    pixel_format: str | None = None
    keyframe: np.ndarray | None = None
    last: np.ndarray | None = None
    source: Path | None = None


@dataclass(frozen=True)
class Measured:
    """The measures of a clip.

    values: measure to value; `measures.VIDEO` has units and ranges.
    curves: measure to the curve behind it, float (n,), one value a frame.
    texts: measure or label to the words that explain it, such as the decoder's message.
    """

    values: dict[str, float]
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def judge_video(path: Path, expect: Expectation, profile: Profile, declared: Collection[str] = (), not_finite: str = "") -> Verdict:
    """Decode the file from disk and judge it.

    Args:
        expect: what the clip must be.
        declared: the shot's declarations (`rules.Declaration`).
        not_finite: as in `judge_image`.
    """
    measured = measure_video(path, expect, not not_finite)
    return judge("video", measured.values, profile, declared, measured.texts | no_numbers(not_finite))


def measure_video(path: Path, expect: Expectation, finite: bool = True) -> Measured:
    """Every measure that a verdict on a clip needs, in one pass over the file. `measures.VIDEO` has meanings, units and ranges.

    A file that cannot be decoded raises nothing: its measure `undecodable` is 1.
    """
    container = None
    try:
        with VideoReader(path, expect.fps) as reader:
            container = reader.container
            count = expect.frames or container.hint
            if expect.source is None:
                clip, compared = reduce_clip(reader, count), {}
            else:
                with Beside(expect.source, count) as beside:
                    clip, compared = reduce_clip(beside.along(reader), count), beside.values()
    except Undecodable as error:
        return Measured({"undecodable": 1.0, "non_finite": float(not finite)}, {}, {"undecodable": str(error)})
    values, texts = _container(container, expect)
    values["non_finite"] = float(not finite)
    moving, curves = _moving(clip, float(container.rate) or 24.0)
    values |= moving | _starts(clip, expect) | compared
    return Measured(values, curves, texts)


def _container(found: Container, expect: Expectation) -> tuple[dict[str, float], dict[str, str]]:
    wanted = {
        "frames": expect.frames,
        "fps": expect.fps,
        "width": expect.width,
        "height": expect.height,
    }
    kind = (found.codec, found.pixel_format)
    promised = (expect.codec or found.codec, expect.pixel_format or found.pixel_format)
    values = {
        "undecodable": float(kind != promised),  # a player may be unable to decode what was not promised
        "frames": float(found.frames),
        "fps": float(found.rate),
        "width": float(found.width),
        "height": float(found.height),
        "uneven": float(bool(found.uneven)),
        "too_long": float(found.frames > MAX_FRAMES),
    }
    texts = {} if kind == promised else {"undecodable": f"{' '.join(kind)} where {' '.join(promised)} is promised"}
    if found.frames > MAX_FRAMES:
        texts["wrong_frame_count"] = f"more than {MAX_FRAMES:,} frames; gates judge clips"
    if found.uneven:
        texts["uneven"] = f"frames are not evenly spaced in time: {found.uneven}"
    if found.hdr:
        values["hdr"] = 1.0
        texts["hdr"] = f"HDR, {found.hdr}: its colours and its light are judged as if they were SDR, which is not what an HDR screen shows"
    return values | {f"expected_{k}": float(v) for k, v in wanted.items() if v is not None}, texts


def _moving(clip: Reduced, fps: float) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The measures that need no keyframe, and their curves."""
    hold, hold_at, hold_until = motion.longest_hold(clip.drawings)
    cut, jumps = motion.strongest_cut(clip.thumbs, clip.drawings)
    flicker = light.flicker(clip.cells, clip.change)
    general, red = light.flashes(clip.colours, fps)
    black = light.black_frames(clip.dark, clip.cells)
    pitch_black = light.black_frames(clip.pitch_black, clip.cells)
    drift = light.drift(clip.thumbs, clip.cells)
    n = len(clip)
    values = {
        "reach": float(clip.away.max()),
        "reach_at": 0.0,
        "reach_until": n - 1.0,
        "motion_mean": float(clip.change[1:].mean()) if n > 1 else 0.0,
        "drawings": float(clip.drawings[-1] + 1),
        "hold": hold,
        "hold_at": float(hold_at),
        "hold_until": float(hold_until),
        "cut": cut.score,
        "cut_at": float(cut.at),
        "flicker": flicker.whole,
        "flicker_at": float(flicker.per_frame.argmax()),
        "texture_flicker": flicker.texture,
        "texture_flicker_at": 0.0,
        "texture_flicker_until": n - 1.0,
        "flashes": general.per_second,
        "flashes_at": float(general.at),
        "red_flashes": red.per_second,
        "red_flashes_at": float(red.at),
        "black_frames": float(len(black)),
        "black_frames_at": float(black[0]) if len(black) else 0.0,
        "pitch_black_frames": float(len(pitch_black)),
        "pitch_black_frames_at": float(pitch_black[0]) if len(pitch_black) else 0.0,
        "colour_drift": drift.colour,
        "colour_drift_at": 0.0,
        "colour_drift_until": n - 1.0,
        "exposure_drift": drift.exposure,
        "exposure_drift_at": 0.0,
        "exposure_drift_until": n - 1.0,
        "bars": clip.bars,
        "over_exposed": float(np.median(clip.over_exposed)),
        "over_exposed_at": float(clip.over_exposed.argmax()),
        "flat": float(np.median(clip.flat)),
        "contrast": float(np.median(clip.contrast)),
        "sharpness": float(np.median(clip.sharpness)),
    }
    light_curve = clip.cells.mean(axis=(1, 2))
    curves = {
        "reach": clip.away,
        "hold": clip.change,
        "cut": jumps,
        "flicker": flicker.per_frame,
        "flashes": light_curve,
        "red_flashes": light_curve,
        "black_frames": clip.dark,
        "pitch_black_frames": clip.pitch_black,
        "exposure_drift": light_curve,
        "over_exposed": clip.over_exposed,
        "contrast": clip.contrast,
        "sharpness": np.interp(np.arange(n), clip.sampled, clip.sharpness),
        "flat": np.interp(np.arange(n), clip.sampled, clip.flat),
    }
    return values, curves


def _starts(clip: Reduced, expect: Expectation) -> dict[str, float]:
    """The measures against the stills that the clip must start and end with."""
    values: dict[str, float] = {}
    for name, still, frame in (("first", expect.keyframe, clip.first), ("last", expect.last, clip.last)):
        if still is None or still.shape != frame.shape:  # sizes that differ cannot be compared; wrong_size reports them
            continue
        like = likeness(still, frame)
        values |= {
            f"{name}_frame_ssim": like.ssim_min,
            f"{name}_frame_delta_e": like.delta_e,
            f"{name}_frame_tile_delta_e": like.delta_e_max,
        }
        if name == "first":
            values["sharpness_ratio"] = float(np.median(clip.sharpness)) / max(p.sharpness(p.gray(still)), 1.0)
            values["over_exposed_rise"] = float(np.median(clip.over_exposed)) - p.over_exposed_fraction(_small(still))
    if expect.keyframe is None:
        values["over_exposed_rise"] = float(np.median(clip.over_exposed))
    return values


def _small(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, working_size(image.shape[1], image.shape[0]), interpolation=cv2.INTER_AREA)
