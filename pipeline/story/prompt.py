"""Compose prompts, always in one order.

    framing, characters, action, location, time, camera, style

Parts are joined by commas; empty parts are left out; characters are joined by "and". The order puts
what identifies the picture first, because encoders cut long prompts at the end.
"""

from __future__ import annotations

from .episode import Episode, Sequence, Shot


def compose(episode: Episode, sequence: Sequence, shot: Shot) -> str:
    """The positive prompt of a shot."""
    people = " and ".join(episode.characters[name].description for name in shot.characters)
    place = shot.location or sequence.location
    where = episode.locations[place].description if place else ""
    parts = (shot.framing, people, shot.action, where, shot.time or sequence.time, shot.camera, episode.style)
    return ", ".join([one_line(p) for p in parts if p])


def one_line(text: str) -> str:
    """The text with single spaces and no line breaks. The test saves time on 100,000 shots: most texts need no change."""
    return text if text.isprintable() and "  " not in text else " ".join(text.split())


def compose_negative(episode: Episode, workflow_negative: str) -> str:
    """The negative prompt: the workflow's own, then the episode's."""
    return ", ".join([one_line(p) for p in (workflow_negative, episode.negative_prompt) if p])
