"""Soak: kill a render's driver again and again, and prove that nothing is lost, doubled or damaged.

    python -m benchmarks.soak                 30 kills over 24 shots with stand-in models; five minutes on two cores
    python -m benchmarks.soak --quick         3 kills over 6 shots
    python -m benchmarks.soak --models demo   the demo checkpoints, through `tower render` itself

An undisturbed render comes first, for what is right and how long its phases take. Then the same episode with another
catalog: its driver is killed (SIGKILL, so that it can tidy nothing) at moments of every phase, and started again at
once. The last run is left alone. What it finishes must be the undisturbed render, to the bit. Exit 1 if it is not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NoReturn

import psutil
import yaml
from rich.console import Console
from rich.table import Table

from catalog.care import NAMED
from catalog.damage import table_problems
from catalog.store import Catalog
from pipeline.render.drive import LIVE_PER_DEVICE
from pipeline.story.settings import PROJECT

from .stand_ins import EXECUTIONS, cpu_name

EPISODE = "E95"
DRIVERS = {"stand-in": ("benchmarks.soak_driver",), "demo": ("pipeline.cli", "render")}
KINDS = ("take", "start-up", "assembly", "take", "Ray start", "device start")  # of kills, in turn
LIFE_SECONDS = 300.0  # a driver that neither ends nor reaches its moment hangs
TOTAL_SECONDS = 3600.0
NOTICE_SECONDS = 5.0  # for Ray's processes to notice that their driver is dead
POLL_SECONDS = 0.02

# What a driver prints when a phase begins.
MARKS = {"plan": r" to render$", "Ray": r"^Ray: (\d+) ", "rendered": r" (\d+)/\1 clips| 0 to render$"}
TAKE = re.compile(r"^E\d+/SH\d+/\w+/v\d+ (?:accepted|rejected|error)", re.M)
TAKEN = "is being rendered by run"

# Tables that a new catalog begins with, and what tells their rows apart.
OWN = {
    "workflows": ("workflow", "version"),
    "benchmarks": ("benchmark", "shot"),
    "promotions": ("action", "workflow", "version", "alias"),
}


@dataclass(frozen=True)
class Site:
    """A folder with the episode file, and all that drivers write. temp: shared, its path short, as Ray's sockets need it."""

    folder: Path
    temp: Path
    models: str

    @property
    def catalog(self) -> Path:
        return self.folder / "catalog-data"

    @property
    def out(self) -> Path:
        return self.folder / "out" / EPISODE

    @property
    def executions(self) -> Path:
        return self.folder / "executions.txt"

    @property
    def command(self) -> list[str]:
        # Nothing is proven about stand-ins, nor about the demo's models on this machine.
        asked = ["episode.yaml", "--out", "out", "--allow-experimental"]
        return [sys.executable, "-u", "-m", *DRIVERS[self.models], *asked]

    @property
    def environment(self) -> dict[str, str]:
        mine = {k: v for k, v in os.environ.items() if not k.startswith("TOWER_") and k != "RAY_ADDRESS"}
        ours = {"PYTHONPATH": PROJECT, "TOWER_CATALOG_URI": self.catalog, "TMPDIR": self.temp, EXECUTIONS: self.executions}
        told = {"TOWER_LOG_SECONDS": "0"}
        return mine | told | {k: str(v) for k, v in ours.items()}


