"""Procedural anime-like scenes with captions: what the demo checkpoints learn from.

A scene is a pure function of its attributes and one seed, and every movement is a function of the
frame number alone. Given the first frame and the caption, the other 120 frames are determined, so
a very small model can learn them. Cel colours and dark outlines, drawn by `painter`.

Units: one unit is 1/64 of the picture's height. x grows right, y grows down.
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from functools import cache

import numpy as np

from .painter import OUTLINE_RGB, UNITS, Painter

HEIGHT, WIDTH, FRAMES, FPS = UNITS, 96, 121, 24  # height and width where nothing else is asked for: a unit is a pixel
TIMES = ("day", "sunset", "night")
PLACES = ("sea", "hills", "city")
COATS = ("red", "blue", "green", "yellow")
HAIRS = ("black", "blonde", "pink", "blue")
FRAMINGS = ("wide", "close")
MOTIONS = ("still", "walk left", "walk right", "pan left", "pan right")
TRAVEL = 26.0  # units walked, or panned in the foreground, from frame 0 to frame 120

COAT_RGB = {"red": (214, 48, 58), "blue": (44, 82, 205), "green": (36, 146, 74), "yellow": (246, 204, 52)}
HAIR_RGB = {"black": (40, 36, 52), "blonde": (244, 206, 104), "pink": (252, 134, 182), "blue": (72, 118, 230)}
SKIN_RGB = (255, 226, 204)
TINT = {"day": (1.0, 1.0, 1.0), "sunset": (1.0, 0.88, 0.80), "night": (0.70, 0.74, 0.90)}
SKY = {
    "day": ((64, 148, 240), (206, 236, 255)),
    "sunset": ((116, 66, 150), (255, 160, 84)),
    "night": ((12, 16, 50), (46, 54, 108)),
}
CLOUD_RGB = {"day": (255, 255, 255), "sunset": (255, 176, 160), "night": (62, 66, 112)}

FRAMING_WORDS = {"wide": "wide shot", "close": "close-up"}
PLACE_WORDS = {"sea": "by the sea", "hills": "in the hills", "city": "in the city"}
TIME_WORDS = {"day": "by day", "sunset": "at sunset", "night": "at night"}
MOTION_WORDS = {
    "still": ("standing still", "static camera"),
    "walk left": ("walking left", "static camera"),
    "walk right": ("walking right", "static camera"),
    "pan left": ("standing still", "camera pans left"),
    "pan right": ("standing still", "camera pans right"),
}


@dataclass(frozen=True)
class Scene:
    """What the caption says (attributes) and what it leaves open (seed: places of things)."""

    time: str
    place: str
    coat: str
    hair: str
    framing: str
    motion: str
    seed: int


def is_held_out(time: str, place: str, coat: str, hair: str) -> bool:
    """One combination in nine never appears in training; every single attribute still does."""
    code = TIMES.index(time) + PLACES.index(place) * 4 + COATS.index(coat) * 5 + HAIRS.index(hair) * 2
    return code % 9 == 4


@cache
def combinations(held_out: bool) -> list[tuple[str, str, str, str]]:
    return [c for c in itertools.product(TIMES, PLACES, COATS, HAIRS) if is_held_out(*c) is held_out]


def sample(seed: int, held_out: bool = False, motion: str | None = None) -> Scene:
    """A scene drawn from the training combinations, or from the held-out ones."""
    rng = random.Random(f"scene-{seed}")
    time, place, coat, hair = rng.choice(combinations(held_out))
    return Scene(time, place, coat, hair, rng.choice(FRAMINGS), motion or rng.choice(MOTIONS), seed)


def caption(scene: Scene, rng: random.Random | None = None) -> str:
    """The caption in the order in which Tower composes prompts; with rng, sometimes shortened or shuffled."""
    action, camera = MOTION_WORDS[scene.motion]
    who = f"a girl with {scene.hair} hair and a {scene.coat} coat"
    parts = [FRAMING_WORDS[scene.framing], who, action, PLACE_WORDS[scene.place], TIME_WORDS[scene.time], camera, "anime"]
    if rng is not None and rng.random() < 0.3:
        parts = [p for p in parts if rng.random() > 0.15]
        if rng.random() < 0.5:
            rng.shuffle(parts)
    return ", ".join(parts)


@dataclass(frozen=True)
class Pose:
    """Where things are at one frame."""

    camera: float  # units the camera has moved right
    figure: float  # units the figure has walked right
    stride: float  # -1..1, legs and arms
    bob: float  # units up
    sway: float  # units, hair and hem
    turn: float  # -1..1, where the face looks
    eyes_closed: bool
    wind: float  # units the clouds have drifted
    phase: float  # radians, waves


def pose_at(motion: str, frame: int) -> Pose:
    """All movement: the same for every scene, so that only caption and first frame matter."""
    t = frame / (FRAMES - 1)
    direction = {"walk left": -1, "pan left": -1, "walk right": 1, "pan right": 1}.get(motion, 0)
    walking = motion.startswith("walk")
    stride = math.sin(2 * math.pi * frame / 24) if walking else 0.0
    ease = min(1.0, frame / 8)
    return Pose(
        camera=0.0 if walking else direction * TRAVEL * t,
        figure=direction * TRAVEL * t if walking else 0.0,
        stride=stride,
        bob=abs(stride) * 1.2,
        sway=1.8 * math.sin(2 * math.pi * frame / 48) - (direction * 1.2 * ease if walking else 0.0),
        turn=direction * ease if walking else 0.0,
        eyes_closed=36 <= frame <= 41 or 92 <= frame <= 97,
        wind=9.0 * t,
        phase=2 * math.pi * frame / 60,
    )


def draw(scene: Scene, frame: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """One frame: uint8 RGB of shape (height, width, 3)."""
    paint = Painter(height, width, TINT[scene.time])
    pose = pose_at(scene.motion, frame)
    rng = random.Random(f"layout-{scene.seed}")
    _sky(paint, scene, pose, rng)
    {"sea": _sea, "hills": _hills, "city": _city}[scene.place](paint, scene, pose, rng)
    _figure(paint, scene, pose, random.Random(f"figure-{scene.seed}"))
    return paint.finish()


def clip(scene: Scene, frames: range = range(FRAMES), height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Frames of the scene: uint8 RGB of shape (len(frames), height, width, 3)."""
    return np.stack([draw(scene, f, height, width) for f in frames])


