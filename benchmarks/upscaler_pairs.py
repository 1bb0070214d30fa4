"""What the demo's models decode, beside what the same moment looks like drawn at four times the size.

An upscaler reads stored clips, so every input has been an mp4 as the product stores it: at 96x64, half the colour's
resolution is a loss that an upscaler can learn to undo. Inputs are made once and kept in files; drawing is so quick that targets
are drawn when they are wanted.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from actors.demo.train import scenes
from actors.loading import to_uint8
from actors.ltx_video import LtxVideoModel
from actors.model import longest
from actors.vae import decode, encode
from actors.values import ClipRequest
from gates.decode import read_video
from pipeline.render.video_file import write_clip

from .demo_models import HELD_OUT, Models

SCALE = 4
COUNT = 16  # frames of a piece
KINDS = ("SD decodes", "AnimateDiff, little noise", "LTX decodes", "LTX, little noise")
STRENGTHS = (0.13, 0.2, 0.32)  # of AnimateDiff's 16 steps: 2, 3 or 5, from true frames, which keeps things in their places
LAST_STEPS = (2, 3, 4)  # of LTX-Video's six, likewise
Moment = tuple[scenes.Scene, int]


@dataclass(frozen=True)
class Piece:
    """A clip as it was stored. frames: uint8 RGB (COUNT, height, width, 3); moments: the scene and the frame number of each."""

    frames: np.ndarray
    moments: list[Moment]

    def target(self, i: int, scale: int = SCALE) -> np.ndarray:
        """Frame i as it is drawn at `scale` times its size: uint8 RGB (scale height, scale width, 3)."""
        scene, frame = self.moments[i]
        height, width = (scale * side for side in self.frames.shape[1:3])
        return scenes.draw(scene, frame, height, width)


def kind(number: int) -> str:
    return KINDS[number % len(KINDS)]


def moments(number: int, held_out: bool) -> list[Moment]:
    """What piece `number` shows: frames of one scene; of COUNT scenes where the image autoencoder alone is asked, which knows no clips."""
    rng, first = random.Random(f"piece-{number}"), HELD_OUT * held_out + COUNT * number
    if kind(number) == "SD decodes":
        return [(scenes.sample(first + i, held_out), rng.choice((0, rng.randrange(scenes.FRAMES)))) for i in range(COUNT)]
    scene = scenes.sample(first, held_out)
    if kind(number) == "AnimateDiff, little noise":
        return [(scene, 3 * i) for i in range(COUNT)]
    return [(scene, frame) for frame in sorted(rng.sample(range(scenes.FRAMES), COUNT))]


def make(models: Models, number: int, held_out: bool = False) -> np.ndarray:
    """The frames of piece `number`, as stored."""
    wanted = moments(number, held_out)
    scene = wanted[0][0]
    if kind(number).startswith("LTX"):
        drawn = scenes.clip(scene, range(scenes.FRAMES), models.height, models.width)
        steps = LAST_STEPS[number // len(KINDS) % len(LAST_STEPS)] if kind(number) == "LTX, little noise" else 0
        return stored(through_ltx(models, scene, drawn, steps))[[frame for _, frame in wanted]]
    drawn = np.stack([scenes.draw(s, frame, models.height, models.width) for s, frame in wanted])
    if kind(number) == "SD decodes":
        return stored(through_sd(models, drawn))
    return stored(through_animatediff(models, scene, drawn, STRENGTHS[number // len(KINDS) % len(STRENGTHS)]))


def stored(frames: np.ndarray) -> np.ndarray:
    """The frames after they were written to an mp4, as clips are, and read again."""
    with tempfile.TemporaryDirectory() as folder:
        write_clip(Path(folder) / "clip.mp4", frames, Fraction(scenes.FPS))
        return read_video(Path(folder) / "clip.mp4")[0]


@torch.no_grad()
def through_sd(models: Models, drawn: np.ndarray) -> np.ndarray:
    vae = models.keyframe.pipe.vae
    pictures = torch.from_numpy(drawn).to(models.keyframe.device).permute(0, 3, 1, 2) / 255
    return to_uint8(decode(vae, encode(vae, pictures, [torch.Generator().manual_seed(i) for i in range(len(drawn))])))[0]


@torch.no_grad()
def through_animatediff(models: Models, scene: scenes.Scene, drawn: np.ndarray, strength: float) -> np.ndarray:
    """The true frames, noised a little, and denoised together."""
    model, text = models.animatediff, models.sd_text.encode([scenes.caption(scene)])[0]
    request = ClipRequest("piece", scene.seed, prompt=text, negative=models.negative[False])
    s = model.settings
    made = model.pipe(
        video=[[Image.fromarray(frame) for frame in drawn]],
        **model.texts([request], longest(request)),
        width=s.width,
        height=s.height,
        num_inference_steps=s.num_inference_steps,
        enforce_inference_steps=False,
        strength=strength,
        guidance_scale=s.guidance_scale,
        generator=torch.Generator().manual_seed(scene.seed),
        output_type="pt",
    )
    return to_uint8(made.frames[0])[0]


@torch.no_grad()
def through_ltx(models: Models, scene: scenes.Scene, drawn: np.ndarray, last_steps: int) -> np.ndarray:
    """The video autoencoder alone, or the last steps of the denoising as well. The first frame has been through the image autoencoder."""
    model: LtxVideoModel = models.ltx
    vae, s = model.pipe.vae, model.settings
    keyframe = through_sd(models, drawn[:1])[0]
    given = np.concatenate([keyframe[None], drawn[1:]])
    pixels = torch.from_numpy(given).to(model.device).permute(3, 0, 1, 2)[None] / 127.5 - 1
    latents = vae.encode(pixels.to(vae.dtype)).latent_dist.mean
    if not last_steps:
        return to_uint8((vae.decode(latents).sample[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1))[0]
    mean, std = (x[None, :, None, None, None] for x in (vae.latents_mean, vae.latents_std))
    text = models.ltx_text.encode([scenes.caption(scene)])[0]
    request = ClipRequest("piece", scene.seed, prompt=text, negative=models.negative[True], keyframe=keyframe)
    share = (last_steps + 0.5) / len(s.timesteps)  # diffusers rounds the number of steps down
    return to_uint8(model._pass(request, s, 0, latents=(latents - mean) / std, denoise_strength=share)[0])[0]


def prepare(models: Models, folder: Path, numbers: Sequence[int], until: float, held_out: bool = False) -> list[Piece]:
    """The pieces of these numbers, one at least: made where the folder lacks them, until time.monotonic is `until`."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces: list[Piece] = []
    for number in numbers:
        file, part = folder / f"{number}.npy", folder / "part.npy"
        if not file.exists():
            if pieces and time.monotonic() > until:
                continue
            np.save(part, make(models, number, held_out))
            part.replace(file)  # whole, even if this process is stopped
        pieces.append(Piece(np.load(file), moments(number, held_out)))
    return pieces
