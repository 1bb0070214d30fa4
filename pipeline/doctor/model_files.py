"""Are a workflow's model files everywhere where it may run: whole, fitting, and the same on every machine?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from actors.values import ModelFiles
from cluster.nodes import Node
from pipeline.registry.files import files_of
from pipeline.registry.fit import Fault, faults
from pipeline.registry.workflows import Registry, user_memory
from pipeline.render.needs import PROMPTS
from pipeline.story.cluster_profile import ClusterProfile
from pipeline.story.fingerprint import FileDigests
from pipeline.story.workflow import Workflow

HERE = "this machine"
Asked = tuple[Workflow, ModelFiles]
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
class Look:
    """What one machine has. faults: of each workflow. digests: of what is there and can be read."""

    faults: tuple[tuple[Fault, ...], ...]
    digests: Digests


def check_models(registry: Registry, workflows: list[Workflow], profile: ClusterProfile) -> list[Checked]:
    """Every file of every workflow, on this machine and on each node of the cluster at RAY_ADDRESS that may run the workflow.

    This machine comes first: a render reads its digests here. Nothing is loaded, and the file itself is read only where its size or
    time is new.

    Raises:
        InputError: a path leads outside its folder. ClusterError: the cluster cannot be joined.
    """
    asked = [(workflow, files_of(workflow, registry.settings)) for workflow in workflows]
    places: list[tuple[str, list[Asked], Look | str]] = [(HERE, asked, look(asked, registry.digests))]
    if os.environ.get("RAY_ADDRESS"):
        places += _cluster(asked, profile)
    first = _first(places)
    return [row for node, had, found in places for row in _rows(node, had, found, first)]


def look(asked: list[Asked], digests: FileDigests | None = None) -> Look:
    """What is here of the workflows' files. Ray runs this function on each node."""
    digests = digests or FileDigests(user_memory())
    told = [list(_faults(workflow, files)) for workflow, files in asked]
    had: Digests = {}
    for path in {path for _, files in asked for _, path in files.named}:
        try:
            if Path(path).exists():
                had[path] = digests.each(Path(path))
        except OSError as error:
            for (_, files), mine in zip(asked, told, strict=True):
                mine += [_unreadable(what, path, error) for what, named in files.named if named == path]
    digests.save()
    return Look(tuple(map(tuple, told)), had)


def _faults(workflow: Workflow, files: ModelFiles) -> Iterator[Fault]:
    try:
        yield from faults(workflow, files)
    except OSError as error:
        yield _unreadable("checkpoint", files.checkpoint, error)


def _unreadable(what: str, path: str, error: OSError) -> Fault:
    return Fault(what, path, f"{error.filename or path} cannot be read: {error.strerror or error}")


def _cluster(asked: list[Asked], profile: ClusterProfile) -> list[tuple[str, list[Asked], Look | str]]:
    from cluster.each import Silent, on_each_node

    def suiting(node: Node) -> list[Asked]:
        """The workflows whose model or text encoder may come onto a device of the node."""
        encoders = node.suits(profile.labels(PROMPTS, PROMPTS))
        return [one for one in asked if node.gpus and (encoders or node.suits(profile.labels(one[0].family, one[0].name)))]

    answers = on_each_node(look, lambda node: (suiting(node),) if suiting(node) else None)
    names = [node.name for node, _ in answers]
    told = []
    for node, answer in answers:
        name = node.name if names.count(node.name) == 1 else f"{node.name} ({node.id[:6]})"
        told.append((name, suiting(node), answer.why if isinstance(answer, Silent) else answer))
    return told


def _first(places: list[tuple[str, list[Asked], Look | str]]) -> dict[str, tuple[str, dict[str, str]]]:
    """Path to the first machine that has it, and the digests there: the others must have the same."""
    first: dict[str, tuple[str, dict[str, str]]] = {}
    for node, _, found in places:
        if isinstance(found, Look):
            for path, digests in found.digests.items():
                first.setdefault(path, (node, digests))
    return first


def _rows(node: str, asked: list[Asked], found: Look | str, first: dict[str, tuple[str, dict[str, str]]]) -> Iterator[Checked]:
    for number, (workflow, files) in enumerate(asked):
        for what, path in files.named:
            row = Checked(workflow.title, node, what, path, "ready")
            if isinstance(found, str):
                yield replace(row, state="silent", fault=f"it gave no answer: {found}")
                continue
            fault = next((f for f in found.faults[number] if f.file == path), None)
            if path not in found.digests and fault is None:
                fault = Fault(what, path, f"{path} does not exist")
            if fault:
                yield replace(row, state="unfit" if path in found.digests else "missing", fault=f"{fault.field}: {fault.told}")
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
