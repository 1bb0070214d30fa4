"""What the demo checkpoints can do, on scenes and combinations of attributes that training never saw.

    python -m benchmarks.demo_models [--checkpoints FOLDER] [--device cpu|cuda] [--quick] [--json FILE] [--pictures FOLDER]
                                     [--against FILE] [--until TIME]

A small classifier (trained here on drawn scenes) and a plain pixel rule look at stills; clips are
compared with what the same scene would have shown, and captions are swapped on one picture.
Displacements are in the scenes' units, 1/64 of a picture's height; errors in levels of 255.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from actors.animatediff import AnimateDiffModel
from actors.demo.train import scenes
from actors.files import read_config
from actors.keyframe import KeyframeModel
from actors.loading import best_device
from actors.ltx_video import LtxVideoModel
from actors.prompts import PromptEncoder
from actors.values import ClipRequest, KeyframeRequest, ModelFiles
from gates.clip import most_changed
from gates.pair import likeness
from gates.picture import gray
from pipeline import PROJECT
from pipeline.story.workflow import WORKFLOWS, read_workflow

from .demo_rules import ATTRIBUTES, Classifier, backdrop_shift, classify, figure_shift, one_figure, pixel_rule, reduced, train_classifier

DEMO = PROJECT / "actors" / "demo"
HELD_OUT = 10**6  # seeds from here on are never trained on
Results = dict[str, dict[str, float]]


class Models:
    """The demo workflows' models, without Ray, at the size in pixels that the checkpoints were trained for."""

    def __init__(self, checkpoints: Path = DEMO, device: str | None = None) -> None:
        sd, ltx = ModelFiles(str(checkpoints / "stable-diffusion")), ModelFiles(str(checkpoints / "ltx-video"))
        animate = replace(sd, motion_adapter=str(checkpoints / "motion-adapter"))
        factor = 2 ** (len(read_config(sd.checkpoint, "vae")["block_out_channels"]) - 1)
        self.height, self.width = (factor * side for side in read_config(sd.checkpoint, "unet")["sample_size"])
        names = ("sd15_keyframe_demo", "ltx_video_2b_demo", "animatediff_16_demo")
        still, long, short = (
            read_workflow(WORKFLOWS / f"{name}.yaml").model_copy(update={"height": self.height, "width": self.width}) for name in names
        )
        self.keyframe = KeyframeModel("k", sd, still.settings(), device)  # type: ignore[arg-type]
        self.ltx = LtxVideoModel("l", ltx, long.settings(), device)  # type: ignore[arg-type]
        self.animatediff = AnimateDiffModel("a", animate, short.settings(), device)  # type: ignore[arg-type]
        self.sd_text, self.ltx_text = PromptEncoder("s", sd, device=device), PromptEncoder("t", ltx, long.text_settings(), device)
        self.negative = {True: self.ltx_text.encode([""])[0], False: self.sd_text.encode([""])[0]}

    def stills(self, captions: list[str], seed: int, until: float = math.inf) -> list[np.ndarray]:
        """One still a caption; after time.monotonic is `until`, no further batch."""
        size, out = self.keyframe.settings.batch_size, []
        for start in range(0, len(captions), size):
            texts = self.sd_text.encode(captions[start : start + size])
            requests = [KeyframeRequest(str(i), seed + start + i, prompt=t, negative=self.negative[False]) for i, t in enumerate(texts)]
            out += self.keyframe.generate(requests)[1]
            if time.monotonic() > until:
                break
        return out

    def clip(self, model: LtxVideoModel | AnimateDiffModel, keyframe: np.ndarray, caption: str, seed: int) -> np.ndarray:
        is_ltx = isinstance(model, LtxVideoModel)
        text = (self.ltx_text if is_ltx else self.sd_text).encode([caption])[0]
        request = ClipRequest("c", seed, prompt=text, negative=self.negative[is_ltx], keyframe=keyframe)
        return model.generate([request])[1][0]

    def drawn(self, scene: scenes.Scene) -> np.ndarray:
        return scenes.draw(scene, 0, self.height, self.width)


