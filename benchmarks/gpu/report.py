"""Figures as they come: a line of JSON each, a line on the terminal, and one Markdown table of all."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

VERSIONS = ("torch", "diffusers", "transformers", "accelerate", "peft", "numpy", "av")


@dataclass(frozen=True)
class Figure:
    """One measured value; a text where there is no number, such as a verdict or why something was left out."""

    what: str
    value: float | str
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Bench:
    """What a step is told. out: what is brought back. work: checkpoints, on the machine's own disk. until: of time.monotonic()."""

    device: str
    tiny: bool
    out: Path
    work: Path
    until: float

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    def share(self, part: float) -> float:
        """time.monotonic() at which this part of the time that is left will be over."""
        now = time.monotonic()
        return now + part * (self.until - now)


def has_av() -> bool:
    """Whether video files can be written and decoded here."""
    return find_spec("av") is not None


NO_AV = Figure("mp4 and gate 2", "left out", note="PyAV is not here; `--judge` does it later from what was brought back")


class Report:
    """gpu.jsonl and gpu.md in the folder. Lines are appended at once: what is written survives whatever comes after."""

    def __init__(self, folder: Path):
        self.lines, self.table = folder / "gpu.jsonl", folder / "gpu.md"

    def add(self, step: str, figure: Figure) -> None:
        with self.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | asdict(figure)) + "\n")
        told = f"{figure.value:,.4g}" if isinstance(figure.value, float) else figure.value
        print(f"{step}: {figure.what}: {told} {figure.unit}".rstrip() + (f"  ({figure.note})" if figure.note else ""), flush=True)

    def write_table(self) -> None:
        """The Markdown table of every line so far."""
        rows = self.read()
        lines = ["| step | what | value | | |", "|---|---|---|---|---|"]
        for row in rows:
            value = f"{row['value']:,.4g}" if isinstance(row["value"], float) else row["value"]
            lines.append(
                "| " + " | ".join(str(x).replace("|", "\\|") for x in (row["step"], row["what"], value, row["unit"], row["note"])) + " |"
            )
        self.table.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.read_text(encoding="utf-8").splitlines()] if self.lines.exists() else []


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in VERSIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)
