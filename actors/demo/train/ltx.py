"""The demo's LTX-Video transformer and T5, on clips that the video autoencoder has encoded.

As soon as the Stable Diffusion is there, half of the first frames are pictures that it has drawn
over, so that clips start well from keyframes and not only from drawings.
"""

from __future__ import annotations

import random
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXConditionPipeline, LTXVideoTransformer3DModel, StableDiffusionPipeline
from torch import nn

from . import scenes, text
from .column import Column
from .drawing import Job
from .ltx_vae import TEMPORAL, to_model, to_volume
from .optimiser import Average, flat_then_cosine, for_modules
from .recipe import Recipe
from .sd import encode as encode_still
from .write import write

GROUPS = (scenes.FRAMES - 1) // TEMPORAL + 1  # latents of a clip: 31
SUBSET, SEEN = 8, 5  # moving groups of a clip that are cached, and that one training step sees
REDRAWN = 0.6  # share of training steps that start from redrawn first frames


class Clips(NamedTuple):
    """latents: float16 (clips, groups, tokens, channels), normalised. groups: (clips, groups), which of the 31 they are;
    0 is always the first. firsts: uint8 (clips, height, width, 3), the first frames."""

    latents: torch.Tensor
    groups: torch.Tensor
    firsts: torch.Tensor


def transformer(recipe: Recipe) -> LTXVideoTransformer3DModel:
    return LTXVideoTransformer3DModel(
        in_channels=recipe.ltx_latents,
        out_channels=recipe.ltx_latents,
        num_attention_heads=recipe.ltx_heads,
        attention_head_dim=32,
        cross_attention_dim=32 * recipe.ltx_heads,
        num_layers=recipe.ltx_layers,
        caption_channels=recipe.text_width,
    )


def jobs(recipe: Recipe) -> dict[str, Job]:
    return {
        "ltx-clips": Job(recipe.clips, 4, partial(clip, recipe, False)),
        "ltx-whole": Job(recipe.clips_whole, 2, partial(clip, recipe, True)),
    }


def groups_of(whole: bool, number: int) -> list[int]:
    """The moving groups of a training clip."""
    return list(range(1, GROUPS)) if whole else sorted(random.Random(f"groups-{number}").sample(range(1, GROUPS), SUBSET))


def clip(recipe: Recipe, whole: bool, number: int) -> np.ndarray:
    """Its first frame and its groups' frames: uint8 RGB (1 + 4 groups, height, width, 3)."""
    frames = [0] + [f for g in groups_of(whole, number) for f in range(TEMPORAL * g - 3, TEMPORAL * g + 1)]
    scene = scenes.sample(number)
    return np.stack([scenes.draw(scene, f, recipe.height, recipe.width) for f in frames])


