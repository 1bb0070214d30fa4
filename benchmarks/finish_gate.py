"""The thresholds of the profile `finish`: what its measures say of good finishes, and of every planted fault.

    python -m benchmarks.finish_gate

Good finishes are drawn scenes reduced to a quarter, made larger again by the demo's upscaler, and the drawings themselves at full size.
Scenes are those that its training never saw. Every clip goes through its file, as a take does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from actors.demo.train import scenes
from gates.video import Expectation, measure_video
from pipeline.registry.files import DEMO
from pipeline.render.video_file import write_clip

SCALE, WIDTH, HEIGHT, FPS = 4, 384, 256, Fraction(24)
SCENES, FRAMES = 12, range(0, 120, 5)
MEASURES = ("source_ssim", "source_delta_e", "source_tile_delta_e", "source_flicker", "source_sharper")
Frames = np.ndarray  # uint8 RGB (n, height, width, 3)


def truth(seed: int) -> Frames:
    """A drawn scene that no model was trained on."""
    return scenes.clip(scenes.sample(seed, held_out=True), FRAMES, HEIGHT, WIDTH)


def reduced(frames: Frames) -> Frames:
    size = frames.shape[2] // SCALE, frames.shape[1] // SCALE
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def enlarged(frames: Frames, how: int = cv2.INTER_LANCZOS4) -> Frames:
    size = frames.shape[2] * SCALE, frames.shape[1] * SCALE
    return np.stack([cv2.resize(frame, size, interpolation=how) for frame in frames])


# --- planted faults: each takes a good finish and its source ------------------------------------------------------------


def shifted(finish: Frames, _: Frames) -> Frames:
    """By two pixels of the source."""
    return np.roll(finish, 2 * SCALE, axis=2)


def cast(finish: Frames, _: Frames) -> Frames:
    return _clipped(finish * np.array([1.12, 1.0, 0.88]))


def another_hue(finish: Frames, _: Frames) -> Frames:
    """One eighth of width and height in the colours of its negative, with its own light."""
    made = finish.copy()
    part = made[:, 96:128, 192:240]
    for frame in part:
        lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)
        lab[..., 1:] = 255 - lab[..., 1:]
        frame[:] = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    return made


def flickering(finish: Frames, _: Frames) -> Frames:
    """Every other frame is lighter by four levels."""
    return _clipped(finish + 4.0 * (np.arange(len(finish)) % 2)[:, None, None, None])


def hallucinated(finish: Frames, _: Frames) -> Frames:
    """Stripes as high and as wide as a sixth of the picture."""
    made = finish.copy()
    made[:, 100:142, 60:124] = np.where(np.arange(64)[:, None] // 8 % 2, 255, 30).astype(np.uint8)
    return made


def one_wrong_frame(finish: Frames, _: Frames) -> Frames:
    made = finish.copy()
    made[len(made) // 2] = finish[-1][:, ::-1]
    return made


def frozen(finish: Frames, _: Frames) -> Frames:
    return np.repeat(finish[:1], len(finish), axis=0)


def late(finish: Frames, _: Frames) -> Frames:
    """One frame is shown twice, and all later ones too late."""
    return np.concatenate([finish[:4], finish[3:-1]])


FAULTS: dict[str, tuple[str, Callable[[Frames, Frames], Frames]]] = {  # name to the measure that must see it, and how it is made
    "one wrong frame": ("source_ssim", one_wrong_frame),
    "shifted": ("source_ssim", shifted),
    "frozen": ("source_ssim", frozen),
    "late by a frame": ("source_ssim", late),
    "hallucinated patch": ("source_ssim", hallucinated),
    "colour cast": ("source_delta_e", cast),
    "another hue in a tile": ("source_tile_delta_e", another_hue),
    "flicker": ("source_flicker", flickering),
    "Lanczos alone": ("source_sharper", lambda _, source: enlarged(source)),
    "bilinear": ("source_sharper", lambda _, source: enlarged(source, cv2.INTER_LINEAR)),
}


def measured(folder: Path, finish: Frames, source: Frames) -> dict[str, float]:
    """The measures of a finish, from files."""
    files = folder / "source.mp4", folder / "finish.mp4"
    for file, frames in zip(files, (source, finish), strict=True):
        write_clip(file, frames, FPS)
    return measure_video(files[1], Expectation(len(source), FPS, WIDTH, HEIGHT, source=files[0])).values


def _clipped(values: np.ndarray) -> Frames:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _finishes() -> Iterator[tuple[str, Frames, Frames]]:
    """(by what, finish, source): of each scene the drawing itself, and the network's."""
    from actors.upscaler import UpscalerModel
    from actors.values import FinishSettings, ModelFiles

    settings = FinishSettings(WIDTH, HEIGHT, SCALE)
    network = UpscalerModel("finish", ModelFiles(str(DEMO / "upscaler" / "compact_x4.safetensors")), settings)
    for seed in range(SCENES):
        drawn = truth(seed)
        yield "drawn", drawn, reduced(drawn)
        yield "network", network.enlarged(reduced(drawn), settings)[0], reduced(drawn)


def main() -> None:
    found: dict[str, dict[str, list[float]]] = {name: {} for name in MEASURES}
    with tempfile.TemporaryDirectory() as folder:
        for by, finish, source in _finishes():
            for name, value in measured(Path(folder), finish, source).items():
                if name in found:
                    found[name].setdefault(f"good, {by}", []).append(value)
            for fault, (seen_by, make) in FAULTS.items():
                seen = measured(Path(folder), make(finish, source), source)
                found[seen_by].setdefault(fault, []).append(seen[seen_by])
    table = Table("measure", "of", "clips", "least", "median", "most")
    for name, groups in found.items():
        for group, values in groups.items():
            table.add_row(name, group, str(len(values)), *(f"{v:.3g}" for v in (min(values), median(values), max(values))))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
