"""The edit: what the movie and the contact sheet are made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from catalog.standing import Row
from pipeline.story.episode import Episode
from pipeline.story.fingerprint import file_digest

from .segments import Segment, segments_of


@dataclass(frozen=True)
class Edit:
    """clips: shot to the row of the take that the movie shows; shots without one are missing. segments: of these shots, in order.

    font: of titles; None for the built-in fonts. letters: its SHA-256, or "". marks: metadata of the movie.
    """

    episode: Episode
    clips: dict[str, Row]
    segments: list[Segment]
    font: Path | None
    letters: str
    marks: dict[str, str]


def edit_of(episode: Episode, clips: dict[str, Row], font: Path | None) -> Edit:
    """The edit of an episode. Arguments as of `Edit`."""
    letters = file_digest(font) if font else ""
    return Edit(episode, clips, segments_of(episode, clips, letters), font, letters, {"title": f"{episode.id} {episode.title}"})
