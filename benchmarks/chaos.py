"""Chaos: a cluster where devices, gate workers, a node and the driver die at random, over one episode.

    python -m benchmarks.chaos              100 kills over 200 shots with stand-in models; ten minutes on two cores
    python -m benchmarks.chaos --quick      10 kills over 24 shots

Several Ray nodes on this machine's loopback, the driver a process of its own that joins them, `tower render` as ever. Whoever
is killed gets SIGKILL. A dead driver is started again at once, and a dead node replaced by another. At the end every shot must have
ended exactly once, with the very media of an undisturbed render. Exit 1 if not.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray  # noqa: F401 - before its own parts
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

from .soak import LIFE_SECONDS, Check, Found, Life, Site, Soak, checks, leave, tell_checks, write_episode
from .stand_ins import cpu_name

HEAD = "127.0.0.2"  # loopback, but not the address that Ray takes for this machine's own and replaces
GPUS, NODES, LIVE = 2, 2, 4
WHAT = ("actor",) * 65 + ("worker",) * 22 + ("driver",) * 10 + ("node",) * 3
STORE = 300 * 2**20
SECONDS = 1500.0


@dataclass(frozen=True)
class ClusterSite(Site):
    """A site whose driver joins a cluster."""

    address: str = ""

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"RAY_ADDRESS": self.address}


class Machines:
    """A head without devices, and nodes with two each."""

    def __init__(self, temp: Path):
        head = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False, "node_ip_address": HEAD, "object_store_memory": STORE}
        self.cluster: Any = Cluster(initialize_head=True, head_node_args=head | {"temp_dir": str(temp)})
        self.count = 0
        for _ in range(NODES):
            self.add()

    def add(self) -> None:
        self.count += 1
        where = f"127.0.0.{2 + self.count}"
        self.cluster.add_node(num_cpus=1, num_gpus=GPUS, node_ip_address=where, object_store_memory=STORE)

    def replace_one(self, rng: random.Random) -> None:
        """One node is lost with all that runs there; another comes."""
        self.cluster.remove_node(rng.choice(sorted(self.cluster.worker_nodes, key=str)), allow_graceful=False)
        self.add()

    def processes(self, kind: str) -> list[psutil.Process]:
        """Devices, or workers that run CPU tasks, at work just now."""
        marks = {"actor": ("keyframe ", "clip ", "prompt ", "load "), "worker": ("gate ", "still ")}[kind]
        found = []
        for child in psutil.Process().children(recursive=True):
            try:
                title = " ".join(child.cmdline())
            except psutil.Error:
                continue
            if title.startswith("ray::") and any(title.removeprefix("ray::").startswith(mark) for mark in marks):
                found.append(child)
        return found


def kill(what: str, machines: Machines, life: Life, rng: random.Random) -> str | None:
    """What was killed; None where nothing of that kind was at work."""
    if what == "driver":
        life.kill()
        return "driver"
    if what == "node":
        machines.replace_one(rng)
        return "node"
    there = machines.processes(what)
    if not there:
        return None
    rng.choice(there).kill()
    return what


def run(folder: Path, options: argparse.Namespace, console: Console) -> bool:
    rng, temp = random.Random(options.seed), folder / "t"
    temp.mkdir()
    calm = Site(folder / "calm", temp, "stand-in")
    write_episode(calm.folder, options.shots)
    right = Soak()
    first = right.undisturbed(calm)
    calm_seconds = first.age
    console.print(f"undisturbed: {calm_seconds:.0f} s, {len(first.takes)} takes", highlight=False)
    machines = Machines(Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp")))
    try:
        site = ClusterSite(folder / "killed", temp, "stand-in", machines.cluster.address)
        write_episode(site.folder, options.shots)
        happened, killed, seconds = disturb(site, machines, options, rng)
    finally:
        machines.cluster.shutdown()
    found, before = Found.at(site), Found.at(calm)
    made = [*checks(site, before, found, happened, GPUS * NODES * LIVE), *outcomes(before, found)]
    title = f"{options.shots} shots, {killed.total()} kills, seed {options.seed}; {cpu_name()}"
    table = Table("", "count", "of, or limit", "", title=title)
    for what, count in killed.most_common():
        table.add_row(f"killed: {what}", str(count))
    table.add_row("seconds", f"{seconds:.0f}", f"{calm_seconds:.0f} undisturbed, on one node")
    for outcome, count in Counter(t["outcome"] for t in found.takes).items():
        table.add_row(f"takes {outcome}", str(count))
    tell_checks(table, made, happened, console)
    return all(check.holds for check in made)


def outcomes(calm: Found, found: Found) -> Iterator[Check]:
    per_shot = Counter(t["shot"] for t in found.accepted if t["stage"] == "clip")
    yield Check("shots without exactly one accepted clip", sum(per_shot[s] != 1 for s, end in calm.ends.items() if end == "accepted"))


def disturb(site: ClusterSite, machines: Machines, options: argparse.Namespace, rng: random.Random) -> tuple[Soak, Counter[str], float]:
    """Kill until the kills are spent, then let the last driver end."""
    happened, killed, began = Soak(), Counter[str](), time.monotonic()
    todo = [what for i, what in enumerate(WHAT) if i * options.kills % len(WHAT) < options.kills]
    rng.shuffle(todo)
    life = happened.start(site)
    due = time.monotonic() + 5.0
    with ThreadPoolExecutor(1) as undertaker:
        while time.monotonic() - began < SECONDS:
            ended = not life.run_for(0.1)
            if ended and (todo == [] or life.process.returncode in (0, 3)):
                happened.note_end(life)
                break
            if ended:
                happened.note_end(life)
                life = happened.start(site)
            if todo and life.takes and time.monotonic() > due:
                what = kill(todo[-1], machines, life, rng)
                due = time.monotonic() + (rng.uniform(0.1, 0.9) if what else 0.05)
                if what:
                    killed[todo.pop()] += 1
                    happened.phases[what] += 1
                if what == "driver":
                    happened.left_behind.append(undertaker.submit(life.bury))
                    life = happened.start(site)
            if life.age > 2 * LIFE_SECONDS:
                happened.failed.append(f"{life.log.name}: did not end in {2 * LIFE_SECONDS:.0f} s")
                life.kill()
                break
    if todo:
        happened.failed.append(f"{len(todo)} kills were not done: the episode was over before, or the time")
    return happened, killed, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--shots", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="10 kills over 24 shots")
    options = parser.parse_args()
    if options.quick:
        options.kills, options.shots = 10, 24
    os.environ.pop("RAY_ADDRESS", None)
    console = Console(width=150)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    console.print(f"seed {options.seed}, in {folder}", highlight=False)
    leave(folder, run(folder, options, console), console)


if __name__ == "__main__":
    main()
