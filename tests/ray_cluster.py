"""A Ray cluster of this machine alone, for the tests of what Tower does on a cluster that was there before."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

TOKEN = "a-token-for-these-tests-alone-0123456789"


@dataclass(frozen=True)
class Cluster:
    """A cluster that wants a token. It knows nothing of Tower, nor of its virtual environment.

    url: of its dashboard and job API. address: of its head, host:port. process: `ray start`, which is the parent of everything there.
    """

    url: str
    address: str
    home: Path
    process: subprocess.Popen[bytes]

    def env(self, **more: str) -> dict[str, str]:
        """What a person who may use it has in the environment; HOME has no token of its own."""
        return {"RAY_API_SERVER_ADDRESS": self.url, "RAY_AUTH_TOKEN": TOKEN, "HOME": str(self.home)} | more


@contextmanager
def started(home: Path) -> Iterator[Cluster]:
    """Start a cluster with two logical devices, and end it with the block. home: an empty folder, which its processes have as HOME."""
    session = Path(tempfile.mkdtemp(prefix="tj", dir="/tmp"))  # socket paths must be short
    head, dashboard, client = free_ports(3)
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={head}", "--node-ip-address=127.0.0.1",
        "--num-cpus=2", "--num-gpus=2", "--object-store-memory=200000000", "--disable-usage-stats", f"--temp-dir={session}",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--dashboard-agent-listen-port=0", f"--ray-client-server-port={client}",
    ]  # fmt: skip
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    with (home / "ray.log").open("w") as log:
        process = subprocess.Popen(command, cwd=home, env=env, stdout=log, stderr=log)
    try:
        there = Cluster(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{head}", home, process)
        until_it_answers(there, home / "ray.log")
        yield there
    finally:
        end(process)
        shutil.rmtree(session, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def until_it_answers(there: Cluster, log: Path) -> None:
    """Its job API too: that waits for an agent which starts last."""
    for _ in range(300):
        assert there.process.poll() is None, log.read_text()
        try:
            if requests.get(f"{there.url}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5).ok:
                return
        except requests.exceptions.RequestException:
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def end(process: subprocess.Popen[bytes]) -> None:
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for member in psutil.wait_procs(family, timeout=5)[1]:
        member.kill()
