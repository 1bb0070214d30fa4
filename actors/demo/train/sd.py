"""The demo's text-to-image Stable Diffusion: autoencoder, text encoder, UNet."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn

from . import scenes, text
from .column import Column
from .drawing import Job
from .optimiser import Average, flat_then_cosine, for_modules
from .recipe import Recipe
from .write import write

FIRST_FRAMES_VAE, FIRST_FRAMES = 0.5, 0.8  # shares of the pictures; the rest are later frames, tagged so
MID_MOTION = "mid-motion"  # tags frames after the first, so that keyframes stay first frames


def autoencoder(recipe: Recipe) -> AutoencoderKL:
    levels = len(recipe.sd_widths)
    vae = AutoencoderKL(
        block_out_channels=recipe.sd_widths,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=recipe.sd_latents,
        norm_num_groups=recipe.sd_groups,
        mid_block_add_attention=False,
        sample_size=recipe.width,
    )
    # A KL autoencoder this small stalls: make it deterministic (log-variance -12, and no gradient to it).
    with torch.no_grad():
        vae.quant_conv.weight[recipe.sd_latents :] = 0
        vae.quant_conv.bias[recipe.sd_latents :] = -12
    return vae


def unet(recipe: Recipe) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=(recipe.height // recipe.sd_factor, recipe.width // recipe.sd_factor),
        in_channels=recipe.sd_latents,
        out_channels=recipe.sd_latents,
        block_out_channels=recipe.unet_widths,
        layers_per_block=1,
        norm_num_groups=recipe.unet_groups,
        cross_attention_dim=recipe.text_width,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
        set_alpha_to_one=True,
    )


def jobs(recipe: Recipe) -> dict[str, Job]:
    return {
        "sd-vae": Job(recipe.pictures_vae, 64, partial(picture, recipe, FIRST_FRAMES_VAE)),
        "sd-unet": Job(recipe.pictures, 64, partial(picture, recipe, FIRST_FRAMES)),
    }


def moment(first_frames: float, number: int) -> tuple[scenes.Scene, int, random.Random]:
    """A training scene, a frame of it, and the random numbers for its caption."""
    rng, scene = random.Random(number), scenes.sample(number)
    return scene, 0 if rng.random() < first_frames else rng.randrange(1, scenes.FRAMES), rng


def picture(recipe: Recipe, first_frames: float, number: int) -> np.ndarray:
    """uint8 RGB (1, height, width, 3)."""
    scene, frame, _ = moment(first_frames, number)
    return scenes.draw(scene, frame, recipe.height, recipe.width)[None]


def caption(first_frames: float, number: int) -> str:
    scene, frame, rng = moment(first_frames, number)
    return scenes.caption(scene, rng) + (f", {MID_MOTION}" if frame else "")


def to_model(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (n, height, width, 3) to float in -1..1 of shape (n, 3, height, width)."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Decibels, for values in -1..1."""
    return 10 * torch.log10(4 / (a - b).square().mean())


