"""Makes the segments that are not there yet: on the cluster, or in this process where that is sooner done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from catalog.cache import Cache
from catalog.place import Place
from cluster.cpu import run_all
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
        ClusterError: Ray cannot be started or joined. DeviceLost: nodes are lost again and again.
    """
    place, letters = here.catalog.place, font.read_bytes() if font else None
    made = _missing(segments, place)
    calls = [(make_segment, (segment, place, letters)) for segment in made]
    columns = TextColumn("segments"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=here.console, transient=True, disable=not here.console.is_terminal) as bar:
        task = bar.add_task("", total=len(calls))
        if made and (here.ray.info or sum(s.frames * s.canvas.width * s.canvas.height for s in made) > FEW):
            asyncio.run(run_all(calls, "segment", max(1, here.ray().cpus) * SENT, lambda: bar.advance(task)))
            return made
        for function, arguments in calls:
            function(*arguments)
            bar.advance(task)
    return made
