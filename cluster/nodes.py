"""The machines of the cluster: which there are, what their labels say, and which are about to leave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import ray
from ray._private.state import state

ACCELERATOR = "ray.io/accelerator-type"  # label that Ray sets on nodes whose GPUs it knows
RESOURCE = "accelerator_type:"  # prefix of the resource that names the accelerator type on a node without that label


@dataclass(frozen=True)
class Node:
    """A machine of the cluster. labels: (name, value) pairs, sorted. leaving: Ray drains the node, so it gets no new work.

    A node drains before a spot instance ends, or before an autoscaler removes it.
    """

    id: str
    name: str
    gpus: int
    cpus: int
    labels: tuple[tuple[str, str], ...]
    leaving: bool

    @property
    def accelerator(self) -> str:
        return dict(self.labels).get(ACCELERATOR, "")

    def suits(self, wanted: Iterable[tuple[str, str]]) -> bool:
        """Whether the node's labels match all (name, selector) pairs. Selectors are Ray's: x, !x, in(x,y), !in(x,y)."""
        labels = dict(self.labels)
        return all(_says(labels.get(name), value) for name, value in wanted)


def _says(have: str | None, wanted: str) -> bool:
    if wanted.startswith("!"):
        return not _says(have, wanted[1:])
    if wanted.startswith("in(") and wanted.endswith(")"):
        return have in [one.strip() for one in wanted[3:-1].split(",")]
    return have == wanted


def nodes() -> list[Node]:
    """Every node that is alive, sorted by id."""
    leaving = state.get_draining_nodes()  # Ray's public interface does not tell which nodes drain
    return sorted((_node(n, n["NodeID"] in leaving) for n in ray.nodes() if n["Alive"]), key=lambda n: n.id)


def _node(told: dict, leaving: bool) -> Node:
    resources, labels = told["Resources"], dict(told["Labels"] or {})
    kinds = [name.removeprefix(RESOURCE) for name in resources if name.startswith(RESOURCE)]
    if kinds:
        labels.setdefault(ACCELERATOR, kinds[0])
    name = told["NodeManagerHostname"]
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    return Node(id=told["NodeID"], name=name, gpus=gpus, cpus=cpus, labels=tuple(sorted(labels.items())), leaving=leaving)
