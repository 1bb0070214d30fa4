"""Reviews: a person's decision on a take, or a note about it."""

from __future__ import annotations

from datetime import UTC, datetime
from getpass import getuser

from catalog.standing import Row
from catalog.store import Catalog
from catalog.views import takes_of
from pipeline.story.errors import InputError
from pipeline.story.stages import STAGES


def add_review(catalog: Catalog, episode: str, shot: str, stage: str, retake: bool, approve: bool, note: str, by: str) -> Row:
    """Record a review of the shot's latest take that was accepted, or that an earlier review sent back.

    Args:
        retake, approve: the decision; neither for a note alone. by: who decides; "" is the current user.

    Raises:
        InputError: there is no such take or stage, or the review says nothing or two things.
    """
    if stage not in STAGES:
        raise InputError(f"--stage {stage!r} is neither {' nor '.join(STAGES)}")
    if retake == approve and (retake or not note):
        raise InputError("say one thing: --retake, --approve, or a --note alone")
    takes = [t for t in takes_of(catalog, episode).get((shot, stage), []) if t["outcome"] == "accepted" or t["review"] == "retake"]
    if not takes:
        raise InputError(f"the catalog has no accepted {stage} of episode {episode}, shot {shot}")
    verdict = "retake" if retake else "approved" if approve else "note"
    take = takes[-1]["take"]
    row = {"take": take, "at": datetime.now(UTC), "episode": episode, "verdict": verdict, "note": note or None, "by": by or getuser()}
    catalog.append_later("reviews", [row])
    return row
