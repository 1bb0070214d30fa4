"""The keys of LoRA files: which writers name them how, which modules they change, with which rank, alpha and weights."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .architectures import BY_WIDTH, FLUX, LTX, SD, SD3, SDXL, WAN
from .headers import Header, read_header
from .motion_keys import diffusers_name
from .values import Lora, ModelError

# Endings of keys, to what the tensor is. kohya and LyCORIS write the first names, diffusers and PEFT the others.
ENDINGS = {
    ".lora_down.weight": "down", ".lora_up.weight": "up", ".lora_mid.weight": "mid", ".alpha": "alpha", ".dora_scale": "dora",
    ".lora_A.weight": "down", ".lora_B.weight": "up", ".lora_A.default.weight": "down", ".lora_B.default.weight": "up",
    ".lora.down.weight": "down", ".lora.up.weight": "up", "_lora.down.weight": "down", "_lora.up.weight": "up",
    ".lora_magnitude_vector": "dora", ".lora_magnitude_vector.weight": "dora",
    ".diff": "diff", ".diff_b": "diff_b", ".on_input": "ia3",
} | {f".{kind}": kind for kind in (
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w2", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
)}  # fmt: skip
NAMES = {"dora": "DoRA", "hada_w1_a": "LoHa", "diff": "whole differences", "diff_b": "differences of biases", "ia3": "IA3",
         "lokr_w1": "LoKr", "lokr_w1_a": "LoKr", "mid": "convolutions in three parts"}  # fmt: skip
NOT_APPLIED = ("diff_b", "ia3")
# What a module may consist of, beside its alpha and DoRA's lengths.
WHOLE = (
    {"down", "up"}, {"down", "up", "mid"}, {"diff"}, {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},
    {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"},
    *({*one, *two} for one in ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"})
      for two in ({"lokr_w2"}, {"lokr_w2_a", "lokr_w2_b"}, {"lokr_w2_a", "lokr_w2_b", "lokr_t2"})),
)  # fmt: skip
RANKED = (("down", 0), ("hada_w1_b", 0), ("lokr_w2_b", 0), ("lokr_w1_b", 0))  # tensor whose length along the axis is the rank
# What modules of text encoders begin with: of the first, and of the second that SDXL has.
TEXT_ENCODERS = (("lora_te_", "lora_te1_", "text_encoder."), ("lora_te2_", "text_encoder_2."))
TEXT = (*TEXT_ENCODERS[0], *TEXT_ENCODERS[1], "lora_te3_")
MOTION = "it is a motion LoRA, which belongs to `loras` of a workflow of family animatediff"
METADATA = "lora_adapter_metadata"  # where diffusers writes PEFT's configuration, as JSON
ADAPTED = ("unet.", "transformer.", "text_encoder.", "text_encoder_2.")  # parts of a pipeline, each with a configuration of its own there


@dataclass(frozen=True)
class LoraKeys:
    """What a LoRA file changes.

    modules: name of each changed module to the tensors that it has: {"down": key, "up": key, "alpha": key, ...}.
    alphas: of modules that have one. ranks: of all modules. lost: what of the file would be ignored, a sentence each.
    faults: these, and what keeps every checkpoint of Tower from using it.
    """

    modules: dict[str, dict[str, str]]
    ranks: dict[str, int]
    alphas: dict[str, float]
    architecture: str
    motion: bool
    parts: tuple[str, ...]
    notes: tuple[str, ...]
    lost: tuple[str, ...]
    faults: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def merged(self) -> bool:
        """Whether a module is more than a pair of matrices, so that the file is added to the weights."""
        return any(kinds.keys() - {"down", "up", "alpha"} for kinds in self.modules.values())

    def strength(self, module: str) -> float:
        """Factor of the module's change: alpha / rank; 1 where the file writes no alpha, or the change has no rank."""
        return self.alphas.get(module, self.ranks[module]) / self.ranks[module] if module in self.ranks else 1.0


def place_in_unet(module: str) -> str | None:
    """diffusers' name of a module of the UNet that a file names with dots; None where the name is of another kind.

    Old writers named the attention's processor in place of its layers, and some no `unet.` before it. Motion LoRAs of the original
    code name what diffusers has renamed.
    """
    name = diffusers_name(module.removeprefix("unet.")).replace(".processor.", ".")
    if not name.startswith(("down_blocks.", "mid_block.", "up_blocks.")):
        return None
    return f"{name}.0" if name.endswith(".to_out") else name


