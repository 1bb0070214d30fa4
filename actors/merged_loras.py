"""LoRAs that are no pair of matrices beside a weight (LoHa, LoKr, DoRA, whole differences): added to the weights themselves.

Merged weights are rounded to the model's type, so a change is as exact as that type is; a weight without changes is restored bit for bit.
"""

from __future__ import annotations

import torch
from diffusers.loaders.lora_conversion_utils import _maybe_map_sgm_blocks_to_diffusers
from peft.tuners.loha.layer import make_weight, make_weight_cp
from peft.tuners.lokr.layer import make_kron
from peft.tuners.lokr.layer import make_weight_cp as make_lokr_cp
from safetensors.torch import load_file

from .certificate import lora_error
from .lora_keys import LoraKeys, keys_of
from .values import Lora, ModelError

PREFIXES = ("lora_unet_", "unet.", "diffusion_model.", "transformer.")
# Names of the original code that the library's map of blocks leaves as they are, in the order in which they are replaced.
ORIGINAL = {
    "in_layers_2": "conv1", "out_layers_3": "conv2", "emb_layers_1": "time_emb_proj", "skip_connection": "conv_shortcut",
    "downsamplers_0_op": "downsamplers_0_conv", "input_blocks_0_0": "conv_in", "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2", "label_emb_0_0": "add_embedding_linear_1", "label_emb_0_2": "add_embedding_linear_2",
    "input_blocks": "down_blocks", "middle_block": "mid_block", "output_blocks": "up_blocks",
}  # fmt: skip
Tensors = dict[str, torch.Tensor]


class MergedLoras:
    """The merged LoRAs of one model. Switching computes the changes anew: they are as large as the weights, and not kept."""

    def __init__(self, model: torch.nn.Module):
        self.model = model
        self.files: dict[str, tuple[LoraKeys, Tensors, dict[str, str]]] = {}  # file to its keys, tensors, and module to weight here
        self.plain: Tensors = {}  # weights without LoRAs, in main memory, of those that one has changed
        self.active: tuple[Lora, ...] = ()

    @torch.no_grad()
    def load(self, file: str, modules: dict[str, str]) -> float:
        """Read a file, and compute each change once, so that one that does not fit is told now.

        Returns the largest error of a change, relative to its size, by rounding the changed weight to the model's type.

        Args:
            modules: of the file, to what it is called in the model.

        Raises:
            ModelError: a change does not fit its weight.
        """
        keys, tensors, errors = keys_of(file), load_file(file), [0.0]
        self.use(())
        for module, name in modules.items():
            plain = self.model.get_submodule(name).weight
            try:
                wanted = change(keys, module, tensors, plain)
            except RuntimeError as error:
                raise ModelError(f"LoRA {file} does not fit this checkpoint: its {module} is of another shape than {name}") from error
            made = (plain.float() + wanted).to(plain.dtype).float() - plain.float()
            errors.append(lora_error(made, wanted))
        self.files[file] = keys, tensors, modules
        return max(errors)

    @torch.no_grad()
    def use(self, loras: tuple[Lora, ...]) -> None:
        """Make exactly these LoRAs active; all are loaded."""
        if loras == self.active:
            return
        changes: dict[str, list[tuple[float, LoraKeys, str, Tensors]]] = {
            name: [] for lora in self.active for name in self.files[lora.file][2].values()
        }
        for lora in loras:
            keys, tensors, modules = self.files[lora.file]
            for module, name in modules.items():
                changes.setdefault(name, []).append((lora.weight, keys, module, tensors))
        for name, mine in changes.items():
            weight = self.model.get_submodule(name).weight
            plain = self.plain.setdefault(name, weight.detach().cpu().clone()).to(weight.device)
            changed = plain.float()
            for factor, keys, module, tensors in mine:
                changed = changed + factor * change(keys, module, tensors, plain)
            weight.copy_(changed)  # without changes the plain bits: float32 holds all of a narrower type
        self.active = loras


