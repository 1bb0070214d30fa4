"""Render an episode: plan it, render its stale shots, deliver the results."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from catalog.media import MediaDamaged, MediaStore, digest_in
from pipeline.plan.plan import Plan, ShotPlan, make_plan, select
from pipeline.plan.stories import record_story
from pipeline.registry.open_catalog import open_catalog
from pipeline.registry.workflows import Registry
from pipeline.render.context import context
from pipeline.render.order import Order
from pipeline.render.render import Rendered, check_disk_room, record_judgements, render_stale, require_proven, writable
from pipeline.render.run_log import RunLog
from pipeline.render.shot import ShotOutcome
from pipeline.story.episode import load_episode
from pipeline.story.errors import InputError, StorageError
from pipeline.story.settings import Settings

from .deliver import deliver
from .result import Summary
from .signature import credentials_of


def render_episode(order: Order, settings: Settings, console: Console, set_aside: tuple[str, ...] = ()) -> Summary:
    """Render the stale shots of an episode, then assemble it.

    A damaged media file is set aside, and the episode is rendered once more, because its take can be made again.

    Args:
        set_aside: media files that were set aside before. One that is damaged again is an error.

    Raises:
        InputError, StorageError, ClusterError, CatalogError: the message is one sentence. No partial file is left.
        MediaDamaged: a media file is damaged again after it was rendered again.
    """
    try:
        return _render(order, settings, console)
    except MediaDamaged as damaged:  # found when its bytes were read
        if damaged.path in set_aside:
            raise
        if settings.place.is_local and MediaStore(settings.place).damage(damaged.path, digest_in(damaged.path)) is None:
            raise StorageError(f"{damaged} where it was read, and is whole here; every node has to see {settings.place}") from damaged
        console.print(f"{damaged}; it is set aside, and its take renders again", highlight=False, soft_wrap=True)
        settings.place.set_aside(damaged.path)
        # Not fresh again: what this run has rendered stays.
        again = replace(order, fresh=False, new_seeds=False)
        return render_episode(again, settings, console, (*set_aside, damaged.path))


def _render(order: Order, settings: Settings, console: Console) -> Summary:
    episode = load_episode(order.file)
    folder = writable(order.out / episode.id)
    credentials_of(settings)  # what cannot sign is told before anything renders
    if settings.place.is_local:
        writable(settings.place.folder)
    with context(settings, open_catalog(settings), console) as here:

        def planned() -> Plan:
            try:
                plan = make_plan(episode, order.file, settings, here.catalog, order.fresh, order.new_seeds)
                return select(plan, order.only)
            except OSError as error:
                raise InputError(f"{error.filename or order.file} cannot be read: {error.strerror or error}") from error

        plan = planned()
        console.print(f"{episode.id}: {len(plan.shots)} shots, {len(plan.stale)} to render", highlight=False)
        statuses = require_proven(plan, Registry(here.catalog, settings), order.allow_experimental)
        check_disk_room(plan, here.catalog.place)
        record_story(here.catalog, episode, order.file)
        log = RunLog(here.catalog, plan, order.allow_experimental, statuses, job=settings.job)
        try:
            if plan.stale:
                rendered = render_stale(planned, here, log)  # makes the plan again, once it holds the claim
            else:
                record_judgements(plan, here.catalog)
                rendered = Rendered(plan)
            return deliver(episode, rendered, _all_outcomes(rendered), here, folder, log.run, partial=bool(order.only))
        except OSError as error:  # of the episode's folder
            raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error


def _all_outcomes(rendered: Rendered) -> list[ShotOutcome]:
    """The outcome of every shot of the plan, in the episode's order. A shot that was not rendered was accepted before."""
    ended = {outcome.shot: outcome for outcome in rendered.outcomes}
    return [ended.get(shot.shot.id) or _accepted(shot) for shot in rendered.plan.shots]


def _accepted(shot: ShotPlan) -> ShotOutcome:
    # The keyframe of an approved clip may have lost its file.
    return ShotOutcome(shot.shot.id, "accepted", {take.stage: take.take for take in shot.accepted if take.media})
