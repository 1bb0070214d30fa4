"""Which process is meant, and whether it still runs: also among other machines, containers and boots."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

BEAT_SECONDS = 60.0  # between heartbeats
DEAD_AFTER = timedelta(seconds=4 * BEAT_SECONDS)  # without a heartbeat; for drivers on other machines: their processes are not visible
BOOT = " boot "  # between the PID namespace and the boot's id, in the column `pid_space`


def process_columns(pid: int | None = None) -> dict[str, Any]:
    """What identifies a process of this machine: host, pid, pid_space, process_started. pid: this process, if not given."""
    number = os.getpid() if pid is None else pid
    return {"host": socket.gethostname(), "pid": number, "pid_space": f"{_pid_space()}{BOOT}{_boot()}", "process_started": _started(number)}


def may_be_running(row: Mapping[str, Any]) -> bool:
    """Whether the process of a row may still run. Of another machine's, only the age of the row is known.

    Args:
        row: the columns of `process_columns`, and `at`.
    """
    if row["pid"] is None:  # rows of old versions do not name their process
        return False
    space, _, boot = row["pid_space"].partition(BOOT)
    if (row["host"], space) != (socket.gethostname(), _pid_space()) or not boot:
        return datetime.now(UTC) - row["at"] < DEAD_AFTER
    if boot != _boot():
        return False  # the machine was started anew since
    try:
        process = psutil.Process(row["pid"])
        gone = process.status() == psutil.STATUS_ZOMBIE  # it has ended, but its parent has not read its exit code
        return not gone and _started(row["pid"]) == row["process_started"]  # else another process has got the same pid since
    except (psutil.Error, OSError):
        return False


def _started(pid: int) -> float:
    """When the process began: seconds since the machine's boot, which no setting of the clock changes.

    psutil computes a time of day from it and the clock, so that a living process seems to be another one once the clock is set.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return psutil.Process(pid).create_time()  # no Linux, or no such process
    return int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def _boot() -> str:
    """Changes with every boot of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(round(psutil.boot_time()))


def _pid_space() -> str:
    """The PID namespace: in different containers, one pid means different processes. "" where there are no namespaces."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
