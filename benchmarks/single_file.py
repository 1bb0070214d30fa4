"""A checkpoint in one file, at full size: how long it takes to tell what it is, to load it, and whether every number arrives.

    python -m benchmarks.single_file               Stable Diffusion 1.5 with random weights in float16; two minutes, 5 GB of disk
    python -m benchmarks.single_file --tiny        the same code with narrow models
    python -m benchmarks.single_file --at FOLDER   where the checkpoint is written, in place of the temporary folder

The checkpoint is written as a diffusers folder and as one file in the layout of the original code. The file is then identified
by its header, and loaded through the product's own loader; each tensor of UNet, VAE and text encoder must be the folder's, bit for bit.
Exit 1 where one is not, where identifying takes more than half a second, or where more than 8 GB of memory were needed. Whatever was
written is deleted.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from rich.console import Console
from rich.table import Table
from safetensors import safe_open

from actors.headers import read_header
from actors.identify import identify
from actors.loading import load_pipeline, peak_memory_bytes
from actors.prompts import PromptEncoder
from actors.values import ModelFiles

from . import full_size
from .original_layout import single_file

MOST_SECONDS = 0.5  # to identify the file
MOST_MEMORY = 8e9


@dataclass(frozen=True)
class Loaded:
    """tensors, other: how many there are in a part of the folder, and how many of them have other bits, or none, in the model."""

    part: str
    tensors: int
    other: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--at", type=Path, help="folder for what is written; it must exist")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tower-single-file-", dir=options.at) as folder:
        sys.exit(0 if measured(Path(folder), options.tiny, Console(width=150)) else 1)


def measured(work: Path, tiny: bool, console: Console) -> bool:
    """Write, identify, load and compare. Returns whether all was as promised."""
    folder = full_size.stable_diffusion(work, "cpu", tiny)
    gc.collect()
    written, file = timed(lambda: single_file(folder, work / "one.safetensors"))
    gc.collect()
    told, found = timed(lambda: identify(read_header(file)))
    files = ModelFiles(str(file), base=str(folder))
    loading, pipe = timed(lambda: load_pipeline(StableDiffusionPipeline, files, torch.float16, "cpu"))
    parts = [compared(folder, "unet", pipe.unet), compared(folder, "vae", pipe.vae)]
    del pipe
    gc.collect()
    encoding, text = timed(lambda: PromptEncoder("text", replace(files, dtype="float16"), device="cpu"))
    parts.append(compared(folder, "text_encoder", text.encoder))
    shown = Table("what", "figure", box=None)
    shown.add_row("bytes", f"{file.stat().st_size:,}")
    shown.add_row("written in", f"{written:.1f} s")
    shown.add_row(f"identified as {found.kind}, {found.architecture}, in", f"{told:.3f} s")
    shown.add_row("UNet and VAE loaded in", f"{loading:.1f} s")
    shown.add_row("text encoder loaded in", f"{encoding:.1f} s")
    for part in parts:
        shown.add_row(f"{part.part}: tensors, with other bits", f"{part.tensors}, {part.other}")
    peak = peak_memory_bytes()
    shown.add_row("peak memory", f"{peak / 1e9:.2f} GB")
    console.print(shown)
    right = found.kind == "checkpoint" and not any(part.other for part in parts) and all(part.tensors for part in parts)
    return right and told <= MOST_SECONDS and peak <= MOST_MEMORY


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    made = work()
    return time.perf_counter() - begun, made


def compared(folder: Path, part: str, model: torch.nn.Module) -> Loaded:
    """Each tensor of the folder's files beside the model's, one at a time."""
    have, count, other = model.state_dict(), 0, 0
    for file in (folder / part).glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dict
                count += 1
                mine = have.get(name)
                other += mine is None or not torch.equal(mine, tensors.get_tensor(name))
    return Loaded(part, count, other)


if __name__ == "__main__":
    main()
