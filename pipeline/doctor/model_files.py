"""Are a workflow's model files everywhere where it may run: whole, fitting, and the same on every machine?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from actors.folders import opened
from actors.headers import read_header
from actors.values import ModelError
from cluster.nodes import Node
from pipeline.registry.files import check_files, files_of, model_path
from pipeline.registry.workflows import Registry, user_memory
from pipeline.render.needs import PROMPTS
from pipeline.story.cluster_profile import ClusterProfile
from pipeline.story.errors import InputError
from pipeline.story.fingerprint import FileDigests
from pipeline.story.settings import Settings
from pipeline.story.workflow import Workflow

HERE = "this machine"
ROOT = Path("/")  # what is sent to nodes names files from here: a render sends whole paths too, as this machine resolves them
Digests = dict[str, dict[str, str]]  # path to digests by the names of files


@dataclass(frozen=True)
class Checked:
    """A file or folder that a workflow loads, on one machine.

    what: field of the workflow. state: "silent" where the machine gave no answer. fault: a sentence; "" where the state is ready.
    """

    workflow: str
    node: str
    what: str
    file: str
    state: Literal["ready", "missing", "unfit", "differs", "silent"]
    fault: str = ""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file or folder. told: a sentence that begins with the field of the workflow."""

    path: str
    told: str


@dataclass(frozen=True)
class Look:
    """What one machine has. faults: of each workflow. digests: of what is there and can be read."""

    faults: tuple[tuple[Fault, ...], ...]
    digests: Digests


Place = tuple[str, list[Workflow], Look | str]  # a machine, what it was asked about, and its answer, or why it gave none


def check_models(registry: Registry, workflows: list[Workflow], profile: ClusterProfile) -> list[Checked]:
    """Every file of every workflow, on this machine and on each node of the cluster at RAY_ADDRESS that may run the workflow.

    This machine comes first: a render reads its digests here. Nothing is loaded, and a file is read whole only where its size or
    time is new.

    Raises:
        InputError: a path leads outside its folder. ClusterError: the cluster cannot be joined.
    """
    asked = [w.with_files(lambda name: str(model_path(registry.settings, name).relative_to(ROOT))) for w in workflows]
    places: list[Place] = [(HERE, asked, look(asked, registry.digests))]
    if os.environ.get("RAY_ADDRESS"):
        places += _cluster(asked, profile)
    first = _first(places)
    return [row for node, had, found in places for row in _rows(node, had, found, first)]


def look(asked: list[Workflow], digests: FileDigests | None = None) -> Look:
    """What is here of the files that workflows name from the root. Ray runs this function on each node."""
    digests = digests or FileDigests(user_memory())
    told = [[*_not_whole(workflow), *_misfits(workflow)] for workflow in asked]
    had: Digests = {}
    for path in {path for workflow in asked for _, path in _named(workflow)}:
        try:
            if Path(path).exists():
                had[path] = digests.each(Path(path))
        except OSError as error:
            for workflow, mine in zip(asked, told, strict=True):
                mine += [_unreadable(what, path, error) for what, named in _named(workflow) if named == path]
    digests.save()
    return Look(tuple(map(tuple, told)), had)


def _named(workflow: Workflow) -> list[tuple[str, str]]:
    """Field and whole path of everything that the workflow loads."""
    return [(what, str(ROOT / name)) for what, name in workflow.files]


def _not_whole(workflow: Workflow) -> Iterator[Fault]:
    """Of each file or folder, the first file of weights that cannot be read by its header."""
    for what, path in _named(workflow):
        try:
            for file in opened(Path(path)) if Path(path).exists() else ():
                read_header(file)
        except ModelError as error:
            yield Fault(path, f"{what}: {error}")
        except OSError as error:
            yield _unreadable(what, path, error)


