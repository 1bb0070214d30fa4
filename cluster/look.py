"""Finds what a render could run on, without starting anything: the nodes of a running cluster, or this machine."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import gpus as gpus_module

# Before Ray: `start` sets the environment that Ray reads when it is imported.
from .address import in_one_line
from .code import project
from .cores import cores
from .gpus import Gpu, GpuFault, listed_gpus
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
    temp: folder of Ray's session files on this machine; None for a cluster.
    """

    machines: tuple[Machine, ...]
    logical: bool = False
    temp: Path | None = None


def look(devices: int | None = None) -> Sight:
    """The cluster at RAY_ADDRESS, or this machine as a render would use it.

    Args:
        devices: how many devices a person wants on this machine; None chooses.

    Raises:
        ClusterError: no Ray cluster answers at RAY_ADDRESS, or this machine's GPUs are too few or cannot be used.
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
    gpus, number = local_devices(devices)
    kind = NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(gpus[0].name) if gpus else ""
    labels = ((ACCELERATOR, kind),) if kind else ()
    node = Node(id="", name="this machine", gpus=number, cpus=cores(), labels=labels, leaving=False)
    store = ray._private.utils.resolve_object_store_memory(ray._private.utils.estimate_available_memory())
    machine = Machine(node, gpu_memory=_smallest(gpus), store=store, shm=_shm(free=True))
    return Sight((machine,), logical=not gpus, temp=ray_temp_dir())


def _smallest(gpus: list[Gpu]) -> int | None:
    return min((gpu.memory for gpu in gpus), default=0) or None


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
    try:
        return _smallest(listed_gpus()), _shm(free=False)
    except GpuFault:
        return None, _shm(free=False)


def _ask_cluster() -> dict[str, Any]:
    ray.init(address=joined(), log_to_driver=False, logging_level=logging.ERROR)
    found = nodes()
    stores = {n["NodeID"]: int(n["Resources"].get("object_store_memory", 0)) for n in ray.nodes()}
    # A probe reserves no CPU and no GPU, so it runs beside any other work. Ray sends the function by value, as it does for the
    # main module, and what it calls too: the node needs no copy of Tower.
    ray.cloudpickle.register_pickle_by_value(gpus_module)
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
