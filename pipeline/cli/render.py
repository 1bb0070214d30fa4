"""`tower render`, `tower plan`."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

import typer

from pipeline.story.stages import in_use

from .common import AllowExperimental, AsJson, EpisodeFile, Fresh, NewSeeds, OnlyOption, shots_named
from .table import err, out, show


def render(
    episode: EpisodeFile,
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the episode's folder is written")] = Path("out"),
    only: OnlyOption = "",
    fresh: Fresh = False,
    new_seeds: NewSeeds = False,
    allow_experimental: AllowExperimental = False,
) -> None:
    """Render what is stale, then assemble DIR/<episode id>/episode.mp4."""
    from pipeline.post.deliver import movie_removed
    from pipeline.post.episode import render_episode
    from pipeline.render.order import Order
    from pipeline.story.settings import load_settings

    order = Order(episode, out_dir, shots_named(only), fresh=fresh, new_seeds=new_seeds, allow_experimental=allow_experimental)
    summary = render_episode(order, load_settings(), out)
    for outcome in summary.exhausted:
        err.print(f"{outcome.shot} exhausted: {outcome.why}", highlight=False, markup=False, soft_wrap=True)
    done = len(summary.outcomes) - len(summary.exhausted)
    told = f"{summary.takes} takes in this run" + ("" if summary.changed else "; nothing has changed")
    out.print(f"{done} of {len(summary.outcomes)} shots accepted; {told}", highlight=False)
    if summary.movie is None and (why := movie_removed(summary.folder)):
        err.print(why, soft_wrap=True)
    out.print(f"{summary.movie or summary.folder / 'contact_sheet.png'}", highlight=False, soft_wrap=True)
    if summary.exhausted:
        raise typer.Exit(3)


def plan(
    episode: EpisodeFile,
    only: OnlyOption = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="as if nothing were accepted but what is approved")] = False,
    as_json: AsJson = False,
) -> None:
    """What `tower render` would render, why, and about how long it would take. Nothing is rendered or recorded."""
    from pipeline.plan.plan import as_rows, make_plan, select
    from pipeline.registry.open_catalog import open_catalog
    from pipeline.story.episode import load_episode
    from pipeline.story.settings import load_settings
    from pipeline.story.yaml_file import comments_in_texts

    gc.disable()  # 100,000 shots are millions of objects, all needed until the end: collecting garbage would take half the time
    settings = load_settings()
    chosen = select(make_plan(load_episode(episode), episode, settings, open_catalog(settings), fresh), shots_named(only))
    for note in comments_in_texts(episode):
        err.print(f"note: {note}", soft_wrap=True)
    if as_json:
        show(as_rows(chosen, chosen.shots), True)
        return
    rows = as_rows(chosen, [s for s in chosen.shots if s.stale or s.reasons])
    shown = [r | {"why": "; ".join(dict.fromkeys(w["text"] for w in r["why"]))} for r in rows]  # two stages may have one reason
    columns = ("shot", "state", *in_use(stage for row in shown for stage in row), "gpu_minutes", "why")
    show([{k: r.get(k) for k in columns} for r in shown], False, "nothing is stale")
    known = [r["gpu_minutes"] for r in rows if r["gpu_minutes"] is not None]
    unknown = len(rows) - len(known)
    minutes = f"about {sum(known):.1f} GPU-minutes" + (f", and {unknown} shots of workflows that never ran here" if unknown else "")
    out.print(f"{len(chosen.shots)} shots, {len(chosen.stale)} to render, {minutes}", highlight=False)
