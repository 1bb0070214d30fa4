"""The whole way of an episode: plan, render what is stale, deliver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from catalog.media import MediaDamaged
from pipeline.plan.plan import Plan, ShotPlan, make_plan, select
from pipeline.registry.open_catalog import open_catalog
from pipeline.render.context import Context
from pipeline.render.render import Rendered, already_rendered, render_stale, room_for, statuses, writable
from pipeline.render.run_log import RunLog
from pipeline.render.shot import ShotOutcome
from pipeline.story.episode import load_episode
from pipeline.story.errors import InputError, StorageError
from pipeline.story.settings import Settings

from .deliver import deliver
from .result import Summary


@dataclass(frozen=True)
class Order:
    """What was asked for. fresh: also what is accepted, with the same seeds. new_seeds: the same, with others."""

    file: Path
    out: Path
    only: tuple[str, ...] = ()
    fresh: bool = False
    new_seeds: bool = False
    allow_experimental: bool = False


def render_episode(order: Order, settings: Settings, console: Console, mended: tuple[str, ...] = ()) -> Summary:
    """Render what is stale of an episode, then assemble it.

    Args:
        mended: files of the catalog that were found damaged on the way here, and set aside.

    Raises:
        InputError, StorageError, ClusterError, CatalogError: each with one sentence; nothing half-written is left.
    """
    episode = load_episode(order.file)
    folder = writable(order.out / episode.id)
    if settings.place.is_local:
        writable(settings.place.folder)
    here = Context(settings, open_catalog(settings), console)

    def planned() -> Plan:
        try:
            made = make_plan(episode, order.file, settings, here.catalog, order.fresh, order.new_seeds)
            return select(made, order.only)
        except OSError as error:
            raise InputError(f"{error.filename or order.file} cannot be read: {error.strerror or error}") from error

    plan = planned()
    console.print(f"{episode.id}: {len(plan.shots)} shots, {len(plan.stale)} to render", highlight=False)
    log = RunLog(here.catalog, plan, order.allow_experimental, statuses(plan, here, order.allow_experimental))
    room_for(plan, here.catalog.place)
    try:
        rendered = render_stale(planned, here, log) if plan.stale else already_rendered(plan, here)
        return deliver(episode, rendered, _all_outcomes(rendered), here.catalog, folder, log.run, partial=bool(order.only))
    except MediaDamaged as damaged:  # found when its bytes were read: what it was made from is all there
        if damaged.path in mended:
            raise
        console.print(f"{damaged}; it is set aside, and its take renders again", highlight=False, soft_wrap=True)
        here.catalog.media.set_aside(damaged.path)
        return render_episode(replace(order, fresh=False, new_seeds=False), settings, console, (*mended, damaged.path))
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error


def _all_outcomes(rendered: Rendered) -> list[ShotOutcome]:
    """Of every shot of the plan, in the story's order."""
    ended = {outcome.shot: outcome for outcome in rendered.outcomes}
    return [ended.get(shot.shot.id) or _accepted(shot) for shot in rendered.plan.shots]


def _accepted(shot: ShotPlan) -> ShotOutcome:
    return ShotOutcome(shot.shot.id, "accepted", {take.stage: take.take for take in shot.accepted})
