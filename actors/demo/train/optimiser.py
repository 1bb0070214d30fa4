"""Muon for matrices and convolutions, AdamW for the rest, and an average of the weights.

Muon (Keller Jordan, 2024: kellerjordan.github.io/posts/muon): momentum, then the update is made
nearly orthogonal by a Newton-Schulz iteration. torch.optim.Muon iterates one matrix at a time in
bfloat16, which a CPU without bfloat16 instructions runs 20 times slower; this one batches matrices
of one shape and uses bfloat16 on GPUs only.
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
    x = x.bfloat16() if x.is_cuda else x
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.transpose(1, 2) if tall else x).to(g.dtype)


class MuonAdamW:
    """Muon for `matrices`, PyTorch's AdamW for `others`; `factor` scales both learning rates."""

    def __init__(self, matrices: list[nn.Parameter], others: list[nn.Parameter], lr: float, adam_lr: float):
        self.matrices, self.lr, self.adam_lr, self.factor = matrices, lr, adam_lr, 1.0
        self.momenta = [torch.zeros_like(p) for p in matrices]
        self.adamw = torch.optim.AdamW(others, adam_lr, betas=(0.9, 0.99), weight_decay=0.0)

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients, which are then gone."""
        self._muon(self.lr * self.factor)
        self.adamw.param_groups[0]["lr"] = self.adam_lr * self.factor
        self.adamw.step()
        for p in self.matrices:
            p.grad = None
        self.adamw.zero_grad(set_to_none=True)

    def _muon(self, lr: float) -> None:
        """Lists of tensors at once where a GPU would wait for many small calls."""
        there = [(p, m) for p, m in zip(self.matrices, self.momenta, strict=True) if p.grad is not None]
        grads, momenta = [p.grad for p, _ in there], [m for _, m in there]
        torch._foreach_mul_(momenta, 0.95)
        torch._foreach_add_(momenta, grads)
        updates = torch._foreach_add(grads, momenta, alpha=0.95)
        by_shape: dict[tuple[int, int, float], list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
        for (p, _), update in zip(there, updates, strict=True):
            u, w = update.flatten(1), p.data.view(len(p), -1)
            scale = math.sqrt(max(1.0, w.shape[0] / w.shape[1]))
            for part, weight in zip(u.split(CHUNK_ROWS), w.split(CHUNK_ROWS), strict=True):
                by_shape[(part.shape[0], part.shape[1], scale)].append((part, weight))
        for (_, _, scale), items in by_shape.items():
            straight = orthogonalise(torch.stack([u for u, _ in items]))
            torch._foreach_add_([w for _, w in items], list(straight), alpha=-lr * scale)


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
        torch._foreach_lerp_(list(self.module.parameters()), list(module.parameters()), weight)
