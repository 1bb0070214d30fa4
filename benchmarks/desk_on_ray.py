"""What a render loses beside an open desk on the same Ray cluster.

    python -m benchmarks.desk_on_ray             4 rounds of 60 shots without and with the desk, by turns; about 15 minutes on two cores
    python -m benchmarks.desk_on_ray --quick     1 round of 24 shots

The cluster is this machine. Models are stand-ins, which draw and sleep as models compute; gates, files and rows are real. The desk is
`tower serve --on-ray`, and one reader does what an open board does: it listens to the events, and asks for the board when one came, once a
second at most. A rate is shots a second from the first accepted clip to the last. `Processor` is what the desk's own processes
(controller, proxy, replica) used in that time: on a machine that does other things too, it says more than the rates.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import ray
from rich.console import Console
from rich.table import Table

from catalog.store import Catalog
from cluster.cores import cores
from cluster.start import cluster

from .soak import EPISODE, write_episode
from .watching import _free_port as free_port

DEVICES = 2
READY_SECONDS = 300.0
BOARD_SECONDS = 1.0  # between two looks at the board


@dataclass(frozen=True)
class Round:
    """rate: shots a second. processor: seconds that the desk's processes used in each second; 0 without a desk. boards: how often read."""

    rate: float
    processor: float = 0.0
    boards: int = 0


def render(folder: Path, address: str, shots: int) -> tuple[float, float, float]:
    """Render into the catalog in `folder`. Gives shots a second, and the times of the first and last accepted clip, since 1970."""
    env = environment(folder, address)
    command = [sys.executable, "-m", "benchmarks.soak_driver", "episode.yaml", "--out", "out", "--allow-experimental"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):  # all accepted, or some exhausted
        raise RuntimeError(f"the render ended with exit {done.returncode}: {done.stderr[-500:]}")
    rows = Catalog.open(folder / "catalog-data").rows("takes", columns=["at", "stage", "outcome"])
    times = sorted(row["at"].timestamp() for row in rows if row["stage"] == "clip" and row["outcome"] == "accepted")
    return (len(times) - 1) / (times[-1] - times[0]), times[0], times[-1]


def environment(folder: Path, address: str) -> dict[str, str]:
    return os.environ | {"TOWER_CATALOG_URI": str(folder / "catalog-data"), "RAY_ADDRESS": address, "TOWER_LOG_SECONDS": "5"}


@contextmanager
def desk(folder: Path, address: str) -> Iterator[str]:
    """`tower serve --on-ray` over the catalog in `folder`. Gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--on-ray", "--port", str(port)]
    with (folder / "desk.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment(folder, address), stdout=log, stderr=log)
    try:
        end = time.monotonic() + READY_SECONDS
        while "http" not in (folder / "desk.log").read_text():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the desk did not start: {(folder / 'desk.log').read_text()}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(120)


class Reader(threading.Thread):
    """An open board. looks: when it was read, seconds since 1970, with the processor seconds that the desk has used until then."""

    def __init__(self, url: str):
        super().__init__(daemon=True)
        self.url, self.looks = url, list[tuple[float, float]]()
        self.processes = [p for p in psutil.Process().children(recursive=True) if p.cmdline()[0][:10] in ("ray::Serve", "ray::Proxy")]

    def run(self) -> None:
        with suppress(httpx.TransportError), httpx.stream("GET", f"{self.url}/events?episode={EPISODE}", timeout=None) as events:
            for line in events.iter_lines():  # until the desk ends
                if line.startswith("event:") and (not self.looks or time.time() > self.looks[-1][0] + BOARD_SECONDS):
                    httpx.get(f"{self.url}/episodes/{EPISODE}", timeout=None)
                    self.looks.append((time.time(), sum(sum(p.cpu_times()[:2]) for p in self.processes)))

    def processor(self, first: float, last: float) -> float:
        """Processor seconds in each second between two times."""
        looks = [look for look in self.looks if first <= look[0] <= last]
        return (looks[-1][1] - looks[0][1]) / (looks[-1][0] - looks[0][0])


def one_round(folder: Path, address: str, shots: int, with_desk: bool) -> Round:
    write_episode(folder, shots)
    with desk(folder, address) if with_desk else nullcontext() as url:
        if not url:
            return Round(render(folder, address, shots)[0])
        reader = Reader(url)
        reader.start()
        rate, first, last = render(folder, address, shots)
        return Round(rate, reader.processor(first, last), len(reader.looks))


def report(without: list[Round], beside: list[Round], console: Console) -> None:
    table = Table("", "shots/s, median", "of the rounds", "processor", title=f"{cores()} cores, load {os.getloadavg()[0]:.1f} at the end")
    for name, rounds in (("without a desk", without), ("beside an open desk", beside)):
        rates, used = [r.rate for r in rounds], statistics.median(r.processor for r in rounds)
        each = " ".join(f"{rate:.3f}" for rate in rates)
        table.add_row(name, f"{statistics.median(rates):.3f}", each, f"{used:.3f} of a core" if used else "")
    console.print(table)
    lost = 1 - statistics.median(r.rate for r in beside) / statistics.median(r.rate for r in without)
    console.print(f"lost: {lost:.1%} (promised: at most 5 %); the board was read {sum(r.boards for r in beside)} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1 round of 24 shots")
    rounds, shots = (1, 24) if parser.parse_args().quick else (4, 60)
    without, beside = list[Round](), list[Round]()
    with tempfile.TemporaryDirectory(prefix="desk-") as folder, cluster(DEVICES):
        address = ray.get_runtime_context().gcs_address
        for number in range(rounds):
            without.append(one_round(Path(folder) / f"without-{number}", address, shots, with_desk=False))
            beside.append(one_round(Path(folder) / f"beside-{number}", address, shots, with_desk=True))
    report(without, beside, Console(width=120))


if __name__ == "__main__":
    main()
