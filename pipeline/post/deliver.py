"""Write the files that a person looks at after a run: the movie, the contact sheet, media named by shot, the summary."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.standing import Row
from catalog.store import Catalog
from catalog.views import preferred_clips, take_counts
from pipeline.plan.history import chains_of, rows_of, stage_of
from pipeline.plan.resolve import font_of
from pipeline.render.render import Rendered
from pipeline.render.shot import ShotOutcome
from pipeline.story.episode import Episode
from pipeline.story.errors import StorageError
from pipeline.story.fingerprint import digest, file_digest
from pipeline.story.stages import CHAIN, STAGES

from .assemble import assemble, link_takes
from .contact_sheet import contact_sheet
from .result import Result, Summary

SHOT_FILE = re.compile(r"SH[0-9]{4,6}(" + "|".join(re.escape(stage.suffix) for stage in CHAIN) + r")\Z")
PART = re.compile(r"\.SH[0-9]{4,6}\.[\w.]+\.([0-9]+)\.part\Z", re.ASCII)  # as link_takes names it: the process's id
NOT_SEEN: Any = {"sequences": {"__all__": {"shots": {"__all__": {"priority"}}}}}  # what changes nothing in the movie
QUIET_SECONDS = 3600.0  # an encoder that lives writes more often


@dataclass(frozen=True)
class Movie:
    """What an episode's movie was made from: digests of the episode and of the title font; shot to the take of its clip."""

    episode: str
    font: str | None
    clips: dict[str, str]


def deliver(
    episode: Episode, rendered: Rendered, outcomes: list[ShotOutcome], catalog: Catalog, folder: Path, run: str, partial: bool
) -> Summary:
    """Write the contact sheet and the summary, and the movie if every shot of the episode is accepted.

    A run of some shots makes no movie. One that is there stays if it would be the same today; else it is removed, and the summary says
    why. Files of shots that the episode no longer has are removed, where an earlier summary lists them; and what killed runs left.

    Args:
        outcomes: one for each shot of the plan. run: the run's id. partial: whether the plan holds only some of the episode's shots.

    Raises:
        MediaDamaged: a media file is missing or damaged.
        StorageError: a file cannot be written.
    """
    results, counts = _with_rows(catalog, episode.id, outcomes), take_counts(catalog, episode.id)
    before, font = _earlier(folder), font_of(episode, rendered.plan.file)
    _sweep(folder, episode, before)
    link_takes(folder / "shots", {o.shot: o.takes for o in results}, catalog.media)
    sheet = contact_sheet(episode, results, counts, catalog.media, folder / "contact_sheet.png", font)
    target, movie, removed = folder / "episode.mp4", None, None
    made = Movie(digest(episode.model_dump(mode="json", exclude=NOT_SEEN)), file_digest(font) if font else None, {})
    if partial or any(o.outcome != "accepted" for o in results):
        old = _movie_of(before)
        why = _outdated(old, made, results, catalog, episode.id) if partial else _missing(results)
        if target.is_file() and old and why is None:
            made, movie = old, target
        elif target.is_file():
            target.unlink()  # it would look like this run's
            removed = f"{target} was removed: {why}; `tower render` of the whole episode makes it again"
    else:
        clips = {o.shot: o.last for o in results if o.last}
        assemble(episode, clips, catalog.media, font, target)
        made.clips.update((shot, row["take"]) for shot, row in clips.items())
        movie = target
    summary = Summary(run, episode.id, results, len(rendered.plan.stale), rendered.takes, folder, movie)
    files, pages = _files(folder, episode, before, results), [page.name for page in sheet]
    more = {"movie_from": made.__dict__ if movie else None, "movie_removed": removed, "files": files, "contact_sheet": pages}
    write_json(folder / "summary.json", _summary_json(summary, episode, counts) | more)
    return summary


def movie_in(folder: Path) -> Movie | None:
    """What the movie in an episode's folder was made from; None where there is no movie, or nothing says it."""
    return _movie_of(_earlier(folder)) if (folder / "episode.mp4").is_file() else None


def movie_removed(folder: Path) -> str | None:
    """Why the latest run removed the movie of an earlier one; None if it did not."""
    said = _earlier(folder).get("movie_removed")
    return said if isinstance(said, str) else None


def _earlier(folder: Path) -> dict[str, Any]:
    """The summary of the run before; empty if there is none that can be read."""
    try:
        value = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _movie_of(summary: dict[str, Any]) -> Movie | None:
    try:
        movie = Movie(**summary["movie_from"])
        return movie if all(isinstance(text, str) for pair in movie.clips.items() for text in pair) else None
    except (KeyError, TypeError, AttributeError):
        return None


