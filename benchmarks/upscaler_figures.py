"""How good an upscaler of the demo's clips is, beside bicubic and Lanczos scaling: figures, and sheets to look at.

Where a frame's scene is known, the drawn truth at four times the size is the measure. Clips that the models really made have no
truth: there it counts how wide edges are, whether the enlarged picture, reduced again, is the picture that it came from, and whether
flat areas are as calm as they were.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn

from actors.demo.train import scenes
from gates.pair import Likeness, likeness
from gates.picture import gray

from .demo_models import HELD_OUT, Models
from .upscaler_pairs import KINDS, SCALE, Piece, prepare, stored

STEP = 0.25  # pixels between the samples of an edge's profile
REACH = 48  # samples on each side of an edge: 12 pixels, three of the small picture
STRONG = 60  # levels: edges with less are not looked at
Frames = np.ndarray  # uint8 RGB (n, height, width, 3)
Scaler = Callable[[Frames], Frames]


def scalers(net: nn.Module) -> dict[str, Scaler]:
    return {
        "bicubic": lambda frames: resampled(frames, Image.Resampling.BICUBIC),
        "Lanczos": lambda frames: resampled(frames, Image.Resampling.LANCZOS),
        "network": lambda frames: upscaled(net, frames),
    }


def resampled(frames: Frames, how: Image.Resampling, scale: int = SCALE) -> Frames:
    size = (frames.shape[2] * scale, frames.shape[1] * scale)
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, how)) for frame in frames])


@torch.no_grad()
def upscaled(net: nn.Module, frames: Frames) -> Frames:
    device = next(net.parameters()).device
    parts = [torch.from_numpy(part).to(device).permute(0, 3, 1, 2) / 255 for part in np.split(frames, range(8, len(frames), 8))]
    return np.concatenate([(net(x).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy() for x in parts])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """dB, of levels 0..255."""
    return -10 * math.log10(float(np.square((a.astype(np.float32) - b) / 255).mean()))


def edge_width(picture: np.ndarray) -> float:
    """Median width in pixels of the picture's strong edges: from 10 to 90 % of the way up, along the gradient, between its two ends.

    The steepest hundredth of the pixels is looked at. An edge ends where its profile stops rising.
    """
    luma = cv2.GaussianBlur(gray(picture).astype(np.float32), (0, 0), 0.5)
    gx, gy = cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1)
    steep = cv2.magnitude(gx, gy)
    y, x = np.nonzero(steep >= np.quantile(steep, 0.99))
    t = np.arange(-REACH, REACH + 1) * STEP
    nx, ny = (g[y, x] / steep[y, x] for g in (gx, gy))
    places = [(at[:, None] + n[:, None] * t).astype(np.float32) for at, n in ((x, nx), (y, ny))]
    profiles = cv2.remap(luma, places[0], places[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    rising = np.diff(profiles, axis=1) > 0.25
    after = np.cumprod(rising[:, REACH:], axis=1, dtype=bool).sum(1)
    before = np.cumprod(rising[:, REACH - 1 :: -1], axis=1, dtype=bool).sum(1)
    rows, number = np.arange(len(profiles)), np.arange(profiles.shape[1])
    low, high = profiles[rows, REACH - before], profiles[rows, REACH + after]
    on_edge = (number >= (REACH - before)[:, None]) & (number <= (REACH + after)[:, None])
    share = (profiles - low[:, None]) / np.maximum(high - low, 1)[:, None]
    widths = (on_edge & (share >= 0.1) & (share <= 0.9)).sum(1) * STEP
    strong = high - low >= STRONG
    return float(np.median(widths[strong])) if strong.any() else math.nan


def unrest(small: Frames, large: Frames) -> float:
    """Mean change, in levels of luma, from frame to frame of `large` where `small` is flat and hardly changes (3 levels at most)."""
    before, after = (np.stack([gray(f) for f in part]).astype(np.int16) for part in (small[:-1], small[1:]))
    changes = []
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        still = cv2.dilate(np.abs(a - b).astype(np.uint8), np.ones((3, 3))) <= 3
        luma = a.astype(np.uint8)
        flat = cv2.dilate(luma, np.ones((3, 3))) - cv2.erode(luma, np.ones((3, 3))) <= 6
        where = cv2.resize((still & flat).astype(np.uint8), large.shape[2:0:-1], interpolation=cv2.INTER_NEAREST) > 0
        change = np.abs(gray(large[i]).astype(np.int16) - gray(large[i + 1]))[where]
        changes += [float(change.mean())] if change.size else []
    return float(np.mean(changes))


def again(small: np.ndarray, large: np.ndarray) -> Likeness:
    """The small picture beside the large one that was made of it, reduced to its size."""
    return likeness(small, cv2.resize(large, (small.shape[1], small.shape[0]), interpolation=cv2.INTER_AREA))


def judge(models: Models, net: nn.Module, held_out: Path, pictures: Path | None, few: bool) -> dict[str, dict[str, float]]:
    """Prints a table, and gives its rows: by measure, by scaler (and "drawn", and "before" for the small picture itself)."""
    how = scalers(net)
    results: dict[str, dict[str, float]] = {}
    pieces = prepare(models, held_out, range(len(KINDS) * (1 if few else 10)), math.inf, held_out=True)
    for k, kind in enumerate(KINDS):
        results |= with_truth(kind, how, pieces[k :: len(KINDS)], pictures)
    results |= at_twice_the_size(how, pieces[: 2 * len(KINDS)])
    for name, model in (("LTX-Video", models.ltx), ("AnimateDiff", models.animatediff)):
        wanted = [scenes.sample(HELD_OUT + 3000 + i, True, scenes.MOTIONS[i % 3]) for i in range(1 if few else 4)]
        stills = models.stills([scenes.caption(s) for s in wanted], 7000)
        clips = [stored(models.clip(model, still, scenes.caption(s), s.seed)) for s, still in zip(wanted, stills, strict=True)]
        results |= without_truth(name, how, clips, pictures)
    columns = ("before", *how, "network twice", "drawn")
    table = Table("measure", *columns, box=None, pad_edge=False)
    for name, values in results.items():
        table.add_row(name, *(f"{values[c]:.3f}" if c in values else "" for c in columns))
    Console(width=130).print(table)
    return results


def with_truth(kind: str, how: dict[str, Scaler], pieces: list[Piece], pictures: Path | None) -> dict[str, dict[str, float]]:
    decibels: dict[str, list[float]] = defaultdict(list)
    widths: dict[str, list[float]] = defaultdict(list)
    changes: dict[str, list[float]] = defaultdict(list)
    sheet = []
    for piece in pieces:
        some = range(0, len(piece.frames), 4)
        small, truth = piece.frames[some], np.stack([piece.target(i) for i in some])
        made = {name: scale(small) for name, scale in how.items()}
        for name, frames in (made | {"drawn": truth}).items():
            widths[name] += [edge_width(frame) for frame in frames]
            changes[name] += [again(a, b).delta_e for a, b in zip(small, frames, strict=True)]
            decibels[name] += [psnr(a, b) for a, b in zip(frames, truth, strict=True)] if name != "drawn" else []
        sheet += [resampled(small[1:2], Image.Resampling.NEAREST)[0], made["Lanczos"][1], made["network"][1], truth[1]]
    save_sheet(pictures, kind, sheet)
    named = {"PSNR, dB": decibels, "edge width, pixels": widths, "reduced again: Delta E": changes}
    return {f"{kind}: {measure}": means(values) for measure, values in named.items()}


def at_twice_the_size(how: dict[str, Scaler], pieces: list[Piece]) -> dict[str, dict[str, float]]:
    """For movies of 8 times the clips' size: Lanczos scaling after the network, beside the network twice and then Lanczos scaling."""
    decibels: dict[str, list[float]] = defaultdict(list)
    widths: dict[str, list[float]] = defaultdict(list)
    for piece in pieces:
        small, truth = piece.frames[1:2], piece.target(1, 2 * SCALE)
        ways = {name: scale(small) for name, scale in how.items()}
        ways["network twice"] = how["network"](ways["network"])
        size = (truth.shape[1], truth.shape[0])
        made = {name: np.asarray(Image.fromarray(frames[0]).resize(size, Image.Resampling.LANCZOS)) for name, frames in ways.items()}
        for name, frame in (made | {"drawn": truth}).items():
            widths[name].append(edge_width(frame))
            decibels[name] += [psnr(frame, truth)] if name != "drawn" else []
    return {"all, at 768x512: PSNR, dB": means(decibels), "all, at 768x512: edge width, pixels": means(widths)}


