"""Many machines: does a render survive what happens to the network between machines?

    python -m benchmarks.many_machines            200 shots with stand-in models; five minutes on two cores
    python -m benchmarks.many_machines --quick    100 shots

Each machine is a network namespace with a name, an address and a Ray node of its own; a bridge in one more namespace is the
switch between them, and nothing else can reach them. The head has CPUs only; a, b and later c have a device each. The disk
is shared. An undisturbed render comes first, for what is right. Then the same episode with another catalog: a link becomes
slow, a machine joins, a link is gone for some seconds, and one is cut for good while its machine executes a take and judges
another. What the render finishes must be the undisturbed one, to the bit. Exit 1 if it is not. Needs root and iproute2.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from pipeline.render.drive import LIVE_PER_DEVICE

from .soak import TAKE, Check, Found, Life, Site, Soak, checks, leave, tell_checks, write_episode
from .stand_ins import EXECUTIONS

CARDS = {"a": "large", "b": "small", "c": "large"}  # their nodes' label `card`
PLACED = "animatediff", "large"  # a family that only such cards may run
ADDRESSES = {"head": "10.77.0.1", "a": "10.77.0.2", "b": "10.77.0.3", "c": "10.77.0.4"}
PORT = 6379
TOKEN = secrets.token_hex(32)  # Ray locks a cluster that several machines can reach
SLOW = "4mbit"  # a clip's frames, 2.9 MB, take six seconds on it
GAP_SECONDS = 5.0  # in which a link is gone; TCP bridges it, and Ray's health checks wait longer
RENDER_SECONDS = 280.0  # of which a cut link may cost a minute, and the assembly of 100 shots half a minute
POLL_SECONDS = 0.01


class NoNetwork(RuntimeError):
    """This machine does not let us make networks, or Ray does not start in them. One sentence."""


class TooLate(RuntimeError):
    """The render ended before everything had happened to it."""


def command(*words: str, seconds: float = 120, **more: Any) -> str:
    """Run it to its end, and give what it printed."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, **more)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoNetwork(f"`{' '.join(words[:6])}`: {error}; this needs Linux, root and iproute2") from error
    if done.returncode:
        why = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise NoNetwork(f"`{' '.join(words[:6])}` failed: {' '.join(why)[:200]}; this needs Linux, root and iproute2")
    return done.stdout


