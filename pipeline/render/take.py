"""A take, and what the next stage starts from: what passes between a shot's life and the studio."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from catalog.media import Media
from cluster.specs import Stored
from pipeline.plan.history import Past


@dataclass(frozen=True)
class Take:
    """One attempt, as its row tells it.

    Args:
        picture: a still's pixels, where they still lie in the object store.
        model_broken: the attempt ended in an error, and another would end the same way: its model killed device after device.
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
        picture, size: its pixels in the object store and their (width, height), where it was made just now.
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
        """The same without its pixels: they may be what was lost with a device; the stored file is not."""
        return replace(self, picture=None)
