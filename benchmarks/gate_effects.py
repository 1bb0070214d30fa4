"""What anime does to a picture on purpose: hard negatives, drawn over a clip that moves.

Each takes frames, uint8 RGB (n, height, width, 3), and a random.Random, and returns frames of the same shape. The first
frame stays what the keyframe shows, but where the effect is there from the beginning (then the keyframe has it too).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import cv2
import numpy as np

Effect = Callable[[np.ndarray, random.Random], np.ndarray]


def apply(name: str, frames: np.ndarray, rng: random.Random) -> np.ndarray:
    return _FUNCTIONS[name](frames.copy(), rng)


def _uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _each(frames: np.ndarray, change: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    return np.stack([_uint8(change(f.astype(np.float32), t)) for t, f in enumerate(frames)])


def _particles(count: int, colour: tuple[int, int, int], size: tuple[int, int], fall: tuple[float, float], drift: float) -> Effect:
    """Things that fall or rise through the whole clip."""

    def draw(frames: np.ndarray, rng: random.Random) -> np.ndarray:
        h, w = frames.shape[1:3]
        flakes = [
            (rng.uniform(0, w), rng.uniform(0, h), rng.uniform(*fall), rng.uniform(-drift, drift), rng.randint(*size)) for _ in range(count)
        ]
        for t, frame in enumerate(frames):
            for x, y, speed, side, radius in flakes:
                at = round((x + side * t + 4 * math.sin(t / 9 + x)) % w), round((y + speed * t) % h)
                cv2.circle(frame, at, radius, colour, -1, cv2.LINE_AA)
        return frames

    return draw


def _rain(frames: np.ndarray, rng: random.Random) -> np.ndarray:
    h, w = frames.shape[1:3]
    for frame in frames:
        layer = frame.copy()
        for _ in range(70):
            x, y, length = rng.uniform(0, w), rng.uniform(-20, h), rng.uniform(14, 34)
            cv2.line(layer, (round(x), round(y)), (round(x - length / 5), round(y + length)), (225, 232, 245), 1, cv2.LINE_AA)
        frame[:] = cv2.addWeighted(layer, 0.6, frame, 0.4, 0)
    return frames


def _speed_lines(every: int, first: float = 0.0, last: float = 1.0, ink: tuple[int, int, int] = (20, 20, 30)) -> Effect:
    """Radial lines, drawn anew every so many frames, around the middle."""

    def draw(frames: np.ndarray, rng: random.Random) -> np.ndarray:
        n, h, w, _ = frames.shape
        lines: list[tuple[float, float, int]] = []
        for t in range(round(first * n), round(last * n)):
            if t % every == 0 or not lines:
                lines = [(rng.uniform(0, 2 * math.pi), rng.uniform(0.32, 0.5), rng.choice((1, 1, 2, 3))) for _ in range(110)]
            for angle, inner, thick in lines:
                c, s = math.cos(angle) * w / 2, math.sin(angle) * h / 2
                start, end = (round(w / 2 + 2 * inner * c), round(h / 2 + 2 * inner * s)), (round(w / 2 + 3 * c), round(h / 2 + 3 * s))
                cv2.line(frames[t], start, end, ink, thick, cv2.LINE_AA)
        return frames

    return draw


def _impact(kind: str) -> Effect:
    def draw(frames: np.ndarray, rng: random.Random) -> np.ndarray:
        at, length = rng.randint(14, len(frames) - 16), rng.randint(2, 4)
        for t in range(at, at + length):
            gray = cv2.cvtColor(frames[t], cv2.COLOR_RGB2GRAY)
            if kind == "inverted":
                frames[t] = 255 - frames[t]
            elif kind == "two colours":
                frames[t] = np.where(gray[..., None] > 110, (250, 240, 210), (120, 10, 20))
            else:
                frames[t] = np.where(gray[..., None] > 70, 252, 10)
        return frames

    return draw


def _lightning(flashes: int) -> Effect:
    def draw(frames: np.ndarray, rng: random.Random) -> np.ndarray:
        at = rng.randint(10, len(frames) - 22)
        gain = np.zeros(len(frames), np.float32)
        for k in range(flashes):
            gain[at + 6 * k], gain[at + 6 * k + 1] = 0.75, 0.4
        return _each(frames, lambda f, t: f + (255 - f) * gain[t])

    return draw


def _fade(where: str, to: float, share: float) -> Effect:
    def draw(frames: np.ndarray, _: random.Random) -> np.ndarray:
        n = len(frames)
        length = max(4, round(n * share))

        def gain(t: int) -> float:
            return min(1.0, (t + 1) / length) if where == "in" else min(1.0, (n - 1 - t) / length)

        return _each(frames, lambda f, t: to + (f - to) * gain(t))

    return draw


def _light(gain: Callable[[float], float]) -> Effect:
    """The whole picture's light as a function of 0..1."""
    return lambda frames, _: _each(frames, lambda f, t: f * gain(t / (len(frames) - 1)))


