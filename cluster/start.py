"""Start Ray on this machine, or join a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
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
import ray._common.utils

from .address import AddressError, cluster_address, in_one_line
from .code import copy_code, project
from .cores import cores
from .gpus import Gpu, GpuFault, allowed_gpus


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
    address, before = joined(), signal.getsignal(signal.SIGTERM)
    logical = False
    try:
        if address:
            with code_for_a_cluster() as runtime_env:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime_env)
        else:
            gpus, devices = local_devices(devices)
            logical = not gpus
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
        raise ClusterError(f"could not {where}: {in_one_line(error)}") from error
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray has set its own, which ends the process with exit code 15
    try:
        yield _info(logical, devices, waits)
    finally:
        ray.shutdown()


IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray's job supervisor sets it for the entrypoint


@contextmanager
def code_for_a_cluster() -> Iterator[dict[str, str]]:
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


def local_devices(wanted: int | None) -> tuple[list[Gpu], int]:
    """The GPUs of this machine, and the number of devices to use. Without GPUs the devices are logical.

    Args:
        wanted: None is all GPUs; without GPUs it is as many logical devices as cores, two at most.

    Raises:
        ClusterError: fewer GPUs than wanted, or those that there are cannot be used.
    """
    try:
        gpus = allowed_gpus()
    except GpuFault as error:
        raise ClusterError(str(error)) from error
    if gpus and wanted and wanted > len(gpus):
        raise ClusterError(f"TOWER_DEVICES asks for {wanted} devices, but this machine has {len(gpus)} GPU{'s' if len(gpus) > 1 else ''}")
    return gpus, wanted or len(gpus) or min(2, cores())


def ray_temp_dir() -> Path:
    """Where Ray keeps its session files unless it is told otherwise."""
    return Path(ray._common.utils.get_default_ray_temp_dir())


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


def check_devices(wanted: int | None) -> None:
    """Raises ClusterError where no render could start: no cluster answers, or this machine's GPUs cannot be used."""
    if not joined():
        local_devices(wanted)


def joined() -> str | None:
    """The address of the cluster that RAY_ADDRESS names, asked now; None where Ray is started on this machine.

    Raises:
        ClusterError: nobody answers there, or it is no address that can be joined.
    """
    given = os.environ.get("RAY_ADDRESS")
    if not given or IN_A_JOB in os.environ:
        return given or None  # a job runs in the cluster itself
    try:
        return cluster_address(given)
    except AddressError as error:
        raise ClusterError(str(error)) from error
