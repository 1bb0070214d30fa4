"""The board: an episode's sequences and shots, how far each is, and what happened last."""

from __future__ import annotations

from collections import Counter
from typing import Any

from catalog.standing import Row
from pipeline.plan.history import stage_of
from pipeline.plan.stories import Story
from pipeline.render.live import Live
from pipeline.story.episode import Episode, Shot

from . import says
from .facts import Facts

STATES = ("accepted", "approved", "picked", "retake", "rendering", "exhausted", "rejected", "waiting")


def board(story: Story, episode: Episode, known: Facts, live: Live | None, living: bool) -> dict[str, Any]:
    """The board, as the page reads it.

    Args:
        live: of the run that renders the episode now; None also where it has not said anything yet. living: whether there is one.
    """
    cards = {shot.id: card(shot, start, episode.last_stage_of(shot), known, live) for _, shot, start in episode.cut}
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


def card_of(episode: Episode, shot: str, known: Facts, live: Live | None) -> dict[str, Any]:
    """One shot of the board, which the episode has."""
    return next(card(one, start, episode.last_stage_of(one), known, live) for _, one, start in episode.cut if one.id == shot)


def card(shot: Shot, start: int, last: str, known: Facts, live: Live | None) -> dict[str, Any]:
    """One shot of the board. start: frame of the cut at which it begins. last: its last stage."""
    row = known.shown(shot.id, last)
    whole = row is not None and row["clip"] is not None and stage_of(row["clip"]) == last
    word = _word(row, known.words.get(shot.id, []), last, whole)
    step = live.shots.get(shot.id, "") if live else ""
    status = _status(row, word, whole, step, known.runs, live)
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


def _word(row: Row | None, words: list[Row], last: str, whole: bool) -> Row | None:
    """The word that a card tells of: on what the episode shows, or the clip that this was made from; else the latest.

    Args:
        words: the latest on each stage, oldest first. whole: whether the episode shows a take of the stage `last`; where it shows one of a
            stage before, the word on the last stage says why.
    """
    if whole and row:
        shown = [word for take in (row["clip"], row["source"]) for word in words if word["take"] == take]
        return next(iter(shown or words[::-1]), None)
    if row and row["clip"]:
        return next((word for word in words if word["stage"] == last), None)
    return words[-1] if words else None


def _status(row: Row | None, word: Row | None, whole: bool, step: str, runs: list[Row], live: Live | None) -> str:
    if step:
        return "rendering"
    if row and whole:
        mine = word["verdict"] if word and word["take"] in (row["clip"], row["source"]) else ""
        if mine == "approved" or row["start_outcome"] in ("accepted", None):
            return mine or "accepted"
    if word and word["verdict"] == "retake":
        return "retake"
    if row is None or (live and row["last"]["run"] != live.run) or (row["clip"] and not whole and row["last"]["outcome"] == "accepted"):
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