def _misfits(workflow: Workflow) -> Iterator[Fault]:
    """What a plan would say: of the workflow without LoRAs, and with each of them alone, since a plan stops at the first fault."""
    at_root = Settings.model_construct(models_dir=ROOT)
    for loras in ([], *([lora] for lora in workflow.loras)):
        some = workflow.model_copy(update={"loras": loras})
        try:
            check_files(some, files_of(some, at_root))
        except InputError as error:
            told = str(error).removeprefix(f"workflow {workflow.name}: ")
            yield Fault(_meant(told, some), told)
        except OSError as error:
            yield _unreadable("checkpoint", str(ROOT / workflow.checkpoint), error)


def _meant(told: str, workflow: Workflow) -> str:
    """Path of the file that a sentence is about: the longest that it names, else that of its field, else the checkpoint."""
    paths = sorted(_named(workflow), key=lambda one: len(one[1]), reverse=True)
    named = [path for _, path in paths if path in told] or [path for what, path in paths if told.startswith(f"{what}:")]
    return named[0] if named else str(ROOT / workflow.checkpoint)


def _unreadable(what: str, path: str, error: OSError) -> Fault:
    return Fault(path, f"{what}: {error.filename or path} cannot be read: {error.strerror or error}")


def _cluster(asked: list[Workflow], profile: ClusterProfile) -> list[Place]:
    from cluster.each import Silent, on_each_node

    def suiting(node: Node) -> list[Workflow]:
        """The workflows whose model or text encoder may come onto a device of the node."""
        encoders = node.suits(profile.labels(PROMPTS, PROMPTS))
        return [w for w in asked if node.gpus and (encoders or node.suits(profile.labels(w.family, w.name)))]

    answers = on_each_node(look, lambda node: (suiting(node),) if suiting(node) else None)
    names = [node.name for node, _ in answers]
    told = []
    for node, answer in answers:
        name = node.name if names.count(node.name) == 1 else f"{node.name} ({node.id[:6]})"
        told.append((name, suiting(node), answer.why if isinstance(answer, Silent) else answer))
    return told


def _first(places: list[Place]) -> dict[str, tuple[str, dict[str, str]]]:
    """Path to the first machine that has it, and the digests there: the others must have the same."""
    first: dict[str, tuple[str, dict[str, str]]] = {}
    for node, _, found in places:
        if isinstance(found, Look):
            for path, digests in found.digests.items():
                first.setdefault(path, (node, digests))
    return first


def _rows(node: str, asked: list[Workflow], found: Look | str, first: dict[str, tuple[str, dict[str, str]]]) -> Iterator[Checked]:
    for number, workflow in enumerate(asked):
        for what, path in _named(workflow):
            row = Checked(workflow.title, node, what, path, "ready")
            if isinstance(found, str):
                yield replace(row, state="silent", fault=f"it gave no answer: {found}")
                continue
            told = next((fault.told for fault in found.faults[number] if fault.path == path), "")
            if path not in found.digests:
                yield replace(row, state="missing", fault=told or f"{what}: {path} does not exist")
            elif told:
                yield replace(row, state="unfit", fault=told)
            elif other := _difference(found.digests[path], *first[path]):
                yield replace(row, state="differs", fault=f"{what}: {path} {other}")
            else:
                yield row


def _difference(mine: dict[str, str], where: str, wanted: dict[str, str]) -> str:
    """What differs from the files on the machine `where`; "" for nothing."""
    names = [name for name in sorted(mine | wanted) if mine.get(name) != wanted.get(name)]
    if not names:
        return ""
    kinds = {name: "is not there" if name not in mine else "is too much" if name not in wanted else "has other bytes" for name in names}
    more = f" (and {len(names) - 1} more files)" if len(names) > 1 else ""
    subject = "it" if names[0] == "." else names[0]
    return f"differs from the one on {where}: {subject} {kinds[names[0]]}{more}"


def sentences(rows: list[Checked]) -> list[str]:
    """One for each fault, which names all machines that have it."""
    nodes: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.fault:
            nodes.setdefault((row.workflow, row.fault), []).append(row.node)
    told = []
    for (workflow, fault), names in nodes.items():
        where = "" if names == [HERE] else f"{', '.join(dict.fromkeys(names))}: "
        told.append(f"{where}workflow {workflow}: {fault}")
    return told
