"""Reads a large episode file in a process of its own first: a few megabytes can be made to need gigabytes, or minutes."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from pipeline import PROJECT
from pipeline.story.episode import load_episode
from pipeline.story.errors import InputError

SMALL = 200_000  # bytes, which can do no harm
ADDRESS_SPACE = 2 * 2**30  # bytes of the process
CPU_SECONDS = 60  # processor time of the process
WALL_SECONDS = 180.0  # for the whole process, on a busy machine
TOO_MUCH = "the episode's file needs too much memory or time to be read; 100,000 shots take a fraction of it"


def read_apart(file: Path) -> None:
    """Read an episode's file where it can hurt nobody, unless it is small.

    Raises:
        InputError: as `load_episode`, or the file needs more memory or time than any episode.
    """
    if file.stat().st_size <= SMALL:
        return
    command = [sys.executable, "-m", "pipeline.api.services.reading", str(file)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=WALL_SECONDS, cwd=PROJECT, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(TOO_MUCH) from error
    if done.returncode:
        raise InputError(done.stdout.decode() or TOO_MUCH)


def _main() -> None:
    for limit, most in ((resource.RLIMIT_AS, ADDRESS_SPACE), (resource.RLIMIT_CPU, CPU_SECONDS), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    try:
        load_episode(Path(sys.argv[1]))
    except InputError as error:
        sys.stdout.buffer.write(str(error).encode(errors="backslashreplace"))
        sys.exit(2)


if __name__ == "__main__":
    _main()
