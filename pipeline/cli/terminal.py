"""The terminal, or whatever reads in its place: it may go away, and a render goes on without it."""

from __future__ import annotations

import os
from typing import Any, TextIO


class MayBeLost:
    """A text stream whose reader may end (`| head`) or whose disk may be full. From then on, what is written is thrown away.

    What a render has to say for ever is in the catalog. To lose a display is no reason to lose a clip.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except (OSError, ValueError):  # ValueError: the stream is closed
            self._lose()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except (OSError, ValueError):
            self._lose()

    def _lose(self) -> None:
        self.stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
