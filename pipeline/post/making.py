"""Makes the segments that are not there yet: on the cluster, or in this process where that is sooner done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from catalog.cache import Cache
from catalog.place import Place
from cluster.cpu import TRIES, run_all
from cluster.specs import DeviceLost
from cluster.start import ClusterError
from pipeline.render.context import Context

from .segments import Segment, make_segment

# Pixels of all frames, which one core encodes in about the time that Ray takes to start where it does not run yet: 4 s, at 70 frames of
# 1280x720 a second.
FEW = 4 * 70 * 1280 * 720
SENT = 4  # tasks for each CPU of the cluster that wait there or run: enough that none idles


def _missing(segments: Sequence[Segment], place: Place) -> list[Segment]:
    """The segments of which a file is not in the cache, or is damaged: all bytes are read. Each once, though two shots may be alike."""
    cache = Cache(place)
    there = cache.there()

    def has(name: str) -> bool:
        return name in there and cache.whole(there[name])

    return [segment for segment in {s.key: s for s in segments}.values() if not all([has(name) for name in segment.files])]


def make_missing(segments: Sequence[Segment], font: Path | None, here: Context) -> list[Segment]:
    """Make the segments that are missing or damaged. Gives those that it made.

    Args:
        font: of titles; None for the built-in fonts.

    Raises:
        MediaDamaged, Undecodable, StorageError: as `make_segment`.
        ClusterError: nodes are lost again and again.
    """
    place, letters = here.catalog.place, font.read_bytes() if font else None
    made = _missing(segments, place)
    calls = [(make_segment, (segment, place, letters if segment.canvas.font else None)) for segment in made]
    cpus = _cpus(made, here)
    columns = TextColumn("segments"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=here.console, transient=True, disable=not here.console.is_terminal) as bar:
        task = bar.add_task("", total=len(calls))
        if cpus:
            try:
                asyncio.run(run_all(calls, "segment", cpus * SENT, lambda: bar.advance(task)))
            except DeviceLost as error:
                raise ClusterError(f"a part of the movie was lost with its node {TRIES} times: {error}") from error
            return made
        for function, arguments in calls:
            function(*arguments)
            bar.advance(task)
    return made


def _cpus(made: Sequence[Segment], here: Context) -> int:
    """How many CPUs of the cluster make these segments; 0 where this process does."""
    if here.ray.info is None and sum(s.frames * s.canvas.width * s.canvas.height for s in made) <= FEW:
        return 0
    try:
        return here.ray().cpus if made else 0
    except ClusterError as error:  # such as a rack whose GPUs are off, which nobody needs now
        here.console.print(f"{error}; so this process makes the {len(made)} parts of the movie", highlight=False, soft_wrap=True)
        return 0
