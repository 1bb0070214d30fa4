"""Train the demo's AnimateDiff motion adapter on the demo's Stable Diffusion.

    python -m actors.demo.train.adapter --work train-work --out actors/demo/motion-adapter

Tower animates a keyframe by repeating it, adding noise up to `strength`, and denoising all frames
together. Training matches that exactly: with (a, s) the schedule's signal and noise at step t, and
(a0, s0) where the sampling starts, a sampler whose predictions are right passes through
    x_t = a ((1 - w) x + w k) + s eps,   w = (s / a) (a0 / s0)
for the true clip x and the repeated keyframe k. The adapter learns the velocity that leads from
there to x: which way things move away from the still.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from diffusers import MotionAdapter, StableDiffusionPipeline, UNetMotionModel

from . import scenes
from .optimiser import Average, flat_then_cosine, for_modules
from .progress import Budget
from .sd import NULL_CAPTION, cached, encode

FRAMES, STEP = 16, 3  # every third frame of 24 per second: 8 fps, two seconds


def motion_adapter() -> MotionAdapter:
    return MotionAdapter(
        block_out_channels=(32, 64, 96),
        motion_layers_per_block=1,
        motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=4,
        motion_norm_num_groups=16,
        motion_max_seq_length=32,
    )


def make_clips(vae, count: int) -> torch.Tensor:
    """Latents of training clips, float16: (count, FRAMES, channels, height, width)."""
    out = []
    for i in range(count):
        out.append(encode(vae, scenes.clip(scenes.sample(i), range(0, FRAMES * STEP, STEP))).half())
        if i % 200 == 0:
            print(f"clips {i}/{count}", flush=True)
    return torch.stack(out)


def train(work: Path, sd_folder: Path, seconds: float, count: int) -> UNetMotionModel:
    pipe = StableDiffusionPipeline.from_pretrained(sd_folder, torch_dtype=torch.float32)
    clips = cached(work / "adapter-clips.pt", lambda: make_clips(pipe.vae, count))
    model = UNetMotionModel.from_unet2d(pipe.unet, motion_adapter())
    model.freeze_unet2d_params()
    average = Average(model, 0.998)
    budget = Budget(work, "adapter", seconds, {"model": model, "average": average.module})
    optimiser = for_modules([model], ends=("pos_embed",), lr=0.01, adam_lr=1e-3)
    alphas = pipe.scheduler.alphas_cumprod
    torch.manual_seed(budget.steps)
    rng = random.Random(budget.steps)
    np.random.seed(budget.steps)
    batch = 2
    for _ in budget:
        optimiser.factor = flat_then_cosine(budget.progress)
        pick = torch.randint(0, len(clips), (batch,))
        x = clips[pick].float().transpose(1, 2)
        start = (550 + 300 * torch.rand(batch)).long()
        t = (start * torch.rand(batch)).long()
        a, s = alphas[t].sqrt()[:, None, None, None, None], (1 - alphas[t]).sqrt()[:, None, None, None, None]
        a0, s0 = alphas[start].sqrt()[:, None, None, None, None], (1 - alphas[start]).sqrt()[:, None, None, None, None]
        w = (s / a) * (a0 / s0) * (torch.rand(batch) < 0.85).float()[:, None, None, None, None]
        noisy = a * ((1 - w) * x + w * x[:, :, :1]) + s * torch.randn_like(x)
        words = ["" if rng.random() < NULL_CAPTION else scenes.caption(scenes.sample(int(i)), rng) for i in pick]
        with torch.no_grad():
            ids = pipe.tokenizer(
                words, padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True, return_tensors="pt"
            ).input_ids
            hidden = pipe.text_encoder(ids)[0].repeat_interleave(FRAMES, 0)
        predicted = model(noisy, t, hidden).sample
        # Compare in the clip: x = a x_t - s v, so an error in v counts s times; near t = 0 nothing is left to learn.
        loss = ((a * noisy - s * predicted - x) / s.clamp(min=0.2)).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        average.update(model)
        still = ((x - x[:, :, :1]) / s.clamp(min=0.2)).square().mean()  # the loss of a frozen clip
        budget.note(loss=loss.item(), against_frozen=loss.item() / still.item())
    return average.module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("train-work"))
    parser.add_argument("--out", type=Path, default=Path("actors/demo/motion-adapter"))
    parser.add_argument("--stable-diffusion", type=Path, default=Path("actors/demo/stable-diffusion"))
    parser.add_argument("--seconds", type=float, default=2100)
    parser.add_argument("--clips", type=int, default=900)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(3)
    model = train(args.work, args.stable_diffusion, args.seconds, args.clips)
    model.save_motion_modules(str(args.out))
    MotionAdapter.from_pretrained(args.out, torch_dtype=torch.float16).save_pretrained(args.out)


if __name__ == "__main__":
    main()