def _sky(paint: Painter, scene: Scene, pose: Pose, rng: random.Random) -> None:
    top, low = (np.array(c, float) for c in SKY[scene.time])
    ramp = np.clip(np.arange(paint.canvas.shape[0]) / (44 * paint.scale), 0, 1)[:, None]
    paint.canvas[:] = (top * (1 - ramp) + low * ramp).astype(np.uint8)[:, None, :]
    wide = paint.units_wide
    if scene.time == "night":
        for _ in range(7):
            paint.ellipse(rng.uniform(0, wide), rng.uniform(2, 26), 0.65, 0.65, (250, 248, 220), tinted=False)
    sun_x = rng.uniform(0.12, 0.88) * wide - 0.1 * pose.camera
    if scene.time == "day":
        paint.ellipse(sun_x, 9, 5, 5, (255, 246, 190), tinted=False)
    elif scene.time == "sunset":
        paint.ellipse(sun_x, 30, 8, 8, (255, 226, 130), tinted=False)
    else:
        paint.ellipse(sun_x, 10, 5, 5, (252, 244, 196), tinted=False)
        paint.ellipse(sun_x + 2.4, 9, 4.2, 4.2, tuple(int(v) for v in top * 0.8 + low * 0.2), tinted=False)
    around = wide + 32
    for i in range(3):
        x = (rng.uniform(0, around) + pose.wind - 0.2 * pose.camera) % around - 16
        y, r = 6 + 6 * i + rng.uniform(-1.5, 1.5), rng.uniform(2.6, 3.6)
        for dx, dy, k in ((-1.7, 0.25, 0.75), (0, -0.2, 1.0), (1.7, 0.25, 0.8)):
            paint.ellipse(x + dx * r, y + dy * r, 1.35 * r * k, r * k, CLOUD_RGB[scene.time], tinted=False)


