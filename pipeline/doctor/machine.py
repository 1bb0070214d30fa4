"""The doctor's checks of machines: versions, devices, disk, object store."""

from __future__ import annotations

import os
import platform
import shutil
import tomllib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cluster.fleet import MEMORY_SHARE, Post
from cluster.look import Machine, Sight, look
from cluster.pool import STORE_SHARE, Pool
from cluster.specs import PoolOptions
from cluster.start import ClusterError, ClusterInfo
from pipeline import PROJECT
from pipeline.render.render import SPARE_BYTES
from pipeline.story.cluster_profile import ClusterProfile
from pipeline.story.settings import Settings

CLIP_BYTES = 121 * 768 * 512 * 3  # LTX-Video's clip of full size in the object store: 121 frames, 768x512, uint8 RGB
FULL = 0.95  # used share of a disk, above which Ray does not write to its temp folder there (Ray's default)
LITTLE = 2e9  # free bytes on a disk, below which the doctor warns

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Notice:
    """One finding.

    check: what was checked. told: the finding, for people. do: what a person should do; "" for nothing.
    """

    check: str
    state: State
    told: str
    do: str = ""


def gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def versions(sight: Sight) -> list[Notice]:
    have = f"Python {platform.python_version()}, Tower {_installed('tower') or 'not installed'}, " + ", ".join(
        f"{name} {_installed(name) or 'not installed'}" for name in ("ray", "torch")
    )
    project, pinned = _requirements()
    python = project.get("requires-python", "")
    if python and platform.python_version() not in SpecifierSet(python):
        return [Notice("versions", "problem", f"{have}; Tower asks for Python {python}", "make a virtual environment with such a Python")]
    lacking, other = [], []
    for wanted in map(Requirement, project.get("dependencies", [])):
        installed = _installed(wanted.name)
        if installed is None or not wanted.specifier.contains(installed.split("+")[0], prereleases=True):
            lacking.append(f"{wanted.name} is {installed or 'missing'}, asked for is {wanted.specifier or 'any version'}")
        elif installed.split("+")[0] != pinned.get(wanted.name, installed.split("+")[0]):
            other.append(f"{wanted.name} is {installed}, tested with {pinned[wanted.name]}")
    if _installed("tower") not in (None, project.get("version", _installed("tower"))):
        other.append(f"these files are Tower {project['version']}")
    install = "pip install -c configs/constraints.txt -e ."
    if lacking:
        return [Notice("versions", "problem", f"{have}; {', '.join(lacking)}", install)]
    found = [Notice("versions", "note", f"{have}; {', '.join(other)}", install) if other else Notice("versions", "ok", have)]
    if sight.machines and not os.environ.get("RAY_ADDRESS") and not sight.logical and (_installed("torch") or "").endswith("+cpu"):
        found.append(Notice("versions", "problem", "this torch is built for CPUs and sees no GPU", "install the build of torch for CUDA"))
    return found


def _requirements() -> tuple[dict[str, Any], dict[str, str]]:
    """The table [project] of pyproject.toml, and package name to tested version. Both are empty if the files are missing."""
    try:
        project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
        lines = (PROJECT / "configs" / "constraints.txt").read_text().splitlines()
    except (OSError, ValueError, KeyError):
        return {}, {}
    return project, {name: number for name, found, number in (line.partition("==") for line in lines) if found}


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def devices(settings: Settings, profile: ClusterProfile) -> tuple[Sight, list[Notice]]:
    try:
        sight = look(settings.devices)
    except ClusterError as error:
        do = "start that cluster, or unset RAY_ADDRESS to use this machine" if os.environ.get("RAY_ADDRESS") else "mend what it says"
        return Sight(()), [Notice("devices", "problem", str(error), do)]
    found = [_machine(m, sight) for m in sight.machines]
    staying = [m.node for m in sight.machines if not m.node.leaving]
    if not any(n.gpus for n in staying) and profile.wait_minutes:
        told = f"no GPU is there yet; profile {profile.name} waits {profile.wait_minutes:g} minutes for an autoscaler to bring one"
        found.append(Notice("devices", "note", told))
    elif not any(n.gpus for n in staying):
        found.append(Notice("devices", "problem", "the cluster has no GPU, so no model could ever run", "start a worker with --num-gpus"))
    if not any(n.cpus for n in staying) and not profile.wait_minutes:
        found.append(Notice("devices", "problem", "the cluster has no CPU, so no gate could ever run", "start a worker with --num-cpus"))
    return sight, found


