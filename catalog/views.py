"""Views: what is true now, computed from the rows."""

from __future__ import annotations

from typing import Any

from .store import Catalog

JUDGED = ("profile", "declared", "outcome", "labels", "warnings", "findings")


def all_takes(catalog: Catalog, episode: str | None = None) -> list[dict[str, Any]]:
    """Every take, oldest first, with the verdict that holds: the take's own, or the latest judgement of it since."""
    latest = {row["take"]: row for row in catalog.rows("judgements", episode)}
    rows = catalog.rows("takes", episode)
    return [row | {k: latest[row["take"]][k] for k in JUDGED} if row["take"] in latest else row for row in rows]


def takes_of(catalog: Catalog, episode: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Every take of an episode, oldest first, by (shot, stage)."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in all_takes(catalog, episode):
        grouped.setdefault((row["shot"], row["stage"]), []).append(row)
    return grouped


def accepted_take(catalog: Catalog, takes: list[dict[str, Any]], inputs: str) -> dict[str, Any] | None:
    """The latest accepted take of exactly these inputs whose media is still there."""
    for row in reversed(takes):
        if row["outcome"] == "accepted" and row["inputs"] == inputs and catalog.media.has(row["media_path"], row["media"]):
            return row
    return None
