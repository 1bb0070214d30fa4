"""What the demo checkpoints can do, on scenes and combinations of attributes that training never saw.

    python -m benchmarks.demo_models [--quick] [--json FILE] [--pictures FOLDER]

A small classifier (trained here on drawn scenes) and a plain pixel rule look at stills; clips are
compared with what the same scene would have shown, and captions are swapped on one picture.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn

from actors.animatediff import AnimateDiffModel
from actors.demo.train import scenes
from actors.keyframe import KeyframeModel
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import ClipRequest, KeyframeRequest, ModelFiles
from gates.clip import most_changed
from gates.pair import likeness
from gates.picture import gray
from pipeline.registry.files import files_of
from pipeline.story.settings import load_settings
from pipeline.story.workflow import WORKFLOWS, read_workflow

ATTRIBUTES = {"time": scenes.TIMES, "place": scenes.PLACES, "coat": scenes.COATS, "hair": scenes.HAIRS}
HELD_OUT = 10**6  # seeds from here on are never trained on


class Models:
    """The demo workflows' models, without Ray."""

    def __init__(self) -> None:
        settings = load_settings()
        names = ("sd15_keyframe_demo", "ltx_video_2b_demo", "animatediff_16_demo")
        flows = {name: read_workflow(WORKFLOWS / f"{name}.yaml") for name in names}
        files = {name: files_of(flow, settings) for name, flow in flows.items()}
        self.keyframe = KeyframeModel("k", files["sd15_keyframe_demo"], flows["sd15_keyframe_demo"].settings())
        self.ltx = LtxVideoModel("l", files["ltx_video_2b_demo"], flows["ltx_video_2b_demo"].settings())  # type: ignore[arg-type]
        self.animatediff = AnimateDiffModel("a", files["animatediff_16_demo"], flows["animatediff_16_demo"].settings())  # type: ignore[arg-type]
        self.sd_text = PromptEncoder("s", ModelFiles(files["sd15_keyframe_demo"].checkpoint))
        self.ltx_text = PromptEncoder("t", ModelFiles(files["ltx_video_2b_demo"].checkpoint), flows["ltx_video_2b_demo"].max_tokens)
        self.negative = {True: self.ltx_text.encode([""])[0], False: self.sd_text.encode([""])[0]}

    def stills(self, captions: list[str], seed: int) -> list[np.ndarray]:
        size, out = self.keyframe.settings.batch_size, []
        for start in range(0, len(captions), size):
            texts = self.sd_text.encode(captions[start : start + size])
            requests = [KeyframeRequest(str(i), seed + start + i, prompt=t, negative=self.negative[False]) for i, t in enumerate(texts)]
            out += self.keyframe.generate(requests)[1]
        return out

    def clip(self, model: LtxVideoModel | AnimateDiffModel, keyframe: np.ndarray, caption: str, seed: int) -> np.ndarray:
        is_ltx = isinstance(model, LtxVideoModel)
        text = (self.ltx_text if is_ltx else self.sd_text).encode([caption])[0]
        request = ClipRequest("c", seed, prompt=text, negative=self.negative[is_ltx], keyframe=keyframe)
        return model.generate([request])[1][0]


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


