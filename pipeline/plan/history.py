"""What the catalog knows of an episode's takes: only what a plan needs of each, so that a hundred thousand fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from sys import intern
from typing import NamedTuple

import pyarrow as pa

from catalog.standing import Row
from catalog.store import Catalog
from catalog.views import READ, VIEWS, view


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
SELECT take, shot, stage, attempt, variation, inputs, outcome, coalesce(media_path, '') AS media_path, media_bytes, epoch_us("at") AS "at",
    profile, coalesce(array_to_string(declared, ','), '') AS declared, review, review_note AS note
FROM verdicts WHERE episode = $episode ORDER BY verdicts."at"
"""


REPEATED = ("shot", "stage", "outcome", "profile", "declared")


def past_takes(catalog: Catalog, episode: str) -> dict[tuple[str, str], list[Past]]:
    """Every take of an episode, oldest first, by (shot, stage)."""
    grouped: dict[tuple[str, str], list[Past]] = {}
    for batch in view(catalog, PAST, episode=episode).to_batches(max_chunksize=10_000):
        columns = batch.to_pydict()
        for name in REPEATED:  # one string for all takes that say the same: of 200,000 takes it is a third of the memory
            columns[name] = [None if value is None else intern(value) for value in columns[name]]
        for past in map(Past._make, zip(*(columns[name] for name in Past._fields), strict=True)):
            grouped.setdefault((past.shot, past.stage), []).append(past)
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
