"""Read a YAML file into a pydantic type. Every fault is one sentence with file, line and shot.

JSON is read too, for files that programs write: an episode of 100,000 shots is parsed in seconds.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from .errors import InputError
from .text_file import read_bytes
from .yaml_values import KINDS, MAX_DEPTH, NAMES, TAG, Loader, Values, line_of, node_at, number, shortened, words

MAX_BYTES = 4_000_000  # a feature film's worth of shots is under 1 MB
MAX_JSON_BYTES = 100_000_000
SORTED_ERRORS = 1000  # whose lines are looked for, so that the first is told; each look goes through the file
OWN = "^x-"  # top-level keys of a model with TEMPLATES that are a person's own, to hold anchors; they are not read
TEMPLATES: dict[str, Any] = {"patternProperties": {OWN: {}}}  # for a model's `json_schema_extra`
TODO = "TODO"  # as a value, without quotes: what a person has still to write; no file with it is read
COMMENT = re.compile(r"[ \t]#")
LOOKS_LIKE_TEXT = re.compile(r"[ \t]+(#[^\s#!].*)")  # people put a space between # and a comment, and none in `#1`

Model = TypeVar("Model", bound=BaseModel)


class Misfit(ValueError):
    """A validator's error about a part of its model. `loc` is the path from the model to that part: field names and indices."""

    def __init__(self, message: str, *loc: int | str):
        super().__init__(message)
        self.loc = loc


def read_yaml(path: Path, model: type[Model]) -> Model:
    """The file's content as `model`.

    Raises:
        InputError: the file cannot be read, is not YAML, or does not fit the model.
    """
    if path.suffix == ".json":
        return _read_json(path, model)
    text = _text(path, MAX_BYTES)
    root = _parse(path, text)
    plain = Values(path).of(root)
    if not isinstance(plain, dict):
        raise InputError(f"{path}:1: the file holds {_kind(plain)}, where fields such as `{next(iter(model.model_fields))}: …` are wanted")
    if TODO in text:
        _check_todos(path, root, plain)
    return _validated(path, model, plain, root, text)


def comments_in_texts(path: Path) -> Iterator[str]:
    """Yield a sentence for each unquoted text of a YAML file that seems to go on behind a #, as in `action: she wins medal #1`.

    Raises:
        InputError: the file cannot be read, or is not YAML.
    """
    text = "" if path.suffix == ".json" else _text(path, MAX_BYTES)
    if not LOOKS_LIKE_TEXT.search(text):
        return
    lines, seen, waiting = text.split("\n"), set(), [_parse(path, text)]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            waiting += [value for _, value in reversed(node.value)]
        elif isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)
        elif isinstance(node, yaml.ScalarNode) and not node.style and node.tag not in KINDS and node.end_mark.line < len(lines):
            cut = LOOKS_LIKE_TEXT.match(lines[node.end_mark.line][node.end_mark.column :])
            if cut:
                said, lost = shortened(node.value, 40), shortened(cut[1].strip(), 40)
                yield f"{path}:{node.end_mark.line + 1}: {lost!r} after {said!r} is a comment; put the text in quotes to keep both"


