"""What the catalog knows of an episode's takes: only what a plan needs of each, so that a hundred thousand fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from sys import intern
from typing import NamedTuple

import pyarrow as pa

from catalog.registry import Row
from catalog.store import Catalog
from catalog.views import READ, VIEWS, view

from .errors import InputError
from .profile import load_profile, profile_identity
from .rejudge import judge_again


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a stage is rendered, or judged, again. code: for programs. text: for people."""

    stage: str
    code: str
    text: str


class Past(NamedTuple):
    """A take, as its row and everything said of it since tell it. `at`: microseconds since 1970."""

    take: str
    shot: str
    stage: str
    attempt: int
    variation: int
    inputs: str
    outcome: str
    media_path: str
    media_bytes: int
    at: int
    profile: str | None = None
    declared: str = ""  # joined by commas
    review: str | None = None
    note: str | None = None

    @property
    def media(self) -> str:
        """The digest, which is the file's name."""
        return self.media_path.rsplit("/", 1)[-1].split(".", 1)[0]

    @property
    def committed(self) -> float:
        return self.at / 1e6


PAST = """
SELECT take, shot, stage, attempt, variation, inputs, outcome, coalesce(media_path, '') AS media_path, media_bytes, epoch_us("at") AS at_us,
    profile, coalesce(array_to_string(declared, ','), '') AS declared, review, review_note
FROM verdicts WHERE episode = $episode ORDER BY "at"
"""


REPEATED = ("shot", "stage", "outcome", "profile", "declared")


def past_takes(catalog: Catalog, episode: str) -> dict[tuple[str, str], list[Past]]:
    """Every take of an episode, oldest first, by (shot, stage)."""
    grouped: dict[tuple[str, str], list[Past]] = {}
    for batch in view(catalog, PAST, episode=episode).to_batches(max_chunksize=10_000):
        columns = batch.to_pydict()
        for name in REPEATED:  # one string for all takes that say the same: of 200,000 takes it is a third of the memory
            columns[name] = [None if value is None else intern(value) for value in columns[name]]
        for values in zip(*columns.values(), strict=True):
            grouped.setdefault((values[1], values[2]), []).append(Past(*values))
    return grouped


def rows_of(catalog: Catalog, takes: Sequence[str], columns: str = "*") -> dict[str, Row]:
    """Rows of these takes by their ids, with the verdicts that hold."""
    if not takes:
        return {}
    ids = pa.table({"id": pa.array(sorted(set(takes)), pa.string())})
    episode = takes[0].split("/")[0]  # all of one episode: the engine skips the files of others
    query = f"SELECT {columns} FROM verdicts WHERE episode = $episode AND take IN (SELECT id FROM ids)"
    found = catalog.sql(query, READ, VIEWS, {"ids": ids}, episode=episode).to_pylist(maps_as_pydicts="strict")
    return {row["take"]: row for row in found}


MADE_FROM = """take, workflow, workflow_version, workflow_digest, prompt, negative_prompt, reference_files, parameters,
    shot_variation, keyframe_media"""


def latest_of_others(catalog: Catalog, takes: Sequence[str]) -> dict[str, Row]:
    """What these takes were made from."""
    return rows_of(catalog, takes, MADE_FROM)


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