@cache
def keys_of(file: str) -> LoraKeys:
    """The keys of a LoRA file.

    Raises:
        ModelError: the file is no LoRA, or a part of it would be lost.
    """
    if not Path(file).is_file():
        raise ModelError(f"LoRA {file} does not exist")
    try:
        keys = lora_keys(read_header(Path(file)))
    except ModelError as error:
        raise ModelError(f"LoRA {file} does not fit: {error}") from error
    except IndexError as error:
        raise ModelError(f"LoRA {file} does not fit: some of its tensors have fewer axes than their names call for") from error
    if keys is None:
        raise ModelError(f"LoRA {file} does not fit: it is none; `tower models inspect` tells what it is")
    if keys.lost:
        raise ModelError(f"LoRA {file} does not fit: {keys.lost[0]}")
    return keys


def changing_text(loras: tuple[Lora, ...]) -> tuple[Lora, ...]:
    """Those of the LoRAs that change a text encoder. Raises as `keys_of`."""
    return tuple(lora for lora in loras if any(name.startswith(TEXT) for name in keys_of(lora.file).modules))


def lora_keys(header: Header) -> LoraKeys | None:
    """The LoRA in a file; None where the file is none. Raises ModelError where an alpha or the metadata cannot be read."""
    modules, unknown = _modules(header)
    if not any({"down", "hada_w1_a", "lokr_w1", "lokr_w1_a", "diff", "ia3"} & kinds.keys() for kinds in modules.values()):
        return None
    ranks = {}
    for name, has in modules.items():
        if rank := next((header.tensors[has[kind]].shape[axis] for kind, axis in RANKED if kind in has), None):
            ranks[name] = rank
    alphas = _adapter_alphas(header, ranks)
    alphas |= {name: header.scalar(kinds["alpha"]) for name, kinds in modules.items() if "alpha" in kinds}
    architecture = _architecture(header, modules)
    motion = any(map(_moves, modules))
    text = [name for name in modules if name.startswith(TEXT)]
    image = [name for name in modules if not name.startswith(TEXT)]
    parts = (
        *([f"{len(image)} modules of the image or video model"] if image else []),
        *([f"{len(text)} of the text encoder"] if text else []),
    )
    kinds = sorted({NAMES[k] for m in modules.values() for k in m if k in NAMES})
    not_applied = sorted({NAMES[k] for m in modules.values() for k in m if k in NOT_APPLIED})
    notes = (_ranks(ranks), _alphas(ranks, alphas), *(f"holds {kind}" for kind in kinds), *_trained(header))
    lost = _lost(modules, not_applied, unknown)
    notes = tuple(note for note in notes if note)
    return LoraKeys(modules, ranks, alphas, architecture, motion, parts, notes, lost, (*lost, *_misfits(modules, architecture)), unknown)


def _modules(header: Header) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    modules: dict[str, dict[str, str]] = {}
    unknown = []
    for key in header.tensors:
        ending = max((e for e in ENDINGS if key.endswith(e)), key=len, default=None)
        if ending is None:
            unknown.append(key)
        else:
            modules.setdefault(key.removesuffix(ending), {})[ENDINGS[ending]] = key
    return modules, tuple(unknown)


def _moves(module: str) -> bool:
    return "temporal_transformer" in module or "motion_modules" in module


def _architecture(header: Header, modules: dict[str, dict[str, str]]) -> str:
    """By the names of modules, and by the width of the text that cross attention reads."""
    names = list(modules)
    if any(part in n for n in names for part in ("double_blocks", "single_transformer_blocks")):
        return FLUX
    if any("joint_blocks" in n for n in names):
        return SD3
    if any("cross_attn" in n and "blocks" in n for n in names):
        return WAN
    unet = any(
        part in n for n in names for part in ("down_blocks", "input_blocks", "mid_block", "middle_block", "up_blocks", "output_blocks")
    )
    if not unet and any("transformer_blocks" in n for n in names):
        return LTX
    if any(n.startswith(("lora_te2_", "text_encoder_2.")) for n in names):
        return SDXL
    readers = [kinds for name, kinds in modules.items() if "attn2" in name and name.endswith(("to_k", "to_v")) and not _moves(name)]
    widths = {_width(header, kinds) for kinds in readers} - {0}
    if len(widths) == 1:
        return BY_WIDTH.get(widths.pop(), "")
    told = header.metadata.get("ss_base_model_version", "") + header.metadata.get("modelspec.architecture", "")
    if any(map(_moves, names)):
        return SD
    return SDXL if "xl" in told.lower() else SD if "v1" in told else ""


