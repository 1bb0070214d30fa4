"""Full-size checkpoints in their published layout, with random weights: what takes as long as the real ones and draws noise.

Written once as ordinary diffusers folders, so that the product loads them as it loads any other. `tiny` cuts every width, to
try the same code on a CPU. Configurations: the published `config.json` files of Stable Diffusion 1.5 and XL base 1.0, mm_sd_v15_v2 as
diffusers has it, LTX-Video 2B 0.9.5 and later, and T5 v1.1-XXL.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLLTXVideo,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LTXVideoTransformer3DModel,
    MotionAdapter,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from pipeline import PROJECT

DEMO = PROJECT / "actors" / "demo"  # only its tokenizers are used: a few kilobytes of JSON
# Folder to the demo's folder whose tokenizer it gets, and the published length in tokens.
TOKENIZERS = {
    "stable-diffusion": ("stable-diffusion", 77),
    "stable-diffusion-xl": ("stable-diffusion", 77),
    "ltx-video": ("ltx-video", 512),
}


def stable_diffusion(folder: Path, device: str, tiny: bool) -> Path:
    """Stable Diffusion 1.5 and a text encoder: 2.1 GB in float16."""
    return _written(folder / "stable-diffusion", device, torch.float16, _sd15(tiny), _index("StableDiffusionPipeline"))


def stable_diffusion_xl(folder: Path, device: str, tiny: bool) -> Path:
    """Stable Diffusion XL base 1.0 with its two text encoders: 6.9 GB in float16."""
    return _written(folder / "stable-diffusion-xl", device, torch.float16, _sdxl(tiny), _index("StableDiffusionXLPipeline"))


def motion_adapter(folder: Path, device: str, tiny: bool) -> Path:
    """The motion adapter for it: 0.9 GB in float16."""
    return _written(folder / "motion-adapter", device, torch.float16, _adapter(tiny), None)


def ltx_video(folder: Path, device: str, tiny: bool) -> Path:
    """LTX-Video 2B with its autoencoder and T5-XXL: 15.9 GB in bfloat16, of which the text encoder is 9.5."""
    return _written(folder / "ltx-video", device, torch.bfloat16, _ltx_2b(tiny), _index("LTXConditionPipeline"))


Parts = dict[str, Callable[[], Any]]


def _written(folder: Path, device: str, dtype: torch.dtype, parts: Parts, index: dict[str, Any] | None) -> Path:
    """The folder, made if it is not there: one part after another, each on the device, so that no more than one is in memory."""
    if folder.is_dir():
        return folder
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for name, build in parts.items():
        model = _random(build, device, dtype)
        model.save_pretrained(part / name)
        if "text_encoder" in name:
            tokenizer, longest = TOKENIZERS[folder.name]
            _tokenizer(DEMO / tokenizer / "tokenizer", part / name.replace("text_encoder", "tokenizer"), longest)
    if index:
        (part / "model_index.json").write_text(json.dumps(index, indent=2))
    return part.rename(folder)


def _random(build: Callable[[], Any], device: str, dtype: torch.dtype) -> Any:
    """A model whose numbers were drawn on the device itself: a CPU needs a minute for a billion of them."""
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype if device != "cpu" else torch.float32)
    try:
        with torch.device(device):
            model = build()
    finally:
        torch.set_default_dtype(before)
    return model.to(dtype) if isinstance(model, torch.nn.Module) else model


def _tokenizer(given: Path, folder: Path, longest: int) -> None:
    """The demo's tokenizer with the published length: how long a text takes to encode does not depend on its words."""
    shutil.copytree(given, folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": longest}))


def _widths(tiny: bool) -> tuple[int, ...]:
    return (32, 64, 64, 64) if tiny else (320, 640, 1280, 1280)


def _sd15(tiny: bool) -> Parts:
    width, layers = (64, 2) if tiny else (768, 12)
    return {
        "unet": lambda: UNet2DConditionModel(
            sample_size=64, block_out_channels=_widths(tiny), layers_per_block=2, cross_attention_dim=width, attention_head_dim=8,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        ),
        "vae": lambda: AutoencoderKL(
            block_out_channels=(32, 32, 64, 64) if tiny else (128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        "text_encoder": lambda: CLIPTextModel(_clip(width, layers, width // 32 if tiny else 12, "quick_gelu")),
        "scheduler": lambda: DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False, set_alpha_to_one=False
        ),
    }  # fmt: skip


def _sdxl(tiny: bool) -> Parts:
    text, pooled = (32, 32) if tiny else (768, 1280)  # widths of the two text encoders; the UNet attends to both side by side
    return {
        "unet": lambda: UNet2DConditionModel(
            sample_size=128, block_out_channels=(32, 64, 64) if tiny else (320, 640, 1280), layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 1) if tiny else (1, 2, 10), attention_head_dim=(1, 2, 2) if tiny else (5, 10, 20),
            cross_attention_dim=text + pooled, use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=pooled + 6 * 256,
        ),
        "vae": lambda: AutoencoderKL(
            block_out_channels=(32, 32, 64, 64) if tiny else (128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=1024,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            scaling_factor=0.13025, force_upcast=True,
        ),
        "text_encoder": lambda: CLIPTextModel(_clip(text, 2 if tiny else 12, text // 32 if tiny else 12, "quick_gelu")),
        "text_encoder_2": lambda: CLIPTextModelWithProjection(_clip(pooled, 2 if tiny else 32, pooled // 32 if tiny else 20, "gelu")),
        "scheduler": lambda: EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
        ),
    }  # fmt: skip


def _clip(width: int, layers: int, heads: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads, hidden_act=activation,
        max_position_embeddings=77, projection_dim=width, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip


def _adapter(tiny: bool) -> Parts:
    return {"": lambda: MotionAdapter(block_out_channels=_widths(tiny), motion_max_seq_length=32)}


def _ltx_2b(tiny: bool) -> Parts:
    text = 64 if tiny else 4096
    return {
        "transformer": lambda: LTXVideoTransformer3DModel(
            num_attention_heads=4 if tiny else 32, attention_head_dim=32 if tiny else 64, cross_attention_dim=128 if tiny else 2048,
            num_layers=2 if tiny else 28, caption_channels=text,
        ),
        "vae": lambda: AutoencoderKLLTXVideo(
            block_out_channels=(16, 32, 64, 128, 128) if tiny else (128, 256, 512, 1024, 2048),
            down_block_types=("LTXVideo095DownBlock3D",) * 4,
            decoder_block_out_channels=(16, 32, 64) if tiny else (256, 512, 1024),
            layers_per_block=(1, 1, 1, 1, 1) if tiny else (4, 6, 6, 2, 2),
            decoder_layers_per_block=(1, 1, 1, 1) if tiny else (5, 5, 5, 5),
            spatio_temporal_scaling=(True, True, True, True),
            decoder_spatio_temporal_scaling=(True, True, True),
            decoder_inject_noise=(False, False, False, False),
            downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
            upsample_residual=(True, True, True),
            upsample_factor=(2, 2, 2),
            timestep_conditioning=True,
            patch_size=4, patch_size_t=1, latent_channels=128, spatial_compression_ratio=32, temporal_compression_ratio=8,
            encoder_causal=True, decoder_causal=False,
        ),
        "text_encoder": lambda: T5EncoderModel(
            T5Config(
                vocab_size=32128, d_model=text, d_kv=16 if tiny else 64, d_ff=128 if tiny else 10240, num_layers=2 if tiny else 24,
                num_heads=4 if tiny else 64, feed_forward_proj="gated-gelu", dropout_rate=0.1, tie_word_embeddings=False,
            )
        ).eval(),
        "scheduler": lambda: FlowMatchEulerDiscreteScheduler(),
    }  # fmt: skip


def _index(pipeline: str) -> dict[str, Any]:
    """model_index.json: which class each part is of."""
    own: dict[str, dict[str, Any]] = {
        "StableDiffusionPipeline": {
            "vae": ["diffusers", "AutoencoderKL"], "unet": ["diffusers", "UNet2DConditionModel"],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
            "safety_checker": [None, None], "feature_extractor": [None, None], "image_encoder": [None, None],
            "requires_safety_checker": False,
        },
        "StableDiffusionXLPipeline": {
            "vae": ["diffusers", "AutoencoderKL"], "unet": ["diffusers", "UNet2DConditionModel"],
            "scheduler": ["diffusers", "EulerDiscreteScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"], "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "image_encoder": [None, None], "feature_extractor": [None, None], "force_zeros_for_empty_prompt": True,
        },
        "LTXConditionPipeline": {
            "vae": ["diffusers", "AutoencoderKLLTXVideo"], "transformer": ["diffusers", "LTXVideoTransformer3DModel"],
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "T5Tokenizer"],
        },
    }  # fmt: skip
    return {"_class_name": pipeline} | own[pipeline]
