"""Start Ray on this machine, or join a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Ray reads these variables when it is imported. Ray sends no usage reports, does not hide the GPUs from CPU tasks (by an
# empty CUDA_VISIBLE_DEVICES), and does not merge equal log lines.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

import ray

from .code import copy_code, project


class ClusterError(RuntimeError):
    """Ray could not be started or joined, or has nothing that could ever run the work."""


@dataclass(frozen=True)
class ClusterInfo:
    """The cluster that was started or joined.

    devices, cpus: number of devices to use, and of CPUs in all.
    logical: the devices stand in for GPUs on a machine without any.
    threads_per_device: CPU threads of each logical device; 0 for no limit.
    """

    devices: int
    cpus: int
    logical: bool
    dashboard_url: str
    threads_per_device: int


@contextmanager
def cluster(
    devices: int | None = None, dashboard_port: int | None = None, temp_dir: Path | None = None, waits: bool = False
) -> Iterator[ClusterInfo]:
    """Start Ray or join a cluster for the length of a `with` block. A Ray that was started here is stopped at its end.

    Args:
        devices: how many GPUs to use, or how many logical devices on a machine without; None chooses.
        dashboard_port: None leaves the choice to Ray; a port that is in use is an error.
        temp_dir: where Ray keeps its session files; None is Ray's default.
        waits: an autoscaler may bring GPUs and CPUs, so a cluster that has none yet is no error.

    Raises:
        ClusterError: Ray could not be started or joined, or the cluster has no GPU or no CPU.
    """
    if ray.is_initialized():
        raise ClusterError("Ray is already running in this process; Tower starts or joins its own")
    address = os.environ.get("RAY_ADDRESS")
    logical = False
    try:
        if address:
            check_reachable(address)
            with _code_for_a_cluster() as runtime_env:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime_env)
        else:
            devices, logical = local_devices(devices)
            _check_port(dashboard_port)
            # Ray puts the folder in which it is started first on its workers' path. In a person's folder, `catalog` may be theirs.
            with contextlib.chdir(project()):
                ray.init(
                    address="local",  # never a cluster that happens to run on this machine
                    num_cpus=cores(),
                    num_gpus=devices,
                    include_dashboard=True,
                    dashboard_host="127.0.0.1",
                    dashboard_port=dashboard_port,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=str(temp_dir) if temp_dir else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
    except ClusterError:
        raise
    except Exception as error:
        where = f"join the Ray cluster at {address}" if address else "start Ray on this machine"
        raise ClusterError(f"could not {where}: {first_line(error)}") from error
    try:
        yield _info(logical, devices, waits)
    finally:
        ray.shutdown()


IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray's job supervisor sets it for the entrypoint


@contextmanager
def _code_for_a_cluster() -> Iterator[dict[str, str]]:
    """The runtime environment that brings the code to a cluster, for the time in which Ray uploads it.

    A Ray job has its code on the cluster already, and Ray allows no second working directory.
    """
    if IN_A_JOB in os.environ:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="tower-code-") as folder:
        copy_code(Path(folder))
        yield {"working_dir": folder}


def _info(logical: bool, wanted: int | None, waits: bool) -> ClusterInfo:
    have = ray.cluster_resources()
    gpus, cpus = int(have.get("GPU", 0)), int(have.get("CPU", 0))
    devices = min(wanted or gpus, gpus)
    if devices < 1 and not waits:
        raise ClusterError("the Ray cluster has no GPU, so no model could ever run; start a worker with --num-gpus")
    if cpus < 1 and not waits:
        raise ClusterError("the Ray cluster has no CPU, so no gate could ever run; start a worker with --num-cpus")
    url = ray._private.worker.get_dashboard_url() or ""
    threads = max(1, cpus // devices) if logical else 0
    dashboard_url = f"http://{url}" if url else ""
    return ClusterInfo(devices=devices, cpus=cpus, logical=logical, dashboard_url=dashboard_url, threads_per_device=threads)


def cores() -> int:
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def local_devices(wanted: int | None) -> tuple[int, bool]:
    """Number of devices on this machine, and whether they are logical. GPUs are used if there are any.

    Args:
        wanted: None is all GPUs; without GPUs it is as many logical devices as cores, two at most.

    Raises:
        ClusterError: fewer GPUs than wanted, or nvidia-smi hangs.
    """
    gpus = _gpus()
    if gpus:
        if wanted and wanted > gpus:
            raise ClusterError(f"{wanted} devices were asked for, but this machine has {gpus} GPU{'s' if gpus > 1 else ''}")
        return wanted or gpus, False
    return wanted or min(2, cores()), True


def _gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([x for x in visible.split(",") if x.strip() not in ("", "-1")])
    if not shutil.which("nvidia-smi"):
        return 0
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired as error:
        raise ClusterError("nvidia-smi did not answer within 30 s: the GPU's driver hangs; `tower doctor` tells more") from error
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _check_port(port: int | None) -> None:
    if port is None:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ClusterError(
                f"dashboard port {port} is not free ({error.strerror}); set TOWER_DASHBOARD_PORT to another, or unset it"
            ) from error


def check_reachable(address: str) -> None:
    """Raise ClusterError where nothing listens at the address. Ray itself would keep trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # such as "auto": Ray finds the address itself
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"could not join the Ray cluster at RAY_ADDRESS {address}: {error}") from error


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
