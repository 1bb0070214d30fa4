"""Stable Diffusion, LTX-Video and motion modules in the layout of their original code, one file: names of tensors, from diffusers' own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}  # fmt: skip
ENDS = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_key(key: str, layers: int, attentive: list[bool]) -> str:
    """Args: layers: ResNets of a down block. attentive: whether each up block attends to text."""
    name, _, end = key.rpartition(".")
    if name in ENDS:
        return f"{ENDS[name]}.{end}"
    found = re.fullmatch(r"(down|up|mid)_blocks?\.?(\d*)\.(\w+)\.(\d+)\.(.*)", name)
    assert found, name
    side, block, part, number, rest = found.groups()
    n = int(number)
    if part == "resnets":
        rest = RESNET[rest]
    if side == "mid":
        return f"middle_block.{2 * n if part == 'resnets' else 1}.{rest}.{end}"
    i, sub = int(block), 0 if part == "resnets" else 1
    first = i * (layers + 1)
    if part == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.op.{end}"
    if side == "down":
        return f"input_blocks.{first + n + 1}.{sub}.{rest}.{end}"
    if part == "upsamplers":
        return f"output_blocks.{first + layers}.{2 if attentive[i] else 1}.conv.{end}"
    return f"output_blocks.{first + n}.{sub}.{rest}.{end}"


def vae_key(key: str, blocks: int) -> str:
    def down(found: re.Match[str]) -> str:
        return f"down.{found[1]}." + (f"block.{found[2]}" if found[2] else "downsample")

    def up(found: re.Match[str]) -> str:
        return f"up.{blocks - 1 - int(found[1])}." + (f"block.{found[2]}" if found[2] else "upsample")

    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = re.sub(r"mid_block\.attentions\.0\.(\w+(?:\.0)?)\.(?=weight|bias)", lambda m: f"mid.attn_1.{ATTENTION[m[1]]}.", key)
    key = re.sub(r"down_blocks\.(\d)\.(?:resnets\.(\d)|downsamplers\.0)", down, key)
    return re.sub(r"up_blocks\.(\d)\.(?:resnets\.(\d)|upsamplers\.0)", up, key)


def single_file(folder: Path, file: Path, **more: torch.Tensor) -> Path:
    """Write a diffusers folder's UNet, VAE and text encoder as one file."""
    told = {part: json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae")}
    load = {part: load_file(next((folder / part).glob("*.safetensors"))) for part in ("unet", "vae", "text_encoder")}
    attentive = ["CrossAttn" in name for name in told["unet"]["up_block_types"]]
    tensors = {f"model.diffusion_model.{unet_key(k, told['unet']['layers_per_block'], attentive)}": v for k, v in load["unet"].items()}
    for key, value in load["vae"].items():
        name = vae_key(key, len(told["vae"]["block_out_channels"]))
        square = "attn_1" in name and name.endswith("weight") and value.ndim == 2
        tensors[f"first_stage_model.{name}"] = value[:, :, None, None].contiguous() if square else value
    for key, value in load["text_encoder"].items():
        tensors[f"cond_stage_model.transformer.{key if key.startswith('text_model.') else f'text_model.{key}'}"] = value
    save_file(tensors | more, file)
    return file


def motion_key(key: str) -> list[str]:
    """The original code's names of a tensor of diffusers' MotionAdapter: a positional encoding lies before each attention."""
    key = re.sub(r"motion_modules\.(\d+)\.", r"motion_modules.\1.temporal_transformer.", key)
    if key.endswith("pos_embed.pe"):
        return [key.replace("pos_embed", f"attention_blocks.{n}.pos_encoder") for n in (0, 1)]
    layers = ((".attn1", ".attention_blocks.0"), (".attn2", ".attention_blocks.1"))
    norms = ((".norm1", ".norms.0"), (".norm2", ".norms.1"), (".norm3", ".ff_norm"))
    for before, after in (*layers, *norms):
        key = key.replace(before, after)
    return [key]


def motion_file(folder: Path, file: Path, prefix: str = "", **more: torch.Tensor) -> Path:
    """Write the motion adapter of a diffusers folder as one file."""
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    save_file({prefix + name: value.clone() for key, value in tensors.items() for name in motion_key(key)} | more, file)
    return file


# The demo's VAE of LTX-Video, block by block. The original code counts resizers as blocks of their own.
LTX_BLOCKS = {
    "encoder.down_blocks.0.resnets": "encoder.down_blocks.0.res_blocks", "encoder.down_blocks.0.downsamplers.0": "encoder.down_blocks.1",
    "encoder.down_blocks.1.resnets": "encoder.down_blocks.2.res_blocks", "encoder.down_blocks.1.downsamplers.0": "encoder.down_blocks.3",
    "encoder.mid_block.resnets": "encoder.down_blocks.4.res_blocks", "decoder.mid_block.resnets": "decoder.up_blocks.0.res_blocks",
    "decoder.up_blocks.0.upsamplers.0": "decoder.up_blocks.1", "decoder.up_blocks.0.resnets": "decoder.up_blocks.2.res_blocks",
    "decoder.up_blocks.1.upsamplers.0": "decoder.up_blocks.3", "decoder.up_blocks.1.resnets": "decoder.up_blocks.4.res_blocks",
    "latents_mean": "per_channel_statistics.mean-of-means", "latents_std": "per_channel_statistics.std-of-means",
}  # fmt: skip
LTX_MODULES = {"proj_in": "patchify_proj", "time_embed": "adaln_single", "norm_q": "q_norm", "norm_k": "k_norm"}


def ltx_tensors(folder: Path, vae: bool = True, prefix: str = "model.diffusion_model.") -> dict[str, torch.Tensor]:
    """The demo's LTX-Video as the original code names its tensors."""
    parts = {part: [load_file(file) for file in sorted((folder / part).glob("*.safetensors"))] for part in ("transformer", "vae")}
    tensors = {}
    for key, value in (item for file in parts["transformer"] for item in file.items()):
        tensors[prefix + ".".join(LTX_MODULES.get(module, module) for module in key.split("."))] = value
    if not vae:
        return tensors
    for key, value in (item for file in parts["vae"] for item in file.items()):
        block = next((block for block in LTX_BLOCKS if key.startswith(block)), "")
        tensors[f"vae.{LTX_BLOCKS.get(block, '')}{key.removeprefix(block)}"] = value
    width = len(tensors["vae.per_channel_statistics.mean-of-means"])
    return tensors | {f"vae.per_channel_statistics.{name}": torch.zeros(width) for name in ("channel", "mean-of-stds")}


def single_ltx_file(folder: Path, file: Path, vae: bool = True, **more: torch.Tensor) -> Path:
    save_file({key: value.contiguous() for key, value in ltx_tensors(folder, vae).items()} | more, file)
    return file


def ltx_base(folder: Path, target: Path, vae: bool = False) -> Path:
    """A copy of the folder without the weights that a file in the original layout holds. vae: keep those of the VAE."""
    leave = ["transformer/"] if vae else ["transformer/", "vae/"]
    for file in folder.rglob("*"):
        name = str(file.relative_to(folder))
        if file.is_file() and not (name.startswith(tuple(leave)) and not name.endswith("/config.json")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(file.read_bytes())
    return target
