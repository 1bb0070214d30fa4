"""Episodes as the desk tells them: from their latest story, the catalog's takes and people's words."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from catalog.standing import Row
from catalog.views import view
from pipeline.api.desk import Desk
from pipeline.evidence.review import reviews
from pipeline.plan.plan import Plan, make_plan
from pipeline.plan.stories import Story, check_out, latest_stories
from pipeline.post.report import write_report
from pipeline.post.report_facts import gather
from pipeline.registry.told import listing as workflow_rows
from pipeline.registry.workflows import Registry
from pipeline.render.live import Live, living_now
from pipeline.render.run_log import living
from pipeline.story.episode import Episode, load_episode
from pipeline.story.errors import NoSuch

from . import board, shots

BOARD_NEEDS = board.NEEDS
PLAN_NEEDS = ("takes", "judgements", "reviews", "stories", "workflows", "promotions", "benchmarks")
REGISTRY_NEEDS = ("workflows", "promotions", "benchmarks")
COUNTS = """
SELECT e.*, coalesce(a.approved, 0) AS approved FROM episodes e LEFT JOIN (
    SELECT episode, count(*) AS approved FROM words_on_stages WHERE stage = 'clip' AND verdict = 'approved' GROUP BY ALL
) a USING (episode)
"""
MEDIA = "SELECT take, stage, media, media_path, error, measures, findings, profile FROM verdicts WHERE episode = $episode"


def listing(desk: Desk) -> list[dict[str, Any]]:
    """Every episode that has a story, the latest first."""
    counts = desk.kept.of("counts", BOARD_NEEDS, lambda: {row["episode"]: row for row in view(desk.catalog, COUNTS).to_pylist()})
    rendering = {live.episode for live in living_now(desk.catalog)}
    found = []
    for story in sorted(_stories(desk).values(), key=lambda s: s.at, reverse=True):
        row, episode = counts.get(story.episode, {}), episode_of(desk, story.episode)
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


def _stories(desk: Desk) -> dict[str, Story]:
    return desk.kept.of("stories", ("stories",), lambda: latest_stories(desk.catalog))


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
    file = checked_out(desk, episode)
    make = lambda: make_plan(episode_of(desk, episode), file, desk.settings, desk.catalog)  # noqa: E731
    return desk.kept.of(("plan", episode), PLAN_NEEDS, make)


def board_of(desk: Desk, episode: str, live: Live | None) -> dict[str, Any]:
    """The board. live: of the run that renders the episode now."""
    known = facts_of(desk, episode)
    return board.board(story_of(desk, episode), episode_of(desk, episode), known, live, bool(living(known.runs)))


def facts_of(desk: Desk, episode: str) -> board.Facts:
    return desk.kept.of(("facts", episode), BOARD_NEEDS, lambda: board.facts(desk.catalog, episode))


def shot_of(desk: Desk, episode: str, shot: str, lives: list[Live]) -> dict[str, Any]:
    """One shot: its card, its takes, what people said, what a retake may change."""
    live = next((one for one in lives if one.episode == episode), None)
    told = board_of(desk, episode, live)
    cards = [(sequence, card) for sequence in told["sequences"] for card in sequence["shots"]]
    place = next((i for i, (_, card) in enumerate(cards) if card["shot"] == shot), None)
    if place is None:
        raise NoSuch(f"episode {episode} has no shot {shot}")
    sequence, card = cards[place]
    return {
        "episode": episode,
        "card": card,
        "sequence": {"sequence": sequence["sequence"], "title": sequence["title"]},
        "before": cards[place - 1][1]["shot"] if place else None,
        "after": cards[place + 1][1]["shot"] if place + 1 < len(cards) else None,
        "takes": shots.takes_of_shot(desk.catalog, episode, shot, statuses(desk)),
        "reviews": reviews(desk.catalog, episode, shot),
        **shots.changeable(plan_of(desk, episode), shot),
    }


def report_of(desk: Desk, episode: str, width: int) -> Path:
    """The report as one file, with clips of this width in pixels. It is written once for as long as nothing changes."""
    folder = desk.folder / "reports" / episode / str(width)

    def make() -> Path:
        return write_report(gather(desk.catalog, episode, episode_of(desk, episode)), desk.catalog.media, folder, width, True, None)

    return desk.kept.of(("report", episode, width), BOARD_NEEDS, make)


def statuses(desk: Desk) -> dict[str, str]:
    """name@version of each workflow to its status here and now."""
    make = lambda: {row["workflow"]: row["status"] for row in workflow_rows(Registry(desk.catalog, desk.settings))}  # noqa: E731
    return desk.kept.of("statuses", REGISTRY_NEEDS, make)


def take_rows(desk: Desk, episode: str) -> dict[str, Row]:
    """Take to what its media need, for all takes of an episode."""

    def make() -> dict[str, Row]:
        return {row["take"]: row for row in view(desk.catalog, MEDIA, episode=episode).to_pylist(maps_as_pydicts="strict")}

    return desk.kept.of(("media", episode), ("takes", "judgements", "reviews"), make)


def tag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:24]
