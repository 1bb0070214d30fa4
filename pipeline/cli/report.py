"""`tower report`: the page of an episode that opens without a server."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

from pipeline.story.errors import InputError

from .common import EpisodeId, catalog_if_any, episode_file, latest_episode
from .table import err, out

WIDTH = 480  # pixels; 300 shots stay under what a mail server takes in parts, and faces can be read


def report(
    episode: EpisodeId,
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the episode's folder is")] = Path("out"),
    one_file: Annotated[bool, typer.Option("--one-file/--folder", help="one HTML file that holds all, or a page and its media")] = False,
    width: Annotated[int, typer.Option(metavar="PX", min=64, max=1920, help="of clips and keyframes in pixels: less is smaller")] = WIDTH,
    gpu_hour: Annotated[float | None, typer.Option(metavar="PRICE", help="of one GPU for one hour; no cost is told if not given")] = None,
    currency: Annotated[str, typer.Option(metavar="NAME", help="of that price")] = "EUR",
) -> None:
    """Write DIR/<episode id>/report/index.html, or report.html: every shot, take, verdict and cost, to look at anywhere."""
    from pipeline.post.report import Price, bytes_of, unit, write_report
    from pipeline.post.report_facts import gather
    from pipeline.post.report_media import likely_bytes

    if gpu_hour is not None and not (isfinite(gpu_hour) and gpu_hour >= 0):
        raise InputError(f"--gpu-hour {gpu_hour} is no price; a number of 0 or more is wanted")
    catalog, written = catalog_if_any(), episode_file(episode)
    if catalog is None:
        raise InputError("there is no catalog yet")
    name = written.id if written else episode
    facts = gather(catalog, name, written or latest_episode(catalog, name))
    likely = likely_bytes(facts, width) * (4 / 3 if one_file else 1)
    err.print(f"{name}: {len(facts.shots)} shots, {len(facts.takes)} takes; about {_size(likely)} at {width} pixels", soft_wrap=True)
    price = None if gpu_hour is None else Price(gpu_hour, currency)
    page = write_report(facts, catalog.media, out_dir / name, width, one_file, price)
    minutes = sum(take.device_seconds for take in facts.takes) / 60
    err.print(f"{_size(bytes_of(page))}, {minutes:.1f} {unit(facts)} told", soft_wrap=True)
    out.print(str(page), soft_wrap=True)


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB"
