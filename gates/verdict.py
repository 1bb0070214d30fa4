"""Verdict: a gate's judgement of a take, with its evidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["pass", "warn", "fail"]

# Every label that a gate can find; the list is closed.
LABELS = (
    "undecodable",
    "wrong_frame_count",
    "wrong_fps",
    "wrong_size",
    "frozen",
    "long_hold",
    "cut",
    "flicker",
    "strobe",
    "black",
    "non_finite",
    "colour_drift",
    "exposure_drift",
    "wrong_first_frame",
    "wrong_last_frame",
    "blur",
    "bars",
    "over_exposed",
    "noise",
    "empty",
    "duplicate",
    "unlike_source",
)


@dataclass(frozen=True)
class Finding:
    """One fault.

    label: one of LABELS.
    measure, value, threshold: the measure that shows the fault, its value, and the threshold that the value crosses.
    frames: the fault's first frame, and its last one where it lasts; 0-based.
    text: words that explain the fault better than the number, such as the decoder's message.

    Raises:
        ValueError: the label is not in LABELS.
    """

    label: str
    measure: str
    value: float
    threshold: float
    outcome: Literal["warn", "fail"] = "fail"
    frames: tuple[int, ...] = ()
    text: str = ""

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise ValueError(f"{self.label!r} is not a gate label; the labels are {', '.join(LABELS)}")

    def __str__(self) -> str:
        value, threshold = self.figures
        return f"{self.label} ({self.text or f'{self.measure} {value}, threshold {threshold}'})"

    @property
    def figures(self) -> tuple[str, str]:
        """Value and threshold for people: four digits, or as many as it takes to tell the two apart."""
        for digits in range(4, 17):
            value, threshold = (f"{x:.{digits}g}" for x in (self.value, self.threshold))
            if value != threshold:
                break
        return value, threshold


@dataclass(frozen=True)
class Verdict:
    """A gate's judgement. `measures` holds every measured value, so that a take can be judged again without its file."""

    gate: Literal["image", "video"]
    findings: tuple[Finding, ...] = ()
    measures: dict[str, float] = field(default_factory=dict)
    not_looked: tuple[str, ...] = ()  # labels whose measures need an input that was not given, such as a keyframe

    @property
    def outcome(self) -> Outcome:
        return "fail" if self.failures else "warn" if self.warnings else "pass"

    @property
    def failures(self) -> tuple[str, ...]:
        """Labels of the findings that failed, each once, in the order found."""
        return tuple(dict.fromkeys(f.label for f in self.findings if f.outcome == "fail"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Labels of the findings that do not reject the take, each once, in the order found."""
        return tuple(dict.fromkeys(f.label for f in self.findings if f.outcome == "warn" and f.label not in self.failures))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "gate": self.gate,
            "outcome": self.outcome,
            "failures": list(self.failures),
            "warnings": list(self.warnings),
            "measures": self.measures,
            "findings": [asdict(f) for f in self.findings],
            "not_looked": list(self.not_looked),
        }
