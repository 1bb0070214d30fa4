"""The edit: all that the movie and the contact sheet are made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.standing import Row
from pipeline.plan.plan import Plan
from pipeline.plan.resolve import font_of
from pipeline.plan.sounds import Placed
from pipeline.render.marks import Marks
from pipeline.story.cues import Cue
from pipeline.story.episode import Episode
from pipeline.story.fingerprint import digest, file_digest
from pipeline.story.stages import STAGES

from .provenance import Shots, episode_marks
from .segments import Segment, segments_of

NOT_SEEN: Any = {"sequences": {"__all__": {"shots": {"__all__": {"priority"}}}}}  # what changes nothing in the movie


@dataclass(frozen=True)
class Edit:
    """clips: shot to the row of the take that the movie shows, where there is one. segments: of these shots, in order.

    digest: of all in the episode's file that is seen or heard. font: of titles; None for the built-in fonts. letters: its SHA-256, or "".
    sounds, cues: in order. marks: what the movie says of itself.
    """

    episode: Episode
    digest: str
    clips: dict[str, Row]
    segments: list[Segment]
    font: Path | None
    letters: str
    sounds: tuple[Placed, ...]
    cues: tuple[Cue, ...]
    marks: Marks


def edit_of(plan: Plan, shots: Shots) -> Edit:
    """The edit of an episode.

    Args:
        shots: those that are accepted, to stage to the row of the accepted take.
    """
    episode, font = plan.episode, font_of(plan.episode, plan.file)
    letters, clips = file_digest(font) if font else "", {shot: takes[STAGES[-1]] for shot, takes in shots.items()}
    seen = story_digest(episode)
    segments = segments_of(episode, clips, plan.cues, letters)
    return Edit(episode, seen, clips, segments, font, letters, plan.sounds, plan.cues, episode_marks(episode, seen, shots))


def story_digest(episode: Episode) -> str:
    """Digest of everything in an episode that the movie shows."""
    return digest(episode.model_dump(mode="json", exclude=NOT_SEEN))
