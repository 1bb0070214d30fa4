"""The demo's upscaler: a small network that makes of the demo's frames what the same scene looks like drawn at four times the size.

    python -m benchmarks.demo_upscaler [--minutes 60] [--out FILE] [--work FOLDER] [--tiny]    trains it
    python -m benchmarks.demo_upscaler --judge [--weights FILE] [--pictures FOLDER]            measures it on scenes it never saw

Training prepares pairs first (`upscaler_pairs`), for a quarter of the minutes at most, then learns for the rest. A training that was
stopped goes on from what lies in --work. The judgement (`upscaler_figures`) sets the network beside bicubic and Lanczos scaling.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from actors.demo.train.optimiser import Average, flat_then_cosine, for_modules
from actors.demo.train.progress import Budget
from actors.loading import best_device

from .demo_models import DEMO, Models
from .upscaler_figures import judge
from .upscaler_pairs import COUNT, KINDS, SCALE, Piece, prepare

WEIGHTS = DEMO / "upscaler" / "compact_x4.safetensors"
PIECES = 800  # at most; as many as the time suffices for
BATCH = 3  # frames; two crops of each at first
WHOLE = 0.7  # of the time; then whole frames, because crops, which are mostly edges, leave faint grids on a flat sky
WIDTH, LAYERS = 48, 8  # 189,000 parameters; 0.38 MB of float16


class Compact(nn.Module):
    """SRVGGNetCompact of Real-ESRGAN (github.com/xinntao/Real-ESRGAN): loaders know tensors of these names and shapes as "Compact".

    Convolutions at the size of the input, and one pixel shuffle at the end over the input's enlarged pixels. RGB 0..1, (n, 3, height,
    width) to (n, 3, 4 height, 4 width).
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.body = nn.ModuleList([nn.Conv2d(3, width, 3, padding=1), nn.PReLU(width)])
        for _ in range(layers):
            self.body += [nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)]
        self.body.append(nn.Conv2d(width, 3 * SCALE**2, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for layer in self.body:
            y = layer(y)
        return nn.functional.pixel_shuffle(y, SCALE) + nn.functional.interpolate(x, scale_factor=SCALE, mode="nearest")


def train(pieces: Sequence[Piece], device: torch.device, width: int, layers: int, work: Path | None, seconds: float, end: float) -> Compact:
    """The average of the weights after `seconds` of training, or when time.monotonic is `end`."""
    torch.manual_seed(0)
    net = Compact(width, layers).to(device)
    nn.init.zeros_(net.body[-1].weight)  # so that it begins as an enlarged picture
    average = Average(net, 0.998)
    budget = Budget(work, f"upscaler-{width}x{layers}", seconds, end, {"net": net, "average": average.module}, save_every=60)
    optimiser = for_modules([net], ends=("body.0.", f"body.{len(net.body) - 1}."), lr=0.01, adam_lr=1e-3)
    rng = np.random.default_rng(budget.steps)
    for _ in budget:
        optimiser.factor = flat_then_cosine(budget.progress)
        x, y = batch(pieces, rng, device, budget.progress > WHOLE)
        made = net(x)
        loss = (made - y).abs().mean()  # of two colours that an edge's pixel may have, this takes one and no mixture: edges are crisp
        loss.backward()
        optimiser.step()
        average.update(net)
        budget.note(loss=255 * loss, psnr=-10 * (made.detach() - y).square().mean().log10())
    return average.module


def batch(pieces: Sequence[Piece], rng: np.random.Generator, device: torch.device, whole: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames of any pieces or crops of them, 0..1 (n, 3, height, width), and what they should become."""
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(BATCH):
        piece, i = pieces[int(rng.integers(len(pieces)))], int(rng.integers(COUNT))
        frame, target = piece.frames[i], piece.target(i)
        pairs += [(frame, target)] if whole else [busy_crop(frame, target, rng) for _ in range(2)]
    x, y = (torch.from_numpy(np.stack(side)).to(device).permute(0, 3, 1, 2) / 255 for side in zip(*pairs, strict=True))
    return x, y


def busy_crop(frame: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Half the frame's height and width, where more is to be seen: the better of two places."""
    height, width = frame.shape[0] // 2, frame.shape[1] // 2
    places = [(int(rng.integers(height + 1)), int(rng.integers(width + 1))) for _ in range(2)]
    top, left = max(places, key=lambda at: frame[at[0] : at[0] + height, at[1] : at[1] + width].std())
    of_target = target[SCALE * top : SCALE * (top + height), SCALE * left : SCALE * (left + width)]
    return frame[top : top + height, left : left + width], of_target


def save(net: Compact, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().cpu().contiguous() for name, tensor in net.state_dict().items()}, file)


def load(file: Path, device: torch.device) -> Compact:
    tensors = load_file(file)
    net = Compact(len(tensors["body.0.bias"]), sum(tensor.ndim == 4 for tensor in tensors.values()) - 2)
    net.load_state_dict(tensors)
    return net.to(device).eval()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="all in all; default 60, on one core")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the weights; default %(default)s")
    parser.add_argument("--work", type=Path, default=Path("train-work/upscaler"), help="pairs, and the training's state; %(default)s")
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--tiny", action="store_true", help="a rehearsal of seconds: a piece of each kind, a narrow network, no quality")
    parser.add_argument("--judge", action="store_true", help="measure instead of training")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="what --judge measures; default %(default)s")
    parser.add_argument("--pictures", type=Path, help="where --judge writes sheets to look at")
    return parser.parse_args()


def main() -> int:
    start, args = time.monotonic(), arguments()
    device, few = torch.device(args.device), args.tiny
    models = Models(device=args.device)
    if args.judge:
        judge(models, load(args.weights, device), args.work / "held-out", args.pictures, few)
        return 0
    end = start + 60 * args.minutes
    pieces = prepare(models, args.work / "pieces", range(len(KINDS) if few else PIECES), time.monotonic() + (end - start) / 4)
    print(f"{len(pieces)} pieces with {sum(len(piece.frames) for piece in pieces)} frames", flush=True)
    del models
    size = (8, 2) if few else (WIDTH, LAYERS)
    save(train(pieces, device, *size, args.work, end - time.monotonic(), end), args.out)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
