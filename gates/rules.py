"""Rules: from measures to a verdict. A profile is a list of rules, and a rule looks at one measure.

Rules need no pixels, so stored measures can be judged again under any profile.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .verdict import LABELS, Finding, Verdict

# What an episode may declare of a shot, so that the gates do not take an intended effect for a fault.
Declaration = Literal["hold", "camera_only", "fade", "effects", "night"]
Gate = Literal["image", "video"]


@dataclass(frozen=True)
class Rule:
    """Finds `label` where `measure` is below a threshold, above it, or different from another measure.

    Args:
        label: one of `verdict.LABELS`.
        below, above, differs_from: exactly one is given. The first two are thresholds. `differs_from` names the measure
            that holds the wanted value, for frames, fps and sizes, which must be exact.
        outcome: outcome of a finding.
        declared: outcome of a finding in a shot with that declaration: "warn", or "pass" where it is no fault at all.
        evidence: the calibration run that set the threshold, and the values that it saw on either side.

    Raises:
        ValueError: the label is unknown, or there is not exactly one threshold, or the threshold is not finite.
    """

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
        """The rule's finding, or None. `measures` must hold every name in `looks_at()`; `text` goes into the finding."""
        value = measures[self.measure]
        limit = self.below if self.below is not None else self.above if self.above is not None else measures[str(self.differs_from)]
        found = value < limit if self.below is not None else value > limit if self.above is not None else value != limit
        outcome = self._outcome(declared)
        if not found or outcome == "pass":
            return None
        frames = _frames(measures, self.measure)
        return Finding(self.label, self.measure, value=value, threshold=limit, outcome=outcome, frames=frames, text=text)

    def looks_at(self) -> tuple[str, ...]:
        """Names of the measures that the rule reads."""
        return (self.measure, self.differs_from) if self.differs_from else (self.measure,)

    def _outcome(self, declared: Collection[str]) -> Literal["warn", "fail", "pass"]:
        softened = {self.declared[d] for d in declared if d in self.declared}  # type: ignore[index]
        return "pass" if "pass" in softened else "warn" if "warn" in softened else self.outcome


# What every verdict tells, whatever the profile: how the figures came about. There is no threshold to choose, and it rejects nothing.
TOLD: dict[Gate, tuple[Rule, ...]] = {"image": (), "video": (Rule("undecodable", "hdr", above=0, outcome="warn"),)}


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
    """Apply the rules of a profile to measures. Labels whose rules lack a measure are listed in `not_looked`.

    Args:
        declared: the shot's declarations.
        texts: measure or label to the words that go with its finding, such as a decoder's message.
    """
    # Rounded to seven digits, as measures are stored, so that stored measures give the same verdict again.
    rounded = {k: float(f"{v:.7g}") for k, v in measures.items()}
    rules = profile.rules(gate)
    applicable = [rule for rule in rules if all(m in rounded for m in rule.looks_at())]
    not_looked = {r.label for r in rules} - {r.label for r in applicable}
    applicable += [rule for rule in TOLD[gate] if rule.measure in rounded]  # measures that are only there where there is something to tell
    said = texts or {}
    findings = [rule.finding(rounded, declared, said.get(rule.measure, said.get(rule.label, ""))) for rule in applicable]
    return Verdict(
        gate,
        tuple(f for f in findings if f is not None),
        rounded,
        tuple(label for label in LABELS if label in not_looked),
    )


def no_numbers(where: str) -> dict[str, str]:
    """The words for values that were no numbers, by their label. where: such as "latents"; "" where all were finite."""
    return {"non_finite": f"values that are no numbers in the {where}"} if where else {}


def _frames(measures: Mapping[str, float], measure: str) -> tuple[int, ...]:
    """Frames of the fault. Measure `X` has its first frame in `X_at`; where the fault lasts, `X_until` has its last frame."""
    start, end = measures.get(f"{measure}_at"), measures.get(f"{measure}_until")
    return tuple(int(x) for x in (start, end) if x is not None)
