"""Good clips for the gates' calibration: composites of drawn art, drawn scenes, photographs, clips of the demo's models.

A base is a pure function of its name. Halves are split by artwork: no background, outfit, combination of a drawn
scene's attributes, photograph or prompt is in both. All clips are uint8 RGB (frames, 256, 384, 3) at 24 fps, the demo
models' 64x96.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from actors.demo.train import scenes

from .gate_effects import EFFECTS, apply

WIDTH, HEIGHT, FRAMES = 384, 256, 61
ART = Path(__file__).parent / "art"
HALVES = ("tune", "test")
BACKGROUNDS = {"tune": ("lecturehall", "uni"), "test": ("club", "meadow")}
OUTFIT = {"tune": "blue", "test": "green"}
PHOTOS = {"tune": ("astronaut", "coffee", "chelsea"), "test": ("rocket", "motorcycle_left", "brick")}


@dataclass(frozen=True)
class Base:
    """A clip that a gate must not reject. `effect` is what makes it a hard one, or none."""

    half: str
    source: str  # question | scenes | photos | demo
    artwork: str
    move: str
    effect: str = ""
    declared: tuple[str, ...] = ()  # where it would be declared by whoever wrote the shot

    @property
    def name(self) -> str:
        return "/".join(x for x in (self.half, self.source, self.artwork, self.move, self.effect) if x)

    @property
    def hard(self) -> bool:
        return bool(self.effect) or self.move in HARD_MOVES

    @property
    def fps(self) -> int:
        return 8 if self.move == "AnimateDiff" else 24

    def make(self) -> tuple[np.ndarray, np.ndarray]:
        """The keyframe, uint8 RGB (height, width, 3), and the clip that starts from it."""
        if self.source == "demo":
            return _demo(self.artwork, self.move)
        frames = {"question": _question, "scenes": _scene, "photos": _photo}[self.source](self.artwork, self.move)
        if self.effect:
            frames = apply(self.effect, frames, random.Random(self.name))
        return frames[0], frames


def bases(half: str, demo: bool = True) -> list[Base]:
    """All bases of a half, each once."""
    found = [Base(half, "question", a, move, declared=DECLARED.get(move, ())) for a in BACKGROUNDS[half] for move in MOVES]
    drawn = _scenes(half)
    found += [Base(half, "scenes", artwork, "as drawn") for artwork in drawn]
    found += [Base(half, "photos", photo, move) for photo in PHOTOS[half] for move in PHOTO_MOVES]
    for i, (effect, declared) in enumerate(EFFECTS.items()):
        for k, artwork in enumerate(BACKGROUNDS[half]):
            move = "walk" if effect == "a black night" else ("walk", "dialogue", "slow pan")[(i + k) % 3]  # a mouth would not be seen
            found.append(Base(half, "question", artwork, move, effect, declared))
        found += [Base(half, "scenes", drawn[(i + k * 7) % len(drawn)], "as drawn", effect, declared) for k in range(2)]
    if demo:
        found += [Base(half, "demo", artwork, model) for artwork, model in _prompts(half)]
    return found


# Where the camera is (x, y in pixels of the background, zoom), the figure (x in pixels or None, y), and which face.
State = tuple[float, float, float, float | None, float, str]
CENTRE = (384.0, 236.0, 0.82)


def _state(camera: tuple[float, float, float] = CENTRE, x: float | None = 384.0, y: float = 0.0, face: str = "normal") -> State:
    return (*camera, x, y, face)


def _walk(t: int, step: int = 1) -> State:
    t = t // step * step
    return _state(x=200 + 5.5 * t, y=6 * abs(math.sin(t / 3)))


def _mouth(t: int) -> str:
    return ("normal", "smile", "surprised", "smile")[t // 3 % 4]


def _eased(t: int) -> float:
    return 0.5 - 0.5 * math.cos(math.pi * min(1, t / (FRAMES - 1)))


MOVES: dict[str, Callable[[int], State]] = {
    "walk": lambda t: _walk(t),
    "walk on twos": lambda t: _walk(t, 2),
    "walk on threes": lambda t: _walk(t, 3),
    "blink": lambda t: _state(face="giggle" if t % 29 in (9, 10, 11) else "normal"),
    "one blink": lambda t: _state(face="giggle" if 40 <= t < 43 else "normal"),
    "dialogue": lambda t: _state(face=_mouth(t)),
    "slow talk": lambda t: _state(face="smile" if t // 8 % 2 else "normal"),
    "talk, then listen": lambda t: _state(face=_mouth(t) if t < 40 else "normal"),
    "expression changes": lambda t: _state(face="normal" if t < 30 else "surprised"),
    "slow pan": lambda t: _state((300 + 1.2 * t, 236, 0.82), 420),
    "very slow pan": lambda t: _state((370 + 0.25 * t, 236, 0.82), 420),
    "fast pan": lambda t: _state((200 + 5.8 * t, 236, 0.95), 420),
    "whip pan": lambda t: _state((180 if t < 22 else 180 + 24 * (t - 22) if t < 39 else 588, 236, 1.05), 620, face=_mouth(t)),
    "zoom in": lambda t: _state((384, 236 - 0.6 * t, 0.75 + 0.012 * t), face=_mouth(t)),
    "zoom out": lambda t: _state((384, 216, 1.4 - 0.011 * t), face=_mouth(t)),
    "camera shake": lambda t: _state((384 + (9 * (-1) ** t) * (20 <= t < 32), 236 + 5 * math.sin(2.4 * t) * (20 <= t < 32), 0.9)),
    "enters": lambda t: _state(x=-80 + 9.0 * min(t, 45), y=5 * abs(math.sin(t / 3)) * (t < 45)),
    "leaves": lambda t: _state(x=384 + 9.0 * max(0, t - 12), y=5 * abs(math.sin(t / 3)) * (t > 12)),
    "tilt up": lambda t: _state((384, 290 - 100 * _eased(t), 1.15), face=_mouth(t)),
    "breathing": lambda t: _state(y=2.5 * math.sin(t / 7)),
    "held, then walks": lambda t: _walk(max(0, t - 22)),
    "walks, then holds": lambda t: _walk(min(t, 38)),
    "empty street, slow pan": lambda t: _state((330 + 1.4 * t, 236, 0.85), None),
    "held still": lambda t: _state(),
}
HARD_MOVES = (
    "walk on twos", "walk on threes", "blink", "one blink", "dialogue", "slow talk", "talk, then listen", "expression changes",
    "very slow pan", "fast pan", "whip pan", "camera shake", "breathing", "held, then walks", "walks, then holds", "held still", "grainy",
)  # fmt: skip
DECLARED = {"held still": ("hold",)}


@cache
def _background(name: str) -> np.ndarray:
    return _read(ART / f"{name}.jpg")


def _read(path: Path) -> np.ndarray:
    """float32 (height, width, 3), or 4 with alpha; levels."""
    with Image.open(path) as picture:
        return np.array(picture.convert("RGBA" if picture.mode == "RGBA" else "RGB"), np.float32)


@cache
def _sprite(outfit: str, face: str) -> np.ndarray:
    picture = _read(ART / f"{outfit}_{face}.png")
    picture[..., 3] /= 255
    return picture


@cache
def _composed(background: str, outfit: str, x: float | None, y: float, face: str) -> np.ndarray:
    world = _background(background)
    if x is None:
        return world
    sprite = _sprite(outfit, face)
    shift = np.array([[0.78, 0, x - 0.39 * sprite.shape[1]], [0, 0.78, 130 - y]], np.float32)
    placed = cv2.warpAffine(sprite, shift, (world.shape[1], world.shape[0]), flags=cv2.INTER_AREA)
    return world * (1 - placed[..., 3:]) + placed[..., :3] * placed[..., 3:]


def _question(artwork: str, move: str) -> np.ndarray:
    half = next(h for h in HALVES if artwork in BACKGROUNDS[h])
    frames = []
    for t in range(FRAMES):
        cx, cy, zoom, x, y, face = MOVES[move](t)
        world = _composed(artwork, OUTFIT[half], x, y, face)
        scale = zoom * HEIGHT / 432 * 1.35
        window = np.array([[scale, 0, WIDTH / 2 - scale * cx], [0, scale, HEIGHT / 2 - scale * cy]], np.float32)
        picture = cv2.warpAffine(world, window, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        frames.append(np.clip(np.round(picture), 0, 255).astype(np.uint8))
    _composed.cache_clear()
    return np.stack(frames)


def _scenes(half: str, count: int = 24) -> list[str]:
    """Attributes of drawn scenes; a combination of time, place, coat and hair belongs to one half by its hash."""
    found = []
    for seed in range(10_000):
        scene = scenes.sample(seed)
        who = f"{scene.time} {scene.place} {scene.coat} {scene.hair}"
        if HALVES[random.Random(who).randrange(2)] == half:
            found.append(f"{seed}")
        if len(found) == count:
            break
    return found


def _scene(artwork: str, _: str) -> np.ndarray:
    return scenes.clip(scenes.sample(int(artwork)), range(0, 2 * FRAMES - 1, 2), HEIGHT, WIDTH)


PHOTO_MOVES = ("handheld", "pan", "zoom", "grainy")


def _photo(artwork: str, move: str) -> np.ndarray:
    import skimage.data

    file = next(p for p in Path(skimage.data.__path__[0]).glob(f"{artwork}.*") if p.suffix in (".png", ".jpg"))
    photo = _read(file)[..., :3]
    rng, frames = np.random.default_rng(len(artwork)), []
    scale = max(WIDTH / photo.shape[1], HEIGHT / photo.shape[0]) * 1.15
    for t in range(FRAMES):
        zoom = scale * (1 + 0.004 * t * (move == "zoom"))
        dx = {"handheld": 2.5 * math.sin(t / 5) + 1.5 * math.sin(t / 2.3), "pan": 0.9 * t - 27}.get(move, 0.4 * t - 12)
        x, y = WIDTH / 2 - zoom * photo.shape[1] / 2 + dx, HEIGHT / 2 - zoom * photo.shape[0] / 2
        window = np.array([[zoom, 0, x], [0, zoom, y]], np.float32)
        picture = cv2.warpAffine(photo, window, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT_101)
        grain = rng.normal(0, 4 if move == "grainy" else 1, picture.shape)
        frames.append(np.clip(np.round(picture + grain), 0, 255).astype(np.uint8))
    return np.stack(frames)


def _prompts(half: str) -> list[tuple[str, str]]:
    """Seeds of scenes whose captions the demo's models get, and which model."""
    ours = _scenes(half, 40)[24:]
    return [(seed, "LTX-Video") for seed in ours[:10]] + [(seed, "AnimateDiff") for seed in ours[10:16]]


@cache
def _models():  # type: ignore[no-untyped-def] # benchmarks.demo_models brings torch; only this source needs it
    import torch

    from .demo_models import Models

    torch.set_num_threads(1)
    return Models()


def _demo(artwork: str, model: str) -> tuple[np.ndarray, np.ndarray]:
    """A clip that the demo's models generate from a caption: their own keyframe first."""
    models, scene = _models(), scenes.sample(int(artwork))
    text = scenes.caption(scene)
    still = models.stills([text], int(artwork))[0]
    clip = models.clip(models.ltx if model == "LTX-Video" else models.animatediff, still, text, int(artwork))
    return still, clip
