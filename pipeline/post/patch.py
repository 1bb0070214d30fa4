"""Change an episode's file as a person would: the words that change, and nothing else. Comments and their places are kept.

Shots move as whole lines, together with the comments above them; fields change where their words stand. A YAML library that writes
files again, ruamel.yaml, does neither: a comment above a shot stays behind with the shot before, and some comments behind `}` make it
write a file that is no YAML. What comes out is read again, and has to be the episode that was meant.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.story.episode import CheckedEpisode, Episode, Shot, Transition, load_episode
from pipeline.story.errors import InputError, StorageError
from pipeline.story.yaml_values import Loader

from .conform import Conformed

# Of a field that a shot has not yet: the fields that it is written behind, the best first.
BEHIND = {"first_frame": ("frames",), "fit": ("frames",), "transition": ("camera",), "location": ("action",), "time": ("action",)}
ALIAS = re.compile(r":[ ]+(\*[^\s,\]}]+)")
PLAIN = re.compile(r"(?!(?:true|false|null)\Z)[a-zA-Z][\w -]*\w", re.ASCII | re.IGNORECASE)  # a text that needs no quotes


@dataclass(frozen=True)
class Patch:
    """A changed episode file that is not written yet. before, after: its text."""

    file: Path
    before: str
    after: str

    @property
    def diff(self) -> str:
        """As a unified diff; "" where nothing changes."""
        before, after = (text.splitlines(keepends=True) for text in (self.before, self.after))
        return "".join(difflib.unified_diff(before, after, f"a/{self.file.name}", f"b/{self.file.name}"))

    def write(self) -> None:
        """Replace the file, whole or not at all.

        Raises:
            InputError: the file has changed since it was read.
            StorageError: it cannot be written.
        """
        target = self.file.resolve()
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            if _text(target) != self.before:
                raise InputError(f"{self.file} has changed meanwhile; nothing was written")
            part.write_bytes(self.after.encode())
            part.chmod(target.stat().st_mode & 0o777)
            os.replace(part, target)
        except OSError as error:
            raise StorageError(f"{self.file} cannot be written: {error.strerror or error}") from error
        finally:
            part.unlink(missing_ok=True)


def patch_of(file: Path, episode: Episode, wanted: Conformed) -> Patch:
    """The episode's file with what an edit changed. Nothing is written.

    Args:
        file: of `episode`.

    Raises:
        InputError: the changed episode would not be one, or the file is laid out so that a program cannot change it.
    """
    before = _text(file)
    if not wanted.fields and not wanted.moves(episode):
        return Patch(file, before, before)
    expected = _expected(file, episode, wanted)
    if file.suffix == ".json":
        raise InputError(f"{file} is JSON, which programs write; only a YAML file is changed here")
    plain = before.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        plain = _with_fields(_moved(plain, episode, wanted), wanted)
    except yaml.YAMLError as error:
        raise _by_hand(file, " ".join(str(error).split())[:200]) from error
    after = plain.replace("\n", "\r\n") if "\r\n" in before else plain
    after = "\ufeff" + after if before.startswith("\ufeff") else after
    if _loaded(after, file) != expected:
        raise _by_hand(file, "what it would say is not what the edit says")
    return Patch(file, before, after)


def _expected(file: Path, episode: Episode, wanted: Conformed) -> CheckedEpisode:
    """The episode that the changed file must hold.

    Raises:
        InputError: there is no such episode.
    """
    shots = {shot.id: shot for _, shot in episode.shots}
    sequences = []
    for sequence in sorted((s for s in episode.sequences if s.id in wanted.sequences), key=lambda s: list(wanted.sequences).index(s.id)):
        changed = [_changed(file, shots[name], wanted.fields.get(name, {})) for name in wanted.sequences[sequence.id]]
        sequences.append(sequence.model_copy(update={"shots": changed}).model_dump())
    try:
        return CheckedEpisode.model_validate({**episode.model_dump(), "sequences": sequences})
    except ValidationError as error:
        raise InputError(f"{file} cannot say this edit: {_why(error)}") from error


def _changed(file: Path, shot: Shot, fields: Mapping[str, Any]) -> Shot:
    try:
        return Shot.model_validate(shot.model_copy(update=dict(fields)).model_dump())
    except ValidationError as error:
        raise InputError(f"{file} cannot say this edit: shot {shot.id}: {_why(error)}") from error


def _why(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    return f"{'.'.join(map(str, first['loc']))} {first['input']}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _by_hand(file: Path, why: str) -> InputError:
    return InputError(f"{file} is laid out so that a program cannot make these changes; make them by hand: {why}")


def _loaded(text: str, file: Path) -> Episode:
    """The episode that a text holds. file: its name is the text's in an error."""
    with tempfile.TemporaryDirectory(prefix="tower-conform-") as folder:
        copy = Path(folder) / file.name
        copy.write_bytes(text.encode())
        try:
            return load_episode(copy)
        except InputError as error:
            raise _by_hand(file, str(error).replace(str(copy), "its changed text")) from error


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text (byte {error.start})") from error


# --- Whole shots, as lines --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lines:
    """A sequence as lines of text: up to its shots, each shot with the comments above it, and what comes behind. indent: of shots."""

    head: list[str]
    shots: dict[str, list[str]]
    tail: list[str]
    indent: int


