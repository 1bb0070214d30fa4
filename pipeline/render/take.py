"""A take, and the start of the next stage: the values that pass between `render_shot` and the studio."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from catalog.media import Media
from cluster.specs import Stored
from pipeline.plan.history import Past


@dataclass(frozen=True)
class Take:
    """One recorded attempt.

    Args:
        row: its row in the table of takes.
        picture: a rendered still's pixels in the object store; None for clips, and for stills that a person gave.
        model_broken: the model killed device after device, so another attempt would end in the same error.
    """

    row: dict[str, Any]
    picture: Stored | None = None
    model_broken: bool = False

    @property
    def id(self) -> str:
        return self.row["take"]

    @property
    def outcome(self) -> str:
        return self.row["outcome"]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.row["labels"])

    @property
    def media(self) -> Media:
        return Media(self.row["media"], self.row["media_path"], self.row["media_bytes"])


@dataclass(frozen=True)
class Start:
    """The accepted take of one stage, from which the next one starts.

    Args:
        picture, size: the pixels in the object store and their (width, height); None if an earlier run made the take.
    """

    take: str
    media: Media
    picture: Stored | None = None
    size: tuple[int, int] | None = None

    @classmethod
    def of(cls, take: Take) -> Start:
        size = (take.row["width"], take.row["height"]) if take.picture else None
        return cls(take.id, take.media, take.picture, size)

    @classmethod
    def of_past(cls, take: Past) -> Start:
        return cls(take.take, Media(take.media, take.media_path, take.media_bytes))

    def from_file(self) -> Start:
        """The same start, read from its stored file: after an error, the pixels may be lost with their device."""
        return replace(self, picture=None)
