"""Episodes as the desk tells them: from their latest story, the catalog's takes and people's words."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from catalog.memory import EpisodeCatalog
from catalog.standing import Row
from catalog.views import view
from pipeline.api.desk import Desk
from pipeline.api.tables import Seen
from pipeline.evidence.review import told
from pipeline.plan.costs import Costs
from pipeline.plan.plan import Plan, make_plan
from pipeline.plan.stories import Story, check_out, latest_stories
from pipeline.post.report import write_report
from pipeline.post.report_facts import gather
from pipeline.registry.told import listing as workflow_rows
from pipeline.registry.workflows import Registry
from pipeline.render.live import Live
from pipeline.story.episode import Episode, load_episode
from pipeline.story.errors import NoSuch
from pipeline.story.stages import STAGES

from . import board, says, shots
from .as_json import as_json
from .events import Hub
from .facts import Facts, facts

T = TypeVar("T")
FACTS_NEED = ("takes", "judgements", "reviews", "runs")
PLAN_NEEDS = ("takes", "judgements", "reviews", "stories")
WRITTEN = ("reviews", "stories")  # what decides what a shot is made from, beside workflows
REGISTRY_NEEDS = ("workflows", "promotions", "benchmarks")
LOOKED_AT_SECONDS = 5.0  # a page that is open asks more often while something changes
COUNTS = """
SELECT e.*, coalesce(a.approved, 0) AS approved FROM episodes e LEFT JOIN (
    SELECT episode, count(DISTINCT shot) AS approved FROM words_on_stages WHERE stage <> 'keyframe' AND verdict = 'approved' GROUP BY ALL
) a USING (episode)
"""


def listing(desk: Desk, hub: Hub) -> list[dict[str, Any]]:
    """Every episode that has a story, the latest first."""
    rendering = {live.episode for live in hub.live}
    found = []
    for story in sorted(_stories(desk).values(), key=lambda s: s.at, reverse=True):
        row, episode = _counts(desk, story.episode), episode_of(desk, story.episode)
        found.append(
            {
                "episode": story.episode,
                "title": story.title,
                "shots": len(episode.shots),
                "seconds": float(episode.total_frames / episode.fps),
                "with_accepted_clip": row.get("with_accepted_clip", 0),
                "approved": row.get("approved", 0),
                "takes": row.get("takes", 0),
                "last": row.get("last") or story.at,
                "submitted": story.at,
                "by": story.by,
                "rendering": story.episode in rendering,
            }
        )
    return found


def listing_at(desk: Desk, hub: Hub) -> tuple[Any, ...]:
    """What the list of episodes follows from."""
    return desk.tables.of(*FACTS_NEED, "stories"), tuple(sorted(live.episode for live in hub.live))


def _counts(desk: Desk, episode: str) -> Row:
    """Takes, approved and accepted clips: of all episodes in one query when the desk starts, then of those that change."""
    at, first = _counted(desk)
    if desk.tables.at(episode, *FACTS_NEED) == at.at(episode, FACTS_NEED):
        return first.get(episode, {})
    known = facts_of(desk, episode)
    shots = known.shots.values()
    return {
        "with_accepted_clip": sum(shot["clip"] is not None for shot in shots),
        "approved": known.approved,
        "takes": sum(shot["takes"] for shot in shots),
        "last": max((shot["at"] for shot in shots), default=None),
    }


def _counted(desk: Desk) -> tuple[Seen, dict[str, Row]]:
    def make() -> tuple[Seen, dict[str, Row]]:
        seen = desk.tables.seen  # before the query: what comes meanwhile is counted again
        return seen, {row["episode"]: row for row in view(desk.catalog, COUNTS).to_pylist()}

    return desk.kept.of("counts", (), make)


def _stories(desk: Desk) -> dict[str, Story]:
    return desk.kept.of("stories", desk.tables.of("stories"), lambda: latest_stories(desk.catalog))


def story_of(desk: Desk, episode: str) -> Story:
    """Raises NoSuch where the episode was neither submitted nor rendered."""
    story = _stories(desk).get(episode)
    if story is None:
        raise NoSuch(f"there is no episode {episode} here; submit it, or render its file")
    return story


def checked_out(desk: Desk, episode: str) -> Path:
    """The episode's file, laid out with the files that it names."""
    return check_out(desk.catalog, story_of(desk, episode), desk.folder / "stories")


