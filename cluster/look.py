"""What there is to run on, found without starting anything: the nodes of a cluster that runs already, or this machine."""

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

from .start import ClusterError, check_reachable, cores, first_line, local_devices, project  # first: it says how Ray is to be imported

# isort: split
import ray
import ray._common.utils
import ray._private.utils
from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .nodes import ACCELERATOR, Node, nodes

JOIN_SECONDS = 40  # for a cluster to answer: Ray itself may try for minutes
PROBE_SECONDS = 8  # for its nodes to say what they are
SMI_SECONDS = 10  # nvidia-smi hangs where the driver does
SMI = ["nvidia-smi", "--query-gpu=index,uuid,memory.total,name", "--format=csv,noheader,nounits"]


@dataclass(frozen=True)
class Machine:
    """gpu_memory: bytes of its smallest GPU. store: bytes of its object store. shm: bytes of /dev/shm for it. None: not known."""

    node: Node
    gpu_memory: int | None
    store: int
    shm: int | None


@dataclass(frozen=True)
class Sight:
    """logical: devices are stand-ins on CPUs. fault: what is wrong with the GPUs. temp: Ray's folder on this machine."""

    machines: tuple[Machine, ...]
    logical: bool = False
    fault: str = ""
    temp: Path | None = None


def look(devices: int | None = None) -> Sight:
    """The cluster at RAY_ADDRESS, or this machine as a render would use it.

    Args:
        devices: how many a person wants on this machine; None chooses.

    Raises:
        ClusterError: in one sentence; nobody answers, or it is no cluster, or fewer GPUs are here than are wanted.
    """
    address = os.environ.get("RAY_ADDRESS")
    return _cluster(address) if address else _this_machine(devices)


def _cluster(address: str) -> Sight:
    """Asked by a process of its own: what is no Ray, or another Ray, may hang the one that joins it, or end it."""
    if address == "local":
        raise ClusterError("RAY_ADDRESS is local, which starts a Ray without devices for every render; unset it")
    check_reachable(address)
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
        number, logical, fault = devices or min(2, cores()), True, f"nvidia-smi fails: {first_line(error)}"
    kind = "" if logical or not gpus else NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(gpus[0][3])
    node = Node("", "this machine", number, cores(), ((ACCELERATOR, kind),) if kind else (), False)
    memory = None if logical else _smallest(gpus)
    store = ray._private.utils.resolve_object_store_memory(ray._private.utils.estimate_available_memory())
    return Sight((Machine(node, memory, store, _shm(free=True)),), logical, fault, Path(ray._common.utils.get_default_ray_temp_dir()))


Gpu = tuple[str, str, int, str]  # index, unique id, bytes of memory (0 where it shares the machine's), name


def _smi() -> tuple[list[Gpu], str]:
    """The GPUs that the driver knows, and what is wrong with it."""
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
    """Those that CUDA_VISIBLE_DEVICES leaves."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is None or fault:
        return gpus, fault
    wanted = [name.strip() for name in told.split(",") if name.strip() not in ("", "-1")]
    found = [gpu for gpu in gpus if any(name == gpu[0] or (not name.isdigit() and gpu[1].startswith(name)) for name in wanted)]
    mig = any(name.startswith("MIG-") for name in wanted)  # parts of a GPU are not in this list
    missing = "" if mig or len(found) == len(wanted) else f"CUDA_VISIBLE_DEVICES names {told}, and nvidia-smi knows {len(found)} of these"
    return found, missing


def _shm(free: bool) -> int | None:
    """Ray asks what is free when it starts; of a Ray that runs, the whole is what it had."""
    try:
        told = os.statvfs("/dev/shm")
    except OSError:
        return None
    return told.f_frsize * (told.f_bavail if free else told.f_blocks)


def _probe() -> tuple[int | None, int | None]:
    """Runs on a node: bytes of its smallest GPU's memory, and of /dev/shm."""
    return _smallest(_smi()[0]), _shm(free=False)


def _ask_cluster() -> dict[str, Any]:
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.ERROR)
    found = nodes()
    stores = {n["NodeID"]: int(n["Resources"].get("object_store_memory", 0)) for n in ray.nodes()}
    # No CPU and no GPU: it looks beside whatever runs there. This file is the main module, so it travels by value.
    asked = {n.id: _asked(n) for n in found if not n.leaving}
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=PROBE_SECONDS) if asked else ([], [])
    told = {name: _reply(ref) for name, ref in asked.items() if ref in ready}
    unknown = (None, None)
    machines = [Machine(n, (said := told.get(n.id, unknown))[0], stores.get(n.id, 0), said[1]) for n in found]
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
    except Exception as error:  # noqa: BLE001 - whatever Ray says is what a person is told
        told = {"error": " ".join(str(error).split())[:300] or type(error).__name__}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    _main()
