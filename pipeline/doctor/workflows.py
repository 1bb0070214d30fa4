"""The doctor's checks of workflows: files, evidence, device memory, and whether each can render on these devices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.values import ModelFiles
from catalog.schema import TABLES
from cluster.choose import Seat
from cluster.pool import Pool
from cluster.specs import ModelSpec
from pipeline.plan.resolve import StagePlan
from pipeline.registry.files import files_of
from pipeline.registry.fit import check_files
from pipeline.registry.open_catalog import EVIDENCE
from pipeline.registry.workflows import Ready, Registry
from pipeline.render.drive import live_limit
from pipeline.render.needs import ModelNeeds
from pipeline.story.cluster_profile import ClusterProfile
from pipeline.story.errors import InputError
from pipeline.story.fingerprint import MODEL_SUFFIXES
from pipeline.story.gate_profile import load_profile, profile_identity
from pipeline.story.stages import NEEDED
from pipeline.story.workflow import RETIRED, WORKFLOWS, Workflow, read_workflow

from .machine import Notice, gb

READ_AT_MOST = 2e9  # bytes of a workflow's model files that the doctor hashes at most: more would take too long

Can = str  # one of: ready, takes turns, missing files, experimental, cannot run


class Unmade:
    """Stands in for a catalog that does not exist: the rows of a new catalog, read from the project's files. Nothing is created."""

    def rows(self, name: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
        if name == "workflows":
            flows = [read_workflow(path) for folder in (WORKFLOWS, RETIRED) for path in sorted(folder.glob("*.yaml"))]
            return [{"workflow": f.name, "version": f.version, "settings": f.model_dump_json()} for f in flows]
        file = EVIDENCE / f"{name}.parquet"
        if not file.is_file():
            return []
        return pq.read_table(file, schema=TABLES[name].schema).sort_by("at").to_pylist(maps_as_pydicts="strict")

    def sql(self, *_: Any) -> pa.Table:
        """No rows: without takes, no memory was measured."""
        return pa.table({"workflow_digest": [], "bytes": []})


@dataclass(frozen=True)
class Seen:
    """A workflow on this machine.

    ready: None if files are missing. why: the reason for the status, or what is missing.
    """

    workflow: Workflow
    ready: Ready | None
    status: str
    why: str

    @property
    def name(self) -> str:
        return self.workflow.title


def seen(registry: Registry) -> list[Seen]:
    """Every registered version that is not archived, with its status on this machine."""
    found = [_seen(registry, workflow) for workflow in registry.all()]
    return [s for s in found if s.status != "archived"]


def _seen(registry: Registry, workflow: Workflow) -> Seen:
    last = last_decision(registry, workflow)
    if last and last["action"] == "archive":
        return Seen(workflow, None, "archived", last["why"])
    try:
        files = files_of(workflow, registry.settings)
        check_files(workflow, files)
        unread = _unread(registry, files)
        if unread > READ_AT_MOST:
            profile = load_profile(workflow.gates, f"workflow {workflow.name}: gates")
            status = {"promote": "proven", "deprecate": "deprecated"}.get(last["action"] if last else "", "experimental")
            why = f"if its files are what they were: {unread / 1e9:.1f} GB were never read here, `tower workflows list` reads them"
            return Seen(workflow, Ready(workflow, "", files, profile, profile_identity(profile)), status, why)
        ready, standing = registry.prepare(workflow), registry.standing(workflow)
        return Seen(workflow, ready, standing.status, standing.why)
    except InputError as error:
        return Seen(workflow, None, _status_without_files(last), str(error).removeprefix(f"workflow {workflow.name}: "))
    except OSError as error:
        why = f"{error.filename or 'its files'} cannot be read: {error.strerror or error}; correct its rights"
        return Seen(workflow, None, _status_without_files(last), why)


def last_decision(registry: Registry, workflow: Workflow) -> dict[str, Any] | None:
    """The newest row of the ledger about this version."""
    return next((r for r in reversed(registry.ledger) if (r["workflow"], r["version"]) == (workflow.name, workflow.version)), None)


def _status_without_files(last: dict[str, Any] | None) -> str:
    return {"promote": "stale", "deprecate": "deprecated"}.get(last["action"] if last else "", "experimental")


def _unread(registry: Registry, files: ModelFiles) -> int:
    """Bytes of the workflow's model files whose digests are not cached."""
    places = [Path(p) for p in (*files.weights, files.base, *(lora.file for lora in files.loras)) if p]
    every = [p for place in places for p in (place.rglob("*") if place.is_dir() else [place]) if p.suffix in MODEL_SUFFIXES and p.is_file()]
    return sum(p.stat().st_size for p in every if str(p.resolve()) not in registry.digests.known)


@dataclass(frozen=True)
class Prospect:
    """Whether a workflow can render on these devices.

    need, encoder: bytes of device memory for the model and for its text encoder. measured: whether `need` was measured in earlier
    takes; else it is a guess. why_not: why no device can ever run it; "" if one can.
    """

    seen: Seen
    can: Can
    need: int = 0
    encoder: int = 0
    measured: bool = False
    why_not: str = ""
    lighter: str = ""


class Examiner:
    """Checks workflows against devices, by the pool's own rules. The pool is never entered as a context, so nothing is started."""

    def __init__(self, pool: Pool, profile: ClusterProfile, specs: ModelNeeds):
        self.pool, self.profile, self.measured = pool, profile, specs.measured

    def all(self, workflows: list[Seen]) -> list[Prospect]:
        first = [self._alone(s) for s in workflows]
        return [self._beside(judged, first) if judged.can == "ready" else judged for judged in first]

    def live_shots(self, workflows: list[Seen]) -> int:
        """Number of shots that would be in flight at once in a render that uses all of these workflows."""
        return live_limit(self.pool, self._specs(workflows), self.profile)

    def _alone(self, one: Seen) -> Prospect:
        """Whether the workflow can render if each of its models has a device to itself."""
        if one.ready is None:
            return Prospect(one, "missing files")
        specs = self._specs([one])
        models = self._of(specs, one)
        why_not = next((why for spec in models if (why := self._why_not(spec))), "")
        can = "cannot run" if why_not else "ready" if one.status == "proven" else "experimental"
        measured = one.ready.digest in self.measured
        needs = [spec.memory_bytes or 0 for spec in models]
        return Prospect(one, can, needs[0], sum(needs[1:]), measured, why_not, models[0].lighter)

    def _beside(self, one: Prospect, others: list[Prospect]) -> Prospect:
        """Whether the workflow's models stay on the devices, or take turns there.

        A render needs keyframes and clips, so the models of the smallest ready workflow of the other stage are added.
        """
        partners = [o for o in others if o.can == "ready" and o.seen.workflow.stage in {*NEEDED} - {one.seen.workflow.stage}]
        smallest = min(partners, key=lambda o: o.need, default=None)
        specs = self._specs([one.seen, *([smallest.seen] if smallest else [])])
        turns = self.pool.takes_turns(specs.models.values())
        return Prospect(one.seen, "takes turns" if turns else "ready", one.need, one.encoder, one.measured)

    def _specs(self, workflows: list[Seen]) -> ModelNeeds:
        needs = ModelNeeds(self.profile, self.measured)
        for one in workflows:
            self._of(needs, one)
        return needs

    def _of(self, specs: ModelNeeds, one: Seen) -> list[ModelSpec]:
        """The workflow's model, and its text encoder where it reads prompts."""
        assert one.ready
        stage = StagePlan(one.workflow.stage, one.ready, "", "", (), (), (), "")
        return [specs.model(stage), *([specs.encoder(stage)] if one.workflow.kind.generative else [])]

    def _why_not(self, spec: ModelSpec) -> str:
        seats: list[Seat] = [*self.pool.fleet.posts]
        may_come = bool(self.profile.wait_minutes)  # an autoscaler may add a suitable device later
        if may_come or any(seat.could_ever(spec, self.pool.learned.need(spec, seat)) for seat in seats):
            return ""
        if not seats:
            return "there is no device"
        suited = [seat.memory or 0 for seat in seats if seat.node.suits(spec.labels)]
        if not suited:
            return f"no device's node has the labels {', '.join(f'{name}={value}' for name, value in spec.labels)}"
        return f"{spec.stage} needs {gb(spec.memory_bytes or 0)}, and the largest device gives models {gb(max(suited))}"


def memory(one: Prospect) -> Notice:
    source = "measured here" if one.measured else "a first guess from its files"
    encoder = f", its text encoder {gb(one.encoder)}" if one.seen.workflow.kind.generative else ""
    needs = f"{one.seen.name} needs about {gb(one.need)} of a device ({source}){encoder}"
    if one.why_not:
        return Notice("memory", "note", f"{needs}; it can never run here: {one.why_not}", _more_room(one))
    if one.can == "takes turns":
        return Notice("memory", "note", f"{needs}; it takes turns: some device cannot hold it beside the other models of a render")
    return Notice("memory", "ok", f"{needs}; it fits")


def _more_room(one: Prospect) -> str:
    if "labels" in one.why_not:
        return "start a node with these labels, or change placement in the cluster profile"
    tiles = f"; or tile: {one.lighter}" if one.lighter else ""
    return f"use a larger device; or, if the profile's device_memory_gb is too low, raise it{tiles}"


def model(one: Prospect) -> Notice:
    if one.seen.ready is None:
        missing, _, do = one.seen.why.partition("; ")
        return Notice("models", "note", f"{one.seen.name}: {missing}", f"{do or 'put them there'}; see docs/SETUP_GUIDE.md")
    return Notice("models", "ok", f"{one.seen.name}: files are here; {one.seen.status}: {one.seen.why}")


def verdict(one: Prospect) -> Notice:
    told = f"{one.seen.name} ({one.seen.workflow.stage}): {one.can}"
    if one.can in ("ready", "takes turns"):
        return Notice("workflow", "ok", told)
    if one.can == "experimental":
        do = "`tower benchmark` and `tower workflows promote` prove it; --allow-experimental renders with it as it is"
        return Notice("workflow", "note", f"{told}; its status is {one.seen.status}", do)
    return Notice("workflow", "note", told + (f", because {one.why_not}" if one.why_not else ""))
