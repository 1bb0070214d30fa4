"""The keys of motion modules in one file: what each tensor is called in diffusers' MotionAdapter, and which configuration they need."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .architectures import SD, SDXL
from .headers import Header, Tensor

HEADS = 8  # of attention, in all published motion modules; no tensor tells it
# Names of the original code, to diffusers'. Published files have the one or the other.
RENAMED = (
    (".temporal_transformer", ""), (".attention_blocks.0.pos_encoder", ".pos_embed"), (".attention_blocks.1.pos_encoder", ".pos_embed"),
    (".attention_blocks.0", ".attn1"), (".attention_blocks.1", ".attn2"),
    (".norms.0", ".norm1"), (".norms.1", ".norm2"), (".ff_norm", ".norm3"),
)  # fmt: skip
BIASED = ("norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2", "attn1.to_out.0", "attn2.to_out.0")  # parts with weight and bias
BLOCK = (
    *(f"{part}.{kind}" for part in BIASED for kind in ("weight", "bias")),
    *(f"attn{n}.to_{part}.weight" for n in (1, 2) for part in "qkv"),
    "pos_embed.pe",
)
ENDS = ("norm.weight", "norm.bias", "proj_in.weight", "proj_in.bias", "proj_out.weight", "proj_out.bias")


@dataclass(frozen=True)
class MotionKeys:
    """What a file of motion modules holds.

    names: MotionAdapter's name of a tensor to its keys in the file. A positional encoding has a key for each attention that it is
        added before; every other tensor has one.
    widths: channels of the blocks. longest: frames that the positional encodings reach; 0 where the file has none.
    layers: motion modules of each block on the way down. depth: transformer blocks of a module.
    middle: whether the middle block has a module.
    unknown: keys that are no part of a motion module.
    """

    names: dict[str, tuple[str, ...]]
    widths: tuple[int, ...]
    longest: int
    layers: int
    depth: int
    middle: bool
    unknown: tuple[str, ...]

    @property
    def config(self) -> dict[str, Any]:
        """Arguments of diffusers' MotionAdapter."""
        return {
            "block_out_channels": self.widths,
            "motion_layers_per_block": self.layers,
            "motion_transformer_layers_per_block": self.depth,
            "motion_transformer_layers_per_mid_block": self.depth,
            "motion_num_attention_heads": HEADS,
            "motion_norm_num_groups": 1,  # not used: the UNet's own number of groups counts
            "motion_max_seq_length": self.longest,
            "use_motion_mid_block": self.middle,
        }

    def of_folder(self, header: Header) -> bool:
        """Whether the file is the weights of a diffusers folder, whose configuration beside it counts."""
        return (header.path.parent / "config.json").is_file() and all(keys == (name,) for name, keys in self.names.items())

    @property
    def architecture(self) -> str:
        """Stable Diffusion XL has three blocks, and 1.5 has four."""
        return SDXL if self.widths == (320, 640, 1280) else SD

    @property
    def version(self) -> str:
        """By what is published: 1.5-2 alone moves the middle block, and versions before it make 24 frames."""
        return "SDXL beta" if self.architecture == SDXL else "v1.5-2" if self.middle else "v3" if self.longest == 32 else "v1.4 or v1.5"

    @property
    def faults(self) -> tuple[str, ...]:
        """What keeps Tower from using the file, a sentence each."""
        found = [f"Tower animates with {SD} alone"] if self.architecture == SDXL else []
        if not self.longest:
            found.append("it has no positional encodings, so nothing tells how many frames it makes")
        lacking = sorted(self._wanted() - self.names.keys())
        if lacking and self.architecture == SD:
            found.append(f"it lacks {len(lacking)} tensors of its motion modules, such as {lacking[0]}")
        strange = (*self.unknown, *sorted(self.names.keys() - self._wanted()))
        if strange:
            found.append(f"{len(strange)} of its keys belong to no motion module, such as {strange[0]}")
        return tuple(found)

    def _wanted(self) -> set[str]:
        blocks = len(self.widths)
        modules = [f"down_blocks.{i}.motion_modules.{n}." for i in range(blocks) for n in range(self.layers)]
        modules += [f"up_blocks.{i}.motion_modules.{n}." for i in range(blocks) for n in range(self.layers + 1)]
        modules += ["mid_block.motion_modules.0."] if self.middle else []
        parts = [*ENDS, *(f"transformer_blocks.{n}.{part}" for n in range(self.depth) for part in BLOCK)]
        return {module + part for module in modules for part in parts}


def motion_keys(header: Header) -> MotionKeys | None:
    """The motion modules in a file; None where it holds none."""
    names: dict[str, list[str]] = {}
    unknown = []
    for key in header.tensors:
        if ".motion_modules." in key:
            names.setdefault(diffusers_name(key), []).append(key)
        else:
            unknown.append(key)
    widths = _widths(names, header.tensors)
    if not widths or any(".lora" in name or "_lora" in name for name in names):
        return None
    encodings = [header.tensors[keys[0]].shape for name, keys in names.items() if name.endswith(".pos_embed.pe")]
    longest = encodings[0][1] if encodings and len(encodings[0]) == 3 else 0
    layers, depth = (
        1 + max((int(m[1]) for name in names if (m := re.match(pattern, name))), default=0)
        for pattern in (r"down_blocks\.\d+\.motion_modules\.(\d+)\.", r"down_blocks\.0\.motion_modules\.0\.transformer_blocks\.(\d+)\.")
    )
    middle = any(name.startswith("mid_block.") for name in names)
    return MotionKeys({name: tuple(keys) for name, keys in names.items()}, widths, longest, layers, depth, middle, tuple(unknown))


def diffusers_name(key: str) -> str:
    """diffusers' name of a tensor or module that either layout names."""
    name = key.removeprefix("module.")
    for before, after in RENAMED:
        name = name.replace(before, after)
    return name


def _widths(names: dict[str, list[str]], tensors: dict[str, Tensor]) -> tuple[int, ...]:
    found = {}
    for name, keys in names.items():
        if match := re.fullmatch(r"down_blocks\.(\d+)\.motion_modules\.0\.(norm\.weight|transformer_blocks\.0\.pos_embed\.pe)", name):
            found[int(match[1])] = tensors[keys[0]].shape[-1]
    return tuple(found[n] for n in sorted(found))
