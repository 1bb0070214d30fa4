"""Write the files that a person looks at after a run: the movie, the contact sheet, media named by shot, the summary."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from catalog.store import Catalog
from catalog.views import take_counts
from pipeline.plan.history import rows_of
from pipeline.render.context import Context
from pipeline.render.render import Rendered
from pipeline.render.shot import ShotOutcome
from pipeline.story.episode import Episode
from pipeline.story.stages import STAGES

from .contact_sheet import contact_sheet
from .edit import Edit, edit_of
from .movie import Movie, current_movie, movie_of
from .provenance import provenance
from .result import Result, Summary
from .shots_folder import files_of, write_shots
from .subtitles import write_subtitles
from .whole import write_whole

SUMMARY, MOVIE, SHEET, PROVENANCE = "summary.json", "episode.mp4", "contact_sheet.png", "episode.provenance.json"
QUIET_SECONDS = 3600.0  # an encoder that lives writes more often


def deliver(
    episode: Episode, rendered: Rendered, outcomes: list[ShotOutcome], here: Context, folder: Path, run: str, partial: bool
) -> Summary:
    """Write the contact sheet and the summary, and the movie if every shot of the episode is accepted. What has not changed is not written.

    A run of some shots makes no movie. One that is there stays if it would be the same today; else it is removed, and the summary says
    why. Files of shots that the episode no longer has are removed, where an earlier summary lists them; and what killed runs left.

    Args:
        outcomes: one for each shot of the plan. run: the run's id. partial: whether the plan holds only some of the episode's shots.

    Raises:
        MediaDamaged: a media file is missing or damaged.
        StorageError: a file cannot be written.
        ClusterError, DeviceLost: as `make_missing`.
    """
    catalog, before = here.catalog, _earlier(folder)
    results, counts = _with_rows(catalog, episode.id, outcomes), take_counts(catalog, episode.id)
    _sweep(folder)
    files = write_shots(folder, episode, results, files_of(before), catalog.media)
    edit = edit_of(rendered.plan, {r.shot: r.takes for r in results if r.outcome == "accepted"})
    movie, removed = current_movie(edit, results, movie_of(before), here, folder / MOVIE, partial)
    _beside(edit, results, movie, catalog, folder)
    sheet = contact_sheet(edit, results, counts, before.get("contact_sheet"), here, folder / SHEET)
    changed = (files, movie, sheet) != (before.get("files"), movie_of(before), before.get("contact_sheet"))
    shown = folder / MOVIE if movie else None
    summary = Summary(run, episode.id, results, len(rendered.plan.stale), rendered.takes, folder, shown, changed)
    more = {"movie_from": asdict(movie) if movie else None, "movie_removed": removed, "files": files, "contact_sheet": sheet}
    write_json(folder / SUMMARY, _summary_json(summary, episode, counts) | more)
    return summary


def _beside(edit: Edit, results: list[Result], movie: Movie | None, catalog: Catalog, folder: Path) -> None:
    """The files beside a movie: subtitles, and what it was made from. Without a movie, there are none."""
    write_subtitles(edit.episode, edit.cues if movie else (), folder)
    if movie is None:
        (folder / PROVENANCE).unlink(missing_ok=True)
    elif len(edit.clips) == len(edit.episode.shots):  # after a run of some shots, a movie that was kept has its file already
        write_json(folder / PROVENANCE, provenance(edit.episode, edit.digest, {r.shot: r.takes for r in results}, catalog))


def movie_in(folder: Path) -> Movie | None:
    """What the movie in an episode's folder was made from; None where there is no movie, or nothing says it."""
    return movie_of(_earlier(folder)) if (folder / MOVIE).is_file() else None


def movie_removed(folder: Path) -> str | None:
    """Why the latest run removed the movie of an earlier one; None if it did not."""
    said = _earlier(folder).get("movie_removed")
    return said if isinstance(said, str) else None


def _earlier(folder: Path) -> dict[str, Any]:
    """The summary of the run before; empty if there is none that can be read."""
    try:
        value = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _sweep(folder: Path) -> None:
    """Remove the temporary folders of killed runs."""
    for part in folder.glob(".part-*"):
        written = max((file.stat().st_mtime for file in [part, *part.glob("*")]), default=0.0)
        if part.is_dir() and time.time() - written > QUIET_SECONDS:
            shutil.rmtree(part, ignore_errors=True)


def _summary_json(summary: Summary, episode: Episode, counts: dict[str, int]) -> dict[str, Any]:
    def take(row: dict[str, Any] | None) -> dict[str, Any] | None:
        keys = ("take", "workflow", "workflow_version", "workflow_digest", "seed", "prompt", "media", "media_path", "device_seconds", "run")
        return {k: row[k] for k in keys} if row else None

    return {
        "run": summary.run,
        "episode": episode.id,
        "title": episode.title,
        "shots": len(summary.outcomes),
        "accepted": len(summary.outcomes) - len(summary.exhausted),
        "exhausted": len(summary.exhausted),
        "rendered_shots": summary.rendered,
        "takes_this_run": summary.takes,
        "movie": summary.movie.name if summary.movie else None,
        "frames": episode.total_frames if summary.movie else None,
        "fps": episode.model_dump(include={"fps"})["fps"],
        "width": episode.width,
        "height": episode.height,
        "outcomes": [
            {
                "shot": o.shot,
                "outcome": o.outcome,
                "why": o.why,
                "takes": counts[o.shot],
                **{stage: take(o.takes.get(stage)) for stage in STAGES},
            }
            for o in summary.outcomes
        ],
    }


def _with_rows(catalog: Catalog, episode: str, outcomes: list[ShotOutcome]) -> list[Result]:
    rows = rows_of(catalog, [take for o in outcomes for take in o.takes.values()])
    return [Result(o.shot, o.outcome, o.why, {stage: rows[take] for stage, take in o.takes.items()}) for o in outcomes]


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all. Raises StorageError."""
    write_whole(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
