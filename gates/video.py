"""Gate 2: is this clip what was asked for, and does it move from its keyframe?"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from . import measures as m
from .decode import Undecodable, Video, decode
from .verdict import Finding, Verdict, verdict

DARK = 0.98  # share of dark pixels that makes a frame black (ffmpeg blackdetect's default)
OVER_EXPOSED = 0.25  # share of burnt-out pixels that makes a frame over-exposed


@dataclass(frozen=True)
class ClipExpectation:
    """What the container must hold, exactly."""

    frames: int
    fps: Fraction
    width: int
    height: int
    codec: str = "h264"
    pixel_format: str = "yuv420p"


@dataclass(frozen=True)
class VideoThresholds:
    """Start values; the reasons are measured in docs/gates.md."""

    still: float = 3.0  # levels; a frame pair under this is held
    reach: float = 6.0  # levels that some cell must get away from the first frame
    black_frames: int = 2  # frames, not counting the last tenth (fades)
    over_exposed_share: float = 0.5  # of the frames
    flat: float = 0.60  # share of pixels, median over sampled frames
    contrast: float = 8.0  # levels, median over sampled frames
    first_frame_ssim: float = 0.40  # minimum tile of aligned SSIM against the keyframe
    first_frame_delta_e: float = 10.0  # mean Delta E against the keyframe
    first_frame_tile_delta_e: float = 25.0  # Delta E of the worst tile: good clips stay under 18, another coat is above 75


def judge_video(path: Path, expect: ClipExpectation, keyframe: np.ndarray | None, limits: VideoThresholds | None = None) -> Verdict:
    """Decode the file from disk and judge it.

    Args:
        path: the video file as it will be stored.
        expect: exact frames, fps, size, codec and pixel format.
        keyframe: uint8 RGB (height, width, 3), the still that the clip must start from; None where a clip has none.
    """
    limits = limits or VideoThresholds()
    try:
        video = decode(path)
    except Undecodable as error:
        return verdict("video", [Finding("undecodable", str(error), "decodes to the end")], {})
    wrong = _container(video, expect)
    if wrong:
        return verdict("video", wrong, {"frames": len(video.frames), "fps": float(video.fps)})
    values = measure_video(video.frames, keyframe)
    return verdict("video", _faults(video.frames, values, limits, keyframe is not None), values)


def measure_video(frames: np.ndarray, keyframe: np.ndarray | None) -> dict[str, float]:
    """Every number that the verdict needs; see `measures` for formulas and units."""
    sampled = frames[np.unique(np.linspace(0, len(frames) - 1, min(len(frames), 12)).round().astype(int))]
    moved = m.motion(frames)
    values = {
        "frames": float(len(frames)),
        "motion_max": float(moved.max(initial=0.0)),
        "motion_mean": float(moved.mean()) if len(moved) else 0.0,
        "reach": m.reach(frames),
        "dark_frames": float(len(_dark(frames))),
        "over_exposed_share": float(np.mean([m.over_exposed_fraction(f) > OVER_EXPOSED for f in sampled])),
        "flat_fraction": float(np.median([m.flat_fraction(f) for f in sampled])),
        "contrast": float(np.median([m.contrast(f) for f in sampled])),
    }
    if keyframe is not None:
        like = m.likeness(keyframe, frames[0])
        values |= {
            "first_frame_ssim": like.ssim_min,
            "first_frame_ssim_median": like.ssim_median,
            "first_frame_tile_delta_e": like.delta_e_max,
        }
        values["first_frame_delta_e"] = m.picture_distance(keyframe, frames[0])
    return values


def _dark(frames: np.ndarray) -> list[int]:
    body = frames[: max(1, len(frames) - len(frames) // 10)]
    return [i for i, f in enumerate(body) if m.dark_fraction(f) >= DARK]


def _container(video: Video, expect: ClipExpectation) -> list[Finding]:
    found = []
    height, width = video.frames.shape[1:3]
    if len(video.frames) != expect.frames:
        found.append(Finding("wrong_frame_count", len(video.frames), expect.frames))
    if video.fps != expect.fps:
        found.append(Finding("wrong_fps", float(video.fps), float(expect.fps)))
    if (width, height) != (expect.width, expect.height):
        found.append(Finding("wrong_size", f"{width}x{height}", f"{expect.width}x{expect.height}"))
    if (video.codec, video.pixel_format) != (expect.codec, expect.pixel_format):
        found.append(Finding("wrong_codec", f"{video.codec} {video.pixel_format}", f"{expect.codec} {expect.pixel_format}"))
    return found


def _faults(frames: np.ndarray, v: dict[str, float], limits: VideoThresholds, has_keyframe: bool) -> list[Finding | None]:
    def when(found: bool, label: str, key: str, threshold: float, at: tuple[int, ...] = ()) -> Finding | None:
        return Finding(label, v[key], threshold, at) if found else None

    # One frame cannot move: a single-frame clip is frozen by definition.
    frozen = v["motion_max"] < limits.still and v["reach"] < limits.reach
    faults = [
        when(v["dark_frames"] >= limits.black_frames, "black", "dark_frames", limits.black_frames, tuple(_dark(frames))[:16]),
        when(v["contrast"] < limits.contrast, "empty", "contrast", limits.contrast),
        when(v["over_exposed_share"] > limits.over_exposed_share, "over_exposed", "over_exposed_share", limits.over_exposed_share),
        when(v["flat_fraction"] < limits.flat, "noise", "flat_fraction", limits.flat),
        when(frozen, "frozen", "reach", limits.reach, (0, len(frames) - 1)),
    ]
    if has_keyframe:
        # One label, three ways to be wrong: other shapes, other light, another colour in one place.
        unlike = v["first_frame_ssim"] < limits.first_frame_ssim
        faults.append(when(unlike, "wrong_first_frame", "first_frame_ssim", limits.first_frame_ssim, (0,)))
        for key in ("first_frame_delta_e", "first_frame_tile_delta_e"):
            limit = getattr(limits, key)
            faults.append(when(v[key] > limit, "wrong_first_frame", key, limit, (0,)))
    return faults
