"""Right and left: which way a line is read, and the order in which its parts stand (Unicode's UAX 9, the rules named beside the lines)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import groupby
from typing import TypeVar

from PIL import features

LEFT_TO_RIGHT, RIGHT_TO_LEFT = "\u200e", "\u200f"  # marks that nobody sees, from which a line has its direction

Part = TypeVar("Part")


def right_to_left(line: str) -> bool:
    """Whether a line is read from right to left: the first letter that has a direction decides (P2, P3)."""
    strong = (unicodedata.bidirectional(c) for c in line)
    return next((kind in ("R", "AL") for kind in strong if kind in ("L", "R", "AL")), False)


def directed(part: str, line: str) -> str:
    """A part of a line, which keeps the direction of the whole."""
    if right_to_left(part) == right_to_left(line):
        return part
    return (RIGHT_TO_LEFT if right_to_left(line) else LEFT_TO_RIGHT) + part


def undirected(text: str) -> str | None:
    """What is wrong if the text has letters that run from right to left, and Pillow cannot order them here; else None."""
    if features.check("raqm") or not any(unicodedata.bidirectional(c) in ("R", "AL") for c in text):
        return None
    return "Pillow cannot set letters from right to left without the library FriBiDi; install it (Debian: libfribidi0)"


def levels(line: str) -> list[int]:
    """The level of each character, odd from right to left. Brackets are not paired (N0), and explicit embeddings are not looked for."""
    rtl = right_to_left(line)
    base = "R" if rtl else "L"
    kinds = _numbers_joined([unicodedata.bidirectional(c) for c in line], base)
    strong, sides = base, []
    for kind in kinds:
        strong = {"L": "L", "R": "R", "AL": "R"}.get(kind, strong)
        sides.append({"L": "L", "R": "R", "AL": "R", "AN": "N", "EN": "L" if strong == "L" else "N"}.get(kind, ""))  # W3, W7
    level = {"L": 2, "R": 1, "N": 2} if rtl else {"L": 0, "R": 1, "N": 2}  # I1, I2
    found: list[int] = []
    for side, run in groupby(sides):
        count = len(list(run))
        if not side:  # N1, N2: as what stands on both sides, or else as the line; numbers count as R
            beside = [sides[i] if 0 <= i < len(sides) else base for i in (len(found) - 1, len(found) + count)]
            both = {"L" if one == "L" else "R" for one in beside}
            side = both.pop() if len(both) == 1 else base
        found += [level[side]] * count
    return found


def _numbers_joined(kinds: list[str], base: str) -> list[str]:
    """Bidirectional classes, where accents are as their letters, and what divides or follows digits is as they are."""
    strong, before = base, base
    for i, kind in enumerate(kinds):
        kind = before if kind == "NSM" else kind  # W1
        strong = kind if kind in ("L", "R", "AL") else strong
        kinds[i] = before = "AN" if kind == "EN" and strong == "AL" else kind  # W2
    for i in range(1, len(kinds) - 1):  # W4: 1,000
        beside = {kinds[i - 1], kinds[i + 1]}
        if (kinds[i], beside) in (("CS", {"EN"}), ("ES", {"EN"}), ("CS", {"AN"})):
            kinds[i] = kinds[i - 1]
    for order in (range(1, len(kinds)), range(len(kinds) - 2, -1, -1)):  # W5: 50 %
        for i in order:
            if kinds[i] == "ET" and kinds[i - order.step] == "EN":
                kinds[i] = "EN"
    return kinds


def in_visual_order(parts: Sequence[tuple[int, Part]]) -> list[Part]:
    """The parts of a line from left to right. Each comes with its level, in the order in which they are read.

    From the highest level to the lowest odd one, what is at that level or above is turned round (L2).
    """
    for level in range(max((level for level, _ in parts), default=0), 0, -1):
        turned: list[tuple[int, Part]] = []
        for at_least, run in groupby(parts, lambda part, level=level: part[0] >= level):  # type: ignore[misc]
            turned += list(run)[:: -1 if at_least else 1]
        parts = turned
    return [part for _, part in parts]
