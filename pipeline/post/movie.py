"""The movie: made of segments if every shot has its clip; kept as long as it is what would be made today."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalog.cache import Cache
from catalog.standing import Row
from catalog.store import Catalog
from catalog.views import preferred_clips
from pipeline.plan.history import chains_of, rows_of, stage_of
from pipeline.render.context import Context
from pipeline.story.episode import Episode
from pipeline.story.fingerprint import digest, file_digest

from .edit import Edit
from .join import VERSION, join
from .making import make_missing
from .result import Result
from .segments import VIDEO

NOT_SEEN: Any = {"sequences": {"__all__": {"shots": {"__all__": {"priority"}}}}}  # what changes nothing in the movie


@dataclass(frozen=True)
class Movie:
    """What an episode's movie was made from, and what came out.

    episode, font: digests of the episode and of the title font. clips: shot to the take of its clip. key: of all that decides its bytes;
    media: SHA-256 of the file. Both are "" where a version before segments made it.
    """

    episode: str
    font: str | None
    clips: dict[str, str]
    key: str = ""
    media: str = ""


def movie_of(summary: Mapping[str, Any]) -> Movie | None:
    """The movie that a summary tells of; None if it tells of none that can be read."""
    try:
        movie = Movie(**summary["movie_from"])
        return movie if all(isinstance(text, str) for pair in movie.clips.items() for text in pair) else None
    except (KeyError, TypeError, AttributeError):
        return None


def story_digest(episode: Episode) -> str:
    """Digest of everything in an episode that the movie shows."""
    return digest(episode.model_dump(mode="json", exclude=NOT_SEEN))


def current_movie(
    edit: Edit, results: list[Result], old: Movie | None, here: Context, target: Path, partial: bool
) -> tuple[Movie | None, str | None]:
    """Make the movie, leave the one that is there, or remove it. Gives what is there now, and why one was removed.

    Args:
        results: of the shots that this run looked at. partial: whether these are not all; then no movie is made.
        old: what the movie of an earlier run was made from. target: where it is, or would be.

    Raises:
        StorageError: the movie cannot be written. Others as `make_missing`.
    """
    takes = {shot: row["take"] for shot, row in edit.clips.items()}
    meant = Movie(story_digest(edit.episode), edit.letters or None, takes, _key(edit))
    if not partial and _incomplete(results) is None:
        if old is None or not _is_whole(old, meant.key, target):
            make_missing(edit.segments, edit.font, here)
            make_movie(edit, here.catalog, target)
            return replace(meant, media=file_digest(target)), None
        return replace(meant, media=old.media), None
    if not target.is_file():
        return None, None
    why = _outdated(old, meant, results, here.catalog, edit.episode.id) if partial else _incomplete(results)
    if old and why is None:
        return old, None
    target.unlink()  # it would look like this run's
    return None, f"{target} was removed: {why}; `tower render` of the whole episode makes it again"


def _key(edit: Edit) -> str:
    return digest([[segment.key for segment in edit.segments if segment.frames], edit.marks, VERSION])


def _is_whole(movie: Movie, key: str, file: Path) -> bool:
    """Whether the file that is there is the movie of that key, with all its bytes."""
    return movie.key == key and file.is_file() and file_digest(file) == movie.media


def make_movie(edit: Edit, catalog: Catalog, out: Path) -> None:
    """Join segments, which were made, to a movie. An error leaves no partial file.

    Raises:
        StorageError: the movie cannot be written, or is not what was meant.
    """
    cache, shown = Cache(catalog.place), [segment for segment in edit.segments if segment.frames]
    made = cache.there()
    with ExitStack() as stack:
        files = [stack.enter_context(cache.opened(made[f"{segment.key}{VIDEO}"])) for segment in shown]
        join(files, [segment.frames for segment in shown], edit.episode.fps, edit.marks, out)


def _outdated(old: Movie | None, now: Movie, results: list[Result], catalog: Catalog, episode: str) -> str | None:
    """Why a movie of an earlier run is not the one that would be made today; None if it is.

    Args:
        results: of the shots that this run looked at. Of the others, only verdicts and people's words are asked for.
    """
    if old is None:
        return "nothing says what it was made from"
    if (old.episode, old.font) != (now.episode, now.font):
        return "the episode file or its font changed since it was made"
    if why := _incomplete(results):
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


def _incomplete(results: list[Result]) -> str | None:
    """Which shots have no accepted clip; None if all have."""
    without = [o.shot for o in results if o.outcome != "accepted"]
    return f"{listed(without)} {'has' if len(without) == 1 else 'have'} no accepted clip now" if without else None


def listed(shots: list[str]) -> str:
    """The first ids, and how many more there are."""
    return ", ".join(shots[:5]) + (f" and {len(shots) - 5} more" if len(shots) > 5 else "")
