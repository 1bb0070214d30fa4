"""An episode's earlier takes. A plan reads only a few columns of each, so that the takes of 100,000 shots fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from sys import intern
from typing import NamedTuple

import pyarrow as pa

from catalog.media import digest_in
from catalog.standing import Row
from catalog.store import Catalog
from catalog.views import READ, VIEWS, clips_that_stand, view
from pipeline.story.episode import Episode


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a stage must be rendered, or why its verdict changed. code: for programs. text: for people."""

    stage: str
    code: str
    text: str


def stage_of(take: str) -> str:
    """The stage in a take's id."""
    return take.split("/")[2]


def shown_takes(catalog: Catalog, episode: Episode) -> dict[str, str]:
    """Shot to the take that the episode, as its file is now, shows of it. A shot without one is left out."""
    return clips_that_stand(catalog, episode.id, {shot.id for _, shot in episode.shots if episode.last_stage_of(shot) == "clip"})


class Past(NamedTuple):
    """An earlier take, with the verdict that later judgements and reviews gave it. `at`: microseconds since 1970."""

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
    labels: str = ""  # why the gates rejected it, joined by commas
    by: str | None = None  # who said the review
    said: int = 0  # when, as `at`

    @property
    def media(self) -> str:
        """SHA-256 of the media file, taken from the file's name; "" if the take has no file."""
        return digest_in(self.media_path)

    @property
    def committed(self) -> float:
        """When the take was recorded, in seconds since 1970."""
        return self.at / 1e6


PAST = """
SELECT take, shot, stage, attempt, variation, inputs, outcome, coalesce(media_path, '') AS media_path, media_bytes, epoch_us("at") AS "at",
    profile, coalesce(array_to_string(declared, ','), '') AS declared, review, review_note AS note,
    coalesce(array_to_string(labels, ','), '') AS labels, review_by AS by, coalesce(epoch_us(review_at), 0) AS said
FROM verdicts WHERE episode = $episode ORDER BY verdicts."at"
"""


REPEATED = ("shot", "stage", "outcome", "profile", "declared", "labels", "by")


def past_takes(catalog: Catalog, episode: str) -> dict[tuple[str, str], list[Past]]:
    """Every take of an episode, oldest first, by (shot, stage)."""
    grouped: dict[tuple[str, str], list[Past]] = {}
    for batch in view(catalog, PAST, episode=episode).to_batches(max_chunksize=10_000):
        columns = batch.to_pydict()
        for name in REPEATED:  # equal strings share one object, which matters for the memory of 200,000 takes
            columns[name] = [None if value is None else intern(value) for value in columns[name]]
        for past in map(Past._make, zip(*(columns[name] for name in Past._fields), strict=True)):
            grouped.setdefault((past.shot, past.stage), []).append(past)
    return grouped


def rows_of(catalog: Catalog, takes: Sequence[str], columns: str = "*") -> dict[str, Row]:
    """Rows of these takes by take id, with the verdicts that hold now.

    Args:
        takes: ids of takes, all of one episode. columns: the SQL select list; it must contain `take`.
    """
    if not takes:
        return {}
    ids = pa.table({"id": pa.array(sorted(set(takes)), pa.string())})
    episode = takes[0].split("/")[0]  # this filter lets the engine skip the data files of other episodes
    query = f"SELECT {columns} FROM verdicts WHERE episode = $episode AND take IN (SELECT id FROM ids)"
    found = catalog.sql(query, READ, VIEWS, {"ids": ids}, episode=episode).to_pylist(maps_as_pydicts="strict")
    return {row["take"]: row for row in found}


MADE_FROM = """take, outcome, inputs, review, workflow, workflow_version, workflow_digest, prompt, negative_prompt, reference_files,
    parameters, shot_variation, keyframe_media, upstream, variation, seed, frames, fps"""


def latest_of_others(catalog: Catalog, takes: Sequence[str]) -> dict[str, Row]:
    """The columns that say what each of these takes was made from, by take id."""
    return rows_of(catalog, takes, MADE_FROM)


def chains_of(catalog: Catalog, takes: Sequence[str]) -> dict[str, Row]:
    """`latest_of_others`, of these takes and of the takes that they started from."""
    rows: dict[str, Row] = {}
    while takes:
        found = latest_of_others(catalog, takes)
        rows |= found
        takes = [row["upstream"] for row in found.values() if row["upstream"] and row["upstream"] not in rows]
    return rows
