"""Change an episode's file as a person would: the words that change, and nothing else. Comments and their places are kept.

Shots move as whole lines, together with the comments above them. Their fields are set by ruamel.yaml, which keeps what it does not
change; moving with it would leave a shot's comment with the shot before.
"""

from __future__ import annotations

import difflib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from pipeline.story.episode import CheckedEpisode, Episode, Shot, Transition, load_episode
from pipeline.story.errors import InputError, StorageError
from pipeline.story.yaml_values import Loader

from .conform import Conformed

STYLES = [(m, s, o) for m in (2, 4, 3) for s, o in ((4, 2), (2, 0), (3, 1), (4, 0), (6, 4), (6, 2))]  # indents that people write
BEHIND = {"first_frame": "frames", "fit": "frames", "transition": "frames", "location": "action", "time": "action"}


@dataclass(frozen=True)
class Patch:
    """A changed episode file that is not written yet. before, after: its text."""

    file: Path
    before: str
    after: str

    @property
    def diff(self) -> str:
        """As a unified diff; "" where nothing changes."""
        lines = (text.splitlines(keepends=True) for text in (self.before, self.after))
        return "".join(difflib.unified_diff(*lines, f"a/{self.file.name}", f"b/{self.file.name}"))

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
    if not wanted.changes(episode):
        return Patch(file, before, before)
    expected = _expected(file, episode, wanted)
    if file.suffix == ".json":
        raise InputError(f"{file} is JSON, which programs write; only a YAML file is changed here")
    plain = before.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        plain = _with_fields(_moved(plain, episode, wanted), wanted)
    except (YAMLError, yaml.YAMLError) as error:
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
        changed = [_changed(shots[name], wanted.fields.get(name, {})) for name in wanted.sequences[sequence.id]]
        sequences.append(sequence.model_copy(update={"shots": changed}).model_dump())
    try:
        return CheckedEpisode.model_validate({**episode.model_dump(), "sequences": sequences})
    except ValueError as error:
        why = error.errors()[0]["msg"] if hasattr(error, "errors") else error
        raise InputError(f"{file} cannot say this edit: {str(why).removeprefix('Value error, ')}") from error


def _changed(shot: Shot, fields: Mapping[str, Any]) -> Shot:
    return shot.model_copy(update=dict(fields))


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
    if wanted.sequences == {s.id: [shot.id for shot in s.shots] for s in episode.sequences}:
        return text
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    root = yaml.compose(text, Loader=Loader)
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
        return _last_line(value if value.start_mark.index > key.start_mark.index else key)  # else it is an alias of what stands above
    mark = node.end_mark
    return mark.line - 1 if mark.column == 0 and mark.line > node.start_mark.line else mark.line


def _indented(lines: Iterable[str], by: int) -> Iterator[str]:
    for line in lines:
        room = len(line) - len(line.lstrip(" "))
        yield line if not line.strip() else " " * by + line if by >= 0 else line[min(-by, room) :]


# --- Fields of shots --------------------------------------------------------------------------------------------------------


def _with_fields(text: str, wanted: Conformed) -> str:
    if not wanted.fields:
        return text
    writer, root = _written_alike(text)
    for sequence in root["sequences"]:
        for shot in sequence["shots"]:
            for name, value in wanted.fields.get(shot["id"], {}).items():
                _set(shot, name, value)
    return _dumped(writer, root)


def _set(shot: CommentedMap, name: str, value: Any) -> None:
    if isinstance(value, Transition):
        old = shot.get(name)
        if isinstance(old, CommentedMap) and not old.yaml_anchor():
            old["type"], old["frames"] = value.type, value.frames  # in place: a comment behind it stays where it is
            return
        value = CommentedMap(type=value.type, frames=value.frames)
        value.fa.set_flow_style()
    keys = list(dict.keys(shot))
    if name in keys or BEHIND[name] not in keys:
        shot[name] = value
    else:
        shot.insert(keys.index(BEHIND[name]) + 1, name, value)


def _written_alike(text: str) -> tuple[YAML, CommentedMap]:
    """A writer that indents as the text does, or most of it, and the text's content."""
    best: tuple[int, YAML, CommentedMap] | None = None
    for mapping, sequence, offset in STYLES:
        writer = YAML()
        writer.preserve_quotes, writer.width = True, 10**6  # type: ignore[assignment]
        writer.indent(mapping=mapping, sequence=sequence, offset=offset)
        root = writer.load(text)
        others = sum(a != b for a, b in zip_longest(_dumped(writer, root).splitlines(), text.splitlines()))
        if best is None or others < best[0]:
            best = others, writer, root
        if not others:
            break
    assert best
    return best[1], best[2]


def _dumped(writer: YAML, root: CommentedMap) -> str:
    out = io.StringIO()
    writer.dump(root, out)
    return out.getvalue()
