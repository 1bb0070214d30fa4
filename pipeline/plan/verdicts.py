"""Judge earlier takes again, by today's gate profiles and declarations. Stored measures suffice: no GPU and no media is needed."""

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

DECIDED = ("approved", "retake")  # by a person, whatever the gates say


class Verdicts:
    """An episode's verdicts by today's gate profiles and declarations.

    declared: shot id to what the shot declares now.
    """

    def __init__(self, catalog: Catalog, episode: str, declared: Mapping[str, Sequence[str]]):
        self.catalog, self.episode, self.declared = catalog, episode, declared
        self.changed: dict[str, Row] = {}  # take id to its new judgement
        self.was: dict[str, tuple[str, str | None]] = {}  # take id to its outcome and profile before

    @property
    def judgements(self) -> list[Row]:
        return list(self.changed.values())

    def look(self, past: Mapping[tuple[str, str], Sequence[Past]], wanted: Mapping[tuple[str, str], str | None]) -> None:
        """Judge again the takes whose gate profile or declarations have changed since their verdict.

        Args:
            past: (shot, stage) to its earlier takes. wanted: (shot, stage) to the inputs whose takes count; None: all takes count.
        """
        kinds = {(take.profile, take.declared) for takes in past.values() for take in takes}
        if not any(self.declared.values()) and all(not declared and (p is None or self._own(p) == p) for p, declared in kinds):
            return  # the usual case: no profile and no declaration changed, so no take is checked by itself
        outdated = [
            take
            for key, inputs in wanted.items()
            for take in past.get(key, ())
            if (inputs is None or take.inputs == inputs) and self._is_outdated(take)
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
        new = {take: {"outcome": row["outcome"], "labels": ",".join(row["labels"])} for take, row in self.changed.items()}
        return [t._replace(**new[t.take]) if t.take in new else t for t in takes]

    def told(self, take: Past) -> list[Reason]:
        """The plan's reason, if this take was judged again; else an empty list."""
        row = self.changed.get(take.take)
        if row is None:
            return []
        was, profile = self.was[take.take]
        what = f"gate profile changed: {profile} → {row['profile']}" if profile != row["profile"] else "its declarations changed"
        code = "profile_changed" if profile != row["profile"] else "declares_changed"
        flip = f"; {was} becomes {row['outcome']}" if was != row["outcome"] else ", the verdict stays"
        return [Reason(take.stage, code, f"{what}{flip} (judged again, nothing rendered)")]

    def _is_outdated(self, take: Past) -> bool:
        if take.profile is None or take.outcome == "error" or take.review in DECIDED:
            return False
        return take.profile != self._own(take.profile) or take.declared != ",".join(self.declared[take.shot])

    @staticmethod
    @cache
    def _own(profile: str) -> str:
        """Identity of the same profile as its file is today.

        A profile that is not in configs/gates counts as unchanged: a person judged with a file of their own.
        """
        try:
            return profile_identity(load_profile(profile.split("#")[0]))
        except InputError:
            return profile


def _profile_today(row: dict[str, Any]) -> Profile:
    """The profile that judged this take, as its file is today."""
    if row["profile"] is None:
        raise InputError(f"take {row['take']} was judged before profiles were recorded; name one with --profile")
    return load_profile(row["profile"].split("#")[0], f"take {row['take']}")


def judge_again(row: dict[str, Any], profile: Profile | None) -> dict[str, Any]:
    """Judge a take again from its stored measures; gives a row for the table of judgements.

    Args:
        row: the take's row. profile: None: the profile that judged the take before, as its file is today.

    Raises:
        InputError: no profile is given, and the row names none that exists.
    """
    profile = profile or _profile_today(row)
    verdict = judge(GATES[row["stage"]], row["measures"], profile, row["declared"] or ())
    return {
        "take": row["take"],
        "at": datetime.now(UTC),
        "episode": row["episode"],
        "profile": profile_identity(profile),
        "declared": row["declared"],
    } | verdict_columns(verdict)


def verdict_columns(verdict: Verdict) -> dict[str, Any]:
    """A verdict as columns of the tables of takes and of judgements."""
    return {
        "outcome": "rejected" if verdict.outcome == "fail" else "accepted",
        "labels": list(verdict.failures),
        "warnings": list(verdict.warnings),
        "findings": json.dumps(verdict.to_dict()["findings"]),
    }
