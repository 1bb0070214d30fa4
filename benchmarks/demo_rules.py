"""What a picture of the demo's world shows: a small classifier, and plain rules on pixels.

All of it looks at pictures of 64x96, in which a pixel is one of the scenes' units; `reduced` makes
larger ones so. Figures of checkpoints of different sizes can then be compared.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from torch import nn

from actors.demo.train import scenes

ATTRIBUTES = {"time": scenes.TIMES, "place": scenes.PLACES, "coat": scenes.COATS, "hair": scenes.HAIRS}
HEAD = {"wide": 10.1, "close": 13.75}  # radius of the head in units, the middle of what scenes.py draws
Tint = tuple[float, float, float]


def reduced(pictures: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """uint8 RGB pictures of shape 2:3 to (n, 64, 96, 3)."""
    return np.stack([cv2.resize(p, (scenes.WIDTH, scenes.HEIGHT), interpolation=cv2.INTER_AREA) for p in pictures])


class Classifier(nn.Module):
    """Names the attributes of a picture: a few convolutions, trained on drawn scenes with noise and blur."""

    def __init__(self) -> None:
        super().__init__()
        sizes, layers = (3, 24, 32, 48, 64), []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Linear(64 * 24, len(v)) for v in ATTRIBUTES.values())

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        hidden = self.body(x).flatten(1)
        return [head(hidden) for head in self.heads]


def train_classifier(seconds: float, device: torch.device) -> Classifier:
    """`seconds` of training, after at most half as many of drawing."""
    torch.manual_seed(0)
    drawn, pictures, drawn_by = [], [], time.monotonic() + seconds / 2
    for i in range(3000):
        drawn.append(scenes.sample(10**5 + i, held_out=i % 9 == 0))
        pictures.append(scenes.draw(drawn[-1]))
        if i >= 100 and time.monotonic() > drawn_by:
            break
    model, rng, x_all = Classifier().to(device), random.Random(0), _tensor(np.stack(pictures), device)
    labels = torch.tensor([[values.index(getattr(s, name)) for name, values in ATTRIBUTES.items()] for s in drawn], device=device)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pick = torch.tensor(rng.sample(range(len(drawn)), 48), device=device)
        x = x_all[pick]
        some, noise = (torch.rand(len(x), 1, 1, 1, device=device) for _ in range(2))
        small = nn.functional.interpolate(nn.functional.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")  # soft, as a decoder is
        x = torch.where(some < 0.5, small, x) + noise * 0.15 * torch.randn_like(x)
        loss = torch.stack([nn.functional.cross_entropy(out, labels[pick, i]) for i, out in enumerate(model(x))]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


@torch.no_grad()
def classify(model: Classifier, pictures: np.ndarray) -> list[dict[str, str]]:
    """Attributes of reduced pictures."""
    answers = [out.argmax(1).tolist() for out in model(_tensor(pictures, next(model.parameters()).device))]
    return [{name: values[answers[k][i]] for k, (name, values) in enumerate(ATTRIBUTES.items())} for i in range(len(pictures))]


def _tensor(pictures: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def pixel_rule(picture: np.ndarray, framing: str) -> dict[str, str]:
    """Time from the sky's top rows; then the face is where skin is; hair lies above it, the coat below it."""
    top = np.median(picture[:3].reshape(-1, 3), axis=0)
    time_of_day = _nearest(top, {t: scenes.SKY[t][0] for t in scenes.TIMES}, (1, 1, 1))
    tint = scenes.TINT[time_of_day]
    fits, r = face_fits(picture, tint, framing), HEAD[framing]
    x, y = max(fits, key=fits.get)  # type: ignore[arg-type]
    hair = _patch(picture, x, y - 0.68 * r, 0.22 * r)
    coat = _patch(picture, x - 0.32 * r, y + 1.9 * r, 0.20 * r)
    return {"time": time_of_day, "hair": _nearest(hair, scenes.HAIR_RGB, tint), "coat": _nearest(coat, scenes.COAT_RGB, tint)}


