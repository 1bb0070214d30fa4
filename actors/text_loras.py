"""The part of LoRAs that changes a text encoder: beside its weights for the texts that want it, and away again."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import safe_open
from torch.nn.functional import linear

from .certificate import check_error, lora_error
from .lora_keys import TEXT_ENCODERS, keys_of
from .merged_loras import MergedLoras
from .values import Lora, ModelError


class TextLoras:
    """The LoRAs of one text encoder. A pair of matrices is computed beside the layer's weight, so the weight stays what it is.

    Args:
        encoder: CLIP's text model. number: 0, or 1 for the second encoder of SDXL.
    """

    def __init__(self, encoder: torch.nn.Module, number: int = 0):
        self.prefixes = TEXT_ENCODERS[number]
        names = {name.replace(".", "_"): name for name, module in encoder.named_modules() if isinstance(module, torch.nn.Linear)}
        self.names = {f"text_model_{name.removeprefix('text_model_')}": place for name, place in names.items()}
        self.encoder, self.merged = encoder, MergedLoras(encoder)
        self.pairs: dict[str, dict[str, tuple[torch.Tensor, torch.Tensor]]] = {}  # file to layer to its two matrices, scaled
        self.active: list[tuple[float, dict[str, tuple[torch.Tensor, torch.Tensor]]]] = []  # weight and pairs
        self.hooked: set[str] = set()
        self.errors: dict[str, float] = {}  # file to the largest error of a layer's change, relative to its size

    def use(self, loras: tuple[Lora, ...]) -> None:
        """Make exactly these LoRAs active. Raises ModelError where one has no place in this encoder."""
        for lora in loras:
            if lora.file not in self.pairs and lora.file not in self.merged.files:
                self._load(lora.file)
        self.active = [(lora.weight, self.pairs[lora.file]) for lora in loras if lora.file in self.pairs]
        self.merged.use(tuple(lora for lora in loras if lora.file in self.merged.files))

    def _load(self, file: str) -> None:
        keys, places = keys_of(file), {}
        for module in keys.modules:
            if prefix := next((p for p in self.prefixes if module.startswith(p)), ""):
                place = self.names.get(module.removeprefix(prefix).replace(".", "_"))
                if place is None:
                    raise ModelError(f"LoRA {file} does not fit this checkpoint: its {module} has no place in the text encoder")
                places[module] = place
        if keys.merged:
            self.errors[file] = self.merged.load(file, places)
            return
        pairs, errors = {}, [0.0]
        with safe_open(file, "pt") as tensors:
            for module, place in places.items():
                layer = self.encoder.get_submodule(place)
                said = [tensors.get_tensor(keys.modules[module][side]) for side in ("down", "up")]
                down, up = (matrix.to(layer.weight) for matrix in said)
                if layer.weight.shape != (up.shape[0], down.shape[1]):
                    raise ModelError(f"LoRA {file} does not fit this checkpoint: its {module} has no place in the text encoder")
                pairs[place] = down, keys.strength(module) * up
                wanted, made = keys.strength(module) * said[1].float() @ said[0].float(), pairs[place][1].float() @ down.float()
                errors.append(lora_error(made.cpu(), wanted))
                check_error(file, module, errors[-1], layer.weight.dtype)
        self.pairs[file], self.errors[file] = pairs, float(f"{max(errors):.2g}")
        for place in pairs.keys() - self.hooked:
            self.encoder.get_submodule(place).register_forward_hook(self._beside(place))
            self.hooked.add(place)

    def _beside(self, place: str) -> Any:
        def add(_module: Any, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> torch.Tensor:
            for weight, pairs in self.active:
                if place in pairs:
                    down, up = pairs[place]
                    made = made + weight * linear(linear(given[0], down), up)
            return made

        return add
