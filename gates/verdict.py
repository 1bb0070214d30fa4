"""Verdict: what a gate says of a take, with its evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["pass", "warn", "fail"]

# The closed list of everything that a gate can find.
LABELS = (
    "undecodable",
    "wrong_frame_count",
    "wrong_fps",
    "wrong_size",
    "wrong_codec",
    "non_finite",
    "black",
    "empty",
    "noise",
    "over_exposed",
    "frozen",
    "wrong_first_frame",
)


@dataclass(frozen=True)
class Finding:
    """One fault: which, how much against which threshold, and in which frames (0-based)."""

    label: str
    value: float | str
    threshold: float | str
    frames: tuple[int, ...] = ()
    outcome: Literal["warn", "fail"] = "fail"

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise ValueError(f"{self.label!r} is not a gate label; the labels are {', '.join(LABELS)}")

    def __str__(self) -> str:
        def show(x: float | str) -> str:
            return x if isinstance(x, str) else f"{x:.4g}"

        return f"{self.label} ({show(self.value)}, threshold {show(self.threshold)})"


@dataclass(frozen=True)
class Verdict:
    """A gate's judgement. `measures` holds every value that was measured, so it can be judged again."""

    gate: str
    findings: tuple[Finding, ...] = ()
    measures: dict[str, float] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        outcomes = {f.outcome for f in self.findings}
        return "fail" if "fail" in outcomes else "warn" if "warn" in outcomes else "pass"

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the findings that failed, each once, in the order found."""
        return tuple(dict.fromkeys(f.label for f in self.findings if f.outcome == "fail"))

    def to_dict(self) -> dict[str, Any]:
        return {
            "gate": self.gate,
            "outcome": self.outcome,
            "labels": list(self.labels),
            "measures": self.measures,
            "findings": [asdict(f) for f in self.findings],
        }


def verdict(gate: str, findings: Iterable[Finding | None], measures: dict[str, float]) -> Verdict:
    """A verdict of the findings that are not None; values rounded to seven digits, enough to judge again."""
    return Verdict(gate, tuple(f for f in findings if f is not None), {k: float(f"{v:.7g}") for k, v in measures.items()})
