"""A tiny SDXL of random weights: published structure (two text encoders, pooled text, size conditioning), other widths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.original_layout import unet_key, vae_key

from .conftest import DEMO

WIDTHS = (32, 64)  # of the two text encoders
LAYERS = 3


def write(folder: Path) -> Path:
    torch.manual_seed(0)
    tokens = DEMO / "stable-diffusion" / "tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(tokens)
    encoders = [
        cls(_text(width, len(tokenizer))).eval() for cls, width in zip((CLIPTextModel, CLIPTextModelWithProjection), WIDTHS, strict=True)
    ]
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=2, norm_num_groups=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2), attention_head_dim=(2, 4), use_linear_projection=True, cross_attention_dim=sum(WIDTHS),
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + WIDTHS[1],
    )  # fmt: skip
    blocks = 4
    vae = AutoencoderKL(
        block_out_channels=(16,) * blocks, down_block_types=("DownEncoderBlock2D",) * blocks, up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1, norm_num_groups=8, latent_channels=4, scaling_factor=0.13025,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="leading", steps_offset=1)
    pipe = StableDiffusionXLPipeline(
        vae, *encoders, AutoTokenizer.from_pretrained(tokens), AutoTokenizer.from_pretrained(tokens), unet, scheduler, add_watermarker=False
    )
    pipe.save_pretrained(folder)
    _published_padding(folder)
    return folder


def _text(width: int, words: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=words, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=LAYERS, num_attention_heads=2, projection_dim=width,
        max_position_embeddings=40, bos_token_id=0, eos_token_id=1, pad_token_id=1, hidden_act="gelu",
    )  # fmt: skip


def _published_padding(folder: Path) -> None:
    """The second tokenizer of SDXL pads with another token than the first, which pads with the token that ends a text."""
    file = folder / "tokenizer_2" / "tokenizer_config.json"
    told = json.loads(file.read_text())
    told["pad_token"] = AutoTokenizer.from_pretrained(folder / "tokenizer").convert_ids_to_tokens(2)
    file.write_text(json.dumps(told))


# OpenCLIP's names for the parts of a layer, as the second text encoder has them in a checkpoint in one file.
OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj"}


def single_file(folder: Path, file: Path, **more: torch.Tensor) -> Path:
    """The checkpoint as one file in the layout of the original code."""
    tensors = {}
    unet, vae, one, two = (load_file(next((folder / part).glob("*.safetensors"))) for part in ("unet", "vae", "text_encoder", "text_encoder_2"))
    for key, value in unet.items():
        name = key.replace("add_embedding.linear_1", "label_emb.0.0").replace("add_embedding.linear_2", "label_emb.0.2")
        tensors[f"model.diffusion_model.{name if name != key else unet_key(key, 2, [True, False])}"] = value
    for key, value in vae.items():
        name = vae_key(key, 4)
        square = "attn_1" in name and name.endswith("weight") and value.ndim == 2
        tensors[f"first_stage_model.{name}"] = value[:, :, None, None].contiguous() if square else value
    for key, value in one.items():
        tensors[f"conditioner.embedders.0.transformer.{key if key.startswith('text_model.') else f'text_model.{key}'}"] = value
    save_file(tensors | _open_clip(two) | more, file)
    return file


def _open_clip(encoder: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Attention's three matrices are one in OpenCLIP, and its projection is transposed."""
    head, made = "conditioner.embedders.1.model.", {}
    ends = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
    }
    for key, name in ends.items():
        made[head + name] = encoder[key]
    made[f"{head}text_projection"] = encoder["text_projection.weight"].T.contiguous()
    made[f"{head}logit_scale"] = torch.tensor(4.6)
    for n in range(LAYERS):
        layer, block = f"text_model.encoder.layers.{n}.", f"{head}transformer.resblocks.{n}."
        for end in ("weight", "bias"):
            made[f"{block}attn.in_proj_{end}"] = torch.cat([encoder[f"{layer}self_attn.{x}_proj.{end}"] for x in "qkv"])
            made |= {f"{block}{theirs}.{end}": encoder[f"{layer}{ours}.{end}"] for ours, theirs in OPEN_CLIP.items()}
    return made


def copy(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))