def _night(frames: np.ndarray, _: random.Random) -> np.ndarray:
    return _each(frames, lambda f, t: (f * 0.30 + f.mean(axis=2, keepdims=True) * 0.08) * (0.72, 0.85, 1.25) + (4, 6, 14))


def _dark_night(frames: np.ndarray, _: random.Random) -> np.ndarray:
    return _each(frames, lambda f, t: f * (0.07, 0.08, 0.11))


def _lantern(frames: np.ndarray, _: random.Random) -> np.ndarray:
    """A dark room with one warm light that wavers by two parts in a hundred."""
    h, w = frames.shape[1:3]
    y, x = np.mgrid[:h, :w]
    pool = np.exp(-((x - 0.6 * w) ** 2 + (y - 0.45 * h) ** 2) / (2 * (0.33 * w) ** 2))[..., None]
    return _each(frames, lambda f, t: f * (0.12 + 0.85 * pool * (1 + 0.02 * math.sin(1.1 * t))) * (1.1, 0.95, 0.75))


def _sunset(frames: np.ndarray, _: random.Random) -> np.ndarray:
    return _each(frames, lambda f, t: f * (1 + (np.array([1.02, 0.95, 0.90]) - 1) * t / len(frames)))


def _tv_glow(frames: np.ndarray, rng: random.Random) -> np.ndarray:
    w = frames.shape[2]
    glow = np.exp(-np.linspace(0, 3, w))[None, :, None] * np.array([40, 70, 110])
    levels = [rng.uniform(0.6, 1.0) for _ in range(20)]
    return _each(_night(frames, rng), lambda f, t: f + glow * levels[t // 5 % 20])


def _foreground(frames: np.ndarray, rng: random.Random) -> np.ndarray:
    """A dark trunk stands at the left edge."""
    h, w = frames.shape[1:3]
    edge = np.array([[0, 0], [0.16 * w, 0], [0.12 * w, h // 2], [0.18 * w, h], [0, h]])
    for frame in frames:
        cv2.fillPoly(frame, [edge.astype(np.int32)], (34, 26, 24), cv2.LINE_AA)
    return frames


def _dark_floor(frames: np.ndarray, _: random.Random) -> np.ndarray:
    h = frames.shape[1]
    ramp = np.clip((np.arange(h) - 0.80 * h) / (0.06 * h), 0, 1)[:, None, None]
    return _each(frames, lambda f, t: f * (1 - ramp) + ramp * np.array([30, 24, 22]))


def _passer_by(frames: np.ndarray, rng: random.Random) -> np.ndarray:
    """A large shape in front of the camera, from one side to the other, in about a second."""
    h, w = frames.shape[1:3]
    colour = (rng.randint(40, 90), rng.randint(30, 70), rng.randint(60, 130))
    for t, frame in enumerate(frames):
        x = round(-0.5 * w + (t - 16) * w * 2 / 26)
        cv2.ellipse(frame, (x, round(0.62 * h)), (round(0.24 * w), round(0.75 * h)), 0, 0, 360, colour, -1, cv2.LINE_AA)
    return frames


def _title(frames: np.ndarray, rng: random.Random) -> np.ndarray:
    h, w = frames.shape[1:3]
    for frame in frames[rng.randint(8, 20) :]:
        for size, colour in ((6, (20, 20, 30)), (2, (255, 255, 255))):
            cv2.putText(frame, "Lanterns", (w // 8, h // 2), cv2.FONT_HERSHEY_DUPLEX, w / 200, colour, size, cv2.LINE_AA)
    return frames


def _rays(frames: np.ndarray, _: random.Random) -> np.ndarray:
    h, w = frames.shape[1:3]
    y, x = np.mgrid[:h, :w]
    return _each(frames, lambda f, t: f + 42 * np.clip(np.cos((x - 0.6 * y + 1.5 * t) / 26), 0, 1)[..., None] * (1, 0.95, 0.75))


def _water(frames: np.ndarray, _: random.Random) -> np.ndarray:
    """The lower half ripples and mirrors."""
    h, w = frames.shape[1:3]
    y, x = np.mgrid[: h // 2, :w].astype(np.float32)

    def ripple(f: np.ndarray, t: int) -> np.ndarray:
        mirrored = cv2.remap(f[: h // 2][::-1].copy(), x + 5 * np.sin(y / 5 + t / 3), y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        f[h - h // 2 :] = mirrored * (0.7, 0.8, 0.9)
        return f

    return _each(frames, ripple)


def _growing_light(frames: np.ndarray, _: random.Random) -> np.ndarray:
    """An explosion's glow: grows on threes, stays under half of the picture."""
    h, w = frames.shape[1:3]
    y, x = np.mgrid[:h, :w]
    far = np.hypot(x - 0.7 * w, y - 0.4 * h)[..., None]
    return _each(frames, lambda f, t: f + np.clip(1.4 - far / (4 + 2.2 * (t // 3 * 3)), 0, 1) * (190, 150, 60))


def _held(first: float, last: float) -> Effect:
    def hold(frames: np.ndarray, _: random.Random) -> np.ndarray:
        a, b = round(first * len(frames)), round(last * len(frames))
        frames[a:b] = frames[a]
        return frames

    return hold


def _on(step: int) -> Effect:
    return lambda frames, _: frames[np.arange(len(frames)) // step * step]


def _cel(frames: np.ndarray, _: random.Random) -> np.ndarray:
    """Two or three flat tones and no lines."""
    tones = np.array([(52, 46, 92), (226, 122, 96), (250, 226, 170)], np.uint8)
    soft = [cv2.cvtColor(cv2.GaussianBlur(f, (0, 0), 2.5), cv2.COLOR_RGB2GRAY) for f in frames]
    return np.stack([tones[np.digitize(gray, (85, 165))] for gray in soft])


def _battle(frames: np.ndarray, rng: random.Random) -> np.ndarray:
    """Beams that light the whole picture five times a second: only where effects are declared."""
    return _each(frames, lambda f, t: f * (0.45 if t // 2 % 2 else 1.0) + (0 if t // 2 % 2 else 60))


def _grain(sigma: float) -> Effect:
    def draw(frames: np.ndarray, rng: random.Random) -> np.ndarray:
        noise = np.random.default_rng(rng.randrange(2**31))
        return _each(frames, lambda f, t: f + noise.normal(0, sigma, f.shape[:2])[..., None])

    return draw


_FUNCTIONS: dict[str, Effect] = {
    "on twos": _on(2),
    "on threes": _on(3),
    "light snow": _particles(60, (250, 250, 255), (1, 2), (0.6, 2.0), 0.6),
    "heavy snow": _particles(420, (245, 248, 255), (1, 3), (1.5, 4.5), 1.2),
    "rain": _rain,
    "petals": _particles(40, (255, 190, 210), (2, 4), (0.8, 2.2), 1.5),
    "fireflies at night": lambda f, r: _particles(24, (255, 250, 170), (1, 2), (-0.6, 0.6), 0.8)(_night(f, r), r),
    "embers": _particles(50, (255, 150, 40), (1, 2), (-3.0, -1.0), 0.8),
    "speed lines on ones": _speed_lines(1),
    "speed lines on twos": _speed_lines(2),
    "white speed lines on threes": _speed_lines(3, ink=(250, 250, 255)),
    "speed lines for half a second": _speed_lines(2, 0.4, 0.62),
    "impact, inverted": _impact("inverted"),
    "impact, two colours": _impact("two colours"),
    "impact, black and white": _impact("black and white"),
    "lightning": _lightning(1),
    "double lightning": _lightning(2),
    "lightning at night": lambda f, r: _lightning(2)(_night(f, r), r),
    "fade out": _fade("out", 0, 0.22),
    "short fade out": _fade("out", 0, 0.1),
    "fade to white": _fade("out", 255, 0.22),
    "fade in": _fade("in", 0, 0.2),
    "night": _night,
    "snow at night": lambda f, r: _particles(150, (220, 225, 240), (1, 2), (0.8, 2.6), 0.8)(_night(f, r), r),
    "lantern light": _lantern,
    "sunset falls": _sunset,
    "television": _tv_glow,
    "a cloud passes": _light(lambda x: 1 - 0.13 * math.sin(math.pi * x) ** 2),
    "a trunk at the edge": _foreground,
    "a dark floor": _dark_floor,
    "someone passes in front": _passer_by,
    "a title": _title,
    "sun rays": _rays,
    "a lake": _water,
    "an explosion grows": _growing_light,
    "fog": lambda f, r: _each(f, lambda p, t: p * 0.42 + 128),
    "monochrome": lambda f, r: _each(f, lambda p, t: p.mean(axis=2, keepdims=True) * (1.02, 0.97, 0.88)),
    "flat cel": _cel,
    "a bright day": lambda f, r: _each(f, lambda p, t: p * 0.62 + 88),
    "held at first": _held(0.0, 0.4),
    "held at last": _held(0.58, 1.0),
    "held in the middle": _held(0.3, 0.7),
    "film grain": _grain(3.0),
    "a black night": _dark_night,
    "a long fade": _fade("out", 0, 0.75),
    "battle effects": _battle,
    "nothing moves": _held(0.0, 1.0),
}  # fmt: skip

# What a shot with such an effect would declare; most need nothing.
EFFECTS: dict[str, tuple[str, ...]] = {name: () for name in _FUNCTIONS} | {
    "a black night": ("night",),
    "a long fade": ("fade",),
    "battle effects": ("effects",),
    "an explosion grows": ("effects",),
    "nothing moves": ("hold",),
}
