"""Gate profiles: thresholds that people write, in configs/gates/*.yaml."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal

from pydantic import Field, model_validator

from gates.measures import IMAGE, VIDEO, WANTED
from gates.rules import Declaration, Profile, Rule
from pipeline import PROJECT

from .episode import Name, Written
from .errors import InputError
from .fingerprint import digest
from .yaml_file import Misfit, named_file, read_yaml

PROFILES = PROJECT / "configs" / "gates"
DEFAULT = "anime"
THRESHOLDS = ("below", "above", "differs_from")


class RuleLine(Written):
    """A rule, as `gates.rules.Rule` explains it; in a profile that extends another, only what differs."""

    label: str
    measure: str
    below: float | None = None
    above: float | None = None
    differs_from: str | None = None
    outcome: Literal["warn", "fail"] = "fail"
    declared: dict[Declaration, Literal["warn", "pass"]] = Field(default_factory=dict)
    evidence: str = ""

    def said(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}

    def over(self, base: Rule | None) -> Rule:
        """The rule that this line makes of a base's; of nothing, where there is none."""
        said = self.said()
        if base is None:
            return Rule(**said)
        if any(name in said for name in THRESHOLDS):
            said = dict.fromkeys(THRESHOLDS) | said
        return replace(base, **said)


class GateProfile(Written):
    """Rules of both gates. A label may have several rules; any of them finds it.

    A profile that extends another has that one's rules. A line of its own stands in place of the base's rules with the same label
    and measure, and what it does not say is as in the first of them; a line with another label or measure is a rule more.
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
                        told = f"did you mean {near[0]!r}?" if near else ", ".join(known)
                        raise Misfit(f"unknown measure {measure!r}; {told}", gate, i, "measure")
                if self.extends is None:
                    _tried(lambda line=line: line.over(None), gate, i)  # type: ignore[misc]
        return self


def _tried(make: Any, *loc: int | str) -> Any:
    try:
        return make()
    except ValueError as error:
        raise Misfit(str(error), *loc) from error


@cache
def load_profile(name: str, where: str = "profile") -> Profile:
    """A profile by its name in configs/gates, or by its file.

    Raises:
        InputError: there is none, or it does not fit.
    """
    file = named_file(name, PROFILES, "gate profile", where)
    written = read_yaml(file, GateProfile)
    if written.extends == written.name:
        raise InputError(f"{file}: profile {written.name} extends itself")
    base = load_profile(written.extends, f"{file}: extends") if written.extends else Profile("", (), ())
    try:
        return Profile(written.name, _merged(base.image, written.image), _merged(base.video, written.video))
    except ValueError as error:
        raise InputError(f"{file}: {error}") from error


def _merged(base: Sequence[Rule], lines: Sequence[RuleLine]) -> tuple[Rule, ...]:
    """The base's rules in their order, the lines' in place of those that they replace, and what is new at the end."""
    first: dict[tuple[str, str], Rule] = {}
    for rule in base:
        first.setdefault((rule.label, rule.measure), rule)
    mine: dict[tuple[str, str], list[Rule]] = {}
    for line in lines:
        key = (line.label, line.measure)
        mine.setdefault(key, []).append(line.over(first.get(key)))
    rules: list[Rule] = []
    for rule in base:
        key = (rule.label, rule.measure)
        rules += [rule] if key not in mine else mine[key] if rule is first[key] else []
    return (*rules, *(rule for key, made in mine.items() if key not in first for rule in made))


def profile_identity(profile: Profile) -> str:
    """`anime#0123456789ab`: name and digest of everything that decides; evidence decides nothing."""
    rules = [
        [r.label, r.measure, r.below, r.above, r.differs_from, r.outcome, sorted(r.declared.items())]
        for r in (*profile.image, *profile.video)
    ]
    return f"{profile.name}#{digest(rules)[:12]}"
