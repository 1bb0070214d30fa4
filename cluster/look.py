"""Finds what a render could run on, without starting anything: the nodes of a running cluster, or this machine."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Before Ray: `start` sets the environment that Ray reads when it is imported.
from .address import in_one_line
from .code import project
from .machine import MachineError, cores, visible_gpus
from .start import ClusterError, joined, local_devices, ray_temp_dir

# isort: split
import ray
import ray._common.utils
import ray._private.utils
from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .nodes import ACCELERATOR, Node, nodes

JOIN_SECONDS = 40  # limit for a cluster to answer; Ray itself may try for minutes
PROBE_SECONDS = 8  # limit for the nodes to report their memory
SMI_SECONDS = 10  # limit for nvidia-smi, which hangs where the GPU's driver hangs
SMI = ["nvidia-smi", "--query-gpu=index,uuid,memory.total,name", "--format=csv,noheader,nounits"]


@dataclass(frozen=True)
class Machine:
    """A node and its memory in bytes; None where it is not known.

    gpu_memory: of the node's smallest GPU. store: of the object store. shm: of /dev/shm, in which the object store lies.
    """

    node: Node
    gpu_memory: int | None
    store: int
    shm: int | None


@dataclass(frozen=True)
class Sight:
    """What a render could run on.

    logical: the devices stand in for GPUs and run on CPUs.
    fault: what is wrong with the GPUs of this machine, in words; "" where nothing is.
    temp: folder of Ray's session files on this machine; None for a cluster.
    """

    machines: tuple[Machine, ...]
    logical: bool = False
    fault: str = ""
    temp: Path | None = None


def look(devices: int | None = None) -> Sight:
    """The cluster at RAY_ADDRESS, or this machine as a render would use it.

    Args:
        devices: how many devices a person wants on this machine; None chooses.

    Raises:
        ClusterError: no Ray cluster answers at RAY_ADDRESS, or this machine has fewer GPUs than are wanted.
    """
    address = os.environ.get("RAY_ADDRESS")
    return _cluster(address) if address else _this_machine(devices)


def _cluster(address: str) -> Sight:
    """Look at a cluster from a process of its own: joining a server that is no Ray, or another version, may hang or end a process."""
    joined()
    where = f"the Ray cluster at RAY_ADDRESS {address}"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cluster.look"], cwd=project(), capture_output=True, text=True, timeout=JOIN_SECONDS, check=False
        )
        told = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{where} did not answer within {JOIN_SECONDS} s, although its port is open") from None
    except (OSError, ValueError, IndexError):
        raise ClusterError(f"could not join {where}: Ray ended without an answer") from None
    if "error" in told:
        raise ClusterError(f"could not join {where}: {told['error']}")
    return Sight(tuple(_read(m) for m in told["machines"]))


def _read(told: dict[str, Any]) -> Machine:
    node = told["node"] | {"labels": tuple((name, value) for name, value in told["node"]["labels"])}
    return Machine(**told | {"node": Node(**node)})


def _this_machine(devices: int | None) -> Sight:
    gpus, fault = _visible(*_smi())
    try:
        number, logical = (devices or min(2, cores()), True) if fault and not gpus else local_devices(devices)
    except (OSError, subprocess.SubprocessError) as error:
        number, logical, fault = devices or min(2, cores()), True, f"nvidia-smi fails: {in_one_line(error)}"
    kind = "" if logical or not gpus else NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(gpus[0][3])
    labels = ((ACCELERATOR, kind),) if kind else ()
    node = Node(id="", name="this machine", gpus=number, cpus=cores(), labels=labels, leaving=False)
    memory = None if logical else _smallest(gpus)
    store = ray._private.utils.resolve_object_store_memory(ray._private.utils.estimate_available_memory())
    machine = Machine(node, gpu_memory=memory, store=store, shm=_shm(free=True))
    return Sight((machine,), logical, fault, ray_temp_dir())


Gpu = tuple[str, str, int, str]  # index, unique id, bytes of memory (0 where the GPU shares the machine's memory), name


def _smi() -> tuple[list[Gpu], str]:
    """The GPUs that nvidia-smi lists, and what is wrong with it; "" where nothing is."""
    if not shutil.which("nvidia-smi"):
        return [], ""
    try:
        done = subprocess.run(SMI, capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return [], f"nvidia-smi does not answer within {SMI_SECONDS} s"
    except OSError as error:
        return [], f"nvidia-smi cannot be run: {error.strerror}"
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["it says nothing"]
        return [], f"nvidia-smi ends with {done.returncode}: {said[0][:200].rstrip('. ')}"
    rows = [[cell.strip() for cell in line.split(",", 3)] for line in done.stdout.splitlines()]
    return [(row[0], row[1], int(row[2]) * 2**20 if row[2].isdigit() else 0, row[3]) for row in rows if len(row) == 4], ""


def _smallest(gpus: list[Gpu]) -> int | None:
    return min((size for _, _, size, _ in gpus), default=0) or None


def _visible(gpus: list[Gpu], fault: str) -> tuple[list[Gpu], str]:
    """The GPUs that CUDA_VISIBLE_DEVICES allows, and the fault; the fault is new where the variable names unknown GPUs."""
    try:
        wanted = visible_gpus()
    except MachineError as error:
        return [], str(error)
    if wanted is None or fault:
        return gpus, fault
    named = os.environ["CUDA_VISIBLE_DEVICES"]
    found = [gpu for gpu in gpus if any(name == gpu[0] or (not name.isdigit() and gpu[1].startswith(name)) for name in wanted)]
    mig = any(name.startswith("MIG-") for name in wanted)  # nvidia-smi's list has no MIG instances
    missing = "" if mig or len(found) == len(wanted) else f"CUDA_VISIBLE_DEVICES names {named}, and nvidia-smi knows {len(found)} of these"
    return found, missing


def _shm(free: bool) -> int | None:
    """Bytes of /dev/shm; None where there is none.

    Args:
        free: count free bytes only, as Ray does when it starts. A running Ray already uses a part, so there all bytes count.
    """
    try:
        found = os.statvfs("/dev/shm")
    except OSError:
        return None
    return found.f_frsize * (found.f_bavail if free else found.f_blocks)


def _probe() -> tuple[int | None, int | None]:
    """Bytes of the smallest GPU's memory, and of /dev/shm. Ray runs this function on each node."""
    return _smallest(_smi()[0]), _shm(free=False)