def _sea(paint: Painter, scene: Scene, pose: Pose, rng: random.Random) -> None:
    wide = paint.units_wide
    water = {"day": (34, 122, 204), "sunset": (84, 92, 160), "night": (20, 40, 96)}[scene.time]
    glint = {"day": (176, 224, 250), "sunset": (255, 190, 130), "night": (96, 120, 180)}[scene.time]
    paint.polygon([(-1, 34), (wide + 1, 34), (wide + 1, 66), (-1, 66)], water, tinted=False)
    for i in range(6):
        y = 37 + 2.6 * i
        x = (rng.uniform(0, wide + 24) + 3 * math.sin(pose.phase + i) - (0.4 + 0.1 * i) * pose.camera) % (wide + 24) - 12
        paint.line([(x - 5, y), (x + 5, y)], 0.8, glint, tinted=False)
    shore = [
        (x, 54 + 0.8 * math.sin(2 * math.pi * (x + pose.camera) / wide * 2 + 0.6 * math.sin(pose.phase)))
        for x in np.linspace(-1, wide + 1, 25)
    ]
    paint.polygon([*shore, (wide + 1, 66), (-1, 66)], (238, 214, 160))
    paint.line(shore, 1.2, (236, 246, 252))


def _hills(paint: Painter, scene: Scene, pose: Pose, rng: random.Random) -> None:
    wide = paint.units_wide
    for base, depth, rgb, parallax in ((33, 5.0, (112, 168, 150), 0.35), (43, 3.2, (92, 178, 96), 0.7), (53, 1.2, (74, 158, 72), 1.0)):
        a, b = rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)
        ridge = []
        for x in np.linspace(-1, wide + 1, 33):
            u = 2 * math.pi * (x + parallax * pose.camera) / wide
            ridge.append((float(x), base - depth * (0.6 * math.sin(u + a) + 0.4 * math.sin(2 * u + b))))
        paint.polygon([*ridge, (wide + 1, 66), (-1, 66)], rgb)


def _city(paint: Painter, scene: Scene, pose: Pose, rng: random.Random) -> None:
    wide = paint.units_wide
    count, lit = 7, scene.time != "day"
    step = wide / count
    window = (255, 224, 120) if lit else (176, 206, 232)
    for i in range(count):
        top, shade = rng.uniform(22, 34), rng.choice(((150, 152, 172), (128, 132, 156), (168, 160, 172)))
        x = (i * step - 0.5 * pose.camera) % wide
        for left in (x - wide, x):  # the skyline is a ring: what leaves on one side returns on the other
            if left > wide or left + step < 0:
                continue
            paint.polygon([(left, top), (left + step - 0.8, top), (left + step - 0.8, 54), (left, 54)], shade)
            for row in range(2):
                for col in range(2):
                    wx, wy = left + 2.2 + col * 5.2, top + 3.5 + row * 7
                    paint.polygon([(wx, wy), (wx + 3.2, wy), (wx + 3.2, wy + 3.6), (wx, wy + 3.6)], window, tinted=not lit)
    paint.polygon([(-1, 53), (wide + 1, 53), (wide + 1, 66), (-1, 66)], (112, 110, 126))
    paint.line([(-1, 53), (wide + 1, 53)], 1.0, (190, 188, 196))