def _moved(text: str, episode: Episode, wanted: Conformed) -> str:
    """The text with sequences and shots in the wanted order, and without those that are gone.

    Raises:
        yaml.YAMLError: they do not stand on lines of their own.
    """
    if not wanted.moves(episode):
        return text
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    root = _root(text)
    listed = _value(root, "sequences")
    begin = _key_line(root, "sequences") + 1
    cut, parts = begin, dict[str, _Lines]()
    for sequence, node in zip(episode.sequences, listed.value, strict=True):
        parts[sequence.id] = _sequence(lines, node, cut, [shot.id for shot in sequence.shots])
        cut = _last_line(node) + 1
    shots = {shot: (part.indent, own) for part in parts.values() for shot, own in part.shots.items()}
    made = lines[:begin]
    for name, order in wanted.sequences.items():
        made += parts[name].head
        for shot in order:
            indent, own = shots[shot]
            made += _indented(own, parts[name].indent - indent)
        made += parts[name].tail
    return "".join(made + lines[cut:])


def _sequence(lines: list[str], node: yaml.MappingNode, first: int, names: list[str]) -> _Lines:
    """A sequence's lines, of which the first is given."""
    _check_own_line(lines, node)
    shots, head = _value(node, "shots"), _key_line(node, "shots") + 1
    cut, own = head, dict[str, list[str]]()
    for name, shot in zip(names, shots.value, strict=True):
        _check_own_line(lines, shot)
        own[name] = lines[cut : _last_line(shot) + 1]
        cut = _last_line(shot) + 1
    return _Lines(lines[first:head], own, lines[cut : _last_line(node) + 1], lines[shots.value[0].start_mark.line].index("-"))


def _check_own_line(lines: list[str], node: yaml.Node) -> None:
    mark = node.start_mark
    if lines[mark.line][: mark.column].strip() != "-":
        raise yaml.MarkedYAMLError(problem=f"line {mark.line + 1}: a shot or sequence does not begin a line of its own, behind a dash")


def _root(text: str) -> yaml.Node:
    root = yaml.compose(text, Loader=Loader)
    assert root
    return root


def _value(node: yaml.Node, name: str) -> yaml.Node:
    return next(value for key, value in node.value if key.value == name)


def _key_line(node: yaml.Node, name: str) -> int:
    return next(key.end_mark.line for key, _ in node.value if key.value == name)


def _last_line(node: yaml.Node) -> int:
    """The last line that holds something of the node. The parser's end of a block is where the next one begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        if not isinstance(last, tuple):
            return _last_line(last)
        key, value = last
        return _last_line(value if _in_place(key, value) else key)
    mark = node.end_mark
    return mark.line - 1 if mark.column == 0 and mark.line > node.start_mark.line else mark.line


def _indented(lines: Iterable[str], by: int) -> Iterator[str]:
    for line in lines:
        room = len(line) - len(line.lstrip(" "))
        yield line if not line.strip() else " " * by + line if by >= 0 else line[min(-by, room) :]


# --- Fields of shots --------------------------------------------------------------------------------------------------------


def _with_fields(text: str, wanted: Conformed) -> str:
    """The text with the wanted words in its shots. wanted.sequences: the text's own.

    Raises:
        yaml.YAMLError: a shot does not say its fields itself.
    """
    if not wanted.fields:
        return text
    edits: list[tuple[int, int, str]] = []  # where each begins and ends, and what stands there then
    nodes = _value(_root(text), "sequences").value
    for names, sequence in zip(wanted.sequences.values(), nodes, strict=True):
        for name, shot in zip(names, _value(sequence, "shots").value, strict=True):
            for field, value in wanted.fields.get(name, {}).items():
                edits += _edits(text, shot, field, value)
    parts, at = list[str](), 0
    for begin, end, words in sorted(edits, key=lambda edit: edit[0]):
        parts += [text[at:begin], words]
        at = end
    return "".join([*parts, text[at:]])


def _edits(text: str, node: yaml.MappingNode, field: str, value: Any) -> Iterator[tuple[int, int, str]]:
    """What gives a field its value: other words in place of the old ones, or a field behind another."""
    pairs = {key.value: (key, old) for key, old in node.value}
    if field in pairs:
        key, old = pairs[field]
        if not _in_place(key, old):
            alias = ALIAS.match(text, key.end_mark.index)
            if alias is None:
                raise yaml.MarkedYAMLError(problem=f"line {key.start_mark.line + 1}: {field} is not written where it is wanted")
            yield alias.start(1), alias.end(1), _words(value)
        elif isinstance(value, Transition) and isinstance(old, yaml.MappingNode) and {k.value for k, _ in old.value} == {"type", "frames"}:
            yield from _edits(text, old, "type", value.type)
            yield from _edits(text, old, "frames", value.frames)
        else:
            begin = old.start_mark.index
            yield begin, old.end_mark.index, " " * (text[begin - 1] == ":") + _words(value)
        return
    behind = next((name for name in (*BEHIND.get(field, ()), "frames", "id") if name in pairs and _in_place(*pairs[name])), None)
    if behind is None:
        raise yaml.MarkedYAMLError(problem=f"line {node.start_mark.line + 1}: the shot has no frames and no id of its own")
    key, old = pairs[behind]
    if node.flow_style:
        yield old.end_mark.index, old.end_mark.index, f", {field}: {_words(value)}"
        return
    line_end = text.find("\n", key.start_mark.index)
    for _ in range(_last_line(old) - key.start_mark.line):
        line_end = text.find("\n", line_end + 1)
    line_end = line_end if line_end >= 0 else len(text)
    yield line_end, line_end, f"\n{' ' * key.start_mark.column}{field}: {_words(value)}"


def _in_place(key: yaml.Node, value: yaml.Node) -> bool:
    """Whether a value stands behind its key; else it is an alias of what stands above."""
    return value.start_mark.index > key.start_mark.index


def _words(value: Any) -> str:
    """A value as YAML."""
    if isinstance(value, Transition):
        return f"{{type: {value.type}, frames: {value.frames}}}"
    plain = isinstance(value, int) or PLAIN.fullmatch(value)
    return str(value) if plain else json.dumps(value, ensure_ascii=False)