def without_truth(name: str, how: dict[str, Scaler], clips: list[Frames], pictures: Path | None) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    sheet = []
    for small in clips:
        some = range(0, len(small), len(small) // 5)
        figures["change of flat areas, levels a frame"]["before"].append(unrest(small, small))
        for scaler, scale in how.items():
            large = scale(small)
            figures["change of flat areas, levels a frame"][scaler].append(unrest(small, large))
            for i in some:
                same = again(small[i], large[i])
                figures["edge width, pixels"][scaler].append(edge_width(large[i]))
                figures["reduced again: SSIM, worst tile"][scaler].append(same.ssim_min)
                figures["reduced again: SSIM, median tile"][scaler].append(same.ssim_median)
                figures["reduced again: Delta E"][scaler].append(same.delta_e)
                figures["reduced again: Delta E, worst tile"][scaler].append(same.delta_e_max)
            sheet += [large[i] for i in list(some)[1:5]] if scaler != "bicubic" else []
    save_sheet(pictures, name, sheet)
    return {f"{name}: {measure}": means(values) for measure, values in figures.items()}


def means(values: dict[str, list[float]]) -> dict[str, float]:
    return {name: float(np.nanmean(listed)) for name, listed in values.items() if listed}


def save_sheet(folder: Path | None, name: str, pictures: list[np.ndarray]) -> None:
    """Four pictures in a row, at full size."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        rows = [np.hstack(pictures[i : i + 4]) for i in range(0, len(pictures), 4)]
        Image.fromarray(np.vstack(rows)).save(folder / f"{name.replace(',', '').replace(' ', '_')}.png")
