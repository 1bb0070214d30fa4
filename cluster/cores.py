"""The CPU cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def cores() -> int:
    """CPU cores that this process may use, at least 1: of the affinity mask, or fewer where a container has a quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(Path("/sys/fs/cgroup"))
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def _quota(root: Path) -> float | None:
    """Cores that the container's CPU quota is worth, of cgroup version 2 or 1; None where there is none."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None  # "max", or -1: no limit
    return int(quota) / int(period)