def _ask_cluster() -> dict[str, Any]:
    ray.init(address=joined(), log_to_driver=False, logging_level=logging.ERROR)
    found = nodes()
    stores = {n["NodeID"]: int(n["Resources"].get("object_store_memory", 0)) for n in ray.nodes()}
    # A probe reserves no CPU and no GPU, so it runs beside any other work. This file is the main module here, so Ray sends
    # the function by value, and the node needs no copy of Tower.
    asked = {n.id: _asked(n) for n in found if not n.leaving}
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=PROBE_SECONDS) if asked else ([], [])
    told = {name: _reply(ref) for name, ref in asked.items() if ref in ready}
    machines = []
    for node in found:
        gpu_memory, shm = told.get(node.id, (None, None))
        machines.append(Machine(node, gpu_memory=gpu_memory, store=stores.get(node.id, 0), shm=shm))
    return {"machines": [asdict(m) for m in machines]}


def _asked(node: Node) -> ray.ObjectRef:
    where = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return ray.remote(_probe).options(num_cpus=0, max_retries=0, scheduling_strategy=where).remote()


def _reply(ref: ray.ObjectRef) -> tuple[int | None, int | None]:
    try:
        return ray.get(ref)
    except ray.exceptions.RayError:
        return None, None


def _main() -> None:
    try:
        told = _ask_cluster()
    except Exception as error:  # noqa: BLE001 - a person is told whatever Ray says
        told = {"error": in_one_line(error)}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    _main()