class Judge:
    """Holds what all the judgements below need. Each stops early, after one picture at least, when its time is over."""

    def __init__(self, models: Models, classifier: Classifier, few: int, pictures: Path | None):
        self.models, self.classifier, self.few, self.pictures = models, classifier, few, pictures

    def stills(self, until: float) -> dict[str, float]:
        wanted = [scenes.sample(HELD_OUT + i, held_out=True) for i in range(60 // self.few)]
        made = self.models.stills([scenes.caption(s) for s in wanted], 1000, until)
        wanted, result = wanted[: len(made)], {"stills": float(len(made))}
        for where, stills in (("drawn", [self.models.drawn(s) for s in wanted]), ("made", made)):
            small = reduced(stills)
            by_classifier, by_rule = (
                classify(self.classifier, small),
                [pixel_rule(p, s.framing) for p, s in zip(small, wanted, strict=True)],
            )
            for name in ATTRIBUTES:
                result[f"{where}, classifier, {name}"] = share(
                    getattr(s, name) == a[name] for s, a in zip(wanted, by_classifier, strict=True)
                )
                if name != "place":
                    result[f"{where}, pixel rule, {name}"] = share(
                        getattr(s, name) == a[name] for s, a in zip(wanted, by_rule, strict=True)
                    )
        result["made, classifier, all four"] = share(
            all(getattr(s, n) == a[n] for n in ATTRIBUTES) for s, a in zip(wanted, by_classifier, strict=True)
        )
        save_grid(self.pictures, "stills.png", made, 6)
        return result

    def ltx_truth(self, until: float) -> dict[str, float]:
        """Against what the scene would have shown, from drawn first frames."""
        errors, frozen, ssim, models = [], [], [], self.models
        strips: list[np.ndarray] = []
        for i in range(20 // self.few):
            scene = scenes.sample(HELD_OUT + 500 + i, held_out=True, motion=scenes.MOTIONS[1 + i % 4])
            truth = scenes.clip(scene, range(0, scenes.FRAMES, 24), models.height, models.width)
            made = models.clip(models.ltx, truth[0], scenes.caption(scene), i)
            errors.append(float(np.abs(made[-1].astype(int) - truth[-1]).mean()))
            frozen.append(float(np.abs(truth[0].astype(int) - truth[-1]).mean()))
            ssim.append(likeness(truth[0], made[0]).ssim_median)
            if i < 6:
                strips += [*truth, *made[::24]]
            if time.monotonic() > until:
                break
        save_grid(self.pictures, "ltx_truth.png", strips, 6)
        return {
            "clips": float(len(errors)),
            "last frame error, levels": float(np.mean(errors)),
            "a frozen frame's error, levels": float(np.mean(frozen)),
            "last frame error / frozen": float(np.mean(errors) / np.mean(frozen)),
            "better than frozen": share(e < f for e, f in zip(errors, frozen, strict=True)),
            "first frame tile SSIM, median": float(np.median(ssim)),
        }

    def walks(self, until: float) -> dict[str, float]:
        return self._swaps("walk", until)

    def pans(self, until: float) -> dict[str, float]:
        return self._swaps("pan", until)

    def _swaps(self, kind: str, until: float) -> dict[str, float]:
        """One still that the Stable Diffusion made, two captions: walk left or right, pan left or right."""
        count, models = 20 // self.few, self.models
        some = [scenes.sample(HELD_OUT + 900 + i, held_out=True) for i in range(6 * count)]
        wanted = [s for s in some if kind == "walk" or s.place != "sea"][:count]
        stills = models.stills([scenes.caption(s) for s in wanted], 5000, until)
        both, moved, firsts = [], [], []
        strips: list[np.ndarray] = []
        for scene, still in zip(wanted, stills, strict=False):
            shifts = []
            for side in ("left", "right"):
                clip = models.clip(models.ltx, still, scenes.caption(replace(scene, motion=f"{kind} {side}")), scene.seed)
                shifts.append(figure_shift(reduced(clip), scene) if kind == "walk" else backdrop_shift(reduced(clip)))
                firsts.append(likeness(still, clip[0]).ssim_median)
                strips += list(clip[::24]) if len(strips) < 48 else []
            left, right = shifts if kind == "walk" else (-shifts[0], -shifts[1])  # the scene moves against the camera
            both.append(left <= -2 and right >= 2)
            moved.append((right - left) / 2)
            if time.monotonic() > until:
                break
        save_grid(self.pictures, f"swap_{kind}.png", strips, 6)
        return {
            f"{kind}: stills": float(len(both)),
            f"{kind}: both directions obeyed": share(both),
            f"{kind}: displacement, units": float(np.mean(moved)),
            f"{kind}: first frame tile SSIM, median": float(np.median(firsts)),
        }

    def animatediff(self, until: float) -> dict[str, float]:
        """One figure in all 16 frames, the same one, and movement, from stills that the Stable Diffusion made."""
        models = self.models
        wanted = [scenes.sample(HELD_OUT + 2000 + i, held_out=True, motion=scenes.MOTIONS[i % 3]) for i in range(20 // self.few)]
        stills = models.stills([scenes.caption(s) for s in wanted], 9000, until)
        one, same, moves, first = [], [], [], []
        strips: list[np.ndarray] = []
        for scene, still in zip(wanted, stills, strict=False):
            clip = models.clip(models.animatediff, still, scenes.caption(scene), scene.seed)
            one.append(one_figure(reduced(clip), scene))
            start, *frames = classify(self.classifier, reduced([still, *clip]))
            same.append(all((a["coat"], a["hair"]) == (start["coat"], start["hair"]) for a in frames))
            moves.append(max(most_changed(gray(clip[0]), gray(f)) for f in clip[::5]) >= 6)
            first.append(likeness(still, clip[0]).ssim_median)
            strips += list(clip[::3]) if len(strips) < 48 else []
            if time.monotonic() > until:
                break
        save_grid(self.pictures, "animatediff.png", strips, 6)
        return {
            "clips": float(len(one)),
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
    columns = min(columns, len(pictures))
    rows = [np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures) - columns + 1, columns)]
    grid, zoom = Image.fromarray(np.vstack(rows)), 128 / pictures[0].shape[0]
    grid.resize((round(grid.width * zoom), round(grid.height * zoom)), Image.Resampling.LANCZOS).save(folder / name)


def measure(models: Models, classifier: Classifier, args: argparse.Namespace) -> Results:
    """All figures, written to the JSON file as they come; each judgement gets its part of the time."""
    judge = Judge(models, classifier, 5 if args.quick else 1, args.pictures)
    judgements: list[tuple[str, Callable[[float], dict[str, float]]]] = [
        ("stills", judge.stills),
        ("LTX-Video against the truth", judge.ltx_truth),
        ("LTX-Video, captions swapped", judge.walks),
        ("LTX-Video, captions swapped", judge.pans),
        ("AnimateDiff", judge.animatediff),
    ]
    results: Results = {}
    for i, (name, of) in enumerate(judgements):
        now = time.monotonic()
        results[name] = results.get(name, {}) | of(now + (args.until - now) / (len(judgements) - i))
        if args.json:
            part = args.json.with_name(f".{args.json.name}")
            part.write_text(json.dumps(results, indent=2) + "\n")
            part.replace(args.json)  # whole, even if this process is stopped
    return results


def show(results: Results, against: Results | None) -> None:
    table = Table("what", "measure", "value", *(["against"] if against else []), box=None, pad_edge=False)
    for what, values in results.items():
        for name, value in values.items():
            other = (against or {}).get(what, {}).get(name)
            table.add_row(what, name, f"{value:.3f}", *([] if against is None else ["" if other is None else f"{other:.3f}"]))
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, default=DEMO, help="folder with stable-diffusion, motion-adapter and ltx-video")
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--quick", action="store_true", help="a fifth of the pictures")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path, help="write contact sheets here")
    parser.add_argument("--against", type=Path, help="a JSON file of another run, printed beside")
    parser.add_argument("--until", type=float, default=math.inf, help="end then, of time.monotonic, with fewer pictures if need be")
    args = parser.parse_args()
    against = json.loads(args.against.read_text()) if args.against else None
    models = Models(args.checkpoints, args.device)
    wanted = 5 if args.device.startswith("cuda") else 20 if args.quick else 75
    classifier = train_classifier(max(0.5, min(wanted, (args.until - time.monotonic()) / 6)), torch.device(args.device))
    show(measure(models, classifier, args), against)


if __name__ == "__main__":
    main()