def face_fits(picture: np.ndarray, tint: Tint, framing: str) -> dict[tuple[float, float], float]:
    """How well a face of this size fits the skin at each place: mean inside minus mean around, at heights where figures stand."""
    skin = np.exp(-((np.linalg.norm(picture - np.array(scenes.SKIN_RGB) * tint, axis=2) / 36) ** 2))  # 0..1
    sums, r = np.pad(skin.cumsum(0).cumsum(1), ((1, 0), (1, 0))), HEAD[framing]
    xs, ys = (a.ravel() for a in np.meshgrid(np.arange(12.0, 85.0), (22.5, 24.0, 25.5, 27.0), indexing="ij"))
    inside, inside_area = _box(sums, xs - 0.8 * r, xs + 0.8 * r, ys, ys + 0.85 * r)
    whole, whole_area = _box(sums, xs - 1.25 * r, xs + 1.25 * r, ys - 0.9 * r, ys + 0.85 * r)
    fits = inside / inside_area - (whole - inside) / (whole_area - inside_area)
    return {(x, y): fit for x, y, fit in zip(xs.tolist(), ys.tolist(), fits.tolist(), strict=True)}


def _box(sums: np.ndarray, left: np.ndarray, right: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum over, and number of, the pixels strictly between these bounds, from an integral picture."""
    height, width = (n - 1 for n in sums.shape)
    x0, x1 = (np.clip(a, 0, width).astype(int) for a in (np.floor(left) + 1, np.ceil(right)))
    y0, y1 = (np.clip(a, 0, height).astype(int) for a in (np.floor(top) + 1, np.ceil(bottom)))
    return sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0], (x1 - x0) * (y1 - y0)


def one_figure(clip: np.ndarray, scene: scenes.Scene) -> bool:
    """In every frame a face is found, it never jumps by more than six units, and there is no second figure.

    A second figure is another place that fits a face at least half as well and has the coat's colour below it:
    the setting sun alone fits a face too.
    """
    tint, r, xs = scenes.TINT[scene.time], HEAD[scene.framing], []
    coat = np.array(scenes.COAT_RGB[scene.coat]) * tint
    for frame in clip:
        fits = face_fits(frame, tint, scene.framing)
        (x, _), best = max(fits.items(), key=lambda item: item[1])
        others = [p for p, fit in fits.items() if abs(p[0] - x) > 2 * r and fit > 0.5 * best]
        if best < 0.1 or any(np.linalg.norm(_patch(frame, ox, oy + 1.9 * r, 0.3 * r) - coat) < 60 for ox, oy in others):
            return False
        xs.append(x)
    return float(np.abs(np.diff(xs)).max()) <= 6


def figure_shift(clip: np.ndarray, scene: scenes.Scene) -> float:
    """How far the coat's colour moved from the first frame to the last, units right."""
    colour = np.array(scenes.COAT_RGB[scene.coat]) * scenes.TINT[scene.time]
    columns = []
    for frame in (clip[0], clip[-1]):
        weight = np.exp(-((np.linalg.norm(frame[28:] - colour, axis=2) / 40) ** 2)).sum(axis=0)
        columns.append(float((weight * np.arange(96)).sum() / max(weight.sum(), 1e-6)))
    return columns[1] - columns[0]


def backdrop_shift(clip: np.ndarray) -> float:
    """The horizontal shift, units right, that best explains the backdrop after two seconds, away from the figure.

    Two seconds, because over the whole clip a skyline moves by one of its buildings and looks as if it stood still.
    Brightness is levelled by row first: what counts is edges, not the sky's gradient.
    """
    first, last = (f[24:56].astype(float) - f[24:56].mean(axis=1, keepdims=True) for f in (clip[0], clip[48]))
    beside = [c for c in range(8, 88) if min(abs(c - x) for x in _figure_columns(clip)) > 14]

    def cost(shift: int) -> float:
        return float(np.abs(last[:, beside] - first[:, [c - shift for c in beside]]).mean())

    costs = {shift: cost(shift) for shift in range(-7, 8)}
    return float(min(costs, key=costs.get))  # type: ignore[arg-type]


def _figure_columns(clip: np.ndarray) -> list[int]:
    """Columns where the figure stands at the start and after two seconds: what is least like its rows."""
    columns = []
    for frame in (clip[0], clip[48]):
        low = frame[40:60].astype(float)
        unlike = np.abs(low - np.median(low, axis=1, keepdims=True)).sum(axis=(0, 2))
        columns.append(int(np.convolve(unlike, np.ones(15), "same").argmax()))
    return columns


def _nearest(colour: np.ndarray, choices: Mapping[str, tuple[int, ...]], tint: Tint) -> str:
    return min(choices, key=lambda name: float(np.linalg.norm(colour - np.array(choices[name]) * tint)))


def _patch(picture: np.ndarray, x: float, y: float, r: float) -> np.ndarray:
    top, left = max(0, int(y - r)), max(0, int(x - r))
    area = picture[top : max(top + 1, int(y + r) + 1), left : max(left + 1, int(x + r) + 1)]
    return np.median(area.reshape(-1, 3), axis=0) if area.size else np.zeros(3)
