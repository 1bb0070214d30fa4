"""Runs tests in forks of one process that has imported their libraries: a run then costs no start of Python, NumPy, Arrow and Ray.

    python -m benchmarks.forks pipeline/render/shot.py tests/test_shot.py …

The first argument is the module that will change: each run imports it anew, and whatever imports it. Reads from standard input, line
by line, the most seconds of a run; answers each line with `{"code": …, "seconds": …}`. The code is pytest's, or null where the time was
up. What a run leaves behind, its processes included, is ended before the answer.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import grimp
import hypothesis  # noqa: F401 - pytest would import it in every run
import psutil

LOOK_SECONDS = 0.01  # between looks at a run
SUBREAPER = 36  # prctl's PR_SET_CHILD_SUBREAPER: orphans of a run become children of this process, which can then end them
ROOMS = ("gates", "actors", "catalog", "cluster", "pipeline", "benchmarks")
QUIET = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:anyio", "--hypothesis-seed=0")


def main() -> None:
    changing, *asked = sys.argv[1:]
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    for file in dict.fromkeys(word.split("::")[0] for word in asked if word.startswith("tests/")):
        importlib.import_module(file.removesuffix(".py").replace("/", "."))
    _forget(changing.removesuffix(".py").replace("/", "."))
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(_run(asked, float(line))), flush=True)
        sys.dont_write_bytecode = True  # the first run is of the code as it is; whatever follows must leave no trace
    sys.stdout.flush()
    os._exit(0)  # without the libraries' farewells


def _forget(changing: str) -> None:
    """Forget a module, those that import it, and the tests, which pytest imports in a way of its own."""
    stale = {changing, *grimp.build_graph(*ROOMS, cache_dir=None).find_downstream_modules(changing)}
    for name in list(sys.modules):
        if name in stale or name.split(".")[0] == "tests":
            module, (package, _, last) = sys.modules.pop(name), name.rpartition(".")
            if vars(sys.modules.get(package, object)).get(last) is module:
                delattr(sys.modules[package], last)  # where `from package import last` would find it


def _run(asked: list[str], most: float) -> dict[str, float | int | None]:
    started, parent = time.monotonic(), os.getppid()
    child = os.fork()
    if child == 0:
        _test(asked)
    code = None
    while time.monotonic() - started < most and os.getppid() == parent:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(LOOK_SECONDS)
    _end_all()
    if os.getppid() != parent:
        sys.exit(1)  # whoever asked is gone
    return {"code": code, "seconds": round(time.monotonic() - started, 3)}


def _test(asked: list[str]) -> None:
    """In the fork: run the tests, and end without what this process has registered to do at its end."""
    code = 3
    try:
        with Path("../output.txt").open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        import pytest

        code = int(pytest.main([*QUIET, "--basetemp=../basetemp", *asked]))
        sys.stdout.flush()
    finally:
        os._exit(code)


def _end_all() -> None:
    """End every process that a run has begun, and wait for it. A process may begin another one meanwhile."""
    while left := psutil.Process().children(recursive=True):
        for one in left:
            with suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(left, 5)


if __name__ == "__main__":
    main()