def _outdated(old: Movie | None, now: Movie, results: list[Result], catalog: Catalog, episode: str) -> str | None:
    """Why a movie of an earlier run is not the one that would be made today; None if it is.

    Args:
        results: of the shots that this run looked at. Of the others, only verdicts and people's words are asked for.
    """
    if old is None:
        return "nothing says what it was made from"
    if (old.episode, old.font) != (now.episode, now.font):
        return "the episode file or its font changed since it was made"
    if why := _missing(results):
        return why
    other = [o.shot for o in results if o.last and o.last["take"] != old.clips.get(o.shot)]
    if other:
        return f"{listed(other)} {'has' if len(other) == 1 else 'have'} another clip now"
    chosen = preferred_clips(catalog, episode)
    rows = chains_of(catalog, list(old.clips.values())) | rows_of(catalog, list(chosen.values()))
    shown = {shot: {stage_of(row["take"]): row for row in _chain(rows, take)} for shot, take in old.clips.items()}
    other = [shot for (shot, stage), take in chosen.items() if _goes_before(rows.get(take), shown.get(shot, {}).get(stage))]
    if other:
        return f"{listed(other)} {'has a clip' if len(other) == 1 else 'have clips'} now that a person chose"
    refused = [shot for shot, take in old.clips.items() if take not in rows or rows[take]["outcome"] != "accepted"]
    return f"the clip in it of {listed(refused)} is not accepted now" if refused else None


def _chain(rows: dict[str, Row], take: str | None) -> Iterator[Row]:
    """The take's row, and those of the takes that it started from, as far as they are known."""
    while row := rows.get(take or ""):
        yield row
        take = row["upstream"]


def _goes_before(chosen: Row | None, shown: Row | None) -> bool:
    """Whether the take that a person chose stands in place of the one in the movie."""
    if chosen is None or shown is None or chosen["take"] == shown["take"] or chosen["outcome"] != "accepted":
        return False
    return chosen["review"] == "approved" or chosen["inputs"] == shown["inputs"]


def _missing(results: list[Result]) -> str | None:
    without = [o.shot for o in results if o.outcome != "accepted"]
    return f"{listed(without)} {'has' if len(without) == 1 else 'have'} no accepted clip now" if without else None


def listed(shots: list[str]) -> str:
    """The first ids, and how many more there are."""
    return ", ".join(shots[:5]) + (f" and {len(shots) - 5} more" if len(shots) > 5 else "")


def _files(folder: Path, episode: Episode, before: dict[str, Any], results: list[Result]) -> list[str]:
    """Names of the files in shots/ that this run or an earlier one wrote, of shots that the episode has."""
    mine = {f"{o.shot}{stage.suffix}" for o in results for stage in CHAIN}
    mine |= _written(before) & {f"{shot.id}{stage.suffix}" for _, shot in episode.shots for stage in CHAIN}
    return sorted(name for name in mine if (folder / "shots" / name).is_file())


def _written(summary: dict[str, Any]) -> set[str]:
    """The names in shots/ that a summary lists. What is not a shot's file is left out: a summary may hold anything."""
    outcomes, files = summary.get("outcomes"), summary.get("files")
    shots = [o.get("shot") for o in outcomes if isinstance(o, dict)] if isinstance(outcomes, list) else []
    names = [f"{shot}{stage.suffix}" for shot in shots for stage in CHAIN] + (files if isinstance(files, list) else [])
    return {name for name in names if isinstance(name, str) and SHOT_FILE.match(name)}


def _sweep(folder: Path, episode: Episode, before: dict[str, Any]) -> None:
    """Remove the files of shots that the episode no longer has, and what killed runs left. Files of others stay."""
    known = {shot.id for _, shot in episode.shots}
    for name in _written(before):
        if name.partition(".")[0] not in known:
            (folder / "shots" / name).unlink(missing_ok=True)
    for part in (folder / "shots").glob(".SH*.part"):
        found = PART.match(part.name)
        if found and not _runs(int(found[1])):
            part.unlink(missing_ok=True)
    for part in folder.glob(".part-*"):
        written = max((file.stat().st_mtime for file in [part, *part.glob("*")]), default=0.0)
        if part.is_dir() and time.time() - written > QUIET_SECONDS:
            shutil.rmtree(part, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()


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
