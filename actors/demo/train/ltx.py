"""Train the demo's LTX-Video transformer on cached clips, and write the whole LTX folder.

    python -m actors.demo.train.ltx --work train-work --out actors/demo/ltx-video

Needs the autoencoder (`ltx_vae`). Where the Stable Diffusion is there, half of the first frames are
pictures that it has drawn over, so that clips start well from keyframes and not only from drawings.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXConditionPipeline, LTXVideoTransformer3DModel, StableDiffusionPipeline
from torch import nn

from . import scenes, text
from .ltx_vae import LATENT_CHANNELS, SPATIAL, TEMPORAL, autoencoder, make_planar, report, to_model, to_volume
from .optimiser import Average, flat_then_cosine, for_modules
from .progress import Budget
from .sd import NULL_CAPTION, cached

GROUPS = (scenes.FRAMES - 1) // TEMPORAL + 1  # latents of a clip: 31
TOKENS = (scenes.HEIGHT // SPATIAL) * (scenes.WIDTH // SPATIAL)  # of one latent: 24
SUBSET, SEEN = 8, 5  # moving groups of a clip that are cached, and that one training step sees


def transformer() -> LTXVideoTransformer3DModel:
    return LTXVideoTransformer3DModel(
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_attention_heads=6,
        attention_head_dim=32,
        cross_attention_dim=192,
        num_layers=7,
        caption_channels=text.WIDTH,
    )


def frames_of(group: int) -> range:
    return range(1) if group == 0 else range(TEMPORAL * group - 3, TEMPORAL * group + 1)


@torch.no_grad()
def encode_groups(vae: nn.Module, scene: scenes.Scene, groups: list[int]) -> torch.Tensor:
    """Normalised latents of the first frame and of `groups`: (1 + len(groups), TOKENS, channels)."""
    still = to_model(scenes.clip(scene, range(1))[None])
    first = vae.encode(still).latent_dist.mean
    # Groups are independent in a planar autoencoder: each is encoded as the second latent of its own window.
    moving = np.stack([scenes.clip(scene, range(frames_of(g)[0] - 1, frames_of(g)[-1] + 1)) for g in groups])
    later = vae.encode(to_model(moving)).latent_dist.mean[:, :, 1:]
    z = torch.cat([first, later])[:, :, 0]
    z = (z - vae.latents_mean[None, :, None, None]) / vae.latents_std[None, :, None, None]
    return z.flatten(2).transpose(1, 2)


def make_clips(vae: nn.Module, count: int, subset: int, offset: int):
    latents, groups = (
        torch.zeros(count, subset + 1, TOKENS, LATENT_CHANNELS, dtype=torch.float16),
        torch.zeros(count, subset + 1, dtype=torch.long),
    )
    for i in range(count):
        rng = random.Random(f"groups-{offset + i}")
        chosen = sorted(rng.sample(range(1, GROUPS), subset))
        latents[i] = encode_groups(vae, scenes.sample(offset + i), chosen).half()
        groups[i, 1:] = torch.tensor(chosen)
        if i % 200 == 0:
            print(f"clips {i}/{count}", flush=True)
    return latents, groups, offset


@torch.no_grad()
def redrawn_first_frames(sd_folder: Path, vae: nn.Module, count: int, offset: int) -> torch.Tensor:
    """First frames that the Stable Diffusion has drawn over from half noise, as normalised latents."""
    pipe = StableDiffusionPipeline.from_pretrained(sd_folder, torch_dtype=torch.float32)
    schedule, out = pipe.scheduler, []
    for start in range(0, count, 32):
        batch = [scenes.sample(offset + i) for i in range(start, min(count, start + 32))]
        x = torch.from_numpy(np.stack([scenes.draw(s) for s in batch])).permute(0, 3, 1, 2).float() / 127.5 - 1
        z = pipe.vae.encode(x).latent_dist.mean * pipe.vae.config.scaling_factor
        ids = pipe.tokenizer(
            [scenes.caption(s) for s in batch], padding="max_length", max_length=text.CLIP_TOKENS, return_tensors="pt"
        ).input_ids
        hidden = pipe.text_encoder(ids)[0]
        schedule.set_timesteps(16)
        later = schedule.timesteps[(7, 10, 13)[start // 32 % 3] :]
        z = schedule.add_noise(z, torch.randn_like(z), later[:1].repeat(len(batch)))
        for t in later:
            z = schedule.step(pipe.unet(z, t, hidden).sample, t, z).prev_sample
        pixels = pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample.clamp(-1, 1)
        first = vae.encode(pixels[:, :, None]).latent_dist.mean[:, :, 0]
        first = (first - vae.latents_mean[None, :, None, None]) / vae.latents_std[None, :, None, None]
        out.append(first.flatten(2).transpose(1, 2).half())
    return torch.cat(out)


def coordinates(groups: torch.Tensor) -> torch.Tensor:
    """Seconds and pixels of every token, as LTXConditionPipeline gives them: (batch, 3, tokens)."""
    batch, count = groups.shape
    seconds = (groups * TEMPORAL + 1 - TEMPORAL).clamp(min=0).float() / scenes.FPS
    y, x = torch.meshgrid(torch.arange(scenes.HEIGHT // SPATIAL), torch.arange(scenes.WIDTH // SPATIAL), indexing="ij")
    place = torch.stack([y, x]).flatten(1).float() * SPATIAL
    return torch.cat(
        [seconds[:, None, :, None].expand(batch, 1, count, TOKENS), place[None, :, None].expand(batch, 2, count, TOKENS)], 1
    ).flatten(2)


def train(work: Path, sd_folder: Path, vae: nn.Module, seconds: float, count: int, long_count: int, long_share: float):
    tokenizer = text.t5_tokenizer()
    encoder, model = text.t5_encoder(tokenizer), transformer()
    text.warm_up(encoder, tokenizer, text.T5_TOKENS // 2, Budget(work, "ltx-text", 30, {"encoder": encoder}))
    both = nn.ModuleDict({"transformer": model, "text": encoder})
    average = Average(both, 0.998)
    budget = Budget(work, "ltx-transformer", seconds, {"both": both, "average": average.module})

    short = cached(work / "ltx-clips.pt", lambda: make_clips(vae, count, SUBSET, 0))
    redrawn: torch.Tensor | None = None
    whole = None
    row = count * 2 // 3  # the pairing of captions and latents, asserted
    again = encode_groups(vae, scenes.sample(row), short[1][row, 1:].tolist())
    assert torch.allclose(again, short[0][row].float(), atol=0.05)

    optimiser = for_modules([model, encoder], ends=("proj_in", "proj_out", "time_embed"), lr=0.01, adam_lr=1e-3)
    torch.manual_seed(budget.steps)
    rng = random.Random(budget.steps)
    for step in budget:
        optimiser.factor = flat_then_cosine(budget.progress, flat=0.4)
        if redrawn is None and step % 100 == 0 and (sd_folder / "model_index.json").exists():
            redrawn = cached(work / "ltx-first-frames.pt", lambda: redrawn_first_frames(sd_folder, vae, count, 0))
        if whole is None and budget.progress > 1 - long_share:
            whole = cached(work / "ltx-long-clips.pt", lambda: make_clips(vae, long_count, GROUPS - 1, 0))
        use = whole if whole is not None and step % 2 else short
        pick = torch.randint(0, len(use[0]), (16 if use is short else 3,))
        x, groups, batch = use[0][pick].float(), use[1][pick], len(pick)
        if use is short:
            keep = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(SUBSET)[:SEEN].sort().values])
            x, groups = x[:, keep], groups[:, keep]
        if redrawn is not None and rng.random() < 0.6:
            x = torch.cat([redrawn[pick][:, None].float(), x[:, 1:]], 1)
        words = ["" if rng.random() < NULL_CAPTION else scenes.caption(scenes.sample(use[2] + int(i)), rng) for i in pick]
        tokens = tokenizer(words, padding="longest", return_tensors="pt")
        hidden = encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        u = (torch.arange(batch) + torch.rand(batch)) / batch
        sigma = (2 * u / (1 + u))[:, None, None]
        sigma = torch.cat([torch.zeros(batch, TOKENS, 1), sigma.expand(batch, x.shape[1] * TOKENS - TOKENS, 1)], 1)
        x = x.flatten(1, 2)
        noise = torch.randn_like(x)
        velocity = model(
            (1 - sigma) * x + sigma * noise,
            hidden,
            sigma[..., 0] * 1000,
            tokens.attention_mask.bool(),
            video_coords=coordinates(groups),
            return_dict=False,
        )[0]
        loss = (velocity - (noise - x))[:, TOKENS:].square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        average.update(both)
        budget.note(**{"loss" if use is short else "loss_long": loss.item()})
    return average.module["transformer"], average.module["text"], tokenizer


def export(out: Path, vae: nn.Module, model: nn.Module, encoder: nn.Module, tokenizer) -> None:
    pipe = LTXConditionPipeline(
        vae=to_volume(vae),
        transformer=model,
        text_encoder=encoder,
        tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
    )
    pipe.to(torch.float16).save_pretrained(out, max_shard_size="12MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("train-work"))
    parser.add_argument("--out", type=Path, default=Path("actors/demo/ltx-video"))
    parser.add_argument("--stable-diffusion", type=Path, default=Path("actors/demo/stable-diffusion"))
    parser.add_argument("--seconds", type=float, default=3300)
    parser.add_argument("--clips", type=int, default=2400)
    parser.add_argument("--long-clips", type=int, default=250)
    parser.add_argument("--long-share", type=float, default=0.2, help="share of the time in which whole clips are mixed in")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(2)
    vae = make_planar(autoencoder())
    vae.load_state_dict(torch.load(args.work / "ltx-vae-planar.pt"))
    vae.eval().requires_grad_(False)
    report(vae)
    model, encoder, tokenizer = train(args.work, args.stable_diffusion, vae, args.seconds, args.clips, args.long_clips, args.long_share)
    export(args.out, vae, model, encoder, tokenizer)


if __name__ == "__main__":
    main()
