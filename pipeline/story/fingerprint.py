"""Digests that identify inputs, settings and model files; and seeds."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False).encode  # built once, because it is called for every shot


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, keys sorted."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


SEEDS = 2**32  # a seed is a whole number, 0 to SEEDS - 1


def seed_for(*parts: str | int) -> int:
    """A seed, 0 to SEEDS - 1, derived from ids and never from the clock: equal parts give the same seed in every run."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big")


class FileDigests:
    """SHA-256 of model files, cached by path, size and modification time: a 10 GB checkpoint is read only once.

    memory: the file that holds the cache between runs: its SHA-256 in the first line, and JSON.
    """

    def __init__(self, memory: Path):
        self.memory = memory
        self.known: dict[str, list[Any]] = remembered(memory)
        self.changed = False

    def of(self, path: Path) -> str:
        """Digest of a file; or of a folder: of all its files with MODEL_SUFFIXES, and their relative names."""
        return digest(self.each(path)) if path.is_dir() else self._file(path)

    def each(self, path: Path) -> dict[str, str]:
        """Digest of each file with MODEL_SUFFIXES in a folder, by its name relative to it; of a file, by "."."""
        if not path.is_dir():
            return {".": self._file(path)}
        return {str(p.relative_to(path)): self._file(p) for p in sorted(path.rglob("*")) if p.is_file() and p.suffix in MODEL_SUFFIXES}

    def save(self) -> None:
        if self.changed:
            remember(self.memory, self.known)

    def _file(self, path: Path) -> str:
        stat, key = path.stat(), str(path.resolve())
        known = self.known.get(key)
        if known is not None and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return known[2]
        found = file_digest(path)
        self.known[key] = [stat.st_size, stat.st_mtime_ns, found]
        self.changed = True
        return found


def remember(memory: Path, known: dict[str, list[Any]]) -> None:
    """Keep what was found out of files for later runs. Where the file cannot be written, all of it will be found out again."""
    part = memory.with_suffix(f".{os.getpid()}.part")
    try:
        text = json.dumps(known)
        part.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
        os.replace(part, memory)
    except OSError:
        part.unlink(missing_ok=True)


def remembered(memory: Path) -> dict[str, list[Any]]:
    """What an earlier run found out; nothing where the file is missing or damaged."""
    try:
        digest, _, known = memory.read_text().partition("\n") if memory.is_file() else ("", "", "")
    except (OSError, ValueError):
        return {}
    return json.loads(known) if hashlib.sha256(known.encode()).hexdigest() == digest else {}


MODEL_SUFFIXES = (".safetensors", ".json", ".txt", ".model")
