"""Sound files on the timeline, as an episode's file names them."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from .written import Written

LONGEST = 24 * 3600.0  # seconds
# Suffix to FFmpeg's name of the format. A file is read as that and as nothing else: a playlist, say, could name other files.
FORMATS = {".wav": "wav", ".flac": "flac", ".ogg": "ogg", ".opus": "ogg", ".mp3": "mp3", ".m4a": "mov"}
Kind = Literal["dialogue", "music", "effect"]


def _of_a_known_type(name: str) -> str:
    if PurePath(name).suffix.lower() not in FORMATS:
        *others, last = FORMATS
        raise ValueError(f"{name!r} is no sound file that is read; its name must end in {', '.join(others)} or {last}")
    return name


SoundName = Annotated[str, Field(max_length=1000), AfterValidator(_of_a_known_type)]


class Audio(Written):
    """A sound file, and where and how it sounds. It sounds on after the end of the shot or sequence that it stands in."""

    file: SoundName = Field(description="relative to the episode file")
    kind: Kind = Field(description="music gets quieter under dialogue")
    start: float = Field(0.0, ge=0, le=LONGEST, description="seconds after the beginning of what it stands in")
    offset: float = Field(0.0, ge=0, le=LONGEST, description="seconds into the file at which it begins")
    length: float | None = Field(
        None, gt=0, le=LONGEST, description="seconds; if not given, to the file's end or, looped, to the end of what it stands in"
    )
    gain: float = Field(0.0, ge=-60, le=24, description="dB")
    fade_in: float = Field(0.0, ge=0, le=LONGEST, description="seconds")
    fade_out: float = Field(0.0, ge=0, le=LONGEST, description="seconds, before its end")
    loop: bool = Field(False, description="from the file's end on, it begins again at `offset`")

    @model_validator(mode="after")
    def _fades_fit(self) -> Audio:
        if self.length is not None and self.fade_in + self.fade_out > self.length:
            raise ValueError(f"fades of {self.fade_in:g} and {self.fade_out:g} s are longer than its length of {self.length:g} s")
        return self
