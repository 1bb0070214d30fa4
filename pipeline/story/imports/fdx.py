"""Final Draft's XML (.fdx). It is read as a stream, so that each paragraph knows its line; document types and entities are refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler

from defusedxml import DefusedXmlException
from defusedxml.sax import parseString

from pipeline.story.errors import InputError
from pipeline.story.text_file import read_bytes

from .breakdown import Element, Kind, Script, broken_down
from .draft import Draft

MAX_BYTES = 20_000_000  # XML is ten times as long as the script in it
MAX_DEPTH = 100
KINDS = {
    "Scene Heading": Kind.HEADING,
    "Shot": Kind.SHOT,
    "Action": Kind.ACTION,
    "General": Kind.ACTION,
    "Character": Kind.CUE,
    "Parenthetical": Kind.PARENTHETICAL,
    "Dialogue": Kind.SPEECH,
    "Singing": Kind.LYRIC,
    "Lyrics": Kind.LYRIC,
    "Transition": Kind.TRANSITION,
    "Cast List": Kind.REMARK,
    "New Act": Kind.REMARK,
    "End of Act": Kind.REMARK,
}


def read_fdx(path: Path) -> Draft:
    """The draft of a Final Draft file, without ids.

    Raises:
        InputError: the file cannot be read, is not Final Draft's XML, holds a document type, or holds no script.
    """
    data = read_bytes(path, MAX_BYTES, "a Final Draft script")
    handler = _Handler()
    try:
        parseString(data, handler, forbid_dtd=True)
    except SAXParseException as error:
        what = "the file is empty" if not data.strip() else f"not valid XML: {error.getMessage()}"
        raise InputError(f"{path}:{error.getLineNumber()}: {what}") from None
    except DefusedXmlException:
        told = "the file declares a document type or an entity; no Final Draft script needs one, and none is read"
        raise InputError(f"{path}:{handler.line}: {told}") from None
    except _Unreadable as error:
        raise InputError(f"{path}:{handler.line}: {error}") from None
    except (UnicodeError, ValueError, LookupError) as error:
        raise InputError(f"{path}:{handler.line}: not valid XML: {error}") from None
    return broken_down(path, handler.script)


class _Unreadable(Exception):
    """The XML is not Final Draft's."""


@dataclass
class _Paragraph:
    """An open paragraph. within: the element that decides what it is."""

    kind: str
    number: str
    line: int
    within: str
    dual: bool
    texts: list[str] = field(default_factory=list)


class _Handler(ContentHandler):
    """Collects the script's paragraphs, also those in two columns, its notes and its title page."""

    def __init__(self) -> None:
        super().__init__()
        self.script = Script()
        self.line = 1
        self._open: list[str] = []  # names of the elements that are open
        self._paragraphs: list[_Paragraph] = []
        self._column = 0  # cues so far in the two columns

    def startElement(self, name: str, attrs: Any) -> None:
        self.line = self._locator.getLineNumber()  # type: ignore[attr-defined]
        if not self._open and name != "FinalDraft":
            raise _Unreadable(f"the file holds <{name[:40]}>, where Final Draft's <FinalDraft> is wanted")
        if len(self._open) > MAX_DEPTH:
            raise _Unreadable(f"elements are nested more than {MAX_DEPTH} deep")
        if name == "DualDialogue":
            self._column = 0
        if name == "Paragraph":
            kind = attrs.get("Type", "")
            self._column += kind == "Character"
            dual = "DualDialogue" in self._open and kind == "Character" and self._column == 2
            self._paragraphs.append(_Paragraph(kind, attrs.get("Number", ""), self.line, self._within(), dual))
        self._open.append(name)

    def characters(self, content: str) -> None:
        if self._paragraphs and self._open[-1] == "Text":
            self._paragraphs[-1].texts.append(content)

    def endElement(self, name: str) -> None:
        self._open.pop()
        if name == "Paragraph":
            self._end(self._paragraphs.pop())

    def _within(self) -> str:
        """What a paragraph that begins here is part of: the script, or what else Final Draft keeps in a file."""
        if self._open[:2] == ["FinalDraft", "TitlePage"]:
            return "title page"
        if self._open[:2] != ["FinalDraft", "Content"]:
            return ""
        for name in reversed(self._open):
            if name in ("ScriptNote", "Summary"):
                return name
            if name in ("SceneArcBeats", "SceneProperties"):
                return ""
        return "script"

    def _end(self, paragraph: _Paragraph) -> None:
        text = " ".join("".join(paragraph.texts).split())
        where = f"line {paragraph.line}"
        if paragraph.within == "title page" and text:
            self.script.title_page.append(("" if self.script.title_page else "Title", text))
        elif paragraph.within in ("ScriptNote", "Summary") and text:
            self.script.elements.append(Element(Kind.REMARK, text, where))
        elif paragraph.within == "script" and (text or paragraph.kind == "Scene Heading"):
            kind = KINDS.get(paragraph.kind.partition(" (")[0] or "Action")
            if kind is None:
                told = f"a paragraph of type {paragraph.kind[:40]!r}: {text}"
                self.script.elements.append(Element(Kind.UNKNOWN, told, where))
            else:
                self.script.elements.append(Element(kind, text, where, paragraph.number, paragraph.dual))
