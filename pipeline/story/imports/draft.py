"""An episode as another program's file tells it: what is said, where it is said, and what is not."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from pipeline.story.errors import InputError

HARMLESS = "\u3000\xa0\u200c\u200d"  # spaces, and joiners that letters of Persian and emoji need
MOST_SHOTS = 99_999  # SH and six digits, in tens


@dataclass(frozen=True)
class Todo:
    """A value that the file does not say. what: what a person is to write there; "" where the head of the episode tells it."""

    what: str = ""


@dataclass
class Speech:
    """A line of dialogue. start, end: seconds after the shot's beginning. comments: lines before it."""

    who: str | Todo
    text: str
    start: float | Todo = field(default_factory=Todo)
    end: float | Todo = field(default_factory=Todo)
    comments: list[str] = field(default_factory=list)


@dataclass
class Sound:
    """A sound file on a shot. file: relative to the episode. start: seconds after the shot's beginning."""

    file: str
    start: float


@dataclass
class Shot:
    """A shot. comments: lines before it, which say where it comes from. named: characters whom the action names."""

    comments: list[str]
    id: str = ""
    frames: int | Todo = field(default_factory=Todo)
    framing: str = ""
    characters: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    action: str | Todo = ""
    dissolve: bool = False
    title: str = ""
    keyframe: str = ""
    speeches: list[Speech] = field(default_factory=list)
    sounds: list[Sound] = field(default_factory=list)


@dataclass
class Sequence:
    """Shots that belong together. location: a key of the draft's locations, or "". when: time of day."""

    comments: list[str]
    id: str = ""
    title: str = ""
    location: str = ""
    when: str = ""
    shots: list[Shot] = field(default_factory=list)


@dataclass(frozen=True)
class Cast:
    """A character. name: as the file has it. where: its first place there."""

    name: str
    where: str


@dataclass(frozen=True)
class Place:
    """A location. heading: what the file calls it. where: its first place there."""

    heading: str
    where: str


@dataclass(frozen=True)
class Warned:
    """What could not be understood. where: its place in the file, such as "line 12"."""

    where: str
    text: str


@dataclass
class Draft:
    """An episode that a person goes on writing. size_remark: what the file says of the picture's size."""

    title: str | Todo = field(default_factory=lambda: Todo("what the episode is called"))
    id: str = ""
    fps: Fraction | Todo = field(default_factory=lambda: Todo("frames a second, such as 24, 23.976 or 24000/1001"))
    size_remark: str = ""
    comments: list[str] = field(default_factory=list)
    characters: dict[str, Cast] = field(default_factory=dict)
    locations: dict[str, Place] = field(default_factory=dict)
    sequences: list[Sequence] = field(default_factory=list)
    last_comments: list[str] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)

    def warn(self, where: str, text: str) -> str:
        """Record a warning, and return the comment that stands in its place in the episode."""
        self.warnings.append(Warned(where, printable(text)))
        return f"NOT UNDERSTOOD, {where}: {text}"


def finished(draft: Draft) -> Draft:
    """The draft with ids in tens for the sequences and shots that have none, S010, S020 …, SH0010, SH0020 …, and with a TODO for the
    action of each shot of which nothing says what is seen.

    Raises:
        InputError: there are more shots than ids.
    """
    shots = [shot for sequence in draft.sequences for shot in sequence.shots]
    if len(shots) > MOST_SHOTS or len(draft.sequences) > MOST_SHOTS // 10:
        raise InputError(f"there are {len(shots):,} shots in {len(draft.sequences):,} sequences, too many for one episode; divide the file")
    for number, sequence in enumerate(draft.sequences, 1):
        sequence.id = sequence.id or f"S{number * 10:03}"
    for number, shot in enumerate(shots, 1):
        shot.id = shot.id or f"SH{number * 10:04}"
        if not (shot.action or shot.framing or shot.characters or shot.keyframe):
            shot.action = Todo("what is seen")
    return draft


def ids_from(names: Iterable[str], prefix: str, digits: int, most: int, step: int = 10) -> list[str]:
    """Ids for another program's names, in their order: with the last number of each name, or, where that would not do, counted.

    Args:
        digits, most: how many digits an id has at least and at most. step: between ids that are counted.
    """
    given = list(names)
    found = [re.findall(r"[0-9]+", name) for name in given]
    numbers = [int(numbers[-1]) if numbers and len(numbers[-1]) <= most else -1 for numbers in found]
    tail = [re.search(r"[0-9]([^0-9]*)\Z", name) for name in given]
    plain = all(number >= 0 for number in numbers) and not any(t and t[1] for t in tail) and len(set(numbers)) == len(numbers)
    return [f"{prefix}{number:0{digits}}" for number in (numbers if plain else range(step, step * len(given) + 1, step))]


class Keys:
    """Keys for things by their names, each key once, and each name one key."""

    def __init__(self, otherwise: str):
        """Args: otherwise: the key of a name without Latin letters and digits."""
        self.otherwise = otherwise
        self._of: dict[str, str] = {}
        self._taken: dict[str, int] = {}  # key to the number that its last namesake got

    def __iter__(self) -> Iterator[str]:
        """Every key, in the order in which the names came."""
        return iter(self._of.values())

    def of(self, name: str) -> str:
        """The name in small ASCII letters; with a number where another name has that key. HANA and Hana are one name."""
        name = " ".join(name.casefold().split())
        if name not in self._of:
            latin = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
            base = key = re.sub(r"[^a-z0-9]+", "_", latin).strip("_")[:48].strip("_") or self.otherwise
            while key in self._taken:
                self._taken[base] += 1
                key = f"{base}_{self._taken[base]}"
            self._taken[key] = 1
            self._of[name] = key
        return self._of[name]


def printable(text: str) -> str:
    """One line of text, with what cannot be seen spelt out: some of it ends a line of YAML, and what follows would be no comment."""
    return "".join(c if c.isprintable() or c in HARMLESS else f"\\u{ord(c):04x}" for c in text.replace("\t", " "))
