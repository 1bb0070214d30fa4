"""Gate profiles: thresholds that people write, in configs/gates/*.yaml."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from gates.measures import IMAGE, VIDEO, WANTED
from gates.rules import Declaration, Profile, Rule
from pipeline import PROJECT

from .errors import InputError
from .fingerprint import digest
from .written import Name, Written
from .yaml_file import Misfit, named_file, read_yaml

PROFILES = PROJECT / "configs" / "gates"
DEFAULT = "anime"
THRESHOLDS = ("below", "above", "differs_from")


class RuleLine(Written):
    """A rule, as `gates.rules.Rule` explains it; in a profile that extends another, only the fields that differ."""

    label: str
    measure: str
    below: float | None = None
    above: float | None = None
    differs_from: str | None = None
    outcome: Literal["warn", "fail"] = "fail"
    declared: dict[Declaration, Literal["warn", "pass"]] = Field(default_factory=dict)
    evidence: str = ""

    def said(self) -> dict[str, Any]:
        """The fields that the line sets, without defaults."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    def over(self, base: Rule | None) -> Rule:
        """The rule that this line stands for: `base` with the fields that the line sets, or a new rule if there is no base."""
        fields = self.said()
        if base is None:
            return Rule(**fields)
        if any(name in fields for name in THRESHOLDS):  # a threshold replaces the thresholds of the base, of whatever kind
            fields = dict.fromkeys(THRESHOLDS) | fields
        return replace(base, **fields)


class GateProfile(Written):
    """Rules of both gates. A label may have several rules; any of them finds it.

    A profile that extends another starts with its rules. A line replaces the base's rules with the same label and measure; fields that
    the line leaves out come from the first of them. A line with a new label or measure adds a rule.
    """

    name: Name
    description: str = ""
    extends: Name | None = Field(None, description="another profile in configs/gates, whose rules these are but for the lines below")
    image: list[RuleLine] = Field(default_factory=list)
    video: list[RuleLine] = Field(default_factory=list)

    @model_validator(mode="after")
    def _rules_hold(self) -> GateProfile:
        for gate, known in (("image", [*IMAGE, *WANTED]), ("video", [*VIDEO, *WANTED])):
            lines: list[RuleLine] = getattr(self, gate)
            if not lines and self.extends is None:
                raise Misfit(f"the profile has no rules for {gate}s; give some, or extend another profile", gate)
            for i, line in enumerate(lines):
                for measure in filter(None, (line.measure, line.differs_from)):
                    if measure not in known:
                        near = difflib.get_close_matches(measure, known, n=1)
                        hint = f"did you mean {near[0]!r}?" if near else ", ".join(known)
                        raise Misfit(f"unknown measure {measure!r}; {hint}", gate, i, "measure")
                if self.extends is None:
                    _tried(lambda line=line: line.over(None), gate, i)  # type: ignore[misc]
        return self


def _tried(make: Any, *loc: int | str) -> Any:
    """Call `make`. A ValueError from it is reported at this place in the file."""
    try:
        return make()
    except ValueError as error:
        raise Misfit(str(error), *loc) from error


@cache
def load_profile(name: str, where: str = "profile") -> Profile:
    """Load a gate profile, with the rules of the profiles that it extends.

    Args:
        name: a name in configs/gates, or a path of a YAML file. where: who names the profile, for the error message.

    Raises:
        InputError: there is no such profile, or it does not fit the type.
    """
    chain: list[tuple[Path, GateProfile]] = []
    wanted: str | None = name
    while wanted:
        file = named_file(wanted, PROFILES, "gate profile", where)
        written = read_yaml(file, GateProfile)
        names = [*(profile.name for _, profile in chain), written.name]
        if written.name in names[:-1]:
            raise InputError(f"{file}: profiles extend each other in a circle: {', '.join(names)}")
        chain.append((file, written))
        wanted, where = written.extends, f"{file}: extends"
    made = Profile("", (), ())
    for file, written in reversed(chain):
        try:
            made = Profile(written.name, _merged(made.image, written.image), _merged(made.video, written.video))
        except ValueError as error:
            raise InputError(f"{file}: {error}") from error
    return made


def _merged(base: Sequence[Rule], lines: Sequence[RuleLine]) -> tuple[Rule, ...]:
    """Merge a profile's lines into the rules of its base.

    The base's order stays. Lines stand in the place of the first rule that they replace; new rules stand at the end.
    """
    first: dict[tuple[str, str], Rule] = {}  # (label, measure) to the base's first rule with them
    for rule in base:
        first.setdefault((rule.label, rule.measure), rule)
    own: dict[tuple[str, str], list[Rule]] = {}  # (label, measure) to the rules of the profile's own lines
    for line in lines:
        key = (line.label, line.measure)
        own.setdefault(key, []).append(line.over(first.get(key)))
    rules: list[Rule] = []
    for rule in base:
        key = (rule.label, rule.measure)
        rules += [rule] if key not in own else own[key] if rule is first[key] else []
    return (*rules, *(rule for key, added in own.items() if key not in first for rule in added))


def profile_identity(profile: Profile) -> str:
    """Name and digest of a profile, such as `anime#0123456789ab`.

    The digest covers every field of the rules but `evidence`, which does not affect verdicts.
    """
    rules = [
        [r.label, r.measure, r.below, r.above, r.differs_from, r.outcome, sorted(r.declared.items())]
        for r in (*profile.image, *profile.video)
    ]
    return f"{profile.name}#{digest(rules)[:12]}"