def named_file(name: str, folder: Path, what: str, where: str) -> Path:
    """Path of a YAML file: `name` itself if it ends in .yaml or .yml, else the file of that name in `folder`.

    Args:
        what: the kind of file. where: who names it. Both are for the error message.

    Raises:
        InputError: there is no such file, or it cannot be reached.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    try:
        if path.is_file():
            return path
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: {shortened(name)!r} cannot be read: {getattr(error, 'strerror', error)}") from error
    known = sorted(p.stem for p in folder.glob("*.yaml"))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    raise InputError(f"{where}: no {what} {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"))


def _read_json(path: Path, model: type[Model]) -> Model:
    """As `read_yaml`. Line numbers need a second, slow parse as YAML: only after a fault, and only up to MAX_BYTES."""
    text = _text(path, MAX_JSON_BYTES)
    try:
        plain = json.loads(text, object_pairs_hook=lambda pairs: _unique(path, pairs), parse_float=number)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{path}: values are nested too deep") from None
    except InputError:
        raise
    except ValueError:  # the one other fault that the parser finds
        raise InputError(f"{path}: a number has too many digits") from None
    if not isinstance(plain, dict):
        raise InputError(f"{path}:1: the file holds {_kind(plain)}, where an object is wanted")
    return _validated(path, model, plain, None, text)


def _validated(path: Path, model: type[Model], plain: dict[str, Any], root: yaml.Node | None, text: str) -> Model:
    """Args: root: the file's nodes; None for JSON, whose nodes are only made after a fault."""
    if OWN in (getattr(model, "model_config", {}).get("json_schema_extra") or {}).get("patternProperties", ()):
        plain = {name: value for name, value in plain.items() if not re.match(OWN, name)}
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        root = root or _nodes_of_json(path, text)
        raise InputError(_sentence(path, root, plain, model, error, text)) from error


def _check_todos(path: Path, root: yaml.Node, plain: Any) -> None:
    """Raises InputError for the first value that is the word TODO."""
    left = [loc for loc, node in words(root) if node.value == TODO and not node.style]
    if left:
        field = next((part for part in reversed(left[0]) if isinstance(part, str)), "the file")
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        where = f"{path}:{line_of(root, left[0])}: {_who(plain, left[0])}"
        raise InputError(f"{where}{field!r} is still TODO; write there what is wanted{more}")


def _nodes_of_json(path: Path, text: str) -> yaml.Node:
    """The nodes of a JSON text; none where it is too long, or among the few that are not YAML too."""
    try:
        if len(text) <= MAX_BYTES:
            return _parse(path, text)
    except InputError:
        pass
    return yaml.MappingNode("", [], yaml.Mark(str(path), 0, 0, 0, "", 0))


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise InputError(f"{path}: {shortened(twice)!r} is given twice in the same place")
    return found


def _text(path: Path, most: int) -> str:
    try:
        text = read_bytes(path, most, "a YAML file").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start})") from None
    if not text.strip():
        raise InputError(f"{path}:1: the file is empty")
    return re.sub("\r\n?", "\n", text)


def _parse(path: Path, text: str) -> yaml.Node:
    try:
        _check_depth(path, text)
        root = yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        marks = [mark.line for mark in (error.context_mark, error.problem_mark) if mark] or [0]
        lines = text.splitlines()[marks[0] : marks[-1] + 1] or [""]
        if re.match(r"[ ]*\t", lines[-1]):
            raise InputError(f"{path}:{marks[-1] + 1}: a tab is used for indentation; YAML wants spaces") from None
        cut = next((marks[0] + i for i, line in enumerate(lines, 1) if LOOKS_LIKE_TEXT.search(line)), None)
        hint = f"; in line {cut}, what follows # is a comment: put a text with # in quotes" if cut else ""
        raise InputError(f"{path}:{marks[-1] + 1}: not valid YAML: {error.problem or error.context}{hint}") from None
    except (yaml.YAMLError, RecursionError) as error:
        before = text.encode()[: getattr(error, "position", 0)]
        why = " ".join(str(error).split()).partition(' in "<')[0]
        raise InputError(f"{path}:{before.count(10) + 1}: not valid YAML: {why[:200]}") from None
    if root is None:
        raise InputError(f"{path}:1: the file holds only comments")
    return root


