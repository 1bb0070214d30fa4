"""Frames a second, exactly."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

WORDS = "a number such as 24, 23.976 or 24000/1001"
WRITTEN = re.compile(r"[0-9]{1,9}(\.[0-9]{1,20})?(/[1-9][0-9]{0,8})?\Z")
BROADCAST = 1001  # denominator of the broadcast rates of NTSC
PULLED_DOWN = Fraction(1001, 1000)  # by what they are slower than whole ones: 24000/1001 beside 24


def parse_rate(text: str) -> Fraction | None:
    """The rate in `24`, `23.976` or `24000/1001`; None for any other text.

    A rounded broadcast rate becomes the exact one: 23.976 becomes 24000/1001.
    """
    if not WRITTEN.match(text):
        return None
    number, _, divisor = text.partition("/")
    rate = Fraction(number) / int(divisor or 1)
    whole = Fraction(round(rate * PULLED_DOWN) * 1000, 1001)
    return whole if rate.denominator > 1 and abs(rate - whole) < Fraction(1, 500) else rate


def exact(fps: float) -> Fraction:
    """A workflow's rate, which is a float, as the rate that is meant: exact for 24000/1001, also where 23.976 was written."""
    return parse_rate(f"{fps:.6f}") or Fraction(fps).limit_denominator(1001)


def played_at(clip: Fraction, episode: Fraction) -> Fraction:
    """The rate at which a clip is played in an episode: its own, slowed or quickened by the pull-down where only one of them has it.

    At 24000/1001, each frame of a clip of 24 is shown once and each of 8 three times, as editors do; to leave out or to repeat one
    frame in 1001 would show as a jump.
    """
    if episode.denominator == BROADCAST and clip.denominator == 1:
        return clip / PULLED_DOWN
    if clip.denominator == BROADCAST and episode.denominator == 1:
        return clip * PULLED_DOWN
    return clip


def _written(value: Any) -> Any:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        rate = parse_rate(str(value))
    else:
        rate = parse_rate(value.strip()) if isinstance(value, str) and "/" in value else None  # "24" in quotes is a text
    if rate is None:
        raise ValueError(f"'fps' is {value!r}, which is not a rate; {WORDS} is wanted")
    return rate


# In files and reports a whole rate is a number, any other the text `24000/1001`.
Rate = Annotated[
    Fraction,
    Field(ge=1, le=120),
    BeforeValidator(_written),
    PlainSerializer(lambda rate: rate.numerator if rate.denominator == 1 else str(rate)),
    WithJsonSchema(
        {
            "anyOf": [{"type": "number", "minimum": 1, "maximum": 120}, {"type": "string", "pattern": "^[0-9]{1,9}/[1-9][0-9]{0,8}$"}],
            "title": "Fps",
            "description": f"frames a second: {WORDS}",
        }
    ),
]