class Rack:
    """The machines and their switch. They end with the `with` block, whatever happened in it."""

    def __init__(self, temp: Path):
        self.temp = temp
        self.spaces: list[str] = []

    def __enter__(self) -> Rack:
        try:
            self._space("switch")
            self._at("switch", "link", "add", "name", "bridge", "type", "bridge")
            self._at("switch", "link", "set", "dev", "bridge", "up")
        except NoNetwork:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for space in self.spaces:
            end = time.monotonic() + 10
            while (pids := command("ip", "netns", "pids", space).split()) and time.monotonic() < end:
                for pid in pids:
                    _kill(int(pid))
                time.sleep(0.1)
            command("ip", "netns", "del", space)  # its links go with it

    def add(self, name: str, environment: dict[str, str]) -> None:
        """A machine, its link, and its Ray node, which is up when this ends."""
        self._space(name)
        self._at("switch", "link", "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", self._called(name))
        self._at("switch", "link", "set", "dev", name, "master", "bridge", "up")
        self._at(name, "address", "add", f"{ADDRESSES[name]}/24", "dev", "eth0")
        self._at(name, "link", "set", "dev", "lo", "up")
        self._at(name, "link", "set", "dev", "eth0", "up")
        told = [f"--node-ip-address={ADDRESSES[name]}", "--object-store-memory=100000000", "--disable-usage-stats"]
        if name == "head":
            told += ["--head", f"--port={PORT}", "--num-cpus=2", "--num-gpus=0", "--include-dashboard=false"]
        else:
            told += [f"--address={ADDRESSES['head']}:{PORT}", "--num-cpus=1", "--num-gpus=1", f"--labels=card={CARDS[name]}"]
        temp = self.temp / name
        temp.mkdir()
        mine = {"TMPDIR": str(temp), EXECUTIONS: str(self.executions(name)), "RAY_health_check_timeout_ms": "3000"}  # as in cluster/deploy
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--temp-dir={temp}", *told]
        command(*self.inside(name, ray), env=environment | mine, stdin=subprocess.DEVNULL)

    def inside(self, name: str, words: list[str]) -> list[str]:
        """The command, run on that machine, where the host has its name too."""
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name]
        return ["ip", "netns", "exec", self._called(name), *named, *words]

    def executions(self, name: str) -> Path:
        return self.temp / f"{name}.txt"

    def executed(self, name: str) -> list[tuple[float, str]]:
        """Seconds since 1970, and the take: everything that was begun on that machine."""
        file = self.executions(name)
        lines = file.read_text().splitlines() if file.exists() else []
        return [(float(at), take) for at, take in (line.split() for line in lines)]

    def pids(self, name: str) -> list[str]:
        return command("ip", "netns", "pids", self._called(name)).split()

    def link(self, name: str, state: str) -> None:
        """up or down, as if its plug were pulled: packets are lost, and nobody is told."""
        self._at("switch", "link", "set", "dev", name, state)

    def slow(self, name: str) -> None:
        """Both ways."""
        for space, device in (("switch", name), (name, "eth0")):
            limit = ["root", "tbf", "rate", SLOW, "burst", "32kb", "latency", "400ms"]
            command("tc", "-n", self._called(space), "qdisc", "add", "dev", device, *limit)

    def fast(self, name: str) -> None:
        for space, device in (("switch", name), (name, "eth0")):
            command("tc", "-n", self._called(space), "qdisc", "del", "dev", device, "root")

    def _space(self, name: str) -> None:
        command("ip", "netns", "add", self._called(name))
        self.spaces.append(self._called(name))

    def _at(self, name: str, *words: str) -> None:
        command("ip", "-n", self._called(name), *words)

    def _called(self, name: str) -> str:
        return f"tower-{os.getpid()}-{name}"


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@dataclass(frozen=True)
class Inside(Site):
    """A site whose drivers run on the rack's head."""

    rack: Rack

    @property
    def command(self) -> list[str]:
        return self.rack.inside("head", super().command)

    @property
    def environment(self) -> dict[str, str]:
        joins = {"RAY_ADDRESS": f"{ADDRESSES['head']}:{PORT}", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        return super().environment | joins | {"TOWER_CLUSTER_PROFILE": str(self.folder / "rack.yaml")}

    def write(self, shots: int) -> None:
        write_episode(self.folder, shots)
        family, card = PLACED
        profile = {"name": "rack", "placement": {family: {"card": card}}}
        (self.folder / "rack.yaml").write_text(yaml.safe_dump(profile))


@dataclass
class Story:
    """What happens while a driver renders. events: name to its beginning and end, seconds since 1970."""

    life: Life
    rack: Rack
    shots: int
    events: dict[str, tuple[float, float]] = field(default_factory=dict)
    hit: set[str] = field(default_factory=set)  # takes that were executed or judged where the link was cut

    def happen(self, environment: dict[str, str]) -> None:
        rack = self.rack
        self._after(0.1)
        with self._event(f"link of a: {SLOW}"):
            rack.slow("a")
            self._after(0.4)
            rack.fast("a")
        with self._event("c joins"):
            rack.add("c", environment)
            self._until(lambda: bool(rack.executed("c")))
        with self._event(f"link of c: gone for {GAP_SECONDS:.0f} s"):
            rack.link("c", "down")
            self._until(lambda: False, GAP_SECONDS)
            rack.link("c", "up")
            begun = len(rack.executed("c"))
            self._until(lambda: len(rack.executed("c")) > begun)
        pids = rack.pids("b")
        self._until(lambda: {"clip", "gate"} <= {title.split()[0] for title in titles(pids)})
        with self._event("link of b: cut for good"):
            before = titles(pids)
            rack.link("b", "down")
            still = {title.split()[0] for title in before & titles(pids)}
            self.hit = {take for _, take in rack.executed("b")[-1:]} if "clip" in still else set()
            self._until(lambda: all(f"{take} " in self.life.text for take in self.hit))

    def _after(self, share: float) -> None:
        """Wait for so many takes, as a multiple of the shots; at least two are made of each."""
        self._until(lambda: len(TAKE.findall(self.life.text)) >= share * self.shots)

    def _until(self, what: Callable[[], bool], seconds: float = RENDER_SECONDS) -> None:
        """Wait for it; no longer than the driver lives."""
        end = time.monotonic() + seconds
        while not what() and time.monotonic() < end and self.life.process.poll() is None and self.life.age < RENDER_SECONDS:
            time.sleep(POLL_SECONDS)

    @contextmanager
    def _event(self, name: str) -> Iterator[None]:
        if self.life.process.poll() is not None or self.life.age > RENDER_SECONDS:
            raise TooLate(f"{name}: the driver had ended, or {RENDER_SECONDS:.0f} s were over, before it could happen")
        began = time.time()
        yield
        self.events[name] = began, time.time()


def titles(pids: list[str]) -> set[str]:
    """What Ray's workers are at, as they tell it: `clip ltx_video_2b_demo@1`, `gate 2`."""
    told = set()
    for pid in pids:
        with suppress(OSError):
            told.add(Path(f"/proc/{pid}/cmdline").read_text().strip("\0 "))
    return {title.removeprefix("ray::") for title in told if title.startswith(("ray::clip ", "ray::keyframe ", "ray::gate "))}


def spans(found: Found) -> list[tuple[float, float, str]]:
    """Of every take: when its shot turned to it, when it was recorded (seconds since 1970), and its id."""
    begun: dict[str, float] = {}
    for at, take in found.executions:
        begun.setdefault(take, at)
    last: dict[str, float] = {}
    told = []
    for row in sorted(found.takes, key=lambda row: row["at"]):
        at = row["at"].timestamp()
        told.append((last.get(row["shot"], begun.get(row["take"], at)), at, row["take"]))
        last[row["shot"]] = at
    return told


def silences(found: Found) -> list[tuple[float, float, float]]:
    """Seconds between a take's record and the next one's, and when (seconds since 1970)."""
    at = sorted(row["at"].timestamp() for row in found.takes)
    return [(b - a, a, b) for a, b in pairwise(at)]


def render(site: Inside, happened: Soak, meanwhile: Callable[[Life], None]) -> Found:
    """One driver, from its start to its end."""
    began, life = time.time(), happened.start(site)
    try:
        meanwhile(life)
        while life.process.poll() is None and life.age < RENDER_SECONDS:
            time.sleep(POLL_SECONDS)
    except TooLate as late:
        happened.failed.append(str(late))
    finally:
        if life.process.poll() is None:
            accepted = set(re.findall(r"/(SH\d+)/clip/v\d+ accepted", life.text))
            waits = sorted(set(re.findall(r"/(SH\d+)/", life.text)) - accepted)
            happened.failed.append(f"{life.log.name}: did not end in {RENDER_SECONDS:.0f} s; without a clip: {', '.join(waits)[:300]}")
            life.kill()
    happened.note_end(life)
    lines = sorted(line for name in CARDS for line in site.rack.executed(name) if line[0] > began)
    site.executions.write_text("".join(f"{at} {take}\n" for at, take in lines))
    return Found.at(site)


def promises(rack: Rack, found: Found, story: Story) -> Iterator[Check]:
    """Beside those of the soak."""
    where = {name: {take for _, take in rack.executed(name)} for name in CARDS}
    made = [t for t in found.takes if t["node"]]
    yield Check("events that did not happen", 4 - len(story.events) + (not story.hit), of="4, and the cut must hit a take")
    strangers = sum(t["take"] not in where.get(t["node"], ()) for t in made)
    yield Check("rows that name a machine which did not run the take", strangers, of=f"{len(made)} rows")
    placed = [t for t in made if t["workflow"].startswith(PLACED[0])]
    wrong = sum(CARDS[t["node"]] != PLACED[1] for t in placed)
    yield Check(f"takes of {PLACED[0]} on a card that is not {PLACED[1]}", wrong, of=f"{len(placed)} takes on {_counted(placed)}")
    ends = Counter(t["take"] for t in found.takes)
    lost = sum(ends[take] != 1 for take in story.hit)
    yield Check("takes on b when it was cut off that were not recorded once", lost, of=", ".join(sorted(story.hit)))
    blamed = sum(" died while it ran " in (t["error"] or "") for t in found.takes)
    yield Check("takes blamed for a device that went with its machine", blamed, of=f"{len(found.takes)} takes")
    yield Check("machines without a take", len(set(CARDS) - {t["node"] for t in made}), of=_counted(made))


def _counted(takes: list[dict[str, Any]]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(Counter(t["node"] for t in takes).items()))


def report(calm: Found, found: Found, story: Story, made: list[Check], happened: Soak, title: str, console: Console) -> None:
    usual = sorted(end - begin for begin, end, _ in spans(calm))
    typical, longest = usual[len(usual) // 2], usual[-1]
    heads = ("event", "s after the start", "it took, s", "longest silence, s", "takes under way", "slowest, s", "executed again")
    costs = Table(*heads, title=title)
    calm_silence = max(silences(calm))[0]
    costs.add_row("(nothing)", "", "", f"{calm_silence:.1f}", str(len(usual)), f"{longest:.1f} (median {typical:.1f})", str(calm.repeated))
    begun = Counter(take for _, take in found.executions)
    first = found.executions[0][0]
    for name, (begin, end) in story.events.items():
        there = [(b - a, take) for a, b, take in spans(found) if a <= end and b >= begin]
        again = sum(begun[take] > 1 for _, take in there)
        silence = max((s for s, a, b in silences(found) if a <= end and b >= begin), default=0.0)
        numbers = (begin - first, end - begin, silence)
        costs.add_row(name, *(f"{n:.1f}" for n in numbers), str(len(there)), f"{max(there, default=(0.0,))[0]:.1f}", str(again))
    console.print(costs)
    told = Table("", "count", "of, or limit", "")
    for outcome, n in Counter(t["outcome"] for t in found.takes).items():
        told.add_row(f"takes {outcome}", str(n), "")
    tell_checks(told, made, happened, console)


def try_it(folder: Path, shots: int, console: Console) -> bool:
    began, temp = time.monotonic(), folder / "t"
    temp.mkdir()
    with Rack(temp) as rack:
        calm, tried = (Inside(folder / name, temp, "stand-in", rack) for name in ("calm", "tried"))
        for site in (calm, tried):
            site.write(shots)
        for name in ("head", "a", "b"):
            rack.add(name, calm.environment)
        console.print(f"three machines are up after {time.monotonic() - began:.1f} s", highlight=False)
        right = Soak()
        undisturbed = render(calm, right, lambda life: None)
        if right.failed:
            console.print(*right.failed, right.lives[0].text, sep="\n", highlight=False, markup=False)
            return False
        console.print(f"undisturbed: {len(undisturbed.takes)} takes, {right.lives[0].age:.1f} s", highlight=False)
        happened, stories = Soak(), []

        def story(life: Life) -> None:
            stories.append(Story(life, rack, shots))
            stories[0].happen(tried.environment)

        found = render(tried, happened, story)
        seconds = happened.lives[0].age
        happened.phases["link cut"] = 1  # the only event that may cost takes in flight
        made = [*checks(tried, undisturbed, found, happened, len(CARDS) * LIVE_PER_DEVICE), *promises(rack, found, stories[0])]
    title = f"{shots} shots, {seconds:.0f} s; all of it {time.monotonic() - began:.0f} s"
    report(undisturbed, found, stories[0], made, happened, title, console)
    return all(check.holds for check in made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="100 shots")
    options = parser.parse_args()
    console = Console(width=150)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="rack-"))
    try:
        good = try_it(folder, 100 if options.quick else options.shots, console)
    except NoNetwork as error:
        console.print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
    leave(folder, good, console)


if __name__ == "__main__":
    main()
