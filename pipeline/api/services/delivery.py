"""Finished episodes: the files that a job's render wrote, and whether they are of today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from catalog.store import Catalog
from catalog.views import clips_that_stand
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
    standing = clips_that_stand(catalog, episode.id)
    without = [shot.id for _, shot in episode.shots if shot.id not in standing]
    made = _made_from(folder)
    movie = (folder / "episode.mp4").is_file() and made is not None
    changed = [shot for shot, take in (made or {}).items() if standing.get(shot) != take] if movie else []
    if without:
        why = f"{_listed(without)} {'has' if len(without) == 1 else 'have'} no clip that stands"
    elif not movie:
        why = "it was not assembled yet; a render of the whole episode does it"
    elif changed:
        why = f"{_listed(changed)} {'has' if len(changed) == 1 else 'have'} another clip now; a render assembles it anew"
    else:
        why = ""
    return {"movie": movie, "current": movie and not why, "why": why, "sheets": sheets}


def _made_from(folder: Path) -> dict[str, str] | None:
    """Shot to the take of its clip in the movie, as the summary beside it says; None where nothing says it."""
    try:
        clips = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["movie_from"]["clips"]
        return clips if isinstance(clips, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _listed(shots: list[str]) -> str:
    return ", ".join(shots[:5]) + (f" and {len(shots) - 5} more" if len(shots) > 5 else "")
