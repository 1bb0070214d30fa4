"""The part of LoRAs that changes a text encoder: merged into its weights for the texts that want it, and taken out again."""

from __future__ import annotations

import torch
from safetensors import safe_open

from .lora_keys import TEXT_ENCODERS, keys_of
from .values import Lora, ModelError


class TextLoras:
    """The LoRAs of one text encoder. A text encoder is small, so its weights are changed in place: exact, and without another library.

    Args:
        encoder: CLIP's text model. number: 0, or 1 for the second encoder of SDXL.
    """

    def __init__(self, encoder: torch.nn.Module, number: int = 0):
        self.prefixes = TEXT_ENCODERS[number]
        linear = {name.replace(".", "_"): module for name, module in encoder.named_modules() if isinstance(module, torch.nn.Linear)}
        self.modules = {f"text_model_{name.removeprefix('text_model_')}": module for name, module in linear.items()}
        self.plain: dict[str, torch.Tensor] = {}  # weights without LoRAs, of the modules that one has changed
        self.changes: dict[str, dict[str, torch.Tensor]] = {}  # file to module to its change at weight 1
        self.active: tuple[Lora, ...] = ()

    @torch.no_grad()
    def use(self, loras: tuple[Lora, ...]) -> None:
        """Make exactly these LoRAs active. Raises ModelError where one has no place in this encoder."""
        if loras == self.active:
            return
        for lora in loras:
            if lora.file not in self.changes:
                self.changes[lora.file] = self._changes(lora.file)
        for name in {name for lora in (*self.active, *loras) for name in self.changes[lora.file]}:
            weight = self.modules[name].weight
            plain = self.plain.setdefault(name, weight.detach().clone())
            changed = plain.float()
            for lora in loras:
                if name in self.changes[lora.file]:
                    changed = changed + lora.weight * self.changes[lora.file][name]
            weight.copy_(changed)
        self.active = loras

    def _changes(self, file: str) -> dict[str, torch.Tensor]:
        keys, found = keys_of(file), {}
        with safe_open(file, "pt", device=str(next(iter(self.modules.values())).weight.device)) as tensors:
            for module, parts in keys.modules.items():
                if not module.startswith(self.prefixes):
                    continue
                name = next(module.removeprefix(prefix) for prefix in self.prefixes if module.startswith(prefix)).replace(".", "_")
                down, up = (tensors.get_tensor(parts[side]).float() for side in ("down", "up"))
                place = self.modules.get(name)
                if place is None or place.weight.shape != (up.shape[0], down.shape[1]):
                    raise ModelError(f"LoRA {file} does not fit this checkpoint: its {module} has no place in the text encoder")
                found[name] = keys.strength(module) * up @ down
        return found
