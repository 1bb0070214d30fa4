"""Fountain, the plain text of scripts, by its published syntax. Line by line, so that each part knows its line."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.story.text_file import decoded, read_bytes

from .breakdown import INSIDE_OUTSIDE, Element, Kind, Script, broken_down
from .draft import Draft

MAX_BYTES = 4_000_000  # twenty feature films
CLOSED_BY = {"[[": "]]", "/*": "*/"}
MARKS = re.compile(r"\[\[|\]\]|/\*|\*/")
NUMBER = re.compile(r"#([^#]+)#\Z")
TRANSITION = re.compile(r"[^a-z]*\bTO:|(?:FADE|CUT|DISSOLVE|SMASH|MATCH|WIPE|IRIS)\b[^a-z]*[:.]")
TITLE_KEY = re.compile(r"([^\W\d_][^:]{0,60}):[ \t]*(.*)")
EMPHASIS = re.compile(r"(?<!\\)\*{1,3}([^\s*](?:[^*\n]*[^\s*\\])?)\*{1,3}")
UNDERLINE = re.compile(r"(?<![\w\\])_([^\s_](?:[^_\n]*[^\s_\\])?)_(?!\w)")
SPACES = re.compile(r"[ \t]+")
ESCAPED = re.compile(r"\\([*_\\])")


@dataclass(frozen=True)
class _Line:
    """A line without its notes. cut: whether there were any. number: from 1."""

    number: int
    text: str
    cut: bool

    @property
    def blank(self) -> bool:
        return not self.text.strip() and not self.cut


def read_fountain(path: Path) -> Draft:
    """The draft of a Fountain file, without ids.

    Raises:
        InputError: the file cannot be read, is no text, or holds no script.
    """
    return broken_down(path, Fountain(decoded(path, read_bytes(path, MAX_BYTES, "a Fountain script"))).script())


class Fountain:
    """The parts of a script's text."""

    def __init__(self, text: str):
        self.remarks: deque[tuple[int, Element]] = deque()  # notes and boneyards with the line where they begin
        self.lines = list(self._without_remarks(re.split(r"\r\n|\n|\r", text)))
        self.elements: list[Element] = []

    def script(self) -> Script:
        title_page, first = self._title_page()
        at = first
        while at < len(self.lines):
            at = self._part(at)
        self._remarks_until(len(self.lines) + 1)
        return Script(title_page, self.elements)

    # --- notes, boneyards and the title page ----------------------------------------------------------------------------

    def _without_remarks(self, lines: list[str]) -> Iterator[_Line]:
        """The lines without what stands in [[ ]] and /* */, which goes to `self.remarks`; lines that held nothing else are left out."""
        closing, began = "", 0
        inside: list[str] = []
        for number, line in enumerate(lines, 1):
            cut = bool(closing)
            if closing == "]]" and not line.strip() and line != "  ":
                self._remark(began, inside, "a note begins with [[ and is not closed with ]]; it was taken to end at the blank line")
                closing, cut = "", False
            kept, at = [], 0
            for mark in MARKS.finditer(line):
                if not closing and mark[0] in CLOSED_BY:
                    kept.append(line[at : mark.start()])
                    closing, inside, began, cut, at = CLOSED_BY[mark[0]], [], number, True, mark.end()
                elif mark[0] == closing:
                    inside.append(line[at : mark.start()])
                    self._remark(began, inside)
                    closing, at = "", mark.end()
            (inside if closing else kept).append(line[at:])
            text = "".join(kept)
            if text.strip() or not cut:
                yield _Line(number, text, cut)
        if closing:
            what = "a note" if closing == "]]" else "what is cut out with /*"
            self._remark(began, inside, f"{what} is not closed with {closing}; it was taken to go on to the end")

    def _remark(self, line: int, inside: list[str], fault: str = "") -> None:
        text = "\n".join(part.strip() for part in inside).strip()
        if fault:
            self.remarks.append((line, Element(Kind.UNKNOWN, fault, f"line {line}")))
        if text:
            self.remarks.append((line, Element(Kind.REMARK, text, f"line {line}")))

    def _remarks_until(self, line: int) -> None:
        """Give the remarks that begin up to this line."""
        while self.remarks and self.remarks[0][0] <= line:
            self.elements.append(self.remarks.popleft()[1])

    def _title_page(self) -> tuple[list[tuple[str, str]], int]:
        """(key, text) of the title page, and where the script begins."""
        entries: list[tuple[str, list[str]]] = []
        at = next((i for i, line in enumerate(self.lines) if not line.blank), 0)
        while at < len(self.lines) and not self.lines[at].blank:
            line = self.lines[at].text
            key = None if line[:1].isspace() else TITLE_KEY.match(line)
            if key and not INSIDE_OUTSIDE.match(line) and not TRANSITION.fullmatch(line.strip()):
                entries.append((key[1].strip(), [key[2].strip()]))
            elif entries and line[:1].isspace():
                entries[-1][1].append(line.strip())
            else:
                return [], 0  # a script without a title page
            at += 1
        return [(key, "\n".join(plain(text) for text in texts if text)) for key, texts in entries], at

    # --- the script -----------------------------------------------------------------------------------------------------

    def _part(self, at: int) -> int:
        """Give the part that begins at this line, and return where the next one begins."""
        line = self.lines[at]
        text = line.text.strip()
        before, after = at == 0 or self.lines[at - 1].blank, at + 1 >= len(self.lines) or self.lines[at + 1].blank
        if not text or re.fullmatch(r"={3,}", text):
            return at + 1
        if text.startswith("!"):
            return self._action(at)
        if (text[0] == "." and text[1:2] not in ("", ".", " ")) or (INSIDE_OUTSIDE.match(text) and before):
            heading = text[1:] if text[0] == "." else text
            number = NUMBER.search(heading)
            return self._one(Kind.HEADING, at, NUMBER.sub("", heading), number[1].strip() if number else "")
        if text[0] == ">" and text[-1] == "<":
            return self._one(Kind.CENTRED, at, text[1:-1])
        if text[0] == ">":
            return self._one(Kind.TRANSITION, at, text[1:])
        if text[0] == "@" or (before and not after and _is_cue(text)):
            return self._dialogue(at)
        if before and after and TRANSITION.fullmatch(text):
            return self._one(Kind.TRANSITION, at, text)
        if text[0] == "~":
            return self._one(Kind.LYRIC, at, text[1:])
        if text[0] == "#":
            return self._one(Kind.REMARK, at, text)
        if text[0] == "=":
            return self._one(Kind.REMARK, at, text[1:])
        return self._action(at)

    def _one(self, kind: Kind, at: int, text: str, number: str = "") -> int:
        line = self.lines[at].number
        self._remarks_until(line)
        self.elements.append(Element(kind, plain(text.strip()), f"line {line}", number))
        return at + 1

    def _action(self, at: int) -> int:
        """Action: to the next blank line, or to a line that is marked as something else."""
        end = at + 1
        while end < len(self.lines) and not self.lines[end].blank and self.lines[end].text.strip()[:1] not in tuple("!@>~#="):
            end += 1
        texts = [line.text.strip() for line in self.lines[at:end]]
        texts[0] = texts[0].removeprefix("!")
        self._remarks_until(self.lines[end - 1].number)
        text = " ".join(text for text in texts if text)
        if text:
            self.elements.append(Element(Kind.ACTION, plain(text), _lines(self.lines[at], self.lines[end - 1])))
        return end

    def _dialogue(self, at: int) -> int:
        """A cue and what is said, to the next blank line; a line of two spaces is none."""
        cue = self.lines[at].text.strip().removeprefix("@").strip()
        dual = cue.endswith("^")
        self._remarks_until(self.lines[at].number)
        self.elements.append(Element(Kind.CUE, plain(cue.rstrip("^ \t")), f"line {self.lines[at].number}", dual=dual))
        at += 1
        said: list[_Line] = []
        while at < len(self.lines) and (not self.lines[at].blank or len(self.lines[at].text) >= 2):
            line = self.lines[at]
            text = line.text.strip()
            if (text.startswith("(") and text.endswith(")")) or text.startswith("~"):
                self._said(said)
                said = []
                self._one(Kind.LYRIC if text[0] == "~" else Kind.PARENTHETICAL, at, text.removeprefix("~"))
            else:
                said.append(line)
            at += 1
        self._said(said)
        return at

    def _said(self, lines: list[_Line]) -> None:
        text = "\n".join(line.text.strip() for line in lines).strip()
        if text:
            self._remarks_until(lines[-1].number)
            self.elements.append(Element(Kind.SPEECH, plain(text), _lines(lines[0], lines[-1])))


def _is_cue(text: str) -> bool:
    name = text.partition("(")[0]
    return any(c.isupper() for c in name) and not any(c.islower() for c in name) and not TRANSITION.fullmatch(text)


def _lines(first: _Line, last: _Line) -> str:
    return f"line {first.number}" if first.number == last.number else f"lines {first.number}-{last.number}"


def plain(text: str) -> str:
    """The text without the marks of bold, italic and underlined, and with one space where there are more."""
    text = SPACES.sub(" ", text)
    for _ in range(2):  # one may stand in another
        text = UNDERLINE.sub(r"\1", EMPHASIS.sub(r"\1", text))
    return ESCAPED.sub(r"\1", text)
