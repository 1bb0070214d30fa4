"""Write the files that a person looks at after a run: the movie, the contact sheet, media named by shot, the summary."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from catalog.store import Catalog
from catalog.views import take_counts
from pipeline.plan.history import rows_of
from pipeline.plan.resolve import font_of
from pipeline.render.render import Rendered
from pipeline.render.shot import ShotOutcome
from pipeline.story.episode import Episode
from pipeline.story.errors import StorageError
from pipeline.story.stages import STAGES

from .assemble import assemble, link_takes
from .contact_sheet import contact_sheet
from .result import Result, Summary


def deliver(
    episode: Episode, rendered: Rendered, outcomes: list[ShotOutcome], catalog: Catalog, folder: Path, run: str, partial: bool
) -> Summary:
    """Write the contact sheet and the summary, and the movie if every shot of the episode is accepted.

    Args:
        outcomes: one for each shot of the plan. run: the run's id. partial: whether the plan holds only some of the episode's shots.

    Raises:
        MediaDamaged: a media file is missing or damaged.
        StorageError: a file cannot be written.
    """
    results, counts = _with_rows(catalog, episode.id, outcomes), take_counts(catalog, episode.id)
    link_takes(folder / "shots", {o.shot: o.takes for o in results}, catalog.media)
    contact_sheet(episode, results, counts, catalog.media, folder / "contact_sheet.png")
    movie: Path | None = folder / "episode.mp4"
    if partial or any(o.outcome != "accepted" for o in results):
        (folder / "episode.mp4").unlink(missing_ok=True)  # an older movie would look like this run's
        movie = None
    else:
        clips = {o.shot: o.takes[STAGES[-1]] for o in results}
        assemble(episode, clips, catalog.media, font_of(episode, rendered.plan.file), folder / "episode.mp4")
    summary = Summary(run, episode.id, results, len(rendered.plan.stale), rendered.takes, folder, movie)
    write_json(folder / "summary.json", _summary_json(summary, episode, counts))
    return summary


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
        "fps": episode.fps,
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
    """Write a value as JSON. An error leaves no partial file.

    Raises:
        StorageError: the file cannot be written.
    """
    part = path.with_suffix(".part")
    try:
        part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