def change(keys: LoraKeys, module: str, tensors: Tensors, plain: torch.Tensor) -> torch.Tensor:
    """What a file adds to a weight at strength 1, float32 in the weight's shape.

    Args:
        plain: the weight without LoRAs, of which DoRA changes the direction and the length.
    """
    parts = {kind: tensors[key].to(plain.device).float() for kind, key in keys.modules[module].items()}
    made = keys.strength(module) * _difference(parts)
    made = made.reshape(plain.shape)
    if "dora" not in parts:
        return made
    turned, length = plain.float() + made, parts["dora"]
    # PEFT has one for each output, whatever the shape. LyCORIS has either; its first files have one for each input.
    by_output = "magnitude" in keys.modules[module]["dora"] or length.shape[0] == plain.shape[0]
    flat = turned.flatten(1) if by_output else turned.transpose(0, 1).flatten(1)
    norm = flat.norm(dim=1).reshape([-1, *[1] * (plain.ndim - 1)] if by_output else [1, -1, *[1] * (plain.ndim - 2)])
    return turned * (length.reshape(norm.shape) / norm) - plain.float()


def _difference(p: Tensors) -> torch.Tensor:
    """The difference of a module's weight at scale 1, in any shape of as many numbers. LyCORIS' formulas, by peft."""
    if "diff" in p:
        return p["diff"]
    one = torch.tensor(1.0, device=next(iter(p.values())).device)
    if "hada_t1" in p:
        return make_weight_cp(p["hada_t1"], p["hada_w1_a"], p["hada_w1_b"], p["hada_t2"], p["hada_w2_a"], p["hada_w2_b"], one)
    if "hada_w1_a" in p:
        return make_weight(p["hada_w1_a"], p["hada_w1_b"].flatten(1), p["hada_w2_a"], p["hada_w2_b"].flatten(1), one)
    if "lokr_w1" in p or "lokr_w1_a" in p:
        return make_kron(_half(p, "lokr_w1"), _half(p, "lokr_w2"))
    if "mid" in p:  # a convolution in three parts: to the rank, over the picture, from the rank
        return torch.einsum("o r, r s h w, s i -> o i h w", p["up"].flatten(1), p["mid"], p["down"].flatten(1))
    return p["up"].flatten(1) @ p["down"].flatten(1)


def _half(p: Tensors, name: str) -> torch.Tensor:
    """One of LoKr's two factors, whole or in parts."""
    if name in p:
        return p[name]
    first, second = p[f"{name}_a"], p[f"{name}_b"]
    if "lokr_t2" in p and name == "lokr_w2":
        return make_lokr_cp(p["lokr_t2"], first, second)
    return (first @ second.flatten(1)).reshape(first.shape[0], *second.shape[1:])


def places(file: str, modules: list[str], model: torch.nn.Module) -> dict[str, str]:
    """The weights of a denoiser that the modules of a file mean.

    Args:
        modules: in the names of diffusers, or of the original code, which trainers of SDXL use.

    Raises:
        ModelError: a module has no place in the model.
    """
    # Where another LoRA lies beside a weight, its module has the plain one as base_layer; both give the same weight.
    plain = (name.removesuffix(".base_layer") for name, part in model.named_modules() if hasattr(part, "weight"))
    here = {name.replace(".", "_"): name for name in plain}
    mapped = {}
    for module, name in _in_diffusers_names(modules, model).items():
        for original, ours in ORIGINAL.items():
            name = name.replace(original, ours)
        mapped[module] = "conv_out" if name == "out_2" else name
    lost = [module for module in modules if mapped.get(module) not in here]
    if lost:
        count = f"{len(lost)} of its {len(modules)} modules"
        raise ModelError(f"LoRA {file} does not fit this checkpoint: {count} have no place in it, such as {lost[0]}")
    return {module: here[name] for module, name in mapped.items()}


def _in_diffusers_names(modules: list[str], model: torch.nn.Module) -> dict[str, str]:
    """Module to its name with `_` between its parts; blocks by diffusers' names."""
    plain = {}
    for module in modules:
        prefix = next((p for p in PREFIXES if module.startswith(p)), "")
        plain[f"lora_unet_{module.removeprefix(prefix).replace('.', '_')}"] = module
    found = _maybe_map_sgm_blocks_to_diffusers(dict(plain), model.config) if "layers_per_block" in model.config else plain
    return {module: name.removeprefix("lora_unet_") for name, module in found.items()}
