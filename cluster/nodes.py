"""The machines of the cluster: which there are, what their labels say, and which are about to leave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import ray
from ray._private.state import state

ACCELERATOR = "ray.io/accelerator-type"  # Ray sets it on nodes whose GPUs it knows
RESOURCE = "accelerator_type:"  # the same, as a resource: what Ray itself finds on a node that got no labels


@dataclass(frozen=True)
class Node:
    id: str
    name: str
    gpus: int
    cpus: int
    labels: tuple[tuple[str, str], ...]
    leaving: bool  # it was told to drain: a spot instance before its end, or a node that an autoscaler takes away

    @property
    def accelerator(self) -> str:
        return dict(self.labels).get(ACCELERATOR, "")

    def suits(self, wanted: Iterable[tuple[str, str]]) -> bool:
        """Whether its labels say all that is wanted, in the words of Ray's label selectors: x, !x, in(x,y), !in(x,y)."""
        labels = dict(self.labels)
        return all(_says(labels.get(name), value) for name, value in wanted)


def _says(have: str | None, wanted: str) -> bool:
    if wanted.startswith("!"):
        return not _says(have, wanted[1:])
    if wanted.startswith("in(") and wanted.endswith(")"):
        return have in [one.strip() for one in wanted[3:-1].split(",")]
    return have == wanted


def nodes() -> list[Node]:
    """Every node that is alive, in an order that stays the same."""
    leaving = state.get_draining_nodes()  # Ray shows this nowhere in its public interface
    return sorted((_node(n, n["NodeID"] in leaving) for n in ray.nodes() if n["Alive"]), key=lambda n: n.id)


def _node(told: dict, leaving: bool) -> Node:
    resources, labels = told["Resources"], dict(told["Labels"] or {})
    kinds = [name.removeprefix(RESOURCE) for name in resources if name.startswith(RESOURCE)]
    if kinds:
        labels.setdefault(ACCELERATOR, kinds[0])
    name = told["NodeManagerHostname"]
    return Node(told["NodeID"], name, int(resources.get("GPU", 0)), int(resources.get("CPU", 0)), tuple(sorted(labels.items())), leaving)