def episode_of(desk: Desk, episode: str) -> Episode:
    story = story_of(desk, episode)
    return desk.kept.of(("episode", story.version), (), lambda: load_episode(checked_out(desk, episode)))


def plan_of(desk: Desk, episode: str) -> Plan:
    """What a render would do now."""
    return _plan(desk, episode, "plan", PLAN_NEEDS, desk.moment)


def _resolved(desk: Desk, episode: str) -> Plan:
    """A plan for what its shots are made from; takes that came since it was made are not in it."""
    return _plan(desk, episode, "resolved", WRITTEN, 0)


def _plan(desk: Desk, episode: str, what: str, needs: tuple[str, ...], moment: int) -> Plan:
    file = checked_out(desk, episode)

    def make() -> Plan:
        catalog = EpisodeCatalog(desk.catalog.place, desk.catalog.was_version, memory=desk.rows.of(episode))
        return replace(make_plan(episode_of(desk, episode), file, desk.settings, catalog), costs=_costs(desk))

    return desk.kept.of((what, episode), (desk.tables.at(episode, *needs), desk.tables.of(*REGISTRY_NEEDS), moment), make)


def _costs(desk: Desk) -> Costs:
    """Of all episodes, as they were when a run last recorded something."""
    make = lambda: Costs.of(desk.catalog, Registry(desk.catalog, desk.settings))  # noqa: E731
    return desk.kept.of("costs", desk.tables.of("runs", "benchmarks"), make)


def board_at(desk: Desk, hub: Hub, episode: str) -> tuple[Any, ...]:
    """What the board of an episode follows from, so that equal boards are made once."""
    live = hub.live_of(episode)
    return desk.tables.at(episode, *FACTS_NEED, "stories"), live.at if live else None, hub.renders(episode)


def board_of(desk: Desk, hub: Hub, episode: str) -> dict[str, Any]:
    story = story_of(desk, episode)
    return board.board(story, episode_of(desk, episode), facts_of(desk, episode), hub.live_of(episode), hub.renders(episode))


def facts_of(desk: Desk, episode: str) -> Facts:
    return desk.facts.of(episode, desk.tables.at(episode, *FACTS_NEED), lambda: _facts(desk, episode))


def _facts(desk: Desk, episode: str) -> Facts:
    story_of(desk, episode)
    return facts(desk.rows.of(episode))


def prepare(desk: Desk, seen: Seen) -> None:
    """Make the facts of the episodes that people look at before anybody sees what came: nobody waits for them then."""
    made = []
    for episode in desk.facts.asked_within(LOOKED_AT_SECONDS):
        at = seen.at(episode, FACTS_NEED)
        if at != desk.tables.at(episode, *FACTS_NEED):
            with suppress(Exception):  # whoever asks next makes them, and is told what is wrong
                made.append((episode, at, facts(desk.rows.of(episode, seen))))
    for episode, at, known in made:
        desk.facts.put(episode, at, known)


async def _facts_soon(desk: Desk, episode: str) -> Facts:
    """`facts_of`, for the event loop."""
    at = desk.tables.at(episode, *FACTS_NEED)
    return await desk.facts.soon(episode, at, lambda: _facts(desk, episode))


@dataclass(frozen=True)
class Opened:
    """All that the pages of an episode's shots follow from. resolved: what its shots are made from."""

    episode: Episode
    facts: Facts
    resolved: Plan
    statuses: dict[str, str]


