"""Rules: from measures to a verdict. A profile is a list of rules, and a rule looks at one measure.

Nothing here sees a pixel, so stored measures can be judged again under any profile.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .verdict import LABELS, Finding, Verdict

# What an episode can say of a shot, so that what is meant is not taken for a fault.
Declaration = Literal["hold", "camera_only", "fade", "effects", "night"]
Gate = Literal["image", "video"]


@dataclass(frozen=True)
class Rule:
    """`label` is found where `measure` is below, above or other than a threshold. Exactly one of the three is given.

    Args:
        differs_from: name of the measure that holds the wanted value; frames, fps and sizes must be exact.
        outcome: what finding it means.
        declared: what it means in a shot that declares so: "warn", or "pass" where it is no fault at all.
        evidence: the calibration run that set the threshold, and what it saw on either side.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by pydantic where rules come from a file

    label: str
    measure: str
    below: float | None = None
    above: float | None = None
    differs_from: str | None = None
    outcome: Literal["warn", "fail"] = "fail"
    declared: dict[Declaration, Literal["warn", "pass"]] = field(default_factory=dict)
    evidence: str = ""

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise ValueError(f"{self.label!r} is not a gate label; the labels are {', '.join(LABELS)}")
        if sum(x is not None for x in (self.below, self.above, self.differs_from)) != 1:
            raise ValueError(f"the rule for {self.label} needs exactly one of below, above and differs_from")
        if not all(math.isfinite(x) for x in (self.below, self.above) if x is not None):
            raise ValueError(f"the rule for {self.label} needs a finite threshold")

    def finding(self, measures: Mapping[str, float], declared: Collection[str], text: str = "") -> Finding | None:
        """What this rule finds in these measures, if anything. They must hold what the rule looks at."""
        value = measures[self.measure]
        limit = self.below if self.below is not None else self.above if self.above is not None else measures[str(self.differs_from)]
        found = value < limit if self.below is not None else value > limit if self.above is not None else value != limit
        outcome = self._outcome(declared)
        if not found or outcome == "pass":
            return None
        return Finding(self.label, self.measure, value, limit, outcome, _frames(measures, self.measure), text)

    def looks_at(self) -> tuple[str, ...]:
        return (self.measure, self.differs_from) if self.differs_from else (self.measure,)

    def _outcome(self, declared: Collection[str]) -> Literal["warn", "fail", "pass"]:
        meant = {self.declared[d] for d in declared if d in self.declared}  # type: ignore[index]
        return "pass" if "pass" in meant else "warn" if "warn" in meant else self.outcome


@dataclass(frozen=True)
class Profile:
    """Rules for stills and for clips."""

    name: str
    image: tuple[Rule, ...]
    video: tuple[Rule, ...]

    def rules(self, gate: Gate) -> tuple[Rule, ...]:
        return self.image if gate == "image" else self.video


def judge(
    gate: Gate,
    measures: Mapping[str, float],
    profile: Profile,
    declared: Collection[str] = (),
    texts: Mapping[str, str] | None = None,
) -> Verdict:
    """The verdict of a profile over measures.

    Args:
        declared: what the shot declares.
        texts: words to go with a label, such as a decoder's.
    """
    rounded = {k: float(f"{v:.7g}") for k, v in measures.items()}  # seven digits: what is stored judges as what was seen
    rules = profile.rules(gate)
    seen = [rule for rule in rules if all(m in rounded for m in rule.looks_at())]
    blind = {r.label for r in rules} - {r.label for r in seen}
    findings = [rule.finding(rounded, declared, (texts or {}).get(rule.label, "")) for rule in seen]
    return Verdict(
        gate,
        tuple(f for f in findings if f is not None),
        rounded,
        tuple(label for label in LABELS if label in blind),
    )


def _frames(measures: Mapping[str, float], measure: str) -> tuple[int, ...]:
    """Where the fault is: `X_at` is stored beside `X`, and `X_until` where it lasts."""
    start, end = measures.get(f"{measure}_at"), measures.get(f"{measure}_until")
    return tuple(int(x) for x in (start, end) if x is not None)