def _check_depth(path: Path, text: str) -> None:
    """Reject deep nesting before the file is composed: composing 100,000 nested brackets would overflow the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH and event.start_mark:
            raise InputError(f"{path}:{event.start_mark.line + 1}: values are nested more than {MAX_DEPTH} deep")


def _sentence(path: Path, root: yaml.Node, plain: Any, model: type[BaseModel], error: ValidationError, text: str) -> str:
    def place(e: Any) -> tuple[int | str, ...]:
        return (*e["loc"], *getattr(e.get("ctx", {}).get("error"), "loc", ()))

    errors = sorted(
        error.errors()[:SORTED_ERRORS], key=lambda e: (e["type"] == "missing", line_of(root, place(e)))
    )  # a misspelt field also leaves one missing: report the misspelling
    first, loc = errors[0], place(errors[0])
    field = str(loc[-1]) if loc else "the file"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        near = difflib.get_close_matches(field, _fields_at(model, loc[:-1]), n=1, cutoff=0.5)
        what = f"unknown field {field!r}" + (
            f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(_fields_at(model, loc[:-1]))}"
        )
    elif first["type"] == "missing":
        what = f"{field!r} is missing"
    elif first["type"] == "value_error":
        what = str(first["ctx"]["error"])
    else:
        name = f"number {loc[-1] + 1} of {loc[-2]!r}" if len(loc) > 1 and isinstance(loc[-1], int) else repr(field)
        what = f"{name} is {_given(root, loc, first, text)}"
    count = error.error_count()
    more = f" (and {count - 1} more)" if count > 1 else ""
    return f"{path}:{line_of(root, loc)}: {_who(plain, loc)}{what}{more}"


def _given(root: yaml.Node, loc: Sequence[int | str], error: Any, text: str) -> str:
    """What stands there, as it was written, and what would be right."""
    node, wrong = node_at(root, loc), error["msg"][0].lower() + error["msg"][1:]
    if not isinstance(node, yaml.ScalarNode):
        return f"{shortened(repr(error['input']))}: {wrong}"
    raw = shortened(node.value)
    if error["type"] == "string_type" and error["input"] is None:
        behind = text.split("\n")[node.end_mark.line][node.end_mark.column :]
        comment = "; what follows # is a comment" if COMMENT.match(f" {behind.strip()}") else ""
        return f"empty{comment}: put the text in quotes, or leave the field out"
    if error["type"] == "string_type":
        return f"{raw}, which is {NAMES.get(node.tag, 'no text')}: put it in quotes, {json.dumps(raw, ensure_ascii=False)}"
    if error["type"] in ("int_type", "float_type", "int_from_float"):
        in_quotes = bool(node.style) and any(KINDS[f"{TAG}{kind}"].match(raw) for kind in ("int", "float"))
        quoted = json.dumps(raw, ensure_ascii=False) if node.style else repr(raw) if node.tag not in KINDS else raw or "empty"
        return f"{quoted}: {wrong}, {'without quotes' if in_quotes else 'in digits such as 60'}"
    return f"{repr(raw) if isinstance(error['input'], str) else raw}: {wrong}"


def _who(plain: Any, loc: Sequence[int | str]) -> str:
    """The innermost shot, sequence, character or location with the fault, such as `shot SH0010: `; "" if there is none."""
    who, kinds = "", {"shots": "shot", "sequences": "sequence", "characters": "character", "locations": "location"}
    previous: Any = None
    for part in loc:
        try:
            plain = plain[part]
        except (KeyError, IndexError, TypeError):
            break
        if previous in kinds and (previous[0] == "s" or isinstance(part, str)):  # a shot's own characters are only names
            name = plain.get("id") if isinstance(plain, dict) else None
            place = f"number {part + 1}" if isinstance(part, int) else str(part)
            who = f"{kinds[previous]} {name if isinstance(name, str) else place}: "
        previous = part
    return who


def _fields_at(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    current: Any = model
    for part in loc:
        if isinstance(current, type) and issubclass(current, BaseModel):
            info = current.model_fields.get(str(part))
            current = info.annotation if info else None
        else:
            current = get_args(current)[-1] if get_args(current) else None
        current = _unwrap(current)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return [f.name for f in fields(current)] if is_dataclass(current) else []


def _unwrap(annotation: Any) -> Any:
    while get_origin(annotation) is UnionType or str(get_origin(annotation)) == "typing.Union":
        annotation = next(a for a in get_args(annotation) if a is not type(None))
    return annotation


def _kind(value: Any) -> str:
    names = {list: "a list", str: "text", int: "a number", float: "a number", bool: "a truth value", type(None): "nothing"}
    return names.get(type(value), type(value).__name__)