@torch.no_grad()
def encode(vae: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Normalised latents (clips, groups, tokens, channels) of uint8 (clips, 1 + 4 (groups - 1), height, width, 3).

    Groups are independent in a planar autoencoder, so that frames may be missing between them.
    """
    z = vae.encode(to_model(pixels)).latent_dist.mean
    z = (z - vae.latents_mean[None, :, None, None, None]) / vae.latents_std[None, :, None, None, None]
    return z.permute(0, 2, 3, 4, 1).flatten(2, 3)


def make_clips(column: Column, vae: nn.Module, job: str, until: float) -> Clips:
    parts = column.drawn(job, until, lambda pixels: (encode(vae, pixels).half(), pixels[:, 0]))
    latents, firsts = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    groups = torch.tensor([[0, *groups_of(job == "ltx-whole", i)] for i in range(len(latents))], device=column.device)
    return Clips(latents, groups, firsts)


def assert_paired(column: Column, vae: nn.Module, clips: Clips) -> None:
    """One row drawn and encoded again, as the captions will name it, must be the cached one."""
    row = len(clips.latents) * 2 // 3
    again = encode(vae, column.pixels(clip(column.recipe, False, row)[None]))[0]
    if not torch.allclose(again, clips.latents[row].float(), atol=0.05):
        raise RuntimeError(f"latents and captions are not of the same scenes: clip {row} differs when it is drawn again")


@torch.no_grad()
def redrawn_first_frames(column: Column, vae: nn.Module, firsts: torch.Tensor) -> torch.Tensor:
    """First frames that the Stable Diffusion has drawn over from half noise: latents (clips, tokens, channels), float16."""
    pipe = StableDiffusionPipeline.from_pretrained(column.checkpoints / "stable-diffusion", dtype=torch.float32).to(column.device)
    schedule, out = pipe.scheduler, []
    for part, start in enumerate(range(0, len(firsts), 64)):
        z = encode_still(pipe.vae, firsts[start : start + 64])
        words = [scenes.caption(scenes.sample(start + i)) for i in range(len(z))]
        ids = pipe.tokenizer(words, padding="max_length", max_length=text.CLIP_TOKENS, truncation=True, return_tensors="pt").input_ids
        hidden = pipe.text_encoder(ids.to(column.device))[0]
        schedule.set_timesteps(16, device=column.device)
        later = schedule.timesteps[(7, 10, 13)[part % 3] :]
        z = schedule.add_noise(z, torch.randn_like(z), later[:1].repeat(len(z)))
        for t in later:
            z = schedule.step(pipe.unet(z, t, hidden).sample, t, z).prev_sample
        pixels = pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample.clamp(-1, 1)
        first = vae.encode(pixels[:, :, None]).latent_dist.mean[:, :, 0]
        first = (first - vae.latents_mean[None, :, None, None]) / vae.latents_std[None, :, None, None]
        out.append(first.flatten(2).transpose(1, 2).half())
    return torch.cat(out)


def coordinates(recipe: Recipe, groups: torch.Tensor) -> torch.Tensor:
    """Seconds and pixels of every token, as LTXConditionPipeline gives them: (batch, 3, tokens)."""
    rows, columns = recipe.ltx_grid
    seconds = (groups * TEMPORAL + 1 - TEMPORAL).clamp(min=0).float() / scenes.FPS
    y, x = torch.meshgrid(torch.arange(rows, device=groups.device), torch.arange(columns, device=groups.device), indexing="ij")
    place = torch.stack([y, x]).flatten(1).float() * recipe.ltx_factor
    batch, count = groups.shape
    shape = (batch, -1, count, rows * columns)
    return torch.cat([seconds[:, None, :, None].expand(shape), place[None, :, None].expand(shape)], 1).flatten(2)


def train(column: Column, vae: nn.Module) -> LTXConditionPipeline:
    """The whole LTX-Video, float32 on the device."""
    recipe, device, tokenizer = column.recipe, column.device, text.t5_tokenizer()
    encoder, model = text.t5_encoder(recipe, tokenizer).to(device), transformer(recipe).to(device)
    text.warm_up(encoder, tokenizer, text.T5_TOKENS // 2, column.budget("ltx-text", encoder=encoder), device)
    both = nn.ModuleDict({"transformer": model, "text": encoder})
    average = Average(both, 0.998)
    budget = column.budget("ltx-transformer", both=both, average=average.module)
    if budget.progress < 1:
        short = Clips(*column.cached("ltx-clips", lambda: tuple(make_clips(column, vae, "ltx-clips", budget.until))))
        assert_paired(column, vae, short)
        captions = text.Captions(tokenizer, text.T5_TOKENS, text.wordings(len(short.latents)), device, cut=True)
        whole = redrawn = None
        optimiser = for_modules([model, encoder], ends=("proj_in", "proj_out", "time_embed"), lr=0.01, adam_lr=1e-3)
        rng = column.random(budget)
        for step in budget:
            optimiser.factor = flat_then_cosine(budget.progress, flat=0.4)
            if redrawn is None and step % 100 == 0 and (column.checkpoints / "stable-diffusion").exists():
                redrawn = column.cached("ltx-first-frames", lambda: redrawn_first_frames(column, vae, short.firsts))
            if whole is None and budget.progress > 1 - recipe.whole_share:
                whole = Clips(*column.cached("ltx-whole", lambda: tuple(make_clips(column, vae, "ltx-whole", budget.until))))
            use = whole if whole is not None and step % 2 else short
            rows = torch.randint(min(len(use.latents), len(short.latents)), (recipe.batch_ltx[0 if use is short else 1],), device=device)
            x, groups = use.latents[rows].float(), use.groups[rows]
            if use is short:
                keep = torch.cat(
                    [torch.zeros(1, dtype=torch.long, device=device), 1 + torch.randperm(SUBSET, device=device)[:SEEN].sort()[0]]
                )
                x, groups = x[:, keep], groups[:, keep]
            if redrawn is not None and rng.random() < REDRAWN:
                x = torch.cat([redrawn[rows][:, None].float(), x[:, 1:]], 1)
            loss = flow_loss(column, model, encoder, x, groups, *captions.pick(rows))
            loss.backward()
            optimiser.step()
            average.update(both)
            budget.note(**{"loss" if use is short else "loss_whole": loss})
    return LTXConditionPipeline(
        vae=to_volume(recipe, vae),
        transformer=average.module["transformer"],
        text_encoder=average.module["text"],
        tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
    )


def flow_loss(
    column: Column, model: nn.Module, encoder: nn.Module, x: torch.Tensor, groups: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Squared error of the velocity of all but the first group, which is given without noise. x: (batch, groups, tokens, channels)."""
    batch, count, tokens = x.shape[:3]
    u = (torch.arange(batch, device=x.device) + torch.rand(batch, device=x.device)) / batch
    sigma = (2 * u / (1 + u))[:, None, None].expand(batch, (count - 1) * tokens, 1)
    sigma = torch.cat([torch.zeros(batch, tokens, 1, device=x.device), sigma], 1)
    x = x.flatten(1, 2)
    noise = torch.randn_like(x)
    with column.cheap():
        hidden = encoder(ids, attention_mask=mask)[0]
        noisy, times, places = (1 - sigma) * x + sigma * noise, sigma[..., 0] * 1000, coordinates(column.recipe, groups)
        velocity = model(noisy, hidden, times, mask.bool(), video_coords=places, return_dict=False)[0]
    return (velocity.float() - (noise - x))[:, tokens:].square().mean()


def export(column: Column, pipe: LTXConditionPipeline) -> None:
    write(column.checkpoints / "ltx-video", pipe.to(torch.float16))
