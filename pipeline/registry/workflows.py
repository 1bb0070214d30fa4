"""The registry: the workflows in the catalog, and for each its files, digest and status on this machine."""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from getpass import getuser
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from actors.values import ModelFiles
from catalog.standing import Now, Row, Standing, standing
from catalog.store import Catalog
from gates.rules import Profile
from pipeline.story.errors import InputError
from pipeline.story.fingerprint import FileDigests, digest
from pipeline.story.gate_profile import load_profile, profile_identity
from pipeline.story.settings import Settings
from pipeline.story.suite import known_suites
from pipeline.story.workflow import Workflow

from .files import files_of
from .fit import check_files

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "av")  # the libraries that affect pixels
NO_PIXELS = {"description", "retry", "gates", "parameters"}  # do not affect pixels; `parameters` only says what a shot may change
MAX_NAMED = 5


@dataclass(frozen=True)
class Ready:
    """A workflow whose files are on this machine, with everything that a render needs."""

    workflow: Workflow
    digest: str  # of settings, model files and libraries
    files: ModelFiles
    profile: Profile
    profile_identity: str

    @property
    def name(self) -> str:
        return self.workflow.title


class Registry:
    """The workflows of one catalog. Each table and each file is read once, so later changes are not seen."""

    def __init__(self, catalog: Catalog, settings: Settings, digests: FileDigests | None = None):
        self.catalog, self.settings = catalog, settings
        self.digests = digests or FileDigests(digest_memory(catalog))
        self.prepared: dict[tuple[str, int], Ready] = {}

    @cached_property
    def versions(self) -> dict[str, dict[int, Row]]:
        """Workflow name to version to row."""
        found: dict[str, dict[int, Row]] = {}
        for row in self.catalog.rows("workflows"):
            found.setdefault(row["workflow"], {}).setdefault(row["version"], row)  # the first row counts, because a version never changes
        return found

    @cached_property
    def ledger(self) -> list[Row]:
        return self.catalog.rows("promotions")

    @cached_property
    def cells(self) -> dict[str, list[Row]]:
        """Benchmark id to the rows of its cells, oldest benchmark first."""
        found: dict[str, dict[str, Row]] = {}
        for row in self.catalog.rows("benchmarks"):
            found.setdefault(row["benchmark"], {})[row["shot"]] = row
        return {name: list(rows.values()) for name, rows in found.items()}

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Alias to what it stands for now: a name or name@version."""
        return {
            row["alias"]: row["workflow"] + (f"@{row['version']}" if row["version"] else "")
            for row in self.ledger
            if row["action"] == "alias"
        }

    @cached_property
    def suites(self) -> dict[str, Any]:
        return known_suites()

    def resolve(self, ref: str, asked_by: str) -> Workflow:
        """The workflow that a name, name@version, alias or #digest means.

        Args:
            asked_by: who names the workflow, for the error message: a command or a file, and the shot if there is one.

        Raises:
            InputError: no workflow, or more than one, is meant.
        """
        if ref.startswith("#"):
            return self._by_digest(ref[1:], asked_by)
        name, _, number = self.aliases.get(ref, ref).partition("@")
        versions = self.versions.get(name)
        if versions is None:
            raise InputError(f"{asked_by}: unknown workflow {name!r}; {self._instead(name)}")
        plain = number.isascii() and number.isdigit()
        wanted = int(number) if plain else max(versions)
        if (number and not plain) or wanted not in versions:
            known = ", ".join(f"{name}@{v}" for v in sorted(versions))
            raise InputError(f"{asked_by}: workflow {ref!r} has no such version; registered are {known}")
        return _workflow(versions[wanted])

    def prepare(self, workflow: Workflow) -> Ready:
        """Find and hash the workflow's files.

        Raises:
            InputError: a file or the gate profile is missing, or does not fit.
        """
        key = (workflow.name, workflow.version)
        if key not in self.prepared:
            files = files_of(workflow, self.settings)
            check_files(workflow, files)
            profile = load_profile(workflow.gates, f"workflow {workflow.name}: gates")
            if workflow.stage == "finish" and not any(rule.measure.startswith("source_") for rule in profile.video):
                raise InputError(f"workflow {workflow.name}: gates: profile {profile.name} never compares with the clip; finish does")
            lock = digest([pixel_settings(workflow), self.models(workflow), libraries(*workflow.kind.libraries)])
            self.prepared[key] = Ready(workflow, lock, files, profile, profile_identity(profile))
        return self.prepared[key]

    def models(self, workflow: Workflow) -> dict[str, str]:
        """Digest of each file and folder that the workflow loads, by its path as the workflow file writes it."""
        paths = [path for _, path in files_of(workflow, self.settings).named]
        return {name: self.digests.of(Path(path)) for name, path in zip(workflow.named_files, paths, strict=True)}

    def standing(self, workflow: Workflow) -> Standing:
        """The workflow's status on this machine now. It depends on files, libraries, suites and gate profiles."""
        try:
            current: str | None = self.prepare(workflow).digest
        except InputError:
            current = None
        profile = profile_identity(load_profile(workflow.gates, f"workflow {workflow.name}: gates"))
        now = Now(current, libraries(*workflow.kind.libraries), profile, self.suites)
        mine = [r for r in self.ledger if (r["workflow"], r["version"]) == (workflow.name, workflow.version) and r["action"] != "alias"]
        same = [name for name, rows in self.cells.items() if current and rows[0]["digest"] == current]
        return standing(now, mine, lambda name: self.cells.get(name, []), same)

    def all(self) -> list[Workflow]:
        """Every registered version, by name and version."""
        return [_workflow(self.versions[name][v]) for name in sorted(self.versions) for v in sorted(self.versions[name])]

    def _by_digest(self, start: str, asked_by: str) -> Workflow:
        rows = [r for versions in self.versions.values() for r in versions.values()]
        found = [r for r in rows if r["settings_digest"].startswith(start) or (r["digest"] or "").startswith(start)]
        if len(found) != 1:
            raise InputError(f"{asked_by}: {len(found) or 'no'} registered workflows have a digest that begins with {start}")
        return _workflow(found[0])

    def _instead(self, name: str) -> str:
        from pipeline.story.workflow import WORKFLOWS

        if (WORKFLOWS / f"{name}.yaml").is_file():
            return f"its file is there, but it is not registered: tower workflows register configs/workflows/{name}.yaml"
        known = [*self.versions, *self.aliases]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known)) or 'none'}"


