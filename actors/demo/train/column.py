"""What every stage of a column of trainings is given."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .drawing import Drawings
from .progress import Budget, Stages
from .recipe import Recipe


@dataclass(frozen=True)
class Column:
    """A column of stages that run one after another in one process.

    work: where stages keep their state and latents, to go on after a stop; None keeps nothing.
    checkpoints: where finished diffusers folders go, and are found.
    """

    recipe: Recipe
    device: torch.device
    work: Path | None
    checkpoints: Path
    stages: Stages
    drawings: Drawings

    def budget(self, stage: str, **state: Any) -> Budget:
        return Budget(self.work, stage, self.stages.share(stage), self.stages.until(stage), state)

    def drawn(self, job: str, until: float, use: Callable[[torch.Tensor], Any] = lambda pixels: pixels) -> list[Any]:
        """`use` of each batch, uint8 (items, frames, height, width, 3) on the device; ends when a third of the time to `until` is gone."""
        now = time.monotonic()
        return [use(self.pixels(batch)) for batch in self.drawings.take(job, now + (until - now) / 3)]

    def pixels(self, drawn: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(drawn).to(self.device, non_blocking=True)

    def cached(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives: tensors, on the device. Made once where there is a work folder."""
        file = self.work / f"{name}.pt" if self.work else None
        if file and file.exists():
            return torch.load(file, weights_only=False, map_location=self.device)
        made = make()
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(made, file)
        return made

    def cheap(self) -> torch.autocast:
        """The training's forward passes run in this: bfloat16 on a GPU where the recipe says so."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bfloat16 and self.device.type == "cuda")

    def random(self, stage: Budget) -> np.random.Generator:
        """Numbers for the host, and PyTorch's own seeded: by the recipe and the step at which the stage goes on."""
        seed = self.recipe.seed + stage.steps
        torch.manual_seed(seed)
        return np.random.default_rng(seed)
