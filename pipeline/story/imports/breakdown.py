"""Break a script down: scenes become sequences, paragraphs of action become shots, and what is said goes to the shot before it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from pipeline.story.errors import InputError

from .draft import Cast, Draft, Keys, Place, Sequence, Shot, Speech, Todo

Kind = Enum("Kind", "HEADING SHOT ACTION CUE PARENTHETICAL SPEECH LYRIC TRANSITION CENTRED REMARK UNKNOWN")

LONGEST_TITLE = 80  # letters over a picture, as in episode files
LONGEST_CUE = 80  # letters of a name that speaks, as in episode files
LONGEST_NAME = 200  # letters of an episode's title
INSIDE_OUTSIDE = re.compile(r"(INT\.?\s*/\s*EXT|EXT\.?\s*/\s*INT|I\s*/\s*E|INT|EXT|EST)(?:\.\s*|\s+)", re.I)
DASH = re.compile(r"\s+[-–—]+\s+|\s*[–—]\s*")
TIMES = re.compile(
    r"\b(DAY|DAYTIME|NIGHT|MORNING|AFTERNOON|EVENING|DAWN|DUSK|TWILIGHT|SUNRISE|SUNSET|NOON|MIDNIGHT|MAGIC HOUR|[0-9]+ ?[AP]\.?M)\b", re.I
)
SINCE = re.compile(r"\b(CONTINUOUS|CONT'D|SAME|SAME TIME|LATER|MOMENTS? (?:LATER|EARLIER)|EARLIER|FLASHBACK|PRESENT)\b", re.I)
FADE = re.compile(r"FADE\s+(?:IN|OUT|TO\s+[A-Z]+)\s*[:.]?", re.I)
UNSEEN = re.compile(r"\b(V\.?\s?O|O\.?\s?S|O\.?\s?C|VOICE|OFF)\b", re.I)
CONTINUED = re.compile(r"\(\s*CON'?T(?:INUED|INUING|[’'.]?D)?\s*\.?\)", re.I)
IN_BRACKETS = re.compile(r"\(([^()]*)\)")
WORD = re.compile(r"\w+")
LONGEST_NAME_IN_WORDS = 4  # of a character, that is looked for in action


@dataclass(frozen=True)
class Element:
    """A part of a script. where: its place, such as "line 12". number: of a scene. dual: said together with the speech before it."""

    kind: Kind
    text: str
    where: str
    number: str = ""
    dual: bool = False


@dataclass
class Script:
    """A script as it was read. title_page: (key or "", text)."""

    title_page: list[tuple[str, str]] = field(default_factory=list)
    elements: list[Element] = field(default_factory=list)


@dataclass(frozen=True)
class _Cue:
    """Who speaks now. said: whether anything followed yet. extension: such as "V.O."."""

    name: str
    extension: str
    dual: bool
    where: str


def broken_down(path: Path, script: Script) -> Draft:
    """The draft of a script, without ids.

    Raises:
        InputError: there is nothing in the script that could be seen or heard.
    """
    draft = Breakdown().of(script)
    if not draft.sequences:
        raise InputError(f"{path}: there is no scene, action or dialogue in the file")
    return draft


class Breakdown:
    """Goes through a script's elements in their order, and keeps what belongs to whatever comes next."""

    def __init__(self) -> None:
        self.draft = Draft()
        self.people, self.places = Keys("character"), Keys("location")
        self.heard: dict[str, tuple[Cast, list[Speech]]] = {}  # who was only heard so far, with what was said
        self.waiting: list[str] = []  # comments for the next sequence, shot or speech
        self.dissolve = False
        self.cue: _Cue | None = None
        self.silent = False  # whoever was named last has said nothing yet

    def of(self, script: Script) -> Draft:
        """The draft of a script, without ids."""
        self._title_page(script.title_page)
        for element in script.elements:
            if self.cue and element.kind not in (Kind.SPEECH, Kind.LYRIC, Kind.PARENTHETICAL, Kind.REMARK):
                self._end_of_speech()
            getattr(self, f"_{element.kind.name.lower()}")(element)
        self._end_of_speech()
        self._end_of_scene()
        if self.dissolve:
            self.waiting.append(self.draft.warn("end", "the script ends with a dissolve, into nothing"))
        self.draft.last_comments = self.waiting
        self._find_names()
        return self.draft

    # --- elements -------------------------------------------------------------------------------------------------------

    def _heading(self, element: Element) -> None:
        self._end_of_scene()
        inside, place, when = _parts(element.text)
        sequence = Sequence([*self._taken(), self._place_of(element)], title=element.text)
        if place:
            sequence.location = self.places.of(" ".join(f"{inside} {place}".upper().split()))
            self.draft.locations.setdefault(sequence.location, Place(f"{inside}. {place}" if inside else place, element.where))
        if TIMES.search(when):
            sequence.when = when.lower()
        elif when:
            sequence.comments.append(f"TODO: the time of day; the heading only says {when}")
        self.draft.sequences.append(sequence)

    def _action(self, element: Element) -> None:
        if FADE.fullmatch(element.text):  # in many scripts it is written as action
            self._transition(element)
            return
        framed = self._last_shot()
        if framed and framed.framing and not framed.action and not framed.speeches:
            framed.comments += [*self._taken(), element.where]
            framed.action = element.text
        else:
            self._new_shot(element.where).action = element.text

    def _shot(self, element: Element) -> None:
        self._new_shot(element.where).framing = element.text

    def _centred(self, element: Element) -> None:
        shot = self._new_shot(f"{element.where}, centred in the script")
        if len(element.text) <= LONGEST_TITLE:
            shot.title, shot.action = element.text, Todo("what is seen behind the title")
        else:
            shot.action = element.text

    def _cue(self, element: Element) -> None:
        text = CONTINUED.sub("", element.text)
        name = " ".join(IN_BRACKETS.sub("", text).split())
        extension = ", ".join(found.strip() for found in IN_BRACKETS.findall(text) if found.strip())
        if len(name) > LONGEST_CUE:
            self.waiting.append(self.draft.warn(element.where, f"a name of {len(name)} letters: {name[:LONGEST_CUE]}…"))
            return
        self.cue, self.silent = _Cue(name or element.text, extension, element.dual, element.where), True

    def _parenthetical(self, element: Element) -> None:
        self.waiting.append(f"({element.text.strip('()').strip()})")

    def _speech(self, element: Element) -> None:
        shot = self._last_shot() or self._new_shot(f"{element.where}, without action")
        if self.cue is None:
            told = self.draft.warn(element.where, "somebody speaks, and the script does not say who")
            shot.speeches.append(Speech(Todo("who says this"), element.text, comments=[told, *self._taken()]))
            return
        self.silent = False
        place = f"{element.where}, {self.cue.extension}" if self.cue.extension else element.where
        together = ["together with the line before"] if self.cue.dual else []
        speech = Speech(self.cue.name, element.text, comments=[place, *together, *self._taken()])
        shot.speeches.append(speech)
        if UNSEEN.search(self.cue.extension):
            self._heard(self.cue, speech)
            return
        speech.who = self._seen(Cast(self.cue.name, self.cue.where))
        shot.characters.append(speech.who)

    def _lyric(self, element: Element) -> None:
        self.waiting.append("sung")
        self._speech(element)

    def _transition(self, element: Element) -> None:
        words = element.text.upper()
        if re.search("DISSOLVE|CROSS ?FADE", words) and any(sequence.shots for sequence in self.draft.sequences):
            self.dissolve = True
            self.waiting.append(f"{element.where}: {element.text}")
        elif "CUT" in words and "BLACK" not in words:
            self.waiting.append(f"{element.where}: {element.text}")
        else:
            self.waiting.append(self.draft.warn(element.where, f"{element.text} (an episode has cuts, and dissolves between two shots)"))

    def _remark(self, element: Element) -> None:
        self.waiting.append(f"{element.where}: {element.text}")

    def _unknown(self, element: Element) -> None:
        self.waiting.append(self.draft.warn(element.where, element.text))

    # --- what they share ------------------------------------------------------------------------------------------------

    def _title_page(self, entries: Iterable[tuple[str, str]]) -> None:
        for key, text in entries:
            if key.lower() == "title" and isinstance(self.draft.title, Todo) and 0 < len(text) <= LONGEST_NAME:
                self.draft.title = " ".join(text.split())
            elif text:
                self.draft.comments.append(f"{key}: {text}" if key else text)

    def _place_of(self, element: Element) -> str:
        return f"{element.where}, scene {element.number}" if element.number else element.where

    def _taken(self) -> list[str]:
        taken, self.waiting = self.waiting, []
        return taken

    def _last_shot(self) -> Shot | None:
        return self.draft.sequences[-1].shots[-1] if self.draft.sequences and self.draft.sequences[-1].shots else None

    def _new_shot(self, where: str) -> Shot:
        if not self.draft.sequences:
            self.draft.sequences.append(Sequence(["before the first scene of the script"]))
        shot = Shot([*self._taken(), where], dissolve=self.dissolve)
        self.dissolve = False
        self.draft.sequences[-1].shots.append(shot)
        return shot

    def _end_of_scene(self) -> None:
        """A scene in which nothing happens is a shot too: the script has it."""
        if self.draft.sequences and not self.draft.sequences[-1].shots:
            self._new_shot("nothing stands under this heading").action = Todo("what is seen")

    def _end_of_speech(self) -> None:
        if self.cue and self.silent:
            self.waiting.append(self.draft.warn(self.cue.where, f"{self.cue.name} is to speak, and says nothing"))
        self.cue = None

    def _heard(self, cue: _Cue, speech: Speech) -> None:
        """A voice alone needs no looks: it is a character only if it is seen somewhere, and its name stands with the line until then."""
        key = self.people.of(cue.name)
        if key in self.draft.characters:
            speech.who = key
        else:
            self.heard.setdefault(key, (Cast(cue.name, cue.where), []))[1].append(speech)

    def _seen(self, cast: Cast) -> str:
        """The key of somebody who is in a picture."""
        key = self.people.of(cast.name)
        self.draft.characters.setdefault(key, cast)
        for speech in self.heard.pop(key, (cast, []))[1]:
            speech.who = key
        return key

    def _find_names(self) -> None:
        """Put characters in the shots whose action names them, in capitals or with capital initials."""
        known = [*self.draft.characters.values(), *(cast for cast, _ in self.heard.values())]
        names = {tuple(WORD.findall(cast.name.casefold())): cast for cast in known}
        names.pop((), None)
        for shot in (shot for sequence in self.draft.sequences for shot in sequence.shots):
            speaking = dict.fromkeys(shot.characters)
            if isinstance(shot.action, str):
                found = dict.fromkeys(self._seen(cast) for cast in _names_in(shot.action, names))
                shot.named = [key for key in found if key not in speaking]
            shot.characters = [*shot.named, *speaking]
        self.draft.characters = {key: self.draft.characters[key] for key in self.people if key in self.draft.characters}