def pixel_settings(workflow: Workflow) -> dict[str, Any]:
    """The settings that affect pixels; and name and version, because benchmark rows cite them."""
    return workflow.model_dump(mode="json", exclude=NO_PIXELS)


def settings_digest(workflow: Workflow) -> str:
    return digest(workflow.model_dump(mode="json", exclude={"description"}))


@cache
def libraries(*more: str) -> dict[str, str]:
    """Versions of LIBRARIES, and of those that a family uses beside, without their local part, such as +cpu.

    Builds for CUDA and for CPUs count as equal, because benchmark rows name the device.
    """
    return {name: installed(name).split("+")[0] for name in (*LIBRARIES, *more)}


def digest_memory(catalog: Catalog) -> Path:
    """Path of the cache of model digests: in the folder of a local catalog, else in the user's cache folder."""
    return catalog.place.folder / "model-digests.json" if catalog.place.is_local else user_memory()


def user_memory() -> Path:
    """Path of the same cache in the user's cache folder, which is made. Where a user has no such folder, nothing is cached."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tower"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a container's user without a home
        folder = Path("/nonexistent")
    return folder / "model-digests.json"


def register(registry: Registry, workflow: Workflow, source: str, by: str = "") -> tuple[Row, bool]:
    """Register a version; it can never change afterwards. Gives its row, and whether the row is new.

    Raises:
        InputError: the version is already registered with other settings.
    """
    known = registry.versions.get(workflow.name, {})
    row = registry_row(registry, workflow, source, by or getuser())
    if workflow.version in known:
        before = known[workflow.version]
        if before["settings_digest"] == row["settings_digest"]:
            return before, False
        differ = _differences(json.loads(before["settings"]), json.loads(row["settings"]))
        raise InputError(
            f"{source}: {workflow.title} is registered with other settings ({differ}); versions never change: set version: {max(known) + 1}"
        )
    registry.catalog.append("workflows", [row])
    registry.versions.setdefault(workflow.name, {})[workflow.version] = row
    return row, True


def registry_row(registry: Registry, workflow: Workflow, source: str, by: str) -> Row:
    try:
        lock, models = registry.prepare(workflow).digest, registry.models(workflow)
    except InputError:  # without its files, a workflow is registered by its settings alone
        lock, models = None, {}
    return {
        "workflow": workflow.name,
        "version": workflow.version,
        "at": datetime.now(UTC),
        "family": workflow.family,
        "stage": workflow.stage,
        "settings_digest": settings_digest(workflow),
        "digest": lock,
        "settings": workflow.model_dump_json(),
        "models": models,
        "libraries": libraries(*workflow.kind.libraries),
        "source": source,
        "by": by,
    }


def _differences(before: dict[str, Any], after: dict[str, Any]) -> str:
    names = [k for k in before | after if before.get(k) != after.get(k) and k != "description"]
    shown = [f"{k} {before.get(k)} → {after.get(k)}" for k in names[:MAX_NAMED]]
    return ", ".join(shown) + (", …" if len(names) > MAX_NAMED else "")


def _workflow(row: Row) -> Workflow:
    return Workflow.model_validate_json(row["settings"])
