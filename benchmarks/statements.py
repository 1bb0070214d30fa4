"""Mutations that the library does not have: a step left out, and `in` turned into `not in`."""

from __future__ import annotations

from typing import Any

from cosmic_ray.operators.operator import Example, Operator
from parso.python.tree import Keyword


class LeaveOut(Operator):
    """Leaves out a step: a call whose value nobody takes, or what is stored in an attribute or an item."""

    def mutation_positions(self, node: Any) -> Any:
        if node.parent is not None and node.parent.type == "simple_stmt" and _is_step(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return Keyword("pass", node.start_pos, node.get_first_leaf().prefix)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("f(x)\n", "pass\n"),)


class NotIn(Operator):
    """Turns `x in y` into `x not in y`."""

    def mutation_positions(self, node: Any) -> Any:
        if isinstance(node, Keyword) and node.value == "in" and node.parent is not None and node.parent.type == "comparison":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.value = "not in"
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x in y", "x not in y"),)


def _is_step(node: Any) -> bool:
    target = node.children[0] if node.type == "expr_stmt" else node  # of `x.y = z` and `x[y] += z`; later lines need the name of `x = z`
    return target.type in ("atom_expr", "power")


OPERATORS: dict[str, type[Operator]] = {"LeaveOut": LeaveOut, "NotIn": NotIn}
