"""Suites: frozen shots x seeds that workflows are measured on."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from catalog.standing import Demands
from gates.rules import Declaration
from pipeline import PROJECT

from .episode import Character, Episode, Location, Sequence, Shot, WorkflowRef
from .fingerprint import digest
from .written import Name, Text, Written
from .yaml_file import TEMPLATES, Misfit, read_yaml

SUITES = PROJECT / "configs" / "suites"


class Case(Written):
    """One thing to draw. Fields as a shot's."""

    name: Name
    framing: Text = ""
    characters: list[Name] = Field(default_factory=list)
    action: Text = ""
    location: Name | None = None
    time: Text = ""
    camera: Text = ""
    declares: tuple[Declaration, ...] = ()


class Required(Written):
    """What a workflow must reach to be proven."""

    pass_rate: float = Field(gt=0, le=1, description="that the lower 95 % bound of accepted first takes must reach")
    device_seconds_p95: float | None = Field(None, gt=0, description="seconds on the device")
    peak_memory_gb: float | None = Field(None, gt=0)


class Suite(Written):
    """A change of anything but the description is another digest, and makes what was proven by it stale."""

    model_config = ConfigDict(json_schema_extra=TEMPLATES)

    name: Name
    description: str = ""
    style: Text = ""
    negative_prompt: Text = ""
    keyframe_workflow: WorkflowRef = Field(description="draws what clips start from")
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3
    required: Required
    characters: dict[Name, Character] = Field(default_factory=dict)
    locations: dict[Name, Location] = Field(default_factory=dict)
    cases: list[Case] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _parts_agree(self) -> Suite:
        names = [c.name for c in self.cases]
        for i, case in enumerate(self.cases):
            if case.name in names[:i]:
                raise Misfit(f"case {case.name} is defined twice", "cases", i, "name")
            for who in case.characters:
                if who not in self.characters:
                    raise Misfit(f"unknown character {who!r}; known are {', '.join(self.characters) or 'none'}", "cases", i, "characters")
            if case.location and case.location not in self.locations:
                raise Misfit(f"unknown location {case.location!r}; known are {', '.join(self.locations) or 'none'}", "cases", i, "location")
        return self

    @property
    def digest(self) -> str:
        return digest(self.model_dump(mode="json", exclude={"description"}))

    @property
    def demands(self) -> Demands:
        r = self.required
        return Demands(r.pass_rate, r.device_seconds_p95, r.peak_memory_gb * 1e9 if r.peak_memory_gb else None)

    def cells(self) -> list[tuple[str, Case, int]]:
        """(shot id, case, seed) of every cell, in order."""
        pairs = [(case, seed) for case in self.cases for seed in range(self.seeds)]
        return [(f"SH{10 * n:04d}", case, seed) for n, (case, seed) in enumerate(pairs, 1)]


class SuiteEpisode(Episode):
    """The episode that stands for a suite in the pipeline: one shot for each cell."""

    id: str = Field(pattern=r"^suite-")


def load_suite(path: Path) -> Suite:
    """Read a suite file.

    Raises:
        InputError: the file does not fit. The message is one sentence with file and line.
    """
    return read_yaml(path, Suite)


def known_suites() -> dict[str, tuple[str, Demands]]:
    """Name to digest and demands of every suite in configs/suites."""
    suites = [load_suite(path) for path in sorted(SUITES.glob("*.yaml"))]
    return {s.name: (s.digest, s.demands) for s in suites}


def as_episode(suite: Suite, clip_workflow: str, keyframe_workflow: str) -> Episode:
    """The episode whose first takes are the suite's cells.

    Its length, size and fps are placeholders: a benchmark assembles no movie.
    """
    shots = [
        Shot(id=shot, frames=1, variation=seed, **case.model_dump(exclude={"name"}))  # type: ignore[arg-type]
        for shot, case, seed in suite.cells()
    ]
    return SuiteEpisode(
        id=f"suite-{suite.name}",
        title=suite.name,
        width=64,
        height=64,
        fps=Fraction(24),
        style=suite.style,
        negative_prompt=suite.negative_prompt,
        keyframe_workflow=keyframe_workflow,
        clip_workflow=clip_workflow,
        characters=suite.characters,
        locations=suite.locations,
        sequences=[Sequence(id="S010", shots=shots)],
    )