def _width(header: Header, kinds: dict[str, str]) -> int:
    """Numbers that a changed linear layer reads; 0 where its kind does not tell. LoKr's two factors multiply."""

    def of(*names: str) -> int:
        return next((header.tensors[kinds[name]].shape[1] for name in names if name in kinds), 0)

    return of("down", "hada_w1_b", "diff") or of("lokr_w1", "lokr_w1_b") * of("lokr_w2", "lokr_w2_b")


def _ranks(ranks: dict[str, int]) -> str:
    if not ranks:
        return ""
    low, high = min(ranks.values()), max(ranks.values())
    return f"rank {low}" if low == high else f"ranks {low} to {high}"


def _alphas(ranks: dict[str, int], alphas: dict[str, float]) -> str:
    if not alphas:
        return "no alpha: each module applies as it is" if ranks else ""
    some = Counter(alphas.values())
    without = len(ranks.keys() - alphas.keys())
    told = f"alpha {next(iter(some)):g}" if len(some) == 1 else f"alphas {min(some):g} to {max(some):g}, by module"
    return told + (f"; {without} modules have none" if without else "")


def _trained(header: Header) -> list[str]:
    told = header.metadata.get("ss_network_module", ""), header.metadata.get("ss_sd_model_name", "")
    return [f"trained with {told[0]}" + (f" on {told[1]}" if told[1] else "")] if told[0] else []


def _lost(modules: dict[str, dict[str, str]], kinds: list[str], unknown: tuple[str, ...]) -> tuple[str, ...]:
    found = [f"it holds {kind}, which Tower does not apply" for kind in kinds]
    halves = [name for name, has in modules.items() if has.keys() - {"alpha", "dora", *NOT_APPLIED} not in WHOLE]
    if halves:
        found.append(f"{len(halves)} modules are not whole, such as {halves[0]}")
    if unknown:
        found.append(f"{len(unknown)} keys belong to nothing, such as {unknown[0]}")
    return tuple(found)


def _misfits(modules: dict[str, dict[str, str]], architecture: str) -> tuple[str, ...]:
    if architecture == LTX and any(name.startswith("lora_unet_") for name in modules):
        return ("its keys begin with lora_unet_, which diffusers passes over for LTX-Video; they should begin with diffusion_model.",)
    if architecture not in (SD, SDXL, LTX):
        return (f"it is for {architecture or 'an architecture that its keys do not tell'}, for which Tower has no family",)
    return ()


def _adapter_alphas(header: Header, ranks: dict[str, int]) -> dict[str, float]:
    """Alphas that diffusers writes into the metadata: of all modules of a part, or by the ends of their names (PEFT's patterns).

    Raises:
        ModelError: the metadata are no such configuration.
    """
    try:
        told, alphas = json.loads(header.metadata.get(METADATA, "{}")), {}
        for name, rank in ranks.items():
            mine = [part for part in ADAPTED if name.startswith(part)] or list(ADAPTED[:2])
            part = next((p for p in mine if f"{p}lora_alpha" in told), "")
            alpha, pattern = told.get(f"{part}lora_alpha"), told.get(f"{part}alpha_pattern") or {}
            own = next((value for key, value in pattern.items() if re.fullmatch(rf"(.*\.)?({key})", name)), alpha)
            if own is not None:  # rank-stabilised LoRAs are divided by the root of the rank (arXiv 2312.03732)
                alphas[name] = float(own) * (math.sqrt(rank) if told.get(f"{part}use_rslora") else 1)
    except (ValueError, TypeError, AttributeError, re.error) as error:
        raise ModelError(f"its metadata {METADATA} are no configuration of PEFT") from error
    return alphas
