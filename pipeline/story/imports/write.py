"""The YAML of a draft: the fields of an episode, places and remarks as comments, and TODO where a person must write."""

from __future__ import annotations

import textwrap
from fractions import Fraction
from typing import Any

import yaml

from pipeline.story.errors import InputError
from pipeline.story.yaml_file import MAX_BYTES
from pipeline.story.yaml_values import CORE, KINDS, TAG

from .draft import Draft, Sequence, Shot, Speech, Todo, printable

WIDTH = 132  # of a line, where words allow it
TODO = "TODO"
HEAD = (
    "TODO stands where that file does not say what an episode needs. Nothing renders until each is filled in: `tower plan` names the "
    "first that is left. `frames` are a shot's length at the episode's fps; `start` and `end` of a line are seconds after its shot's "
    "beginning, and `audio: FILE` may stand in place of `end`. What else there is: docs/EPISODES.md."
)

Value = str | int | float | Fraction | Todo | list[str]


class Emitter(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes scalars as our reader takes them: text that would be a number or nothing there goes in quotes."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own table, which it copies for each class


for kind_, (_, first_) in CORE.items():
    Emitter.add_implicit_resolver(f"{TAG}{kind_}", KINDS[f"{TAG}{kind_}"], first_)


def episode_text(draft: Draft, source: str, command: str) -> tuple[str, int]:
    """The episode file of a draft whose sequences and shots have ids, and how many TODOs are in it.

    Args:
        source: name of the file that the draft is of. command: what a person called, for the file's first lines.

    Raises:
        InputError: the file would be larger than what is read.
    """
    page = _Page()
    page.comment(0, f"Written by `{command}` from {source}, and yours from now on. Lines, rows and boards are counted in that file.")
    page.comment(0, HEAD)
    for text in draft.comments:
        page.comment(0, text)
    page.field(0, "id", draft.id)
    page.field(0, "title", draft.title)
    page.field(0, "width", Todo("of the picture, in pixels, such as 1280" + draft.size_remark))
    page.field(0, "height", Todo("such as 720"))
    page.field(0, "fps", draft.fps)
    page.comment(0, "TODO, if you like: `style: …` ends every prompt, `negative_prompt: …` says what no picture should have.")
    page.field(0, "keyframe_workflow", Todo("draws the stills; `tower workflows list` tells which there are"))
    page.field(0, "clip_workflow", Todo("brings them to life"))
    _people(page, draft)
    page.blank()
    page.raw(0, "sequences:")
    for number, sequence in enumerate(draft.sequences):
        if number:
            page.blank()
        _sequence(page, sequence)
    for text in draft.last_comments:
        page.comment(0, text)
    return page.text(), page.todos


def _people(page: _Page, draft: Draft) -> None:
    if draft.characters:
        page.blank()
        page.raw(0, "characters:")
    for key, cast in draft.characters.items():
        page.comment(2, cast.where)
        page.raw(2, f"{key}:")
        page.field(4, "name", cast.name)
        page.field(4, "description", Todo("looks and clothes, as they go into prompts"))
    if draft.locations:
        page.blank()
        page.raw(0, "locations:")
    for key, place in draft.locations.items():
        page.comment(2, f"{place.where}: {place.heading}")
        page.raw(2, f"{key}:")
        page.field(4, "description", Todo("how it looks, as it goes into prompts"))


def _sequence(page: _Page, sequence: Sequence) -> None:
    for text in sequence.comments:
        page.comment(2, text)
    page.item(2, "id", sequence.id)
    page.maybe(4, "title", sequence.title)
    page.maybe(4, "location", sequence.location)
    page.maybe(4, "time", sequence.when)
    page.raw(4, "shots:")
    for shot in sequence.shots:
        _shot(page, shot)


def _shot(page: _Page, shot: Shot) -> None:
    for text in shot.comments:
        page.comment(6, text)
    page.item(6, "id", shot.id)
    page.field(8, "frames", shot.frames)
    page.maybe(8, "framing", shot.framing)
    if shot.characters:
        only = f"named in the action: {', '.join(shot.named)}" if shot.named else ""
        page.field(8, "characters", shot.characters, only)
    page.maybe(8, "action", shot.action)
    if shot.dissolve:
        page.raw(8, f"transition: {{type: dissolve, frames: {TODO}}}", "TODO: how long it is, at the episode's fps")
        page.todos += 1
    page.maybe(8, "title", shot.title)
    page.maybe(8, "keyframe", shot.keyframe, "the drawing, as it is; without this line a still is made")
    if shot.speeches:
        page.raw(8, "dialogue:")
    for speech in shot.speeches:
        _speech(page, speech)
    if shot.sounds:
        page.raw(8, "audio:")
    for sound in shot.sounds:
        page.item(10, "file", sound.file)
        page.field(12, "kind", Todo("dialogue, music or effect"))
        page.maybe(12, "start", sound.start)


def _speech(page: _Page, speech: Speech) -> None:
    for text in speech.comments:
        page.comment(10, text)
    page.item(10, "who", speech.who)
    page.field(12, "text", speech.text)
    page.field(12, "start", speech.start)
    page.field(12, "end", speech.end)


class _Page:
    """Lines of YAML. Indents are counted in spaces."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bytes = 0
        self.todos = 0

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def add(self, *lines: str) -> None:
        """Raises InputError as soon as the page is larger than what is read."""
        self.lines += lines
        self.bytes += sum(len(line.encode()) + 1 for line in lines)
        if self.bytes > MAX_BYTES:
            raise InputError(f"the episode would have more than {MAX_BYTES / 1e6:.0f} MB, the most that is read; divide the file")

    def blank(self) -> None:
        self.add("")

    def raw(self, indent: int, text: str, remark: str = "") -> None:
        self.add(" " * indent + text + (f"  # {printable(remark)}" if remark else ""))

    def comment(self, indent: int, text: str) -> None:
        """The text as comments, broken where it is long and where it has an end of line."""
        for line in text.splitlines() or [""]:
            wrapped = textwrap.wrap(printable(line), WIDTH - indent - 2, break_long_words=False, break_on_hyphens=False)
            self.add(*(f"{' ' * indent}# {part}" for part in wrapped))

    def field(self, indent: int, key: str, value: Value, remark: str = "") -> None:
        if isinstance(value, Todo):
            self.todos += 1
            self.raw(indent, f"{key}: {TODO}", f"TODO: {value.what}" if value.what else "")
            return
        first, *rest = _entry(key, value, WIDTH - indent)
        if rest and remark:
            self.comment(indent, remark)  # behind the text it might become a part of it
        self.raw(indent, first, "" if rest else remark)
        self.add(*(" " * indent + line if line else "" for line in rest))

    def maybe(self, indent: int, key: str, value: Value, remark: str = "") -> None:
        """The field, unless its value is empty: a field that has a default."""
        if value:
            self.field(indent, key, value, remark)

    def item(self, indent: int, key: str, value: Value) -> None:
        """The first field of a list's next item."""
        at = len(self.lines)
        self.field(indent + 2, key, value)
        self.lines[at] = f"{' ' * indent}- {self.lines[at][indent + 2 :]}"


def _is_lines(text: str) -> bool:
    """Whether a text of several lines may stand as it is: no spaces around it, and no other ends of lines in it."""
    return text == text.strip() and "\n" in text and all(line.isprintable() for line in text.split("\n"))


def _entry(key: str, value: Value, width: int) -> list[str]:
    """The lines of one field, as a mapping of its own."""
    if isinstance(value, list):
        return [f"{key}: [{', '.join(value)}]"]  # keys of the episode, which need no quotes
    if isinstance(value, int | float):
        return [f"{key}: {value}"]
    if isinstance(value, Fraction):
        value = value.numerator if value.denominator == 1 else str(value)
    node = Emitter("").represent_data(value)
    if isinstance(value, str) and (value == TODO or "\n" in value):
        node.style = "|" if _is_lines(value) else '"'
    field = yaml.MappingNode(f"{TAG}map", [(yaml.ScalarNode(f"{TAG}str", key), node)], flow_style=False)
    return yaml.serialize(field, Dumper=Emitter, allow_unicode=True, width=width).removesuffix("\n").split("\n")
