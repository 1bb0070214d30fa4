"""The demo's AnimateDiff motion adapter, on the demo's Stable Diffusion.

Tower animates a keyframe by repeating it, adding noise up to `strength`, and denoising all frames
together. Training matches that exactly: with (a, s) the schedule's signal and noise at step t, and
(a0, s0) where the sampling starts, a sampler whose predictions are right passes through
    x_t = a ((1 - w) x + w k) + s eps,   w = (s / a) (a0 / s0)
for the true clip x and the repeated keyframe k. The adapter learns the velocity that leads from
there to x: which way things move away from the still.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from diffusers import AutoencoderKL, MotionAdapter, StableDiffusionPipeline, UNetMotionModel

from . import scenes, text
from .column import Column
from .drawing import Job
from .optimiser import Average, flat_then_cosine, for_modules
from .recipe import Recipe
from .sd import encode
from .write import write

FRAMES, STEP = 16, 3  # every third frame of 24 per second: 8 fps, two seconds


def motion_adapter(recipe: Recipe) -> MotionAdapter:
    return MotionAdapter(
        block_out_channels=recipe.unet_widths,
        motion_layers_per_block=1,
        motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=4,
        motion_norm_num_groups=recipe.unet_groups,
        motion_max_seq_length=32,
    )


def jobs(recipe: Recipe) -> dict[str, Job]:
    return {"adapter": Job(recipe.clips_adapter, 4, partial(clip, recipe))}


def clip(recipe: Recipe, number: int) -> np.ndarray:
    """uint8 RGB (FRAMES, height, width, 3)."""
    return scenes.clip(scenes.sample(number), range(0, FRAMES * STEP, STEP), recipe.height, recipe.width)


def encode_clips(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (clips, FRAMES, height, width, 3) to float16 latents (clips, FRAMES, channels, rows, columns)."""
    return encode(vae, pixels.flatten(0, 1)).half().unflatten(0, pixels.shape[:2])


def train(column: Column) -> UNetMotionModel:
    device, recipe = column.device, column.recipe
    pipe = StableDiffusionPipeline.from_pretrained(column.checkpoints / "stable-diffusion", dtype=torch.float32).to(device)
    pipe.text_encoder.requires_grad_(False)
    model = UNetMotionModel.from_unet2d(pipe.unet, motion_adapter(recipe)).to(device)
    model.freeze_unet2d_params()
    average = Average(model, 0.998)
    budget = column.budget("adapter", model=model, average=average.module)
    if budget.progress == 1:
        return average.module
    clips = column.cached(
        "adapter-clips", lambda: torch.cat(column.drawn("adapter", budget.until, lambda pixels: encode_clips(pipe.vae, pixels)))
    )
    captions = text.Captions(pipe.tokenizer, text.CLIP_TOKENS, text.wordings(len(clips)), device)
    optimiser = for_modules([model], ends=("pos_embed",), lr=0.01, adam_lr=1e-3)
    alphas, batch = pipe.scheduler.alphas_cumprod.to(device), recipe.batch_adapter
    column.random(budget)
    for _ in budget:
        optimiser.factor = flat_then_cosine(budget.progress)
        rows = torch.randint(len(clips), (batch,), device=device)
        x = clips[rows].float().transpose(1, 2)
        start = (550 + 300 * torch.rand(batch, device=device)).long()
        t = (start * torch.rand(batch, device=device)).long()
        a, s, a0, s0 = (f[:, None, None, None, None] for at in (t, start) for f in (alphas[at].sqrt(), (1 - alphas[at]).sqrt()))
        w = (s / a) * (a0 / s0) * (torch.rand(batch, device=device) < 0.85).float()[:, None, None, None, None]
        noisy = a * ((1 - w) * x + w * x[:, :, :1]) + s * torch.randn_like(x)
        ids, _ = captions.pick(rows)
        with column.cheap():
            hidden = pipe.text_encoder(ids)[0].repeat_interleave(FRAMES, 0)
            predicted = model(noisy, t, hidden).sample
        # Compare in the clip: x = a x_t - s v, so an error in v counts s times; near t = 0 nothing is left to learn.
        loss = ((a * noisy - s * predicted.float() - x) / s.clamp(min=0.2)).square().mean()
        loss.backward()
        optimiser.step()
        average.update(model)
        still = ((x - x[:, :, :1]) / s.clamp(min=0.2)).square().mean()  # the loss of a frozen clip
        budget.note(loss=loss, against_frozen=loss.detach() / still)
    return average.module


def export(column: Column, model: UNetMotionModel) -> None:
    """The motion modules alone, as AnimateDiff's pipelines load them."""
    adapter = motion_adapter(column.recipe)
    motion = {name: weight for name, weight in model.state_dict().items() if "motion_modules" in name}
    adapter.load_state_dict(motion)
    write(column.checkpoints / "motion-adapter", adapter.to(torch.float16))
