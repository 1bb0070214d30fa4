"""The movie: made of segments if every shot has its clip; kept as long as it is what would be made today."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from catalog.cache import FOLDER, Cache
from catalog.standing import Row
from catalog.store import Catalog
from catalog.views import preferred_clips
from pipeline.plan.history import chains_of, rows_of, stage_of
from pipeline.render.context import Context
from pipeline.story.cues import Cue
from pipeline.story.errors import StorageError
from pipeline.story.fingerprint import digest, file_digest

from .edit import Edit
from .join import VERSION, Reels, join
from .making import make_missing
from .result import Result
from .segments import VIDEO
from .signature import Credentials, credentials_of, sign
from .sound import make_sound, sound_key

SOUND = ".m4a"


@dataclass(frozen=True)
class Movie:
    """What an episode's movie was made from, and what came out.

    episode, font: digests of the episode and of the title font. clips: shot to the take of its clip. key: of all that decides its bytes,
    but for a signature's own; media: SHA-256 of the file; heard: digest of its sound and its lines. They are "" where an earlier version of
    Tower made it.
    """

    episode: str
    font: str | None
    clips: dict[str, str]
    key: str = ""
    media: str = ""
    heard: str = ""


def movie_of(summary: Mapping[str, Any]) -> Movie | None:
    """The movie that a summary tells of; None if it tells of none that can be read."""
    try:
        movie = Movie(**summary["movie_from"])
        return movie if all(isinstance(text, str) for pair in movie.clips.items() for text in pair) else None
    except (KeyError, TypeError, AttributeError):
        return None


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
    credentials = credentials_of(here.settings)
    heard = digest([sound_key(edit.episode, edit.sounds), [asdict(cue) for cue in edit.cues]])
    meant = Movie(edit.digest, edit.letters or None, takes, _key(edit, credentials), heard=heard)
    if not partial and _incomplete(results) is None:
        if old is None or not _is_whole(old, meant.key, target):
            make_missing(edit.segments, edit.font, here)
            make_movie(edit, here, target)
            if credentials:
                sign(target, edit.marks, credentials)
            return replace(meant, media=file_digest(target)), None
        return replace(meant, media=old.media), None
    if not target.is_file():
        return None, None
    why = _outdated(old, meant, results, here.catalog, edit.episode.id) if partial else _incomplete(results)
    if old and why is None:
        return old, None
    target.unlink()  # it would look like this run's
    return None, f"{target} was removed: {why}; `tower render` of the whole episode makes it again"


def _key(edit: Edit, credentials: Credentials | None) -> str:
    shown, sound = [segment.key for segment in edit.segments if segment.frames], sound_key(edit.episode, edit.sounds)
    joined = [shown, sound, [asdict(cue) for cue in _track(edit)], edit.marks.keys, VERSION]
    return digest([*joined, credentials.certificates.decode()] if credentials else joined)


def _track(edit: Edit) -> Sequence[Cue]:
    """The cues of the track that a player shows or not."""
    return edit.cues if edit.episode.subtitles == "soft" else ()


def _is_whole(movie: Movie, key: str, file: Path) -> bool:
    """Whether the file that is there is the movie of that key, with all its bytes."""
    return movie.key == key and file.is_file() and file_digest(file) == movie.media


def make_movie(edit: Edit, here: Context, out: Path) -> None:
    """Join segments, which were made, to a movie with its sound and subtitles. An error leaves no partial file.

    Raises:
        InputError: a sound file changed since it was planned.
        StorageError: the movie cannot be written, or is not what was meant.
    """
    sound, cache = _sound(edit, here), Cache(here.catalog.place)
    shown, made = [segment for segment in edit.segments if segment.frames], cache.there()
    if gone := [name for name in [*(f"{segment.key}{VIDEO}" for segment in shown), *([sound] if sound else [])] if name not in made]:
        raise StorageError(f"{gone[0]} in {FOLDER}/ of the catalog was removed while the movie was made; render again")
    with ExitStack() as stack:
        files = [stack.enter_context(cache.opened(made[f"{segment.key}{VIDEO}"])) for segment in shown]
        heard = stack.enter_context(cache.opened(made[sound])) if sound else None
        join(Reels(files, [segment.frames for segment in shown], edit.episode.fps, heard, _track(edit)), edit.marks, out)


def _sound(edit: Edit, here: Context) -> str | None:
    """Name in the cache of the episode's sound, which is mixed if it is not there; None if there is none."""
    key, cache = sound_key(edit.episode, edit.sounds), Cache(here.catalog.place)
    if key is None:
        return None
    name = f"{key}{SOUND}"
    path = cache.there().get(name)
    if path is None or not cache.whole(path):
        with tempfile.TemporaryDirectory(prefix="tower-sound-") as folder:
            file = Path(folder) / f"sound{SOUND}"
            here.console.print(f"sound: {make_sound(edit.episode, edit.sounds, file)}", highlight=False)
            cache.put(key, SOUND, file.read_bytes())
    return name


def _outdated(old: Movie | None, now: Movie, results: list[Result], catalog: Catalog, episode: str) -> str | None:
    """Why a movie of an earlier run is not the one that would be made today; None if it is.

    Args:
        results: of the shots that this run looked at. Of the others, only verdicts and people's words are asked for.
    """
    if old is None:
        return "nothing says what it was made from"
    if (old.episode, old.font) != (now.episode, now.font):
        return "the episode file or its font changed since it was made"
    if old.heard != now.heard:
        return "its sound or its subtitles changed since it was made"
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
    refused = [shot for shot, take in old.clips.items() if not _stands(list(_chain(rows, take)))]
    return f"the clip in it of {listed(refused)} is not accepted now" if refused else None


def _stands(chain: list[Row]) -> bool:
    """Whether a take is accepted now, and nobody has sent back what it started from since it was approved."""
    if not chain or chain[0]["outcome"] != "accepted":
        return False
    approved = chain[0]["review_at"] if chain[0]["review"] == "approved" else None
    return not any(start["review"] == "retake" and (approved is None or start["review_at"] > approved) for start in chain[1:])


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
