"""Lines that are spoken in a shot: for subtitles and, where a line has a sound file, for the sound."""

from __future__ import annotations

from pydantic import Field, model_validator

from .audio import LONGEST, Audio, SoundName
from .written import Written


class Line(Written):
    """What somebody says, and when."""

    who: str = Field(min_length=1, max_length=80, description="a character's id, which is shown by its name, or any name")
    text: str = Field(min_length=1, max_length=2000, description="as it is said")
    start: float = Field(ge=0, le=LONGEST, description="seconds after the shot's beginning")
    end: float | None = Field(
        None, gt=0, le=LONGEST, description="seconds after the shot's beginning, where its subtitle goes; if not given, the audio's end"
    )
    audio: SoundName | None = Field(None, description="sound file, relative to the episode file; it sounds whole, from `start` on")

    @model_validator(mode="after")
    def _has_an_end(self) -> Line:
        if self.end is None and self.audio is None:
            raise ValueError("the line has neither an end nor audio; give it one of them")
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"the line ends at {self.end:g} s, which is not after its start at {self.start:g} s")
        return self

    @property
    def sound(self) -> Audio | None:
        """The line's sound file, as it stands in the shot."""
        return Audio(file=self.audio, kind="dialogue", start=self.start) if self.audio else None  # type: ignore[call-arg]
