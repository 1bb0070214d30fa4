"""Time budgets, logs and checkpoints, so that a stopped training goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch


class Budget:
    """Iterates over steps until `seconds` of working time are spent; survives being stopped."""

    def __init__(self, folder: Path, name: str, seconds: float, state: dict | None = None, save_every: float = 120.0):
        self.folder, self.name, self.seconds, self.state, self.save_every = folder, name, seconds, state or {}, save_every
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.spent, self.steps = folder / f"{name}.pt", 0.0, 0
        self.sums: dict[str, tuple[float, int]] = {}
        if self.file.exists():
            saved = torch.load(self.file, weights_only=False)
            self.spent, self.steps = saved["spent"], saved["steps"]
            for key, item in self.state.items():
                item.load_state_dict(saved["state"][key])

    @property
    def progress(self) -> float:
        return min(1.0, self.spent / self.seconds)

    def __iter__(self) -> Iterator[int]:
        last = saved = logged = time.monotonic()
        while self.spent < self.seconds:
            yield self.steps
            self.steps += 1
            now = time.monotonic()
            self.spent, last = self.spent + now - last, now
            if now - logged > 20:
                self.log()
                logged = now
            if now - saved > self.save_every:
                self.save()
                saved = time.monotonic()
        self.log()
        self.save()

    def note(self, **values: float) -> None:
        for key, value in values.items():
            total, count = self.sums.get(key, (0.0, 0))
            self.sums[key] = (total + float(value), count + 1)

    def log(self) -> None:
        means = {k: round(t / n, 4) for k, (t, n) in self.sums.items()}
        print(json.dumps({"stage": self.name, "step": self.steps, "seconds": round(self.spent), **means}), flush=True)
        self.sums.clear()

    def save(self) -> None:
        part = self.file.with_suffix(".part")
        torch.save({"spent": self.spent, "steps": self.steps, "state": {k: v.state_dict() for k, v in self.state.items()}}, part)
        part.replace(self.file)
