"""Verdicts under today's profiles and declarations, from stored measures: no GPU, no media, nothing rendered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from catalog.standing import Row
from catalog.store import Catalog
from gates.rules import Profile, judge
from gates.verdict import Verdict
from pipeline.story.errors import InputError
from pipeline.story.gate_profile import load_profile, profile_identity
from pipeline.story.stages import GATES

from .history import Past, Reason, rows_of


class Verdicts:
    """Verdicts under today's profiles and declarations, from stored measures: nothing is rendered for them."""

    def __init__(self, catalog: Catalog, episode: str, declared: Mapping[str, Sequence[str]]):
        self.catalog, self.episode, self.declared = catalog, episode, declared
        self.changed: dict[str, Row] = {}  # take to its new judgement
        self.was: dict[str, tuple[str, str | None]] = {}

    @property
    def judgements(self) -> list[Row]:
        return list(self.changed.values())

    def look(self, past: Mapping[tuple[str, str], Sequence[Past]], wanted: Mapping[tuple[str, str], str | None]) -> None:
        """Judge again what was judged under another state of its own profile, or with other declarations."""
        kinds = {(take.profile, take.declared) for takes in past.values() for take in takes}
        if not any(self.declared.values()) and all(not declared and (p is None or self._own(p) == p) for p, declared in kinds):
            return  # as it nearly always is: no take need be looked at by itself
        outdated = [
            take
            for key, inputs in wanted.items()
            for take in past.get(key, ())
            if (inputs is None or take.inputs == inputs) and take.outcome != "error" and not take.review and self._is_outdated(take)
        ]
        rows = rows_of(self.catalog, [t.take for t in outdated])
        for take in outdated:
            row = rows[take.take]
            if row["measures"]:
                self.was[take.take] = take.outcome, take.profile
                self.changed[take.take] = judge_again(row | {"declared": list(self.declared[take.shot])}, None)

    def now(self, takes: Sequence[Past]) -> Sequence[Past]:
        """The takes with the verdicts that hold now."""
        if not self.changed:
            return takes
        return [t._replace(outcome=self.changed[t.take]["outcome"]) if t.take in self.changed else t for t in takes]

    def told(self, take: Past) -> list[Reason]:
        """The reason that a judgement of this take changed, for the plan."""
        row = self.changed.get(take.take)
        if row is None:
            return []
        was, profile = self.was[take.take]
        what = f"gate profile changed: {profile} → {row['profile']}" if profile != row["profile"] else "its declarations changed"
        code = "profile_changed" if profile != row["profile"] else "declares_changed"
        flip = f"; {was} becomes {row['outcome']}" if was != row["outcome"] else ", the verdict stays"
        return [Reason(take.stage, code, f"{what}{flip} (judged again, nothing rendered)")]

    def _is_outdated(self, take: Past) -> bool:
        if take.profile is None:
            return False
        return take.profile != self._own(take.profile) or take.declared != ",".join(self.declared[take.shot])

    @staticmethod
    @cache
    def _own(profile: str) -> str:
        """The profile's identity today; the recorded one where its file is not in configs/gates (a person applied it)."""
        try:
            return profile_identity(load_profile(profile.split("#")[0]))
        except InputError:
            return profile


def _own(row: dict[str, Any]) -> Profile:
    if row["profile"] is None:
        raise InputError(f"take {row['take']} was judged before profiles were recorded; name one with --profile")
    return load_profile(row["profile"].split("#")[0], f"take {row['take']}")


def judge_again(row: dict[str, Any], profile: Profile | None) -> dict[str, Any]:
    """The judgement of a take's row under a profile, its own as it is today if none is given."""
    profile = profile or _own(row)
    verdict = judge(GATES[row["stage"]], row["measures"], profile, row["declared"] or ())
    return {
        "take": row["take"],
        "at": datetime.now(UTC),
        "episode": row["episode"],
        "profile": profile_identity(profile),
        "declared": row["declared"],
    } | verdict_columns(verdict)


def verdict_columns(verdict: Verdict) -> dict[str, Any]:
    """A verdict as the tables of takes and of judgements hold it."""
    return {
        "outcome": "rejected" if verdict.outcome == "fail" else "accepted",
        "labels": list(verdict.failures),
        "warnings": list(verdict.warnings),
        "findings": json.dumps(verdict.to_dict()["findings"]),
    }