async def opened(desk: Desk, episode: str) -> Opened:
    """Made once for all who ask as long as nothing changes."""
    told = await statuses_soon(desk)
    at = desk.tables.at(episode, *FACTS_NEED, "stories"), desk.tables.of(*REGISTRY_NEEDS), desk.moment

    def make() -> Opened:
        return Opened(episode_of(desk, episode), facts_of(desk, episode), _resolved(desk, episode), told)

    return await desk.opened.soon(episode, at, make)


def shot_of(desk: Desk, found: Opened, live: Live | None, shot: str) -> bytes:
    """One shot as JSON: its card, its takes, what people said, what a retake may change."""
    sequences = found.episode.shots
    place = next((i for i, (_, one) in enumerate(sequences) if one.id == shot), None)
    if place is None:
        raise NoSuch(f"episode {found.episode.id} has no shot {shot}")
    sequence, known = sequences[place][0], found.facts
    told_takes = b",".join(_takes(desk, known, found.episode, shot, found.statuses).values())
    page = {
        "episode": found.episode.id,
        "card": board.card_of(found.episode, shot, known, live),
        "sequence": {"sequence": sequence.id, "title": sequence.title},
        "before": sequences[place - 1][1].id if place else None,
        "after": sequences[place + 1][1].id if place + 1 < len(sequences) else None,
        "reviews": [told(row) for row in reversed(known.reviews) if says.shot(row) == shot],
        **shots.changeable(found.resolved, shot),
    }
    return as_json(page).removesuffix(b"}") + b',"takes":[' + told_takes + b"]}"


def _takes(desk: Desk, known: Facts, episode: Episode, shot: str, statuses: dict[str, str]) -> dict[str, bytes]:
    """`takes_of_shot`, made once for as long as the shot gets no row and no other last stage, and no workflow another status."""
    last = next((episode.last_stage_of(one) for _, one in episode.shots if one.id == shot), STAGES[-1])
    at = known.latest.get(shot), last, tuple(statuses.items())
    return desk.takes.of((episode.id, shot), at, lambda: shots.takes_of_shot(known, shot, last, statuses))


def report_of(desk: Desk, episode: str, width: int) -> Path:
    """The report as one file, with clips of this width in pixels. It is written once for as long as nothing changes."""
    folder = desk.folder / "reports" / episode / str(width)

    def make() -> Path:
        return write_report(gather(desk.catalog, episode, episode_of(desk, episode)), desk.catalog.media, folder, width, True, None)

    return desk.kept.of(("report", episode, width), desk.tables.at(episode, *FACTS_NEED, "stories"), make)


async def statuses_soon(desk: Desk) -> dict[str, str]:
    """name@version of each workflow to its status here and now."""
    return await desk.kept.soon("statuses", (desk.tables.of(*REGISTRY_NEEDS), desk.moment), lambda: _statuses(desk))


def _statuses(desk: Desk) -> dict[str, str]:
    return {row["workflow"]: row["status"] for row in workflow_rows(Registry(desk.catalog, desk.settings))}


async def take_of(desk: Desk, take: str) -> bytes | None:
    """A take as JSON; None if there is no such take."""
    episode, shot, *_ = take.split("/")
    statuses = await statuses_soon(desk)
    return await _of_take(desk, take, lambda known: _takes(desk, known, episode_of(desk, episode), shot, statuses).get(take))


async def take_row(desk: Desk, take: str) -> Row | None:
    """The row of a take with the verdict that holds now; None if there is no such take."""
    return await _of_take(desk, take, lambda known: known.verdicts.take(take))


async def file_row(desk: Desk, take: str) -> Row | None:
    """Of the row of a take, what its file needs."""
    return await _of_take(desk, take, lambda known: known.verdicts.file_of(take))


async def _of_take(desk: Desk, take: str, read: Callable[[Facts], T | None]) -> T | None:
    episode = take.partition("/")[0]
    found = read(await _facts_soon(desk, episode))
    if found is None:  # it may have come since the latest look
        await asyncio.to_thread(desk.tables.look)
        found = read(await _facts_soon(desk, episode))
    return found


def tag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:24]
