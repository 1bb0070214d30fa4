"""Hand an episode to an editor: a timeline in a format that editors read, and beside it the clips, in files named by shot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import opentimelineio as otio

from catalog.media import MediaStore
from catalog.standing import Row
from catalog.store import Catalog
from catalog.views import take_counts
from pipeline.plan.history import rows_of, shown_takes
from pipeline.story.episode import Episode
from pipeline.story.errors import InputError, StorageError
from pipeline.story.fingerprint import file_digest

from .edl import edl_of
from .fcpxml import fcpxml_of
from .otio_timeline import file_of, moves, places, timeline_of
from .whole import put_whole

FORMATS: dict[str, Callable[[otio.schema.Timeline, Episode], str]] = {
    "otio": lambda timeline, _: otio.adapters.write_to_string(timeline, "otio_json") + "\n",
    "edl": edl_of,
    "fcpxml": fcpxml_of,
}


@dataclass(frozen=True)
class HandedOff:
    """file: the timeline's. copied, kept: names of media files that were written, and that were there. told: sentences for a person."""

    file: Path
    copied: list[str]
    kept: list[str]
    told: list[str]


def hand_off(catalog: Catalog, episode: Episode, kind: str, file: Path) -> HandedOff:
    """Write a timeline of the episode's accepted clips, and copy their media to where it lies.

    Args:
        kind: otio, edl or fcpxml. file: where the timeline is written. An error leaves no partial file there.

    Raises:
        InputError: the catalog has no takes of the episode, or the format cannot say it.
        MediaDamaged: a clip's file is missing or damaged. No timeline is written.
        StorageError: a file cannot be written.
    """
    clips = accepted_clips(catalog, episode)
    said: dict[str, list[Row]] = {}
    for row in catalog.rows("reviews", episode.id):
        said.setdefault(row["take"], []).append(row)
    sources = rows_of(catalog, [row["upstream"] for row in clips.values() if row["stage"] != "clip" and row["upstream"]])
    text = FORMATS[kind](timeline_of(episode, clips, said, sources), episode)
    copied, kept = list[str](), list[str]()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for shot, row in clips.items():
            there = _copy(catalog.media, row, file.parent / file_of(shot))
            (kept if there else copied).append(file_of(shot))
        put_whole(file, text.encode())
    except OSError as error:
        raise StorageError(f"{file.parent} cannot be written: {error.strerror or error}") from error
    return HandedOff(file, copied, kept, list(_told(episode, clips)))


def accepted_clips(catalog: Catalog, episode: Episode) -> dict[str, Row]:
    """Shot to the row of its clip that stands, in the episode's order. Shots without one are left out.

    Raises:
        InputError: the catalog has no takes of the episode.
    """
    if not take_counts(catalog, episode.id):
        raise InputError(f"the catalog has no takes of episode {episode.id}; `tower render` makes them")
    stands = shown_takes(catalog, episode)
    rows = rows_of(catalog, list(stands.values()))
    return {shot.id: rows[stands[shot.id]] for _, shot in episode.shots if shot.id in stands}


def _copy(store: MediaStore, row: Row, target: Path) -> bool:
    """Copy a clip, unless its bytes are there already. Gives whether they were."""
    if target.is_file() and target.stat().st_size == row["media_bytes"] and file_digest(target) == row["media"]:
        return True
    put_whole(target, store.read(row["media_path"], row["media"]))
    return False


def _told(episode: Episode, clips: dict[str, Row]) -> list[str]:
    """What a person should know before an editor does."""
    without = [shot.id for _, shot in episode.shots if shot.id not in clips]
    told = [f"{shot} has no accepted clip; the timeline has a gap of its length there" for shot in without]
    after = [shot for _, shot in episode.shots[1:]]
    for (_, shot, lead, length), follows in zip(places(episode), [*after, None], strict=True):
        row = clips.get(shot.id)
        if row is None or shot.fit == "stretch":
            continue
        left = moves(episode, shot, row) - shot.first_frame - lead - length
        if left < 0 and shot.fit != "hold":
            told.append(f"{shot.id} is {-left} frames longer than its clip; its last frame is held; `tower plan` tells what to do")
        elif follows and 0 <= left < follows.transition.frames:
            told.append(f"{shot.id}: the dissolve after it goes over its held last frame; hold that in the editor, its clip ends before")
    return told