class Life:
    """One driver: started, listened to, then killed or left to end. `seen`: when each phase began, seconds since the start."""

    def __init__(self, site: Site, number: int):
        self.log = site.folder / f"driver-{number:03}.log"
        self.started = time.monotonic()
        self.seen: dict[str, float] = {}
        self.takes: list[float] = []
        with self.log.open("w") as log:
            # A session of its own: what it starts can be told from everything else that runs here, after its death too.
            self.process = subprocess.Popen(
                site.command, cwd=site.folder, env=site.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def age(self) -> float:
        return time.monotonic() - self.started

    @property
    def text(self) -> str:
        return self.log.read_text()

    def run_for(self, seconds: float) -> bool:
        """Listen for so long. True: it goes on."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self._listen()
            time.sleep(POLL_SECONDS)
        self._listen()
        return self.process.poll() is None

    def run(self, moment: Moment | None) -> bool:
        """Listen until it ends, or its moment has come. True: it goes on, and is to be killed."""
        while self.process.poll() is None:
            self._listen()
            due = moment.due(self) if moment else None
            if self.age > LIFE_SECONDS or (due is not None and self.age >= due):
                return True
            time.sleep(POLL_SECONDS)
        self._listen()
        return False

    def _listen(self) -> None:
        text, now = self.text, self.age
        for mark, pattern in MARKS.items():
            if mark not in self.seen and re.search(pattern, text, re.M):
                self.seen[mark] = now
        self.takes += [now] * (len(TAKE.findall(text)) - len(self.takes))

    def phase(self) -> str:
        """What it is doing now."""
        ours = [_title(p) for p in self.others()]
        if "rendered" in self.seen:
            return "Ray stop" if any("raylet" in title for title in ours) else "assembly"
        if any(title.startswith(("ray::keyframe ", "ray::clip ")) for title in ours):
            return "during a take"
        if self.takes:
            return "between takes: gates and commits"
        return "device start" if "Ray" in self.seen else "Ray start" if "plan" in self.seen else "start-up"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def others(self) -> list[psutil.Process]:
        """Every process that it started, and that has not ended."""
        return [p for p in psutil.process_iter() if p.pid != self.process.pid and _session(p) == self.process.pid]

    def bury(self) -> int:
        """Wait for what it started to notice its death; end the rest, each by its id. Gives how many."""
        end = time.monotonic() + NOTICE_SECONDS
        while (left := self.others()) and time.monotonic() < end:
            time.sleep(0.2)
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=10)
        return len(left)


def _session(process: psutil.Process) -> int | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getsid(process.pid)
    except (psutil.Error, OSError):
        return None


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return ""


@dataclass(frozen=True)
class Windows:
    """How long the phases of an undisturbed render take, in seconds; `takes` of them were made."""

    startup: float
    ray: float
    devices: float
    takes: int
    take: float
    finish: float
    assembly: float

    @classmethod
    def of(cls, first: Life, again: Life) -> Windows:
        """From a whole render, and one that only assembled."""
        plan, ray, rendered, takes = first.seen["plan"], first.seen["Ray"], first.seen.get("rendered", first.takes[-1]), first.takes
        pace = (takes[-1] - takes[0]) / len(takes)
        return cls(plan, ray - plan, takes[0] - ray, len(takes), pace, first.age - rendered, again.age - again.seen["plan"])


@dataclass(frozen=True)
class Moment:
    """When to kill: in a phase, after so many more takes, at a share (0 to 1) of the time that the phase lasts."""

    kind: str
    takes: int
    share: float
    windows: Windows = field(repr=False)

    def due(self, life: Life) -> float | None:
        """Seconds since the driver's start, at the latest when the phase is over; None while that is not known.

        A driver that has nothing left to render dies in its end.
        """
        seen, w = life.seen, self.windows
        if self.kind == "start-up":
            due = (0.4 + 0.6 * self.share) * w.startup  # the beginning is Python's own, and writes nothing
            return min(due, seen.get("plan", due))
        if "rendered" in seen:
            return seen["rendered"] + self.share * (w.finish if life.takes else w.assembly)
        if self.kind == "Ray start" and "plan" in seen:
            due = seen["plan"] + self.share * w.ray
            return min(due, seen.get("Ray", due))
        if self.kind == "device start" and "Ray" in seen:
            return min(seen["Ray"] + self.share * w.devices, *life.takes[:1], LIFE_SECONDS)
        if self.kind == "take" and len(life.takes) >= self.takes:
            return life.takes[self.takes - 1] + self.share * min(1.0, self.takes * w.take)
        return None


def moments(kills: int, rng: random.Random, windows: Windows) -> list[Moment]:
    """All kinds, mixed. Some fall on a catalog that is just being made; those of the assembly wait for something to assemble."""
    kinds = list(islice(cycle(KINDS), kills))
    rng.shuffle(kinds)
    first = ["start-up"] * ((kinds.count("start-up") + 1) // 2)
    for kind in first:
        kinds.remove(kind)
    kinds = first + sorted(kinds, key=lambda kind: kind == "assembly")
    most = max(1, windows.takes // max(1, kinds.count("take")) // 2)  # so that the last of them finds something left to render
    return [Moment(kind, rng.randint(1, most), rng.random(), windows) for kind in kinds]


@dataclass
class Soak:
    """What happened."""

    phases: Counter[str] = field(default_factory=Counter)
    lives: list[Life] = field(default_factory=list)
    refused: int = 0
    failed: list[str] = field(default_factory=list)
    left_behind: list[Future[int]] = field(default_factory=list)

    def until_killed(self, site: Site, moment: Moment, console: Console, undertaker: ThreadPoolExecutor) -> None:
        """Start drivers until one of them was killed at its moment, or hung."""
        for _ in range(6):
            life = self.start(site)
            try:
                kill = life.run(moment)
                phase = life.phase() if kill else ""
            finally:
                life.kill()
                self.left_behind.append(undertaker.submit(life.bury))  # meanwhile the next driver starts, as a supervisor would do it
            if life.age > LIFE_SECONDS:
                self.failed.append(f"{life.log.name}: neither ended nor reached its moment in {LIFE_SECONDS:.0f} s")
            if kill:
                self.phases[phase] += 1
                told = f"kill {self.phases.total()}: {phase} (meant: {moment.kind}), {life.age:.1f} s old, {len(life.takes)} takes"
                console.print(told, highlight=False)
                return
            self.note_end(life)
            moment = replace(moment, share=moment.share / 2)  # it was faster than the undisturbed one
        self.failed.append(f"six drivers in a row ended before their moment: {moment.kind}")

    def undisturbed(self, site: Site) -> Life:
        life = self.start(site)
        try:
            if life.run(None):
                self.failed.append(f"{life.log.name}: did not end in {LIFE_SECONDS:.0f} s")
        finally:
            life.kill()
            life.bury()
        self.note_end(life)
        return life

    def start(self, site: Site) -> Life:
        self.lives.append(Life(site, len(self.lives) + 1))
        return self.lives[-1]

    def note_end(self, life: Life) -> None:
        """A driver that was not killed must have ended well: all shots accepted, or some exhausted."""
        if TAKEN in life.text:
            self.refused += 1
        elif life.process.returncode not in (0, 3):
            last = life.text.strip().splitlines()[-1:]
            self.failed.append(f"{life.log.name}: exit {life.process.returncode}: {last}")


@dataclass(frozen=True)
class Found:
    """What is there after the last run."""

    ends: dict[str, str]
    takes: list[dict[str, Any]]
    executions: list[tuple[float, str]]
    own: Counter[tuple[str, str]]  # rows that every new catalog begins with
    movie: str | None

    @classmethod
    def at(cls, site: Site) -> Found:
        summary, movie, catalog = site.out / "summary.json", site.out / "episode.mp4", Catalog.open(site.catalog)
        lines = site.executions.read_text().splitlines() if site.executions.exists() else []
        executions = [(float(at), take) for at, take in (line.split() for line in lines)]
        ends = {o["shot"]: o["outcome"] for o in json.loads(summary.read_text())["outcomes"]} if summary.exists() else {}
        own = Counter((name, json.dumps([row[key] for key in keys])) for name, keys in OWN.items() for row in catalog.rows(name))
        return cls(ends, catalog.rows("takes", EPISODE), executions, own, _sha256(movie) if movie.exists() else None)

    @property
    def accepted(self) -> list[dict[str, Any]]:
        return [t for t in self.takes if t["outcome"] == "accepted"]

    @property
    def digests(self) -> dict[tuple[str, str], str]:
        """Media of the accepted take of each (shot, stage), the latest if there are several."""
        return {(t["shot"], t["stage"]): t["media"] for t in self.accepted}

    @property
    def repeated(self) -> int:
        """Executions of takes that had been executed before: the earlier ones were lost in flight."""
        return len(self.executions) - len({take for _, take in self.executions})

    def rendered_again(self) -> list[str]:
        """Executions for a shot and stage that had an accepted take already."""
        since = {f"{EPISODE}/{t['shot']}/{t['stage']}": t["at"].timestamp() for t in reversed(self.accepted)}
        return [take for at, take in self.executions if at > since.get(take.rpartition("/")[0], at)]


@dataclass(frozen=True)
class Check:
    what: str
    count: int
    limit: int = 0
    of: str = ""

    @property
    def holds(self) -> bool:
        return self.count <= self.limit


def checks(site: Site, calm: Found, found: Found, soak: Soak, live: int) -> Iterator[Check]:
    files = {p.relative_to(site.catalog).as_posix(): p for p in (site.catalog / "media").rglob("*") if p.is_file()}
    with_media = [t for t in found.takes if t["media"]]
    pairs = Counter((t["shot"], t["stage"], t["inputs"]) for t in found.accepted)
    kills = soak.phases.total()
    lost = [s for s, end in calm.ends.items() if found.ends.get(s) != "accepted" and found.ends.get(s) != end]
    yield Check("shots lost", len(lost), of=f"{len(calm.ends)} shots")
    yield Check("accepted takes doubled", sum(n - 1 for n in pairs.values()), of=f"{len(pairs)} of one shot, stage and inputs")
    yield Check("takes that share an id", len(found.takes) - len({t["take"] for t in found.takes}), of=f"{len(found.takes)} takes")
    yield Check("rows without their media", sum(t["media_path"] not in files for t in with_media), of=f"{len(with_media)} rows with media")
    named = {path: _sha256(file) for path, file in files.items() if NAMED.match(path)}
    yield Check("media corrupt", sum(digest != Path(path).stem for path, digest in named.items()), of=f"{len(named)} files hashed")
    yield Check("tables damaged", sum(p.harmful for p in table_problems(Catalog.open(site.catalog).place)))
    own = (calm.own - found.own) + (found.own - calm.own)
    yield Check("registered workflows, evidence, aliases missing or doubled", own.total(), of=f"{calm.own.total()} rows")
    if found.executions:
        yield Check("accepted takes rendered again", len(found.rendered_again()), of=f"{len(found.executions)} executions")
        yield Check("takes lost in flight, and executed again", found.repeated, kills * live, f"at most {kills} kills x {live} live shots")
    differ = [key for key, digest in calm.digests.items() if found.digests.get(key) != digest]
    yield Check("accepted media unlike the undisturbed run's", len(differ), of=f"{len(calm.digests)} of shots and stages")
    if calm.movie:
        yield Check("episode.mp4 unlike the undisturbed run's", int(found.movie != calm.movie), of=f"1, {calm.movie[:12]}")
    yield Check("drivers refused: a dead one held the episode", soak.refused, of=f"{len(soak.lives)} drivers")
    yield Check("drivers that hung or failed", len(soak.failed), of=f"{len(soak.lives)} drivers")
    yield Check("processes left running", sum(len(life.others()) for life in soak.lives))


def facts(site: Site, found: Found, soak: Soak, seconds: float) -> Iterator[tuple[str, int, str]]:
    """What is told and not judged: waste that kills leave behind harms nothing."""
    wanted = {t["media_path"] for t in found.takes}
    media = [p for p in (site.catalog / "media").rglob("*") if p.is_file()]
    orphans = [p for p in media if p.relative_to(site.catalog).as_posix() not in wanted]
    parts = [p for folder in (site.catalog, site.out) for p in folder.rglob("*") if ".part" in p.name or p.name.startswith(".write-")]
    outcomes = ", ".join(f"{n} {outcome}" for outcome, n in Counter(t["outcome"] for t in found.takes).items())
    yield "drivers started", len(soak.lives), ""
    yield "takes in the catalog", len(found.takes), outcomes
    if found.executions:
        yield "takes executed", len(found.executions), ""
    yield "media that belong to no take", len(orphans), f"{len(media)} files"
    yield "parts of files left", len(parts), "in catalog and out"
    yield "temporary folders left", len(list(site.temp.glob("tower-clip-*"))), "of gates and the assembly"
    yield "Ray's processes ended by id", sum(f.result() for f in soak.left_behind), f"still there {NOTICE_SECONDS:.0f} s after their driver"
    yield "seconds", round(seconds), "undisturbed renders and checks included"


def write_episode(folder: Path, shots: int) -> None:
    """Words that the demo's models know; every fourth shot goes to the other clip model, and shots dissolve now and then."""
    folder.mkdir()
    looks = [("wide shot", "walking right", "static camera"), ("close-up", "standing still", "camera pans left")]
    told = []
    for i in range(shots):
        framing, action, camera = looks[i % 2]
        shot = {"id": f"SH{10 * (i + 1):04}", "frames": 40, "framing": framing, "action": action, "camera": camera}
        shot |= {"characters": ["hana" if i % 3 else "aoi"]}
        shot |= {"clip_workflow": "animatediff_16_demo"} if i % 4 == 3 else {}
        shot |= {"transition": {"type": "dissolve", "frames": 8}} if i % 6 == 5 else {}
        told.append(shot)
    episode = {
        "id": EPISODE, "title": "A soak", "width": 192, "height": 128, "fps": 24, "style": "anime",
        "keyframe_workflow": "sd15_keyframe_demo", "clip_workflow": "ltx_video_2b_demo",
        "characters": {
            "hana": {"name": "Hana", "description": "a girl with pink hair and a yellow coat"},
            "aoi": {"name": "Aoi", "description": "a girl with blue hair and a red coat"},
        },
        "locations": {"shore": {"description": "by the sea"}},
        "sequences": [{"id": "S010", "location": "shore", "time": "by day", "shots": told}],
    }  # fmt: skip
    (folder / "episode.yaml").write_text(yaml.safe_dump(episode, sort_keys=False))


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def soak(folder: Path, options: argparse.Namespace, console: Console) -> bool:
    started, temp = time.monotonic(), folder / "t"
    temp.mkdir()
    calm, killed = Site(folder / "calm", temp, options.models), Site(folder / "killed", temp, options.models)
    for site in (calm, killed):
        write_episode(site.folder, options.shots)
    right = Soak()
    first, again = right.undisturbed(calm), right.undisturbed(calm)
    if right.failed:
        console.print("the undisturbed render failed:", *right.failed, first.text, again.text, sep="\n", highlight=False, markup=False)
        return False
    windows = Windows.of(first, again)
    devices = int(re.search(MARKS["Ray"], first.text, re.M).group(1))  # type: ignore[union-attr]
    told = f"undisturbed: {windows.takes} takes, {first.age:.1f} s; again, with nothing to render: {again.age:.1f} s"
    console.print(told, highlight=False)
    happened = Soak()
    with ThreadPoolExecutor(1) as undertaker:
        for moment in moments(options.kills, random.Random(options.seed), windows):
            if time.monotonic() - started > TOTAL_SECONDS:
                happened.failed.append(f"the soak took more than {TOTAL_SECONDS:.0f} s")
                break
            happened.until_killed(killed, moment, console, undertaker)
    happened.undisturbed(killed)
    found = Found.at(killed)
    made = list(checks(killed, Found.at(calm), found, happened, devices * LIVE_PER_DEVICE))
    report(made, list(facts(killed, found, happened, time.monotonic() - started)), happened, options, console)
    return all(check.holds for check in made)


def report(made: list[Check], told: list[tuple[str, int, str]], happened: Soak, options: argparse.Namespace, console: Console) -> None:
    title = f"{options.models} models, {options.shots} shots, {happened.phases.total()} kills, seed {options.seed}; {cpu_name()}"
    table = Table("", "count", "of, or limit", "", title=title)
    for phase, count in happened.phases.most_common():
        table.add_row(f"killed: {phase}", str(count))
    table.add_section()
    for what, amount, detail in told:
        table.add_row(what, str(amount), detail)
    tell_checks(table, made, happened, console)


def tell_checks(table: Table, made: list[Check], happened: Soak, console: Console) -> None:
    """The table with every check below what it has, then what failed."""
    table.add_section()
    for check in made:
        table.add_row(check.what, str(check.count), check.of, "ok" if check.holds else "WRONG")
    console.print(table)
    for failure in happened.failed:
        console.print(failure, highlight=False, markup=False, soft_wrap=True)


def leave(folder: Path, good: bool, console: Console) -> NoReturn:
    """End with the exit code; the folder is kept where something is wrong."""
    if good:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        console.print(f"kept: {folder}", highlight=False)
    sys.exit(0 if good else 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--shots", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--models", choices=list(DRIVERS), default="stand-in")
    parser.add_argument("--quick", action="store_true", help="3 kills over 6 shots")
    options = parser.parse_args()
    if options.quick:
        options.kills, options.shots = 3, 6
    console = Console(width=150)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    console.print(f"seed {options.seed}, in {folder}", highlight=False)
    leave(folder, soak(folder, options, console), console)


if __name__ == "__main__":
    main()
