"""Processes that a training starts: one log for all of them, and none outlives its time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

PROJECT = Path(__file__).resolve().parents[3]


class Children:
    """Python modules run from the project's folder. What they print goes to the log and to this process's output."""

    def __init__(self, log: Path):
        self.started, self.lock = time.monotonic(), threading.Lock()
        self.log: IO[str] = log.open("a")
        self.running: dict[str, tuple[subprocess.Popen[str], threading.Thread]] = {}
        self.last: dict[str, str] = {}

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.running):
            self._end(name)
        self.log.close()

    def start(self, name: str, module: str, *args: object) -> None:
        command = [sys.executable, "-m", module, *map(str, args)]
        # A session of its own, so that its worker processes end with it.
        child = subprocess.Popen(
            command,
            cwd=PROJECT,
            env={"OMP_NUM_THREADS": "1", **os.environ},  # they run side by side
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        reader = threading.Thread(target=self._read, args=(name, child), daemon=True)
        reader.start()
        self.running[name] = (child, reader)

    def wait(self, name: str, until: float) -> str | None:
        """None if it ends well before time.monotonic is `until`; else why not, in a few words."""
        child, _ = self.running[name]
        try:
            code = child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = None
        self._end(name)
        if code is None:
            return "it did not end in time"
        return None if code == 0 else self.last.get(name, "") or f"exit code {code}"

    def say(self, line: str) -> None:
        self._line("train", line)

    def _read(self, name: str, child: subprocess.Popen[str]) -> None:
        assert child.stdout
        for line in child.stdout:
            if line.strip():
                self.last[name] = line.strip()[:300]
                self._line(name, line.rstrip())

    def _line(self, name: str, line: str) -> None:
        with self.lock:
            text = f"{time.monotonic() - self.started:6.1f} s  {name:7}  {line}"
            print(text, flush=True)
            if not self.log.closed:
                print(text, file=self.log, flush=True)

    def _end(self, name: str) -> None:
        child, reader = self.running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        reader.join(timeout=5)
