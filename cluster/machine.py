"""What this machine has: CPU cores that it may use, and GPUs that CUDA_VISIBLE_DEVICES allows."""

from __future__ import annotations

import math
import os
from pathlib import Path

NO_GPU = ("", "-1", "NoDevFiles", "none", "void")  # Slurm, Docker and people say so; CUDA reads the list up to the first of them


class MachineError(ValueError):
    """A setting of the machine that cannot be meant. The message is one sentence."""


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


def visible_gpus() -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names, as indices or UUIDs; None where it is not set, and all may be used.

    Raises:
        MachineError: it names a GPU twice, for which CUDA shows none at all.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return None
    gpus: list[str] = []
    for name in (x.strip() for x in named.split(",")):
        if name in NO_GPU:
            break
        if name in gpus:
            raise MachineError(f"CUDA_VISIBLE_DEVICES {named} names GPU {name} twice, and CUDA then shows none; name each once")
        gpus.append(name)
    return gpus
