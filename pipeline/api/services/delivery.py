"""Finished episodes: the files that a job's render wrote, and whether they are of today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from catalog.store import Catalog
from pipeline.plan.history import shown_takes
from pipeline.post.deliver import movie_in
from pipeline.post.edit import story_digest
from pipeline.post.movie import listed
from pipeline.story.episode import Episode

SHEETS = "contact_sheet*.png"


def delivery(catalog: Catalog, episode: Episode, folder: Path) -> dict[str, Any]:
    """What can be downloaded.

    Args:
        folder: the episode's own, that renders of the desk write.

    Returns:
        movie: whether there is one. current: whether it holds the clips that stand now. why: what is missing, or differs. sheets: names.
    """
    sheets = sorted(path.name for path in folder.glob(SHEETS))
    standing = shown_takes(catalog, episode)
    without = [shot.id for _, shot in episode.shots if shot.id not in standing]
    movie = movie_in(folder)
    changed = [shot for shot, take in movie.clips.items() if standing.get(shot) != take] if movie else []
    if without:
        why = f"{listed(without)} {'has' if len(without) == 1 else 'have'} no clip that stands"
    elif not movie:
        why = "it was not assembled yet; a render of the whole episode does it"
    elif movie.episode != story_digest(episode):
        why = "the episode's file changed since it was made; a render assembles it anew"
    elif changed:
        why = f"{listed(changed)} {'has' if len(changed) == 1 else 'have'} another clip now; a render assembles it anew"
    else:
        why = ""
    return {"movie": movie is not None, "current": movie is not None and not why, "why": why, "sheets": sheets}

