"""Train the demo's text-to-image Stable Diffusion: autoencoder, text encoder, UNet.

    python -m actors.demo.train.sd --work train-work --out actors/demo/stable-diffusion

Each stage stops at its time budget, can be stopped and started again, and writes a real diffusers
folder at the end. Runs on one core; start the LTX-Video training beside it on the other.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn

from . import scenes, text
from .optimiser import Average, flat_then_cosine, for_modules
from .progress import Budget

LATENT_CHANNELS = 8
NULL_CAPTION = 0.1  # share of captions dropped, for classifier-free guidance
MID_MOTION = "mid-motion"  # tags frames after the first, so that keyframes stay first frames


def autoencoder() -> AutoencoderKL:
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=scenes.WIDTH,
    )
    # A KL autoencoder this small stalls: make it deterministic (log-variance -12, and no gradient to it).
    with torch.no_grad():
        vae.quant_conv.weight[LATENT_CHANNELS:] = 0
        vae.quant_conv.bias[LATENT_CHANNELS:] = -12
    return vae


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=(scenes.HEIGHT // 4, scenes.WIDTH // 4),
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=text.WIDTH,
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
        set_alpha_to_one=True,
    )


def to_model(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (n, height, width, 3) to float in -1..1 of shape (n, 3, height, width)."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def pictures(count: int, first_frames: float, offset: int = 0) -> tuple[np.ndarray, list[str]]:
    """Pictures and captions of training scenes; the rest of them are later frames, tagged so."""
    frames, captions = [], []
    for i in range(offset, offset + count):
        rng, scene = random.Random(i), scenes.sample(i)
        frame = 0 if rng.random() < first_frames else rng.randrange(1, scenes.FRAMES)
        frames.append(scenes.draw(scene, frame))
        captions.append(scenes.caption(scene, rng) + (f", {MID_MOTION}" if frame else ""))
    return np.stack(frames), captions


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(10 * torch.log10(4 / (a - b).square().mean()))


def train_autoencoder(work: Path, seconds: float) -> AutoencoderKL:
    vae = autoencoder()
    average = Average(vae)
    budget = Budget(work, "sd-vae", seconds, {"model": vae, "average": average.module})
    if budget.progress < 1:
        pixels, _ = pictures(8000, first_frames=0.5)
        optimiser = for_modules([vae], ends=("conv_in", "encoder.conv_out", "quant_conv", "decoder.conv_out"), lr=0.01, adam_lr=1.5e-3)
        rng = np.random.default_rng(0)
        for _ in budget:
            optimiser.factor = flat_then_cosine(budget.progress)
            top, left = rng.integers(0, 9) * 4, rng.integers(0, 13) * 4  # crops: more pictures for the same work
            x = to_model(pixels[rng.integers(0, len(pixels), 16), top : top + 32, left : left + 48])
            z = vae.encode(x).latent_dist.mean
            y = vae.decode(z + 0.05 * torch.randn_like(z)).sample
            loss = (y - x).abs().mean() + 2 * (y - x).square().mean() + 1e-4 * z.square().mean()
            loss.backward()
            vae.quant_conv.weight.grad[LATENT_CHANNELS:] = 0  # type: ignore[index]
            vae.quant_conv.bias.grad[LATENT_CHANNELS:] = 0  # type: ignore[index]
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            average.update(vae)
            budget.note(loss=loss.item(), psnr=psnr(y.detach(), x), std=z.std().item())
    vae = average.module
    x = to_model(np.stack([scenes.draw(scenes.sample(10**6 + i, held_out=True)) for i in range(64)]))
    with torch.no_grad():
        z = vae.encode(x).latent_dist.mean
        print(f"sd autoencoder: {psnr(vae.decode(z).sample, x):.2f} dB on 64 held-out pictures, latent std {z.std():.3f}", flush=True)
    vae.register_to_config(scaling_factor=float(1 / z.std()))
    return vae


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: np.ndarray) -> torch.Tensor:
    parts = [vae.encode(to_model(pixels[i : i + 64])).latent_dist.mean for i in range(0, len(pixels), 64)]
    return torch.cat(parts) * vae.config.scaling_factor


def cached(file: Path, make):
    if not file.exists():
        torch.save(make(), file)
    return torch.load(file, weights_only=False)


def train_unet(work: Path, vae: AutoencoderKL, seconds: float, count: int = 16000):
    tokenizer = text.clip_tokenizer()
    encoder, model, noise = text.clip_encoder(tokenizer), unet(), scheduler()
    warm = Budget(work, "sd-text", 25, {"encoder": encoder})
    text.warm_up(encoder, tokenizer, text.CLIP_TOKENS, warm)
    both = nn.ModuleDict({"unet": model, "text": encoder})
    average = Average(both, 0.998)
    budget = Budget(work, "sd-unet", seconds, {"both": both, "average": average.module})

    def make():
        pixels, captions = pictures(count, first_frames=0.8)
        return encode(vae, pixels), captions

    latents, captions = cached(work / "sd-latents.pt", make)
    tokens = tokenizer(captions, padding="max_length", max_length=text.CLIP_TOKENS, truncation=True, return_tensors="pt").input_ids
    null = tokenizer([""], padding="max_length", max_length=text.CLIP_TOKENS, return_tensors="pt").input_ids[0]
    # The pairing of captions and latents, asserted: one row drawn and encoded again must be the cached one.
    row = len(latents) * 2 // 3
    again, words = pictures(1, first_frames=0.8, offset=row)
    assert words[0] == captions[row] and torch.allclose(encode(vae, again)[0], latents[row], atol=1e-3)

    optimiser = for_modules([model, encoder], ends=("conv_in", "conv_out", "time_emb"), lr=0.01, adam_lr=1.5e-3)
    alphas = noise.alphas_cumprod
    torch.manual_seed(budget.steps)
    batch = 16
    for _ in budget:
        optimiser.factor = flat_then_cosine(budget.progress)
        pick = torch.randint(0, len(latents), (batch,))
        x, ids = latents[pick], tokens[pick].clone()
        ids[torch.rand(batch) < NULL_CAPTION] = null
        t = ((torch.arange(batch) + torch.rand(batch)) / batch * 1000).long()
        a, s = alphas[t].sqrt()[:, None, None, None], (1 - alphas[t]).sqrt()[:, None, None, None]
        eps = torch.randn_like(x)
        predicted = model(a * x + s * eps, t, encoder(ids)[0]).sample
        loss = (predicted - (a * eps - s * x)).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        average.update(both)
        budget.note(loss=loss.item())
    return average.module["unet"], average.module["text"], tokenizer, noise


def export(out: Path, vae, encoder, tokenizer, model, noise) -> None:
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=model,
        scheduler=noise,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(torch.float16).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("train-work"))
    parser.add_argument("--out", type=Path, default=Path("actors/demo/stable-diffusion"))
    parser.add_argument("--vae-seconds", type=float, default=600)
    parser.add_argument("--unet-seconds", type=float, default=2400)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    vae = train_autoencoder(args.work, args.vae_seconds)
    model, encoder, tokenizer, noise = train_unet(args.work, vae, args.unet_seconds)
    export(args.out, vae, encoder, tokenizer, model, noise)


if __name__ == "__main__":
    main()
