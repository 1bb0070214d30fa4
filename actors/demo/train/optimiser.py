"""Muon for matrices and convolutions, AdamW for the rest, and an average of the weights.

Muon (Keller Jordan, 2024: kellerjordan.github.io/posts/muon): momentum, then the update is made
nearly orthogonal by a Newton-Schulz iteration. torch.optim.Muon iterates one matrix at a time in
bfloat16, which a CPU without bfloat16 instructions runs 20 times slower; this one batches matrices
of one shape and stays in float32.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict

import torch
from torch import nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients of the reference implementation
CHUNK_ROWS = 192  # taller matrices are orthogonalised in slices of rows: cost grows with the cube


def orthogonalise(g: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """Nearest semi-orthogonal matrices to g of shape (batch, rows, cols), approximately."""
    a, b, c = NEWTON_SCHULZ
    x = g / (g.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """Muon where `matrices`, AdamW where `others`; `factor` scales both learning rates."""

    def __init__(
        self, matrices: list[nn.Parameter], others: list[nn.Parameter], lr: float = 0.02, adam_lr: float = 2e-3, weight_decay: float = 0.0
    ):
        groups = [dict(params=matrices, muon=True, base=lr), dict(params=others, muon=False, base=adam_lr)]
        super().__init__([g for g in groups if g["params"]], dict(weight_decay=weight_decay))
        self.factor = 1.0

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            (self._muon if group["muon"] else self._adamw)(group)

    def _muon(self, group: dict) -> None:
        by_shape: dict[tuple[int, int], list[tuple[torch.Tensor, torch.Tensor, float]]] = defaultdict(list)
        for p in group["params"]:
            if p.grad is None:
                continue
            momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
            momentum.mul_(0.95).add_(p.grad)
            update, weight = p.grad.add(momentum, alpha=0.95).flatten(1), p.data.flatten(1)
            scale = math.sqrt(max(1.0, weight.shape[0] / weight.shape[1]))
            for u, w in zip(update.split(CHUNK_ROWS), weight.split(CHUNK_ROWS), strict=False):
                by_shape[(u.shape[0], u.shape[1])].append((u, w, scale))
        lr = group["base"] * self.factor
        for items in by_shape.values():
            updates = orthogonalise(torch.stack([u for u, _, _ in items]))
            for (_, w, scale), u in zip(items, updates, strict=False):
                w.mul_(1 - lr * group["weight_decay"]).add_(u, alpha=-lr * scale)

    def _adamw(self, group: dict) -> None:
        lr = group["base"] * self.factor
        for p in group["params"]:
            if p.grad is None:
                continue
            s = self.state[p]
            if not s:
                s.update(step=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
            s["step"] += 1
            s["m"].lerp_(p.grad, 0.1)
            s["v"].lerp_(p.grad.square(), 0.01)
            m, v = s["m"] / (1 - 0.9 ** s["step"]), s["v"] / (1 - 0.99 ** s["step"])
            p.addcdiv_(m, v.sqrt().add_(1e-8), value=-lr)


def for_modules(modules: list[nn.Module], ends: tuple[str, ...] = (), lr: float = 0.02, adam_lr: float = 2e-3) -> MuonAdamW:
    """Split parameters as Muon wants: weights with two or more dimensions inside the model to Muon;
    embeddings, vectors and the layers whose name holds one of `ends` (first and last) to AdamW."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in modules:
        for name, p in module.named_parameters():
            if id(p) in seen or not p.requires_grad:
                continue
            seen.add(id(p))
            inner = p.ndim >= 2 and "embed" not in name and "table" not in name and not any(e in name for e in ends)
            (matrices if inner else others).append(p)
    return MuonAdamW(matrices, others, lr, adam_lr)


def flat_then_cosine(progress: float, flat: float = 0.35, floor: float = 0.02) -> float:
    """Learning-rate factor at progress 0..1: a short warm-up, flat, then a cosine to `floor`."""
    if progress < 0.01:
        return max(0.05, progress / 0.01)
    if progress < flat:
        return 1.0
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - flat) / (1 - flat))))


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: nn.Module, decay: float = 0.997):
        self.module, self.decay, self.count = copy.deepcopy(module).eval().requires_grad_(False), decay, 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.count += 1
        weight = 1 - min(self.decay, self.count / (self.count + 10))
        for mine, new in zip(self.module.parameters(), module.parameters(), strict=False):
            mine.lerp_(new, weight)