def _parts(heading: str) -> tuple[str, str, str]:
    """(INT, EXT … or "", the place, the time or "") of a scene's heading."""
    heading = " ".join(heading.split())
    found = INSIDE_OUTSIDE.match(heading)
    inside = re.sub(r"[\s.]", "", found[1]).upper() if found else ""
    rest = heading[found.end() :] if found else heading
    parts = [part for part in DASH.split(rest.strip()) if part]
    end = len(parts)
    while end > bool(inside) and _tells_time(parts[end - 1], whole=end == 1):
        end -= 1
    return inside, " - ".join(parts[:end]), " - ".join(parts[end:])


def _tells_time(part: str, whole: bool) -> bool:
    """Whether a part of a heading is a time. whole: it is all that there is, and DAY ROOM would be a place."""
    return any(words.fullmatch(part) if whole else words.search(part) for words in (TIMES, SINCE))


def _names_in(text: str, names: dict[tuple[str, ...], Cast]) -> Iterable[Cast]:
    """Those whom a text names, in its order; of names that begin alike, the longest."""
    words = WORD.findall(text) if names else []
    folded = [word.casefold() for word in words]
    first_words = {name[0] for name in names}
    at = 0
    while at < len(words):
        lengths = range(LONGEST_NAME_IN_WORDS, 0, -1) if folded[at] in first_words else ()
        found = next((length for length in lengths if tuple(folded[at : at + length]) in names), 0)
        if found and not any(word[0].islower() for word in words[at : at + found]):
            yield names[tuple(folded[at : at + found])]
        at += max(found, 1)
