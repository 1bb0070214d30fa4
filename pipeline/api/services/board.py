"""The board: an episode's sequences and shots, how far each is, and what happened last."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from catalog.standing import Row
from catalog.store import Catalog
from catalog.views import view
from pipeline.plan.stories import Story
from pipeline.render.live import Live
from pipeline.story.episode import Episode, Shot

from . import says

NEEDS = ("takes", "judgements", "reviews", "runs", "stories")  # the tables that a board follows from
STATES = ("accepted", "approved", "picked", "retake", "rendering", "exhausted", "rejected", "waiting")
HAPPENED = 40  # latest events that a board tells

SHOTS = """
WITH latest AS (
    SELECT shot, count(*) AS takes,
        arg_max(take, "at") FILTER (stage = 'keyframe' AND outcome = 'accepted') AS keyframe,
        arg_max({'outcome': outcome, 'labels': labels, 'findings': findings, 'error': error, 'run': run}, "at") AS last
    FROM verdicts WHERE episode = $episode GROUP BY shot
)
SELECT l.shot, l.takes, l.last, coalesce(c.upstream, l.keyframe) AS keyframe, c.take AS clip, c.frames, c.fps, c.gate_outcome, c.labels,
    still.outcome AS keyframe_outcome
FROM latest l
LEFT JOIN shots s ON s.episode = $episode AND s.shot = l.shot
LEFT JOIN verdicts c ON c.episode = $episode AND c.take = s.clip
LEFT JOIN verdicts still ON still.episode = $episode AND still.take = c.upstream
"""
REJECTIONS = """
SELECT shot, label, count(*) AS takes FROM (
    SELECT shot, unnest(labels) AS label FROM verdicts WHERE episode = $episode AND gate_outcome = 'rejected'
) GROUP BY ALL ORDER BY takes DESC, label
"""
WORDS = """
SELECT shot, stage, take, word.verdict AS verdict, word.note AS note, word."by" AS "by"
FROM words_on_stages WHERE episode = $episode ORDER BY "at"
"""
TAKES = 'SELECT take, shot, stage, attempt, "at", gate_outcome AS outcome, labels, findings, error FROM verdicts WHERE episode = $episode'
LAST_TAKES = f'{TAKES} ORDER BY verdicts."at" DESC LIMIT {HAPPENED}'


@dataclass(frozen=True)
class Facts:
    """What the catalog says of an episode.

    shots: by shot. words: shot to the latest word on one of its stages. rejections: shot to (label, takes), most first.
    runs: rows of the table, oldest first.
    """

    shots: dict[str, Row]
    words: dict[str, Row]
    rejections: dict[str, list[tuple[str, int]]]
    runs: list[Row]
    happened: list[dict[str, Any]]


def facts(catalog: Catalog, episode: str) -> Facts:
    """Read all of it, in four queries."""

    def ask(query: str) -> list[Row]:
        return view(catalog, query, episode=episode).to_pylist(maps_as_pydicts="strict")

    rejections: dict[str, list[tuple[str, int]]] = {}
    for row in ask(REJECTIONS):
        rejections.setdefault(row["shot"], []).append((row["label"], row["takes"]))
    runs = catalog.rows("runs", episode)
    reviews = catalog.rows("reviews", episode)[-HAPPENED:]
    events = [event("take", row, *says.take(row)) for row in ask(LAST_TAKES)]
    events += [event("review", row, *says.review(row)) for row in reviews]
    events += [event("run", row, *says.run(row)) for row in [r for r in runs if r["event"] != "alive"][-HAPPENED:]]
    return Facts(
        {row["shot"]: row for row in ask(SHOTS)},
        {row["shot"]: row for row in ask(WORDS)},
        rejections,
        runs,
        sorted(events, key=lambda e: e["at"], reverse=True)[:HAPPENED],
    )


def event(kind: str, row: Row, text: str, tone: str) -> dict[str, Any]:
    shot = row.get("shot") or (row["take"].split("/")[1] if row.get("take") else None)
    return {"at": row["at"], "kind": kind, "shot": shot, "take": row.get("take"), "text": text, "tone": tone}


def board(story: Story, episode: Episode, known: Facts, live: Live | None, living: bool) -> dict[str, Any]:
    """The board, as the page reads it.

    Args:
        live: of the run that renders the episode now; None also where it has not said anything yet. living: whether there is one.
    """
    cards, start = {}, 0
    for _, shot in episode.shots:
        start -= shot.transition.frames
        cards[shot.id] = card(shot, start, known, live)
        start += shot.frames
    return {
        "episode": episode.id,
        "title": episode.title,
        "width": episode.width,
        "height": episode.height,
        "fps": float(episode.fps),
        "frames": episode.total_frames,
        "seconds": float(episode.total_frames / episode.fps),
        "story": {"at": story.at, "by": story.by, "name": story.name, "digest": story.digest},
        "sequences": [
            {
                "sequence": sequence.id,
                "title": sequence.title,
                "frames": sum(shot.frames for shot in sequence.shots),
                "shots": [cards[shot.id] for shot in sequence.shots],
            }
            for sequence in episode.sequences
        ],
        "counts": dict.fromkeys(STATES, 0) | Counter(c["status"] for c in cards.values()),
        "run": _run(known.runs, living) if known.runs else None,
        "live": live,
        "happened": known.happened,
    }


def card(shot: Shot, start: int, known: Facts, live: Live | None) -> dict[str, Any]:
    """One shot of the board. start: frame of the cut at which it begins."""
    row, word = known.shots.get(shot.id), known.words.get(shot.id)
    step = live.shots.get(shot.id, "") if live else ""
    status = _status(row, word, step, known.runs, live)
    return {
        "shot": shot.id,
        "frames": shot.frames,
        "start": start,
        "framing": shot.framing,
        "action": shot.action,
        "title": shot.title,
        "status": status,
        "step": step,
        "why": _why(status, shot, row, word, known),
        "note": word["note"] if word else None,
        "takes": row["takes"] if row else 0,
        "keyframe": row["keyframe"] if row else None,
        "clip": row["clip"] if row else None,
        "clip_frames": row["frames"] if row else None,
        "fps": row["fps"] if row else None,
        "priority": shot.priority,
    }


def _status(row: Row | None, word: Row | None, step: str, runs: list[Row], live: Live | None) -> str:
    if step:
        return "rendering"
    mine = word["verdict"] if word and row and word["take"] == row["clip"] else ""
    if row and row["clip"] and (mine == "approved" or row["keyframe_outcome"] in ("accepted", None)):
        return mine or "accepted"
    if word and word["verdict"] == "retake":
        return "retake"
    if row is None or (live and row["last"]["run"] != live.run):
        return "waiting"
    ended = {r["run"] for r in runs if r["event"] == "finished"} | ({live.run} if live else set())
    return "exhausted" if row["last"]["run"] in ended else "rejected"


def _why(status: str, shot: Shot, row: Row | None, word: Row | None, known: Facts) -> str:
    """The one line of a card."""
    if status == "retake" and word:
        return f"“{word['note']}”" if word["note"] else f"asked for by {word['by']}"
    if row is None:
        return ""
    if status in ("approved", "picked") and word:
        against = f"; the gate says {', '.join(row['labels'])}" if row["gate_outcome"] == "rejected" else ""
        return f"by {word['by']}{against}"
    rejected = known.rejections.get(shot.id, [])
    if status in ("exhausted", "rejected"):
        times = f" ×{rejected[0][1]}" if rejected and rejected[0][1] > 1 else ""
        label, _, figures = says.failure(row["last"]).partition(": ")
        return f"{label}{times}" + (f": {figures}" if figures else "")
    return ", ".join(f"{label} ×{takes}" for label, takes in rejected[:2])


def _run(runs: list[Row], living: bool) -> dict[str, Any]:
    """The newest run."""
    mine = [row for row in runs if row["run"] == runs[-1]["run"] and row["event"] != "alive"]
    last = mine[-1]
    return {
        "run": last["run"],
        "job": last["job"],
        "event": last["event"],
        "started": mine[0]["at"],
        "at": last["at"],
        "stale": last["stale"],
        "accepted": last["accepted"],
        "exhausted": last["exhausted"],
        "error": last["error"],
        "living": living,
        "by_shell": last["job"] is None,
    }
