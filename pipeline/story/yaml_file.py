"""Read a YAML file into a pydantic type. Every fault is one sentence with file, line and shot.

JSON is read too, for files that programs write: an episode of 100,000 shots is parsed in seconds.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from .errors import InputError

MAX_BYTES = 4_000_000  # a feature film's worth of shots is under 1 MB
MAX_JSON_BYTES = 100_000_000
MAX_DEPTH = 40
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_NODES = 500_000  # values after aliases are expanded: a few lines of nested aliases can expand to billions

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
    root = _parse(path, _text(path, MAX_BYTES))
    plain = _Plain(path).value(root)
    if not isinstance(plain, dict):
        raise InputError(
            f"{path}:1: the file holds a {_kind(plain)}, where fields such as `{next(iter(model.model_fields))}: …` are wanted"
        )
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        raise InputError(_sentence(path, root, plain, model, error)) from error


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
    except OSError as error:
        raise InputError(f"{where}: {name} cannot be read: {error.strerror}") from error
    known = sorted(p.stem for p in folder.glob("*.yaml"))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    raise InputError(f"{where}: no {what} {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"))


def _read_json(path: Path, model: type[Model]) -> Model:
    """As `read_yaml`. Line numbers need a second, slow parse as YAML: only after a fault, and only up to MAX_BYTES."""
    text = _text(path, MAX_JSON_BYTES)
    try:
        plain = json.loads(text, object_pairs_hook=lambda pairs: _unique(path, pairs))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{path}: values are nested too deep") from None
    if not isinstance(plain, dict):
        raise InputError(f"{path}:1: the file holds a {_kind(plain)}, where an object is wanted")
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        root = _parse(path, text) if len(text) <= MAX_BYTES else yaml.MappingNode("", [], yaml.Mark(str(path), 0, 0, 0, "", 0))
        raise InputError(_sentence(path, root, plain, model, error)) from error


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise InputError(f"{path}: {next(n for n in names if names.count(n) > 1)!r} is given twice in the same place")
    return found


def _text(path: Path, most: int) -> str:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise InputError(f"{path} is a folder; a YAML file is wanted")
        if size > most:
            raise InputError(f"{path} has {size / 1e6:.0f} MB; a file of at most {most / 1e6:.0f} MB is read")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if not text.strip():
        raise InputError(f"{path}:1: the file is empty")
    return text


def _parse(path: Path, text: str) -> yaml.Node:
    try:
        _check_depth(path, text)
        root = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        if "\t" in (text.splitlines() or [""])[min(line, len(text.splitlines())) - 1]:
            raise InputError(f"{path}:{line}: a tab is used for indentation; YAML wants spaces") from None
        raise InputError(f"{path}:{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}") from None
    if root is None:
        raise InputError(f"{path}:1: the file holds only comments")
    return root


def _check_depth(path: Path, text: str) -> None:
    """Reject deep nesting before the file is composed: composing 100,000 nested brackets would overflow the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH and event.start_mark:
            raise InputError(f"{path}:{event.start_mark.line + 1}: values are nested more than {MAX_DEPTH} deep")


class _Plain:
    """Turns YAML nodes into plain values. Limits the number of values, and rejects duplicate keys."""

    def __init__(self, path: Path):
        self.path, self.count = path, 0
        self.scalars = yaml.SafeLoader("")

    def value(self, node: yaml.Node, depth: int = 0) -> Any:
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            line = node.start_mark.line + 1
            raise InputError(f"{self.path}:{line}: anchors and aliases expand to more than {MAX_NODES:,} values or {MAX_DEPTH} levels")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(n, depth + 1) for n in node.value]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        try:
            return self.scalars.construct_object(node)
        except Exception as error:  # noqa: BLE001 - tags such as !!int make the constructor raise anything
            why = " ".join(str(error).split())[:120]
            raise InputError(f"{self.path}:{node.start_mark.line + 1}: cannot read {node.value!r}: {why}") from None

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        plain: dict[str, Any] = {}
        for key, item in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for source in item.value if isinstance(item, yaml.SequenceNode) else [item]:
                    value = self.value(source, depth + 1)
                    merged.update(value if isinstance(value, dict) else {})
                continue
            name = str(self.value(key, depth + 1))
            if name in plain:
                raise InputError(f"{self.path}:{key.start_mark.line + 1}: {name!r} is given twice in the same place")
            plain[name] = self.value(item, depth + 1)
        return merged | plain


def _sentence(path: Path, root: yaml.Node, plain: Any, model: type[BaseModel], error: ValidationError) -> str:
    def place(e: Any) -> tuple[int | str, ...]:
        return (*e["loc"], *getattr(e.get("ctx", {}).get("error"), "loc", ()))

    errors = sorted(
        error.errors(), key=lambda e: (e["type"] == "missing", _line(root, place(e)))
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
        given = repr(first["input"])
        what = f"{field!r} is {given if len(given) < 60 else given[:57] + '...'}: {first['msg'][0].lower() + first['msg'][1:]}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{path}:{_line(root, loc)}: {_who(plain, loc)}{what}{more}"


def _who(plain: Any, loc: Sequence[int | str]) -> str:
    """The innermost shot, sequence, character or location with the fault, such as `shot SH0010: `; "" if there is none."""
    who, kinds = "", {"shots": "shot", "sequences": "sequence", "characters": "character", "locations": "location"}
    previous: Any = None
    for part in loc:
        try:
            plain = plain[part]
        except (KeyError, IndexError, TypeError):
            break
        if previous in kinds:
            name = plain.get("id") if isinstance(plain, dict) else None
            place = f"number {part + 1}" if isinstance(part, int) else str(part)
            who = f"{kinds[previous]} {name if isinstance(name, str) else place}: "
        previous = part
    return who


def _line(node: yaml.Node, loc: Sequence[int | str]) -> int:
    """Line, from 1, of the deepest part of `loc` that exists in the file."""
    line = node.start_mark.line + 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if not found:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


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
    return {list: "list", str: "text", int: "number", float: "number", bool: "truth value"}.get(type(value), type(value).__name__)
