"""The NVIDIA GPUs of this machine, as nvidia-smi lists them and CUDA_VISIBLE_DEVICES allows them."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

SMI_SECONDS = 30  # limit for nvidia-smi, which hangs where the GPU's driver hangs
SMI = ["nvidia-smi", "--query-gpu=index,uuid,memory.total,name", "--format=csv,noheader,nounits"]
HIDDEN = ("", "-1", "NoDevFiles", "none", "void")  # Slurm, Docker and people say so; CUDA reads the list up to the first of them
ON_CPUS = "set CUDA_VISIBLE_DEVICES to nothing to render on CPUs"


class GpuFault(ValueError):
    """The GPUs cannot be told, or not all that are named are there. The message is one sentence that says what to do."""


@dataclass(frozen=True)
class Gpu:
    """memory: bytes; 0 where it is not known, or where the GPU shares the machine's memory. name: such as "NVIDIA L4"."""

    index: str
    uuid: str
    memory: int
    name: str


def allowed_gpus() -> list[Gpu]:
    """The GPUs that this process may use; none where the machine has none, or CUDA_VISIBLE_DEVICES hides all.

    Raises:
        GpuFault: nvidia-smi fails, or CUDA_VISIBLE_DEVICES names a GPU that it does not list, or names one twice.
    """
    names = named_gpus()
    if names == []:
        return []  # nvidia-smi is not asked: CPUs are meant, whatever state the driver is in
    gpus = listed_gpus()
    return gpus if names is None else [_named(name, gpus) for name in names]


def named_gpus() -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names, as indices or UUIDs; None where it is not set, and all may be used.

    Raises:
        GpuFault: it names a GPU twice, for which CUDA shows none at all.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return None
    names: list[str] = []
    for name in (x.strip() for x in given.split(",")):
        if name in HIDDEN:
            break
        if name in names:
            raise GpuFault(f"CUDA_VISIBLE_DEVICES {given} names GPU {name} twice, and CUDA then shows none; name each once")
        names.append(name)
    return names


def listed_gpus() -> list[Gpu]:
    """Every GPU of this machine; none where there is no nvidia-smi. Raises GpuFault where nvidia-smi fails."""
    if not shutil.which("nvidia-smi"):
        return []
    try:
        done = subprocess.run(SMI, capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise GpuFault(f"nvidia-smi did not answer within {SMI_SECONDS} s: the GPU's driver hangs; mend it, or {ON_CPUS}") from None
    except OSError as error:
        raise GpuFault(f"nvidia-smi cannot be run ({error.strerror}); mend it, or {ON_CPUS}") from None
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["it says nothing"]
        raise GpuFault(f"nvidia-smi ends with {done.returncode}: {said[0][:200].rstrip('. ')}; mend the GPU's driver, or {ON_CPUS}")
    rows = [[cell.strip() for cell in line.split(",", 3)] for line in done.stdout.splitlines()]
    return [Gpu(row[0], row[1], int(row[2]) * 2**20 if row[2].isdigit() else 0, row[3]) for row in rows if len(row) == 4]


def _named(name: str, gpus: list[Gpu]) -> Gpu:
    if name.startswith("MIG-"):
        return Gpu(name, name, 0, "")  # a part of a GPU; nvidia-smi's list has none of them
    for gpu in gpus:
        if name == gpu.index or (not name.isdigit() and gpu.uuid.startswith(name)):
            return gpu
    there = f"this machine's are {', '.join(gpu.index for gpu in gpus)}" if gpus else "this machine has none that nvidia-smi knows"
    raise GpuFault(f"CUDA_VISIBLE_DEVICES names GPU {name}, and {there}; correct it, or {ON_CPUS}")
