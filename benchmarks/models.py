"""How long each stage of each model takes, and how much memory: without Ray, on whatever device is there.

    python -m benchmarks.models                 the demo workflows' models
    python -m benchmarks.models --full-size     SD1.5 stills, AnimateDiff and LTX-Video 2B, built from their
                                                published configurations with random weights
    python -m benchmarks.models --full-size --tiny   the same code with all widths cut, to try it on a CPU

Random weights take as long as trained ones; what they draw is noise. A CPU runs the full size too, for hours.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AnimateDiffVideoToVideoPipeline,
    AutoencoderKL,
    AutoencoderKLLTXVideo,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXVideoTransformer3DModel,
    MotionAdapter,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image
from rich.console import Console
from rich.table import Table

from actors.loading import best_device, device_name, peak_memory_bytes, reset_peak_memory


@dataclass(frozen=True)
class Timing:
    """One stage: median seconds over `runs`, the first (warm-up) apart, and peak memory of the whole model so far."""

    model: str
    stage: str
    seconds: float
    first_seconds: float
    runs: int
    peak_gb: float


class Clock:
    """Seconds inside chosen methods, by stage; a GPU is waited for on both sides."""

    def __init__(self, model: str, runs: int):
        self.model, self.runs = model, runs
        self.seconds: dict[str, list[float]] = {}
        self.now: dict[str, float] = {}

    def watch(self, owner: Any, method: str, stage: str) -> None:
        """Count every call of owner.method towards the stage."""
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            wait()
            start = time.perf_counter()
            result = original(*args, **kwargs)
            wait()
            self.now[stage] = self.now.get(stage, 0.0) + time.perf_counter() - start
            return result

        setattr(owner, method, timed)

    def measure(self, work: Callable[[], Any]) -> list[Timing]:
        reset_peak_memory()
        for _ in range(self.runs + 1):
            self.now = {}
            wait()
            start = time.perf_counter()
            work()
            wait()
            self.now["whole call"] = time.perf_counter() - start
            for stage, seconds in self.now.items():
                self.seconds.setdefault(stage, []).append(seconds)
        peak = peak_memory_bytes() / 1e9
        return [Timing(self.model, stage, float(np.median(s[1:])), s[0], self.runs, peak) for stage, s in self.seconds.items()]


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def demo(runs: int) -> list[Timing]:
    """The demo checkpoints, through the same classes that render."""
    from actors.values import ClipRequest, KeyframeRequest

    from .demo_models import Models

    models, rows = Models(), []
    words = "wide shot, a girl with pink hair and a red coat, walking left, by the sea, by day, static camera, anime"
    for name, encoder in (("CLIP text encoder", models.sd_text), ("T5 text encoder", models.ltx_text)):
        rows += Clock(f"demo {name}", runs).measure(partial(encoder.encode, [words]))
    text = {True: models.ltx_text.encode([words])[0], False: models.sd_text.encode([words])[0]}
    size = models.keyframe.settings.batch_size
    stills = [KeyframeRequest(str(i), i, prompt=text[False], negative=models.negative[False]) for i in range(size)]
    clock = Clock(f"demo Stable Diffusion, {size} stills", runs)
    clock.watch(models.keyframe.pipe.unet, "forward", "denoise")
    clock.watch(models.keyframe.pipe.vae, "decode", "decode")
    rows += clock.measure(lambda: models.keyframe.generate(stills))
    still = models.keyframe.generate(stills)[1][0]
    for label, model, denoiser in (
        ("demo LTX-Video, 121 frames", models.ltx, models.ltx.pipe.transformer),
        ("demo AnimateDiff, 16 frames", models.animatediff, models.animatediff.pipe.unet),
    ):
        is_ltx = denoiser is models.ltx.pipe.transformer
        request = ClipRequest("c", 1, prompt=text[is_ltx], negative=models.negative[is_ltx], keyframe=still)
        clock = Clock(label, runs)
        clock.watch(denoiser, "forward", "denoise")
        clock.watch(model.pipe.vae, "decode", "decode")
        rows += clock.measure(partial(model.generate, [request]))
    return rows


def build(cls: Any, dtype: torch.dtype, device: str, **config: Any) -> Any:
    """A model with random weights, made on the device itself so that nothing full-size passes through memory twice."""
    with torch.device(device):
        model = cls(**config)
    return model.to(device, dtype).eval()


def sd15(tiny: bool) -> dict[str, dict[str, Any]]:
    """Published configuration of Stable Diffusion 1.5; tiny: a quarter of the widths or less."""
    widths = (32, 64, 64, 64) if tiny else (320, 640, 1280, 1280)
    cross = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    return {
        "unet": dict(
            sample_size=64,
            block_out_channels=widths,
            layers_per_block=2,
            cross_attention_dim=768,
            attention_head_dim=8,
            down_block_types=cross,
        ),
        "vae": dict(
            block_out_channels=(32, 32, 64, 64) if tiny else (128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        ),
        "adapter": dict(block_out_channels=widths, motion_layers_per_block=2, motion_num_attention_heads=8, motion_max_seq_length=32),
        "scheduler": dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False),
    }


def ltx_2b(tiny: bool) -> dict[str, dict[str, Any]]:
    """Published configuration of LTX-Video 2B 0.9.5 and later; tiny: two layers, narrow."""
    return {
        "transformer": dict(
            num_attention_heads=4 if tiny else 32,
            attention_head_dim=32 if tiny else 64,
            cross_attention_dim=128 if tiny else 2048,
            num_layers=2 if tiny else 28,
            caption_channels=64 if tiny else 4096,
        ),
        "vae": dict(
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
            patch_size=4,
            patch_size_t=1,
            latent_channels=128,
            spatial_compression_ratio=32,
            temporal_compression_ratio=8,
            encoder_causal=True,
            decoder_causal=False,
        ),
    }


def time_sd15(runs: int, tiny: bool, device: str) -> list[Timing]:
    config, dtype = sd15(tiny), torch.float16 if device == "cuda" else torch.float32
    unet, vae = build(UNet2DConditionModel, dtype, device, **config["unet"]), build(AutoencoderKL, dtype, device, **config["vae"])
    scheduler = DDIMScheduler(**config["scheduler"])
    pipe = StableDiffusionPipeline(vae, None, None, unet, scheduler, None, None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    batch, (w, h) = 4, (96, 64) if tiny else (768, 512)
    clock = Clock(f"SD1.5, {batch} stills of {w}x{h}, 25 steps, guidance 7.5", runs)
    clock.watch(unet, "forward", "denoise")
    clock.watch(vae, "decode", "decode")
    words = torch.randn(batch, 77, 768, device=device, dtype=dtype)
    rows = clock.measure(
        lambda: pipe(
            prompt_embeds=words,
            negative_prompt_embeds=words,
            width=w,
            height=h,
            num_inference_steps=25,
            guidance_scale=7.5,
            output_type="pt",
        )
    )
    adapter = build(MotionAdapter, dtype, device, **config["adapter"])
    moving = UNetMotionModel.from_unet2d(unet, adapter).to(device, dtype)
    animate = AnimateDiffVideoToVideoPipeline(vae, None, None, moving, adapter, scheduler)
    animate.set_progress_bar_config(disable=True)
    w, h = (96, 64) if tiny else (512, 288)
    clock = Clock(f"AnimateDiff SD1.5, 16 frames of {w}x{h}, 20 steps at strength .7, guidance 7", runs)
    clock.watch(moving, "forward", "denoise")
    clock.watch(vae, "decode", "decode")
    clock.watch(vae, "encode", "encode keyframe")
    still = Image.fromarray(np.random.default_rng(0).integers(0, 255, (h, w, 3), dtype=np.uint8))
    one = words[:1]
    rows += clock.measure(
        lambda: animate(
            video=[[still] * 16],
            prompt_embeds=one,
            negative_prompt_embeds=one,
            width=w,
            height=h,
            num_inference_steps=20,
            strength=0.7,
            guidance_scale=7.0,
            output_type="pt",
        )
    )
    return rows


def time_ltx(runs: int, tiny: bool, device: str) -> list[Timing]:
    config, dtype = ltx_2b(tiny), torch.bfloat16 if device == "cuda" else torch.float32
    transformer = build(LTXVideoTransformer3DModel, dtype, device, **config["transformer"])
    vae = build(AutoencoderKLLTXVideo, dtype, device, **config["vae"])
    pipe = LTXConditionPipeline(FlowMatchEulerDiscreteScheduler(), vae, None, None, transformer)
    pipe.set_progress_bar_config(disable=True)
    w, h = (96, 64) if tiny else (768, 512)
    clock = Clock(f"LTX-Video 2B, 121 frames of {w}x{h}, 8 distilled steps", runs)
    clock.watch(transformer, "forward", "denoise")
    clock.watch(vae, "decode", "decode")
    clock.watch(vae, "encode", "encode keyframe")
    words = torch.randn(1, 256, transformer.config.caption_channels, device=device, dtype=dtype)
    mask = torch.ones(1, 256, dtype=torch.bool, device=device)
    still = Image.fromarray(np.random.default_rng(0).integers(0, 255, (h, w, 3), dtype=np.uint8))
    return clock.measure(
        lambda: pipe(
            conditions=[LTXVideoCondition(image=still, frame_index=0, strength=1.0)],
            prompt_embeds=words,
            prompt_attention_mask=mask,
            width=w,
            height=h,
            num_frames=121,
            frame_rate=24,
            guidance_scale=1.0,
            timesteps=[1000, 993, 987, 981, 975, 909, 725, 0.03],
            decode_timestep=0.05,
            decode_noise_scale=0.025,
            output_type="pt",
        )
    )


def show(rows: list[Timing], device: str) -> None:
    table = Table("model", "stage", "seconds", "first call", "peak GB", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.model, row.stage, f"{row.seconds:.3f}", f"{row.first_seconds:.3f}", f"{row.peak_gb:.2f}")
    console = Console(width=150)
    console.print(
        f"{device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"
    )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="with --full-size: the same code, narrow models")
    parser.add_argument("--runs", type=int, default=3, help="timed runs after one to warm up")
    parser.add_argument("--quick", action="store_true", help="one timed run")
    parser.add_argument("--threads", type=int, help="torch threads on a CPU")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    device, runs = best_device(), 1 if args.quick else max(1, args.runs)
    if args.threads:
        torch.set_num_threads(args.threads)
    with torch.no_grad():
        rows = [*time_sd15(runs, args.tiny, device), *time_ltx(runs, args.tiny, device)] if args.full_size else demo(runs)
    show(rows, device)
    if args.json:
        args.json.write_text(json.dumps({"device": device_name(device), "rows": [row.__dict__ for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