def _figure(paint: Painter, scene: Scene, pose: Pose, rng: random.Random) -> None:
    close = scene.framing == "close"
    r = rng.uniform(13.0, 14.5) if close else rng.uniform(9.6, 10.6)  # radius of the head
    x = rng.uniform(0.36, 0.64) * paint.units_wide + pose.figure - pose.camera
    y = (25.0 if close else 24.5) + rng.uniform(-1.5, 1.5) - pose.bob
    coat, hair = COAT_RGB[scene.coat], HAIR_RGB[scene.hair]
    dark_coat, dark_hair = (tuple(int(c * 0.78) for c in rgb) for rgb in (coat, hair))
    s = pose.sway * r / 9

    # long back hair, blown at the tips
    paint.polygon(
        [
            (x - 1.12 * r, y - 0.2 * r),
            (x - 1.25 * r + 0.6 * s, y + 1.2 * r),
            (x - 1.15 * r + s, y + 1.9 * r),
            (x + 1.15 * r + s, y + 1.9 * r),
            (x + 1.25 * r + 0.6 * s, y + 1.2 * r),
            (x + 1.12 * r, y - 0.2 * r),
        ],
        dark_hair,
        outline=True,
    )
    # legs
    hem = y + 2.9 * r
    for side in (-1, 1):
        foot = x + side * 0.38 * r + side * pose.stride * 0.55 * r
        lift = max(0.0, side * pose.stride) * 0.25 * r
        paint.line([(x + side * 0.36 * r, hem - 0.3 * r), (foot, hem + 0.62 * r - lift)], 0.3 * r, (58, 50, 70))
    # coat with sleeves
    for side in (-1, 1):
        swing = side * pose.stride * 0.35 * r
        paint.polygon(
            [
                (x + side * 0.45 * r, y + 1.0 * r),
                (x + side * 0.72 * r, y + 1.1 * r),
                (x + side * 1.12 * r - swing, y + 2.25 * r),
                (x + side * 0.78 * r - swing, y + 2.35 * r),
            ],
            dark_coat,
            outline=True,
        )
    paint.polygon(
        [(x - 0.48 * r, y + 0.9 * r), (x + 0.48 * r, y + 0.9 * r), (x + 0.98 * r + 0.3 * s, hem), (x - 0.98 * r + 0.3 * s, hem)],
        coat,
        outline=True,
    )
    paint.line([(x, y + 1.1 * r), (x + 0.2 * s, hem - 0.1 * r)], 0.1 * r, dark_coat)
    # head
    paint.ellipse(x, y, r, 0.96 * r, SKIN_RGB, outline=True)
    fx = x + 0.18 * r * pose.turn
    for side in (-1, 1):
        ex, ey = fx + side * 0.42 * r, y + 0.16 * r
        if pose.eyes_closed:
            paint.line([(ex - 0.2 * r, ey + 0.06 * r), (ex, ey + 0.16 * r), (ex + 0.2 * r, ey + 0.06 * r)], 0.11 * r, OUTLINE_RGB)
        else:
            paint.ellipse(ex, ey, 0.19 * r, 0.31 * r, (44, 38, 78))
            paint.ellipse(ex + 0.06 * r, ey - 0.12 * r, 0.07 * r, 0.09 * r, (255, 255, 255), tinted=False)
        paint.ellipse(fx + side * 0.62 * r, y + 0.52 * r, 0.16 * r, 0.09 * r, (255, 172, 168))
    paint.line([(fx - 0.1 * r, y + 0.6 * r), (fx, y + 0.64 * r), (fx + 0.1 * r, y + 0.6 * r)], 0.08 * r, (176, 84, 92))
    # crown and fringe
    crown = [(x + 1.06 * r * math.cos(a), y - 1.04 * r * math.sin(a)) for a in np.linspace(0, math.pi, 13)]
    fringe = [
        (x - 1.06 * r, y + 0.35 * r),
        (x - 0.80 * r, y - 0.02 * r),
        (x - 0.62 * r, y - 0.16 * r),
        (x - 0.28 * r, y - 0.34 * r),
        (x - 0.10 * r, y - 0.10 * r),
        (x + 0.18 * r, y - 0.36 * r),
        (x + 0.60 * r, y - 0.14 * r),
        (x + 0.80 * r, y - 0.02 * r),
        (x + 1.06 * r, y + 0.35 * r),
    ]
    paint.polygon([*crown, *fringe], hair, outline=True)
