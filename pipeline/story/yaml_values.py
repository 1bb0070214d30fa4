"""What a YAML file's words stand for: YAML 1.2's core types, anchors and merge keys. `yaml_file` reads files with it.

PyYAML follows YAML 1.1, in which `060` is 48, `1:00` is 60, `yes` is true and `2024-01-02` is a date. Here a number is what was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError

MAX_DEPTH = 40
MAX_NODES = 500_000  # values after aliases are expanded: a few lines of nested aliases can expand to billions
MAX_DIGITS = 400  # of a number
MERGE = "<<"
TAG = "tag:yaml.org,2002:"
CORE = {  # type to (its pattern, the characters that it begins with), as in YAML 1.2.2, section 10.3.2; a word of no pattern is text
    "null": (r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
KINDS = {f"{TAG}{kind}": re.compile(f"(?:{pattern})\\Z") for kind, (pattern, _) in CORE.items()}
SPECIAL = re.compile(r"\.([iInN])")  # `.inf` and `.nan`, which Python writes without the dot
NAMES = {f"{TAG}null": "nothing", f"{TAG}bool": "a truth value", f"{TAG}int": "a number", f"{TAG}float": "a number"}


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The C parser, with the types of CORE."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own table, which it copies for each class


for kind_, (_, first_) in CORE.items():
    Loader.add_implicit_resolver(f"{TAG}{kind_}", KINDS[f"{TAG}{kind_}"], first_)


class Values:
    """Turns YAML nodes into plain values. Limits the number of values, and rejects duplicate keys."""

    def __init__(self, path: Path):
        self.path, self.count = path, 0

    def of(self, node: yaml.Node, depth: int = 0) -> Any:
        """The node as dict, list, str, int, float, bool or None.

        Raises:
            InputError: a key is given twice, a merge or a tag means nothing here, or there are too many values.
        """
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            raise self._wrong(node, f"anchors and aliases expand to more than {MAX_NODES:,} values or {MAX_DEPTH} levels")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag not in (f"{TAG}seq", f"{TAG}map"):
            raise self._wrong(node, f"the tag {_short_tag(node)} means nothing here; leave it out")
        if isinstance(node, yaml.SequenceNode):
            return [self.of(n, depth + 1) for n in node.value]
        assert isinstance(node, yaml.MappingNode)
        return self._mapping(node, depth)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text, tag = node.value, node.tag
        if tag in (f"{TAG}str", "!"):
            return text
        if tag not in KINDS:
            raise self._wrong(node, f"the tag {_short_tag(node)} means nothing here; leave it out")
        if not KINDS[tag].match(text):  # only where the tag is written out: !!int "1:00"
            raise self._wrong(node, f"{shortened(text)} is not {NAMES[tag]}")
        if tag == f"{TAG}null":
            return None
        if tag == f"{TAG}bool":
            return text[0] in "tT"
        if len(text) > MAX_DIGITS:
            raise self._wrong(node, f"{shortened(text)} has {len(text)} characters, too many for a number; put text in quotes")
        return whole(text) if tag == f"{TAG}int" else number(SPECIAL.sub(r"\1", text))

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        plain: dict[str, Any] = {}
        seen = set()
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._wrong(key, "a list or a mapping stands where a field's name is wanted")
            name = key.value  # as it was written: `no` and `060` are names like any other
            if name in seen:
                raise self._wrong(key, f"{name!r} is given twice in the same place")
            seen.add(name)
            if is_merge(key):
                for source in sources(item):
                    if not isinstance(source, yaml.MappingNode):
                        raise self._wrong(key, "`<<` merges fields: a mapping, or a list of mappings, such as *name, is wanted")
                    merged = self.of(source, depth + 1) | merged  # the earlier source counts
            else:
                plain[name] = self.of(item, depth + 1)
        return merged | plain

    def _wrong(self, node: yaml.Node, what: str) -> InputError:
        return InputError(f"{self.path}:{node.start_mark.line + 1}: {what}")


def is_merge(key: yaml.Node) -> bool:
    """Whether the key is a merge key; in quotes, it is a name."""
    return isinstance(key, yaml.ScalarNode) and key.value == MERGE and not key.style


def sources(item: yaml.Node) -> list[yaml.Node]:
    """What a merge key merges. Of several that have the same field, the earlier one counts."""
    return list(item.value) if isinstance(item, yaml.SequenceNode) else [item]


def line_of(root: yaml.Node, loc: Sequence[int | str]) -> int:
    """Line, from 1, of the deepest part of `loc` that exists in the file."""
    line = root.start_mark.line + 1
    for key, _ in _way(root, loc):
        line = key.start_mark.line + 1
    return line


def node_at(root: yaml.Node, loc: Sequence[int | str]) -> yaml.Node | None:
    """The node at `loc`; None where the file does not reach that far."""
    way = list(_way(root, loc))
    return way[-1][1] if loc and len(way) == len(loc) else None


def words(node: yaml.Node, loc: tuple[int | str, ...] = ()) -> Iterator[tuple[tuple[int | str, ...], yaml.ScalarNode]]:
    """Yield (its path, the node) of each value that is no list and no mapping, in the file's order."""
    if isinstance(node, yaml.ScalarNode):
        yield loc, node
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from words(item, (*loc, i))
    elif isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            yield from words(item, (*loc, key.value))


def _way(node: yaml.Node, loc: Sequence[int | str]) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """(what names it, its node) for each part of `loc` that the file has."""
    for part in loc:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            pair = node.value[part], node.value[part]
        else:
            found = _entry(node, str(part))
            if found is None:
                return
            pair = found
        yield pair
        node = pair[1]


def _entry(node: yaml.Node, name: str, depth: int = 0) -> tuple[yaml.Node, yaml.Node] | None:
    """The mapping's own key and value of that name, else the first that it merges."""
    if not isinstance(node, yaml.MappingNode) or depth > MAX_DEPTH:
        return None
    own = next((pair for pair in node.value if pair[0].value == name and not is_merge(pair[0])), None)
    merged = (_entry(source, name, depth + 1) for key, item in node.value if is_merge(key) for source in sources(item))
    return own or next((pair for pair in merged if pair), None)


def whole(text: str) -> int:
    """The integer of a text that matches CORE. `060` is 60: a leading zero means nothing, as in YAML 1.2."""
    base = {"0o": 8, "0x": 16}.get(text[:2])
    return int(text[2:], base) if base else int(text)


def number(text: str) -> float | int:
    """A float; as int where it is whole, so that `60.0` is a number of frames. A field for fractions takes both."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _short_tag(node: yaml.Node) -> str:
    return node.tag.replace(TAG, "!!")
