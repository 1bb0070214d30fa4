"""The desk under load: a catalog of 100,000 takes, a render that goes on, readers that behave like the page, open event streams.

    python -m benchmarks.desk            200 readers, 1,000 streams; four minutes on two cores, rows in the table `measurements`
    python -m benchmarks.desk --quick    4,000 takes, 20 readers, 50 streams; nothing is recorded
    python -m benchmarks.desk --keep FOLDER    the catalog is made there, or was

Service, writer and readers are processes of their own, and share the cores. The service is `tower serve` as it is. Exit 1 if a promise
is not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console

from catalog.store import Catalog
from pipeline.story.settings import PROJECT, load_settings

from .catalog import take_row
from .desk_catalog import Size, make_catalog
from .orchestration import Figure, record
from .stand_ins import cpu_name

P95 = 0.2  # seconds that 95 of 100 answers of JSON may take, with readers that think
MEMORY = 300.0  # MB that open streams may add
THINK = 1.0  # seconds that a reader looks at what it got
JSON_ROUTES = ("list of episodes", "board", "board, unchanged", "shot", "take")
START_SECONDS = 120.0


@dataclass(frozen=True)
class Load:
    size: Size
    readers: int
    seconds: float
    streams: int


WHOLE = Load(Size(100_000, 20, 300), readers=200, seconds=40, streams=1000)
QUICK = Load(Size(4_000, 4, 60), readers=20, seconds=5, streams=50)


@dataclass
class Service:
    """A running `tower serve`."""

    process: subprocess.Popen[str]
    address: str

    @property
    def memory(self) -> float:
        """MB."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    @property
    def cpu(self) -> float:
        """Seconds so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def get(self, path: str) -> Any:
        return httpx.get(self.address + path, timeout=START_SECONDS).raise_for_status().json()


@contextmanager
def running(catalog: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A process of the project over the catalog; it is ended with the block."""
    env = os.environ | {"TOWER_CATALOG_URI": str(catalog), "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen([sys.executable, "-m", *args], env=env, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def serving(catalog: Path) -> Iterator[Service]:
    with running(catalog, "pipeline.cli", "serve", "--port", "0") as process:
        assert process.stdout
        service = Service(process, process.stdout.readline().strip())
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                httpx.get(f"{service.address}/health", timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield service


@contextmanager
def rendering(catalog: Path, episode: str) -> Iterator[None]:
    """While this is open, a driver claims the episode and commits takes."""
    with running(catalog, "benchmarks.desk_writer", episode) as process:
        assert process.stdout
        assert process.stdout.readline(), "the driver has not begun"
        yield


def first_answers(service: Service, episode: str) -> list[Figure]:
    """Seconds until each answer of a service that has just started."""
    shot = ""
    figures = []
    for what, path in {"list of episodes": "", "board": f"/{episode}", "plan": f"/{episode}/plan", "shot": ""}.items():
        began = time.perf_counter()
        told = service.get(f"/episodes/{episode}/shots/{shot}" if what == "shot" else f"/episodes{path}")
        figures.append(Figure(f"first {what} after the start", time.perf_counter() - began, "s"))
        if what == "board":
            shot = told["sequences"][0]["shots"][0]["shot"]
    return figures


def idle(service: Service, seconds: float) -> list[Figure]:
    """What a desk costs that nobody asks, without a render."""
    before = service.cpu
    time.sleep(seconds)
    return [Figure("idle: share of a core", (service.cpu - before) / seconds, "", most=0.02)]


def read(catalog: Path, service: Service, episode: str, readers: int, seconds: float, think: float) -> list[Figure]:
    """Percentiles of the time of answers, by route."""
    before, began = service.cpu, time.monotonic()
    args = (service.address, episode, str(readers), str(seconds), str(think))
    with running(catalog, "benchmarks.desk_readers", *args) as process:
        asked = json.loads(process.communicate(timeout=20 * seconds)[0])
    took = time.monotonic() - began
    wrong = [one for one in asked if one[2] not in (200, 304)]
    who = f"{readers} readers, {'thinking' if think else 'without a pause'}"
    figures = [
        Figure(f"{who}: answers that were errors", len(wrong), "", most=0),
        Figure(f"{who}: answers a second", len(asked) / seconds, "/s"),
        Figure(f"{who}: the service's share of a core", (service.cpu - before) / took, ""),
    ]
    for route in dict.fromkeys(one[0] for one in sorted(asked)):
        times = sorted(one[1] for one in asked if one[0] == route)
        promised = P95 if think and route in JSON_ROUTES else None
        figures.append(Figure(f"{who}: {route}, p50", times[len(times) // 2], "s"))
        figures.append(Figure(f"{who}: {route}, p95", times[int(len(times) * 0.95)], "s", most=promised))
        figures.append(Figure(f"{who}: {route}, longest", times[-1], "s"))
    return figures


def streams(where: Path, catalog: Catalog, service: Service, episode: str, many: int) -> list[Figure]:
    """Open streams: memory, and how long a take needs to reach the last of them."""
    before = service.memory
    with running(where, "benchmarks.desk_streams", service.address, str(many)) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        opened = service.memory
        began = time.monotonic()
        catalog.append("takes", [_take(episode, 0)])
        heard = json.loads(process.stdout.readline())
        told = service.memory
    return [
        Figure(f"{many} streams: memory of the service before", before, "MB"),
        Figure(f"{many} streams: more memory, all open", opened - before, "MB", most=MEMORY),
        Figure(f"{many} streams: more memory, all told", told - before, "MB", most=MEMORY),
        Figure(f"{many} streams: streams that heard of a take", len(heard), "", least=many),
        Figure(f"{many} streams: from before the commit to the first", min(heard) - began, "s"),
        Figure(f"{many} streams: to the last", max(heard) - began, "s"),
    ]


def cut_off(where: Path, catalog: Catalog, episode: str) -> list[Figure]:
    """A listener is cut off, comes back, and comes back again to a service that was killed and started anew."""
    made, told = [], []
    with serving(where) as service:
        last, _ = _listen(service, "", 0)
        for number in range(1, 61):
            made.append(_take(episode, number))
            catalog.append("takes", made[-1:])
            if number % 15 == 0:
                last, new = _listen(service, last, 15)
                told += new
        made.append(_take(episode, 61))
        catalog.append("takes", made[-1:])
        service.process.send_signal(signal.SIGKILL)
    made += [_take(episode, number) for number in range(62, 82)]
    catalog.append("takes", made[-20:])
    with serving(where) as service:
        told += _listen(service, last, 21)[1]
    missed = {row["take"] for row in made} - set(told)
    return [Figure("cut off five times, the service killed once: takes that were missed", len(missed), f"of {len(made)}", most=0)]


def _listen(service: Service, after: str, takes: int) -> tuple[str, list[str]]:
    """Listen until so many takes are heard, or for the first id. Gives the last id and the takes."""
    last, heard = after, []
    headers = {"last-event-id": after} if after else {}
    with httpx.stream("GET", f"{service.address}/events", headers=headers, timeout=START_SECONDS) as answer:
        for line in answer.iter_lines():
            if line.startswith("id: "):
                last = line[4:]
            elif line.startswith("data: {") and '"take":' in line:
                heard.append(json.loads(line[6:])["take"])
            elif not line and last and len(set(heard)) >= takes:
                break
    return last, heard


def _take(episode: str, number: int) -> dict[str, Any]:
    none = dict.fromkeys(("media", "media_path", "media_bytes"))
    name = {"take": f"{episode}/SH000001/clip/v{9000 + number:06d}", "shot": "SH000001", "attempt": 9000 + number}
    return take_row(episode, number) | name | none | {"stage": "clip", "outcome": "error", "labels": [], "error": "made up"}


def measure(folder: Path, load: Load, console: Console) -> Iterator[Figure]:
    where = folder / "catalog"
    settings = load_settings().model_copy(update={"catalog_uri": str(where)})
    episode = f"E{load.size.episodes:02d}" if where.is_dir() else make_catalog(settings, load.size)
    catalog = Catalog.open(where)
    console.print(f"{catalog.dataset('takes').count_rows():,} takes in {where}", highlight=False)
    with serving(where) as service:
        yield from first_answers(service, episode)
        yield from idle(service, 10)
        with rendering(where, episode):
            yield from read(where, service, episode, load.readers, load.seconds, THINK)
            yield from read(where, service, episode, load.readers, load.seconds / 4, 0)
        yield Figure("memory of the service after that", service.memory, "MB")
        yield from streams(where, catalog, service, episode, load.streams)
    yield from cut_off(where, catalog, episode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small catalog and few readers; nothing is recorded")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="of the made-up catalog, to use it again")
    options = parser.parse_args()
    console, began, made = Console(width=150), datetime.now(UTC), list[Figure]()
    with tempfile.TemporaryDirectory(prefix="tower-desk-") as temporary:
        console.print(f"{cpu_name()}, {os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}", highlight=False)
        for figure in measure(options.keep or Path(temporary), QUICK if options.quick else WHOLE, console):
            made.append(figure)
            promised = f"≥ {figure.least:g}" if figure.least is not None else f"≤ {figure.most:g}" if figure.most is not None else ""
            missed = "" if figure.holds else "MISSED"
            console.print(f"{figure.what:<70}{figure.value:>10.3f} {figure.unit:<6}{promised:>8} {missed}".rstrip(), highlight=False)
    if not options.quick:
        record("desk", began, made)
    sys.exit(0 if all(f.holds for f in made) else 1)


if __name__ == "__main__":
    main()