def train_autoencoder(column: Column) -> AutoencoderKL:
    recipe = column.recipe
    vae = autoencoder(recipe).to(column.device)
    average = Average(vae)
    budget = column.budget("sd-vae", model=vae, average=average.module)
    if budget.progress < 1:
        pixels = torch.cat(column.drawn("sd-vae", budget.until))[:, 0]
        optimiser = for_modules([vae], ends=("conv_in", "encoder.conv_out", "quant_conv", "decoder.conv_out"), lr=0.01, adam_lr=1.5e-3)
        rng = column.random(budget)
        height, width, step = recipe.height // 2, recipe.width // 2, recipe.sd_factor
        for _ in budget:
            optimiser.factor = flat_then_cosine(budget.progress)
            # Crops: more pictures for the same work.
            top, left = (int(rng.integers(0, side // step + 1)) * step for side in (height, width))
            rows = torch.randint(len(pixels), (recipe.batch_sd_vae,), device=column.device)
            x = to_model(pixels[rows, top : top + height, left : left + width])
            with column.cheap():
                z = vae.encode(x).latent_dist.mean.float()
                y = vae.decode(z + 0.05 * torch.randn_like(z)).sample.float()
            loss = (y - x).abs().mean() + 2 * (y - x).square().mean() + 1e-4 * z.square().mean()
            loss.backward()
            vae.quant_conv.weight.grad[recipe.sd_latents :] = 0  # type: ignore[index]
            vae.quant_conv.bias.grad[recipe.sd_latents :] = 0  # type: ignore[index]
            optimiser.step()
            average.update(vae)
            budget.note(loss=loss, psnr=psnr(y, x), std=z.std())
    return scaled(column, average.module)


@torch.no_grad()
def scaled(column: Column, vae: AutoencoderKL) -> AutoencoderKL:
    """The autoencoder with its scaling factor set from 64 held-out pictures."""
    held_out = [scenes.sample(10**6 + i, held_out=True) for i in range(64)]
    x = to_model(column.pixels(np.stack([scenes.draw(s, 0, column.recipe.height, column.recipe.width) for s in held_out])))
    z = vae.encode(x).latent_dist.mean
    print(f"sd autoencoder: {psnr(vae.decode(z).sample, x):.2f} dB on 64 held-out pictures, latent std {z.std():.3f}", flush=True)
    vae.register_to_config(scaling_factor=float(1 / z.std()))
    return vae


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (n, height, width, 3) to latents as the UNet sees them."""
    return vae.encode(to_model(pixels)).latent_dist.mean * vae.config.scaling_factor


def train_unet(column: Column, vae: AutoencoderKL) -> StableDiffusionPipeline:
    """The whole Stable Diffusion, float32 on the device."""
    tokenizer, device = text.clip_tokenizer(), column.device
    encoder, model, noise = text.clip_encoder(column.recipe, tokenizer).to(device), unet(column.recipe).to(device), scheduler()
    text.warm_up(encoder, tokenizer, text.CLIP_TOKENS, column.budget("sd-text", encoder=encoder), device)
    both = nn.ModuleDict({"unet": model, "text": encoder})
    average = Average(both, 0.998)
    budget = column.budget("sd-unet", both=both, average=average.module)
    if budget.progress < 1:
        latents = column.cached(
            "sd-latents", lambda: torch.cat(column.drawn("sd-unet", budget.until, lambda pixels: encode(vae, pixels[:, 0])))
        )
        words = [[caption(FIRST_FRAMES, i)] for i in range(len(latents))]
        assert_paired(column, vae, latents, words)
        captions = text.Captions(tokenizer, text.CLIP_TOKENS, words, device)
        optimiser = for_modules([model, encoder], ends=("conv_in", "conv_out", "time_emb"), lr=0.01, adam_lr=1.5e-3)
        alphas, batch = noise.alphas_cumprod.to(device), column.recipe.batch_unet
        column.random(budget)
        for _ in budget:
            optimiser.factor = flat_then_cosine(budget.progress)
            rows = torch.randint(len(latents), (batch,), device=device)
            x, (ids, _) = latents[rows], captions.pick(rows)
            t = ((torch.arange(batch, device=device) + torch.rand(batch, device=device)) / batch * 1000).long()
            a, s = alphas[t].sqrt()[:, None, None, None], (1 - alphas[t]).sqrt()[:, None, None, None]
            eps = torch.randn_like(x)
            with column.cheap():
                predicted = model(a * x + s * eps, t, encoder(ids)[0]).sample
            loss = (predicted.float() - (a * eps - s * x)).square().mean()
            loss.backward()
            optimiser.step()
            average.update(both)
            budget.note(loss=loss)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=average.module["text"],
        tokenizer=tokenizer,
        unet=average.module["unet"],
        scheduler=noise,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def assert_paired(column: Column, vae: AutoencoderKL, latents: torch.Tensor, words: list[list[str]]) -> None:
    """One row drawn and encoded again must be the one that belongs to its caption."""
    row = len(latents) * 2 // 3
    again = encode(vae, column.pixels(picture(column.recipe, FIRST_FRAMES, row)))[0]
    if words[row] != [caption(FIRST_FRAMES, row)] or not torch.allclose(again, latents[row], atol=0.05):
        raise RuntimeError(f"latents and captions are not of the same scenes: row {row} differs when it is drawn again")


def export(column: Column, pipe: StableDiffusionPipeline) -> None:
    write(column.checkpoints / "stable-diffusion", pipe.to(torch.float16))
