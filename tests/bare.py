"""A virtual environment like a lent GPU's machine: what is neither there nor carried along cannot be imported."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from .conftest import PROJECT

THERE = ("torch", "transformers", "accelerate", "peft", "safetensors", "sentencepiece", "opencv-python-headless", "pillow", "numpy",
         "pandas", "pyarrow", "rich", "typer")  # fmt: skip
CARRIED = ("diffusers", "pydantic")


def bare_environment(folder: Path, *more: str) -> Path:
    """The Python of a new environment that links to this one's packages: THERE, CARRIED, `more`, and what those need."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in _with_needs((*THERE, *CARRIED, *more)):
        here = distribution(name)
        for top in {file.parts[0] for file in here.files or () if file.parts[0] != ".."}:
            target = site / top
            if top != "__pycache__" and not target.exists():
                target.symlink_to(Path(str(here.locate_file(top))))
    return folder / "bin" / "python"


def run_bare(python: Path, *args: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """`python ARGS` from the project's folder."""
    command = [str(python), *map(str, args)]
    return subprocess.run(command, cwd=PROJECT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=timeout)


def _with_needs(names: Iterable[str]) -> set[str]:
    """Names of the distributions and of everything that they cannot do without."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        try:
            needed = [] if name in found else distribution(name).requires or []
        except PackageNotFoundError:
            continue  # wanted on another system or Python only
        found.add(name)
        waiting += [match[0] for need in needed if "extra ==" not in need and (match := re.match(r"[A-Za-z0-9._-]+", need))]
    return found


assert sys.prefix != sys.base_prefix, "the tests run in the project's own environment"
