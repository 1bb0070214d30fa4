"""Time budgets, logs and checkpoints: every stage ends on time, and a stopped training goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch


class Stages:
    """A column's time, shared out to its stages.

    A stage may not spend more than its share of all the time, and must leave the later ones their shares of what is left.

    Args:
        shares: by name, in the order in which they run. seconds: all the time. end: when it ends, of time.monotonic.
    """

    def __init__(self, shares: Mapping[str, float], seconds: float, end: float):
        self.shares, self.seconds, self.end = shares, seconds, end

    def share(self, name: str) -> float:
        """Seconds of working time."""
        return self.seconds * self.shares[name] / sum(self.shares.values())

    def until(self, name: str) -> float:
        """When this stage must have ended if it starts now, of time.monotonic."""
        names = list(self.shares)
        later = sum(self.shares[n] for n in names[names.index(name) :])
        now = time.monotonic()
        return now + max(0.0, self.end - now) * self.shares[name] / later


class Budget:
    """Iterates over steps until `seconds` of working time are spent or time.monotonic is `until`; survives being stopped.

    Args:
        folder: where its state is kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None, name: str, seconds: float, until: float, state: dict | None = None, save_every: float = 120.0):
        self.name, self.seconds, self.until, self.state, self.save_every = name, seconds, until, state or {}, save_every
        self.file = folder / f"{name}.pt" if folder else None
        self.spent, self.steps, self.done = 0.0, 0, False
        self.sums: dict[str, tuple[torch.Tensor | float, int]] = {}
        if self.file and self.file.exists():
            saved = torch.load(self.file, weights_only=False, map_location="cpu")
            self.spent, self.steps, self.done = saved["spent"], saved["steps"], saved["done"]
            for key, item in self.state.items():
                item.load_state_dict(saved["state"][key])

    @property
    def progress(self) -> float:
        """0..1, of the time that it will have had."""
        return 1.0 if self.done or self.seconds <= 0 else min(1.0, self.spent / self.seconds)

    def __iter__(self) -> Iterator[int]:
        last = saved = logged = time.monotonic()
        self.seconds = min(self.seconds, self.spent + self.until - last)
        while self.progress < 1 or not (self.steps or self.done):  # one step at least, however late it is
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
        self.done = True
        self.log()
        self.save()

    def note(self, **values: torch.Tensor | float) -> None:
        """Add to the means that `log` prints. Tensors stay on their device until then: nothing waits for a GPU."""
        for key, value in values.items():
            total, count = self.sums.get(key, (0.0, 0))
            self.sums[key] = (total + (value.detach() if isinstance(value, torch.Tensor) else value), count + 1)

    def log(self) -> None:
        means = {k: round(float(t) / n, 4) for k, (t, n) in self.sums.items()}
        print(json.dumps({"stage": self.name, "step": self.steps, "seconds": round(self.spent, 1), **means}), flush=True)
        self.sums.clear()

    def save(self) -> None:
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        state = {k: v.state_dict() for k, v in self.state.items()}
        torch.save({"spent": self.spent, "steps": self.steps, "done": self.done, "state": state}, part)
        part.replace(self.file)
