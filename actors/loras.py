"""LoRAs: loaded once, switched from request to request, and proven to change each module as their file says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from .certificate import check_error, lora_error
from .files import in_one_line
from .lora_keys import MOTION, TEXT, LoraKeys, keys_of, place_in_unet
from .ltx_file import RENAMED
from .merged_loras import MergedLoras, places
from .values import Lora, ModelError


class Loras:
    """The LoRAs of one pipeline. Each is loaded once, and each request switches to its own.

    Args:
        text: prompts are encoded with the LoRAs' parts for the text encoder, so a file may have one.
    """

    def __init__(self, pipe: Any, text: bool):
        self.pipe, self.text = pipe, text
        self.denoiser = getattr(pipe, "unet", None) or pipe.transformer
        self.merged = MergedLoras(self.denoiser)
        self.errors: dict[str, tuple[str, int, float]] = {}  # file to how it is applied, its modules, and the largest error of one
        self.names: dict[str, str] = {}  # file to the adapter's name in the pipeline, or "" where it needs none

    def use(self, loras: tuple[Lora, ...]) -> None:
        """Make exactly these LoRAs active. Raises ModelError where one does not exist or does not fit the checkpoint."""
        for lora in loras:
            if lora.file not in self.names:
                self.names[lora.file] = self._load(lora.file)
        active: dict[str, float] = {}
        for x in loras:  # a file that is named twice, by a workflow and a character, counts twice
            if name := self.names[x.file]:
                active[name] = active.get(name, 0.0) + x.weight
        self.merged.use(tuple(x for x in loras if x.file in self.merged.files))
        if active:
            self.pipe.enable_lora()
            self.pipe.set_adapters(list(active), list(active.values()))
        elif any(self.names.values()):
            self.pipe.disable_lora()

    def told(self, loras: tuple[Lora, ...]) -> list[dict[str, Any]]:
        """For the certificate: of each LoRA how it is applied, and how far a module is from what its file says at most."""
        return [
            {"file": Path(x.file).name, "weight": x.weight, "applied": how, "modules": modules, "error": float(f"{error:.2g}")}
            for x in loras
            for how, modules, error in [self.errors[x.file]]
        ]

    def _load(self, file: str) -> str:
        """The adapter's name; "" where the file needs none, since it is merged or changes text encoders alone."""
        name, keys = f"lora{len(self.names)}", keys_of(file)
        text = [module for module in keys.modules if module.startswith(TEXT)]
        if text and not self.text:
            raise ModelError(f"LoRA {file} does not fit: {len(text)} of its modules are of a text encoder that this family does not have")
        if len(text) == len(keys.modules):
            self.errors[file] = "to the text", len(text), 0.0
            return ""
        if keys.motion and not hasattr(self.pipe, "motion_adapter"):
            raise ModelError(f"LoRA {file} does not fit: {MOTION}")
        if keys.merged:
            mine = places(file, [module for module in keys.modules if module not in text], self.denoiser)
            self.errors[file] = "merged", len(mine), self.merged.load(file, mine)
            return ""
        tensors = load_file(file)
        state = {name: tensors[key] for module, parts in keys.modules.items() if module not in text for name, key in _named(module, parts)}
        try:
            self.pipe.load_lora_weights(state, adapter_name=name, local_files_only=True)
        except Exception as error:
            raise ModelError(f"LoRA {file} does not fit this checkpoint: {in_one_line(error)}") from error
        worst = apply_as_written(self.denoiser, name, file, keys, tensors)
        self.errors[file] = "beside the weights", len(keys.modules) - len(text), worst
        return name


def _named(module: str, parts: dict[str, str]) -> list[tuple[str, str]]:
    """Names that the loader understands, and the keys in the file. Alphas that it would misread are left to `apply_as_written`."""
    place = f"unet.{unet}" if (unet := place_in_unet(module)) else _place_in_ltx(module)
    if place is None:
        return [(key, key) for key in parts.values()]
    return [(f"{place}.lora_{side}.weight", parts[part]) for part, side in (("down", "A"), ("up", "B"))]


def _place_in_ltx(module: str) -> str | None:
    """diffusers' name of a module of LTX-Video's transformer, which may have the original code's; None where it is of another kind."""
    if not module.startswith(("diffusion_model.", "transformer.")):
        return None
    first, dot, rest = module.partition(".")[2].partition(".")
    return "transformer." + {theirs: ours for ours, theirs in RENAMED.items()}.get(first, first) + dot + rest


def apply_as_written(model: torch.nn.Module, adapter: str, file: str, keys: LoraKeys, tensors: dict[str, torch.Tensor]) -> float:
    """Give every module the strength that the file writes for it: alpha / rank, or 1 where it has no alpha.

    Loaders work from one alpha and one rank for the whole file, with exceptions by name; where these fail, a module is too strong or
    too weak and nobody is told. So the matrices in the model are matched with those in the file by their values, whatever the names.

    Returns the largest error of a module: of the change that it really makes against what the file says, relative to its size.

    Args:
        adapter: name of the LoRA in the model. tensors: all of the file.

    Raises:
        ModelError: a module of the file changes nothing in the model, or not as the file says.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and adapter in layer.lora_A]
    waiting: dict[bytes, list[LoraLayer]] = {}
    for layer in layers:
        waiting.setdefault(_mark(layer.lora_A[adapter].weight, layer.lora_B[adapter].weight), []).append(layer)
    dtype = layers[0].lora_A[adapter].weight.dtype if layers else torch.float32
    unused, errors = [], [0.0]
    for module, parts in keys.modules.items():
        if module.startswith(TEXT):
            continue
        found = waiting.get(_mark(*(tensors[parts[side]].to(dtype) for side in ("down", "up"))))
        if not found:
            unused.append(module)
            continue
        layer = found.pop()  # modules of equal matrices have equal strengths, or the file could not be told from another
        layer.lora_alpha[adapter] = keys.strength(module) * layer.r[adapter]
        layer.set_scale(adapter, 1.0)
        down, up = (tensors[parts[side]].flatten(1).float() for side in ("down", "up"))
        made = layer.lora_B[adapter].weight.flatten(1).float() @ layer.lora_A[adapter].weight.flatten(1).float()
        errors.append(lora_error(layer.scaling[adapter] * made.cpu(), keys.strength(module) * up @ down))
        check_error(file, module, errors[-1], dtype)
    if unused:
        count = f"{len(unused)} of its {len(keys.modules)} modules"
        raise ModelError(f"LoRA {file} does not fit this checkpoint: {count} have no place in it, such as {unused[0]}")
    return max(errors)


def _mark(down: torch.Tensor, up: torch.Tensor) -> bytes:
    """The values of a pair of matrices, whatever the shape: a 1x1 convolution and a linear layer hold the same."""
    values = hashlib.sha256()
    for matrix in (down, up):
        values.update(matrix.detach().flatten().float().cpu().numpy().tobytes())
    return values.digest()
