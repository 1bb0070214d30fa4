"""The two columns of trainings, each a process of its own.

    python -m actors.demo.train.columns sd|ltx …      started by `python -m actors.demo.train`

They only meet in the folder of checkpoints, where the LTX column finds the Stable Diffusion when it is there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from actors import loading  # noqa: F401 - what it sets keeps the model libraries' chatter out of the log

from . import adapter, ltx, ltx_vae, sd
from .column import Column
from .drawing import Drawings, workers
from .progress import Stages
from .recipe import RECIPES


def sd_column(column: Column) -> None:
    autoencoder = sd.train_autoencoder(column)
    sd.export(column, sd.train_unet(column, autoencoder))
    adapter.export(column, adapter.train(column))


def ltx_column(column: Column) -> None:
    autoencoder = ltx_vae.train(column)
    ltx_vae.report(column, autoencoder)
    ltx.export(column, ltx.train(column, autoencoder))


COLUMNS = {"sd": sd_column, "ltx": ltx_column}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("column", choices=COLUMNS)
    parser.add_argument("--recipe", choices=RECIPES, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seconds", type=float, required=True, help="that the trainings may take")
    parser.add_argument("--end", type=float, required=True, help="when they end, of time.monotonic")
    args = parser.parse_args()
    recipe = RECIPES[args.recipe]
    jobs = {**sd.jobs(recipe), **adapter.jobs(recipe)} if args.column == "sd" else {**ltx_vae.jobs(recipe), **ltx.jobs(recipe)}
    drawings = Drawings(jobs, workers())
    prepare()
    shares = recipe.sd_shares if args.column == "sd" else recipe.ltx_shares
    stages = Stages(shares, args.seconds, args.end)
    try:
        COLUMNS[args.column](Column(recipe, torch.device(args.device), args.work, args.checkpoints, stages, drawings))
    finally:
        drawings.close()


def prepare() -> None:
    """One thread, since the columns run side by side; and products in TF32 where there is a GPU."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True


if __name__ == "__main__":
    main()
