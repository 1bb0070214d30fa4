"""Runs one function on each node of a cluster, beside any other work there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

# Before Ray: `start` sets the environment that Ray reads when it is imported.
from .address import in_one_line
from .start import cluster

# isort: split
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .cpu import cpu_task
from .nodes import Node, nodes
from .specs import pack, unpack

ANSWER_SECONDS = 3600.0  # limit for all answers; a node may have to read a hundred gigabytes first


@dataclass(frozen=True)
class Silent:
    """Stands for the answer of a node that gave none."""

    why: str


def on_each_node(function: Callable[..., Any], arguments: Callable[[Node], tuple[Any, ...] | None]) -> list[tuple[Node, Any]]:
    """The nodes of the cluster at RAY_ADDRESS, each with the function's answer there, or Silent.

    Args:
        arguments: of the function on a node; None passes that node over. Nodes that are about to leave are passed over too.

    Raises:
        ClusterError: the cluster cannot be joined.
    """
    with nullcontext() if ray.is_initialized() else cluster(waits=True):  # a service of the cluster is part of it already
        asked = [(n, _asked(n, function, args)) for n in nodes() if not n.leaving and (args := arguments(n)) is not None]
        ray.wait([ref for _, ref in asked], num_returns=len(asked), timeout=ANSWER_SECONDS) if asked else None
        return [(node, _answer(ref)) for node, ref in asked]


def _asked(node: Node, function: Callable[..., Any], args: tuple[Any, ...]) -> ray.ObjectRef:
    where = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return cpu_task.options(num_cpus=0, max_retries=0, scheduling_strategy=where).remote(pack(function, args, False))


def _answer(ref: ray.ObjectRef) -> Any:
    try:
        (answer,) = unpack(ray.get(ref, timeout=0))
        return answer
    except (RayError, TimeoutError) as error:
        return Silent(in_one_line(error))