def _machine(machine: Machine, sight: Sight) -> Notice:
    node = machine.node
    if sight.logical:
        told = f"no GPU here: {count(node.gpus, 'logical device')} on {count(node.cpus, 'CPU')}; demo models render, real ones take hours"
        return Notice("devices", "ok", told)
    each = f" of {gb(machine.gpu_memory)}" if machine.gpu_memory else ""
    told = f"{node.name}: {count(node.gpus, 'GPU')}{f' {node.accelerator}' if node.accelerator else ''}{each}, {count(node.cpus, 'CPU')}"
    told += f", object store {gb(machine.store)}"
    if node.leaving:
        return Notice("devices", "note", f"{told}; it is about to leave the cluster, and takes no new work")
    if node.gpus and not machine.gpu_memory:
        return Notice("devices", "ok", f"{told}; its GPU memory is not known, so no limit is kept")
    return Notice("devices", "ok", told)


def on_paper(sight: Sight, options: PoolOptions) -> Pool:
    """A pool with a post for each device, but without Ray actors: its rules can be applied, and nothing is started."""
    staying = [m for m in sight.machines if not m.node.leaving]
    cpus = sum(m.node.cpus for m in staying)
    pool = Pool(ClusterInfo(sum(m.node.gpus for m in staying), cpus, sight.logical, "", 0), options)
    for machine in [m for m in staying for _ in range(m.node.gpus)][: options.devices]:
        given = options.device_memory.get(machine.node.accelerator, options.device_memory.get(""))
        measured = int(machine.gpu_memory * MEMORY_SHARE) if machine.gpu_memory else None
        pool.fleet.posts.append(Post(len(pool.fleet.posts), machine.node, options.resident, measured if given is None else given))
    return pool


def disk(settings: Settings, sight: Sight) -> list[Notice]:
    place = settings.place
    found = [_folder("the catalog's place", place.folder, SPARE_BYTES)] if place.is_local else []
    return [*found, *([_temp(sight.temp)] if sight.temp else [])]


def _folder(what: str, wanted: Path, least: float) -> Notice:
    """Check a folder; if it does not exist yet, the nearest existing folder above it. `least`: free bytes that it must have."""
    folder = next(p for p in (wanted, *wanted.parents) if os.path.lexists(p))
    if not os.path.isdir(folder):
        return Notice("disk", "problem", f"{what} {wanted}: {folder} is not a folder", f"move {folder} away, or choose another place")
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Notice("disk", "problem", f"{what} {wanted} cannot be looked at: {error.strerror}", "correct the path or its rights")
    told = f"{what} {wanted} has {gb(free)} free"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Notice("disk", "problem", f"{what} {wanted}: {folder} may not be written by this user", f"correct the rights of {folder}")
    if free < least:
        return Notice("disk", "problem", told, "free some, or set TOWER_CATALOG_URI to another disk")
    return Notice("disk", "note" if free < LITTLE else "ok", told, "free some; accepted clips are kept for ever" if free < LITTLE else "")


def _temp(temp: Path) -> Notice:
    found = _folder("Ray's temp folder", temp, 0)
    if found.state == "problem":
        return Notice("disk", "problem", found.told, "set RAY_TMPDIR to a folder that can be written")
    used = shutil.disk_usage(next(p for p in (temp, *temp.parents) if os.path.isdir(p)))
    if used.free < used.total * (1 - FULL):
        told = f"{found.told}, less than {1 - FULL:.0%} of its disk: Ray will not write there what memory cannot hold"
        return Notice("disk", "note", told, "free some, or set RAY_TMPDIR to another disk")
    return Notice("disk", "ok", found.told)


def store(sight: Sight, devices: int) -> list[Notice]:
    staying = [m for m in sight.machines if not m.node.leaving]
    if not staying:
        return []
    size = sum(m.store for m in staying)
    clips = max(1, int(STORE_SHARE * size / CLIP_BYTES))  # the pool always allows one clip
    told = f"object store of {gb(size)}: up to {count(clips, 'clip')} of 121x768x512 ({gb(CLIP_BYTES)} each) may be made or wait for gates"
    few = clips < devices
    do = "give the machine more memory, or start Ray with a larger --object-store-memory" if few else ""
    found = [Notice("store", "note" if few else "ok", told + (f", fewer than the {devices} devices" if few else ""), do)]
    for machine in staying:
        if machine.shm is not None and machine.shm < machine.store:
            small = f"/dev/shm of {machine.node.name} has {gb(machine.shm)}, its object store {gb(machine.store)}: frames go to the disk"
            found.append(Notice("store", "problem", small, f"docker run --shm-size={machine.store * 1.1 / 2**30:.1f}g, or free /dev/shm"))
    return found


def prometheus() -> Notice:
    if shutil.which("prometheus"):
        return Notice("programs", "ok", "prometheus is here; docs/WATCHING.md says how to use it")
    return Notice("programs", "note", "prometheus is not here; only charts need it, docs/WATCHING.md")
