"""Gate profiles: thresholds that people write, in configs/gates/*.yaml."""

from __future__ import annotations

import difflib
from functools import cache

from pydantic import Field, model_validator

from gates.measures import IMAGE, VIDEO, WANTED
from gates.rules import Profile, Rule
from pipeline import PROJECT

from .episode import Name, Written
from .fingerprint import digest
from .yaml_file import named_file, read_yaml

PROFILES = PROJECT / "configs" / "gates"
DEFAULT = "anime"


class GateProfile(Written):
    """Rules of both gates. A label may have several rules; any of them finds it."""

    name: Name
    description: str = ""
    image: list[Rule] = Field(min_length=1)
    video: list[Rule] = Field(min_length=1)

    @model_validator(mode="after")
    def _measures_exist(self) -> GateProfile:
        for rules, known in ((self.image, [*IMAGE, *WANTED]), (self.video, [*VIDEO, *WANTED])):
            for rule in rules:
                for measure in rule.looks_at():
                    if measure not in known:
                        near = difflib.get_close_matches(measure, known, n=1)
                        raise ValueError(f"unknown measure {measure!r}; " + (f"did you mean {near[0]!r}?" if near else ", ".join(known)))
        return self


@cache
def load_profile(name: str, where: str = "profile") -> Profile:
    """A profile by its name in configs/gates, or by its file.

    Raises:
        InputError: there is none, or it does not fit.
    """
    written = read_yaml(named_file(name, PROFILES, "gate profile", where), GateProfile)
    return Profile(written.name, tuple(written.image), tuple(written.video))


def profile_identity(profile: Profile) -> str:
    """`anime#0123456789ab`: name and digest of everything that decides; evidence decides nothing."""
    rules = [
        [r.label, r.measure, r.below, r.above, r.differs_from, r.outcome, sorted(r.declared.items())]
        for r in (*profile.image, *profile.video)
    ]
    return f"{profile.name}#{digest(rules)[:12]}"
