"""What of the project travels to a cluster: the folders that a render reads, and nothing else.

A list of what may travel, not of what may not: a folder of a person's also holds secrets, renders and notes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

FOLDERS: tuple[str, ...] = ("gates", "actors", "catalog", "cluster", "pipeline", "configs", "archive")
SKIPPED: tuple[str, ...] = ("__pycache__", "train", "deploy")  # inside these folders; no render reads them
SUFFIXES = (".py", ".yaml", ".yml", ".json", ".txt", ".safetensors", ".parquet", ".model", ".otf", ".ttf", ".html", ".css", ".js")


class CodeError(RuntimeError):
    """The code cannot travel to a cluster. The message is one sentence."""


def project() -> Path:
    """The folder that holds the code."""
    return Path(__file__).resolve().parent.parent


def copy_code(target: Path) -> None:
    """Copy the project's code, its configuration and the demo's weights into an empty or new folder.

    Hidden files and files of other types, such as a `.env` or a movie that lies among the code, are not copied.

    Raises:
        CodeError: Ray could not send a file, because its name is no text.
    """
    for name in FOLDERS:
        shutil.copytree(project() / name, target / name, ignore=_left_here)


def _left_here(folder: str, names: list[str]) -> set[str]:
    staying = {name for name in names if name in SKIPPED or name.startswith(".") or not _may_travel(Path(folder, name))}
    for name in set(names) - staying:
        try:
            name.encode()
        except UnicodeEncodeError:
            told = os.fsencode(name).decode(errors="backslashreplace")
            raise CodeError(f"the name {told} in {folder} is not text in UTF-8, and cannot travel to a cluster; rename it") from None
    return staying


def _may_travel(path: Path) -> bool:
    return path.is_dir() or path.suffix in SUFFIXES