def tensor(pictures: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_classifier(seconds: float) -> Classifier:
    torch.manual_seed(0)
    model, rng = Classifier(), random.Random(0)
    drawn = [scenes.sample(10**5 + i, held_out=i % 9 == 0) for i in range(3000)]
    pictures = tensor([scenes.draw(s) for s in drawn])
    labels = torch.tensor([[values.index(getattr(s, name)) for name, values in ATTRIBUTES.items()] for s in drawn])
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pick = torch.tensor(rng.sample(range(len(drawn)), 48))
        x = pictures[pick]
        small = nn.functional.interpolate(nn.functional.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")  # soft, as a decoder is
        x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, small, x) + torch.rand(len(x), 1, 1, 1) * 0.15 * torch.randn_like(x)
        loss = sum((nn.functional.cross_entropy(out, labels[pick, i]) for i, out in enumerate(model(x))), torch.zeros(()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


@torch.no_grad()
def classify(model: Classifier, pictures: list[np.ndarray]) -> list[dict[str, str]]:
    answers = [out.argmax(1).tolist() for out in model(tensor(pictures))]
    return [{name: values[answers[k][i]] for k, (name, values) in enumerate(ATTRIBUTES.items())} for i in range(len(pictures))]


def nearest(colour: np.ndarray, choices: Mapping[str, tuple[int, ...]], tint: tuple[float, float, float]) -> str:
    return min(choices, key=lambda name: float(np.linalg.norm(colour - np.array(choices[name]) * tint)))


def pixel_rule(picture: np.ndarray, framing: str) -> dict[str, str]:
    """Time from the sky's top rows; then the face is where skin is; hair lies above it, the coat below it."""
    top = np.median(picture[:3].reshape(-1, 3), axis=0)
    time_of_day = nearest(top, {t: scenes.SKY[t][0] for t in scenes.TIMES}, (1, 1, 1))
    tint = scenes.TINT[time_of_day]
    (x, y), r = face_centre(picture, tint, framing), HEAD[framing]
    hair = patch(picture, x, y - 0.68 * r, 0.22 * r)
    coat = patch(picture, x - 0.32 * r, y + 1.9 * r, 0.20 * r)
    return {"time": time_of_day, "hair": nearest(hair, scenes.HAIR_RGB, tint), "coat": nearest(coat, scenes.COAT_RGB, tint)}


HEAD = {"wide": 10.1, "close": 13.75}  # radius of the head in pixels, the middle of what scenes.py draws


def skin_map(picture: np.ndarray, tint: tuple[float, float, float]) -> np.ndarray:
    """How much each pixel looks like skin, 0..1."""
    return np.exp(-((np.linalg.norm(picture - np.array(scenes.SKIN_RGB) * tint, axis=2) / 36) ** 2))


def face_fits(picture: np.ndarray, tint: tuple[float, float, float], framing: str) -> dict[tuple[float, float], float]:
    """How well a face of this size fits the skin at each place: inside minus around, at heights where figures stand."""
    skin, r = skin_map(picture, tint), HEAD[framing]
    rows, columns = np.mgrid[0:64, 0:96]

    def fit(x: float, y: float) -> float:
        inside = (np.abs(columns - x) < 0.8 * r) & (rows > y) & (rows < y + 0.85 * r)
        around = (np.abs(columns - x) < 1.25 * r) & (rows > y - 0.9 * r) & (rows < y + 0.85 * r) & ~inside
        return float(skin[inside].mean() - skin[around].mean())

    return {(float(x), y): fit(x, y) for x in range(12, 85) for y in (22.5, 24.0, 25.5, 27.0)}


def face_centre(picture: np.ndarray, tint: tuple[float, float, float], framing: str) -> tuple[float, float]:
    fits = face_fits(picture, tint, framing)
    return max(fits, key=fits.get)  # type: ignore[arg-type]


def one_figure(clip: np.ndarray, scene: scenes.Scene) -> bool:
    """In every frame a face is found, it never jumps by more than six pixels, and there is no second figure.

    A second figure is another place that fits a face at least half as well and has the coat's colour below it:
    the setting sun alone fits a face too.
    """
    tint, r, xs = scenes.TINT[scene.time], HEAD[scene.framing], []
    coat = np.array(scenes.COAT_RGB[scene.coat]) * tint
    for frame in clip:
        fits = face_fits(frame, tint, scene.framing)
        (x, _), best = max(fits.items(), key=lambda item: item[1])
        others = [p for p, fit in fits.items() if abs(p[0] - x) > 2 * r and fit > 0.5 * best]
        if best < 0.1 or any(np.linalg.norm(patch(frame, ox, oy + 1.9 * r, 0.3 * r) - coat) < 60 for ox, oy in others):
            return False
        xs.append(x)
    return float(np.abs(np.diff(xs)).max()) <= 6


def patch(picture: np.ndarray, x: float, y: float, r: float) -> np.ndarray:
    top, left = max(0, int(y - r)), max(0, int(x - r))
    area = picture[top : max(top + 1, int(y + r) + 1), left : max(left + 1, int(x + r) + 1)]
    return np.median(area.reshape(-1, 3), axis=0) if area.size else np.zeros(3)


def judge_stills(models: Models, classifier: Classifier, count: int, pictures: Path | None) -> dict[str, float]:
    wanted = [scenes.sample(HELD_OUT + i, held_out=True) for i in range(count)]
    drawn = [scenes.draw(s) for s in wanted]
    made = models.stills([scenes.caption(s) for s in wanted], seed=1000)
    result = {}
    for where, stills in (("drawn", drawn), ("made", made)):
        by_classifier, by_rule = classify(classifier, stills), [pixel_rule(p, s.framing) for p, s in zip(stills, wanted, strict=True)]
        for name in ATTRIBUTES:
            result[f"{where}, classifier, {name}"] = share(getattr(s, name) == a[name] for s, a in zip(wanted, by_classifier, strict=True))
            if name != "place":
                result[f"{where}, pixel rule, {name}"] = share(getattr(s, name) == a[name] for s, a in zip(wanted, by_rule, strict=True))
    result["made, classifier, all four"] = share(
        all(getattr(s, n) == a[n] for n in ATTRIBUTES) for s, a in zip(wanted, classify(classifier, made), strict=True)
    )
    save_grid(pictures, "stills.png", made, 10)
    return result


def judge_ltx_truth(models: Models, count: int, pictures: Path | None) -> dict[str, float]:
    """Against what the scene would have shown, from drawn first frames."""
    errors, frozen, ssim = [], [], []
    strips: list[np.ndarray] = []
    for i in range(count):
        scene = scenes.sample(HELD_OUT + 500 + i, held_out=True, motion=scenes.MOTIONS[1 + i % 4])
        truth = scenes.clip(scene)
        made = models.clip(models.ltx, truth[0], scenes.caption(scene), i)
        errors.append(float(np.abs(made[-1].astype(int) - truth[-1]).mean()))
        frozen.append(float(np.abs(truth[0].astype(int) - truth[-1]).mean()))
        ssim.append(likeness(truth[0], made[0]).ssim_median)
        if i < 6:
            strips += [f for clip in (truth, made) for f in clip[[0, 24, 48, 72, 96, 120]]]
    save_grid(pictures, "ltx_truth.png", strips, 6)
    return {
        "last frame error, levels": float(np.mean(errors)),
        "a frozen frame's error, levels": float(np.mean(frozen)),
        "last frame error / frozen": float(np.mean(errors) / np.mean(frozen)),
        "better than frozen": share(e < f for e, f in zip(errors, frozen, strict=True)),
        "first frame tile SSIM, median": float(np.median(ssim)),
    }


def judge_swaps(models: Models, count: int, pictures: Path | None) -> dict[str, float]:
    """One still that the Stable Diffusion made, two captions: walk left or right, pan left or right."""
    result: dict[str, float] = {}
    for kind in ("walk", "pan"):
        wanted = [
            s for s in (scenes.sample(HELD_OUT + 900 + i, held_out=True) for i in range(6 * count)) if kind == "walk" or s.place != "sea"
        ][:count]
        stills = models.stills([scenes.caption(s) for s in wanted], seed=5000)
        both, moved, firsts = [], [], []
        strips: list[np.ndarray] = []
        for scene, still in zip(wanted, stills, strict=True):
            shifts = []
            for side in ("left", "right"):
                clip = models.clip(models.ltx, still, scenes.caption(replace(scene, motion=f"{kind} {side}")), scene.seed)
                shifts.append(figure_shift(clip, scene) if kind == "walk" else backdrop_shift(clip))
                firsts.append(likeness(still, clip[0]).ssim_median)
                if len(strips) < 48:
                    strips += list(clip[[0, 24, 48, 72, 96, 120]])
            left, right = shifts if kind == "walk" else (-shifts[0], -shifts[1])  # the scene moves against the camera
            both.append(left <= -2 and right >= 2)
            moved.append((right - left) / 2)
        result[f"{kind}: both directions obeyed"] = share(both)
        result[f"{kind}: displacement, pixels"] = float(np.mean(moved))
        result[f"{kind}: first frame tile SSIM, median"] = float(np.median(firsts))
        save_grid(pictures, f"swap_{kind}.png", strips, 6)
    return result


def figure_shift(clip: np.ndarray, scene: scenes.Scene) -> float:
    """How far the coat's colour moved from the first frame to the last, pixels right."""
    colour = np.array(scenes.COAT_RGB[scene.coat]) * scenes.TINT[scene.time]
    columns = []
    for frame in (clip[0], clip[-1]):
        weight = np.exp(-((np.linalg.norm(frame[28:] - colour, axis=2) / 40) ** 2)).sum(axis=0)
        columns.append(float((weight * np.arange(96)).sum() / max(weight.sum(), 1e-6)))
    return columns[1] - columns[0]


def backdrop_shift(clip: np.ndarray) -> float:
    """The horizontal shift, pixels right, that best explains the backdrop after two seconds, away from the figure.

    Two seconds, because over the whole clip a skyline moves by one of its buildings and looks as if it stood still.
    Brightness is levelled by row first: what counts is edges, not the sky's gradient.
    """
    first, last = (f[24:56].astype(float) - f[24:56].mean(axis=1, keepdims=True) for f in (clip[0], clip[48]))
    beside = [c for c in range(8, 88) if min(abs(c - x) for x in figure_columns(clip)) > 14]

    def cost(shift: int) -> float:
        return float(np.abs(last[:, beside] - first[:, [c - shift for c in beside]]).mean())

    costs = {shift: cost(shift) for shift in range(-7, 8)}
    return float(min(costs, key=costs.get))  # type: ignore[arg-type]


def figure_columns(clip: np.ndarray) -> list[int]:
    """Columns where the figure stands at the start and after two seconds: what is least like its rows."""
    columns = []
    for frame in (clip[0], clip[48]):
        low = frame[40:60].astype(float)
        unlike = np.abs(low - np.median(low, axis=1, keepdims=True)).sum(axis=(0, 2))
        columns.append(int(np.convolve(unlike, np.ones(15), "same").argmax()))
    return columns


def judge_animatediff(models: Models, classifier: Classifier, count: int, pictures: Path | None) -> dict[str, float]:
    """One figure in all 16 frames, the same one, and movement, from stills that the Stable Diffusion made."""
    wanted = [scenes.sample(HELD_OUT + 2000 + i, held_out=True, motion=scenes.MOTIONS[i % 3]) for i in range(count)]
    stills = models.stills([scenes.caption(s) for s in wanted], seed=9000)
    one, same, moves, first = [], [], [], []
    strips: list[np.ndarray] = []
    for scene, still in zip(wanted, stills, strict=True):
        clip = models.clip(models.animatediff, still, scenes.caption(scene), scene.seed)
        one.append(one_figure(clip, scene))
        start = classify(classifier, [still])[0]
        same.append(all((a["coat"], a["hair"]) == (start["coat"], start["hair"]) for a in classify(classifier, list(clip))))
        moves.append(max(most_changed(gray(clip[0]), gray(f)) for f in clip[::5]) >= 6)
        first.append(likeness(still, clip[0]).ssim_median)
        if len(strips) < 48:
            strips += list(clip[[0, 3, 6, 9, 12, 15]])
    save_grid(pictures, "animatediff.png", strips, 6)
    return {
        "one figure in every frame, without jumps": share(one),
        "coat and hair the same in all frames": share(same),
        "moves": share(moves),
        "first frame tile SSIM, median": float(np.median(first)),
    }


def share(answers) -> float:
    listed = list(answers)
    return sum(listed) / len(listed)


def save_grid(folder: Path | None, name: str, pictures: list[np.ndarray], columns: int) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = [np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures) - columns + 1, columns)]
    grid = Image.fromarray(np.vstack(rows))
    grid.resize((grid.width * 2, grid.height * 2), Image.Resampling.LANCZOS).save(folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the pictures")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path, help="write contact sheets here")
    args = parser.parse_args()
    models, few = Models(), 5 if args.quick else 1
    classifier = train_classifier(20 if args.quick else 75)
    results = {
        "stills": judge_stills(models, classifier, 60 // few, args.pictures),
        "LTX-Video against the truth": judge_ltx_truth(models, 20 // few, args.pictures),
        "LTX-Video, captions swapped": judge_swaps(models, 20 // few, args.pictures),
        "AnimateDiff": judge_animatediff(models, classifier, 20 // few, args.pictures),
    }
    table = Table("what", "measure", "value", box=None, pad_edge=False)
    for what, values in results.items():
        for name, value in values.items():
            table.add_row(what, name, f"{value:.3f}")
    Console(width=120).print(table)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
