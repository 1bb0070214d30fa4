"""Tables for a person, or JSON for a program."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

PLAIN: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}  # [b] and :tea: in a person's text are what they are
out, err = Console(**PLAIN), Console(stderr=True, **PLAIN)
MANY = 200  # most rows that a table prints; a person reads no more


def show(rows: list[dict[str, Any]], as_json: bool, nothing: str = "nothing yet") -> None:
    """Print rows, which must all have the same keys, as a table or as JSON. `nothing`: the text for no rows."""
    if as_json:
        lines = (json.dumps(row, default=str, ensure_ascii=False) for row in rows)  # row by row: fast for 100,000 rows
        print("[\n" + ",\n".join(lines) + "\n]" if rows else "[]")
        return
    if not rows:
        out.print(nothing, highlight=False)
        return
    table = Table(*(Column(Text(str(name))) for name in rows[0]), box=None, pad_edge=False)
    for row in rows[:MANY]:
        table.add_row(*(Text(_cell(v)) for v in row.values()))
    console = out if out.is_terminal else Console(width=240, **PLAIN)
    console.print(table)
    if len(rows) > MANY:
        console.print(f"… and {len(rows) - MANY:,} more; --json lists all", highlight=False)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if hasattr(value, "strftime"):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return "" if value is None else str(value)
