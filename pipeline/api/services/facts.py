"""What the catalog says of an episode, computed by the catalog's own views over rows in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog.memory import Memory
from catalog.schema import TABLES
from catalog.standing import Row
from catalog.views import READ, STANDING, VERDICTS, WORDS
from pipeline.story.stages import MOVING, STAGES

from . import says

HAPPENED = 40  # latest events that a board tells
# What no view changes, and most of a row's bytes.
WIDE = ("measures", "prompt", "negative_prompt", "parameters", "reference_files", "inputs", "workflow_digest", "certificate")
FILE = ("take", "media", "media_path", "error")  # what the file of a take needs; the quickest to read
JUDGED = f"SELECT * EXCLUDE ({', '.join(WIDE)}) FROM verdicts"
# One row a shot; of a shot with a finish another one, without it.
SHOTS = """
WITH latest AS (
    SELECT shot, count(*) AS takes, max("at") AS "at",
        arg_max(take, "at") FILTER (stage = 'keyframe' AND outcome = 'accepted') AS keyframe,
        arg_max({'outcome': outcome, 'labels': labels, 'findings': findings, 'error': error, 'run': run}, "at") AS last
    FROM verdicts GROUP BY shot
), shown AS (
    SELECT shot, clip, false AS bare FROM shots
    UNION ALL SELECT shot, bare, true FROM shots WHERE bare IS DISTINCT FROM clip
)
SELECT l.shot, s.bare, l.takes, l."at", l.last, c.take AS clip, c.frames, c.fps, c.gate_outcome, c.labels,
    CASE WHEN c.stage <> 'clip' THEN c.upstream END AS source,
    coalesce(CASE WHEN c.stage <> 'clip' THEN start.upstream ELSE c.upstream END, l.keyframe) AS keyframe,
    CASE WHEN first.outcome <> 'accepted' THEN first.outcome ELSE start.outcome END AS start_outcome
FROM latest l
LEFT JOIN shown s ON s.shot = l.shot
LEFT JOIN verdicts c ON c.take = s.clip
LEFT JOIN verdicts start ON start.take = c.upstream
LEFT JOIN verdicts first ON first.take = start.upstream
"""
REJECTIONS = """
SELECT shot, label, count(*) AS takes FROM (
    SELECT shot, unnest(labels) AS label FROM verdicts WHERE gate_outcome = 'rejected'
) GROUP BY ALL ORDER BY takes DESC, label
"""
LAST_WORDS = """
SELECT shot, stage, take, word.verdict AS verdict, word.note AS note, word."by" AS "by" FROM words_on_stages ORDER BY "at"
"""
LAST_TAKES = f"""
SELECT take, shot, stage, attempt, "at", gate_outcome AS outcome, labels, findings, error
FROM verdicts ORDER BY verdicts."at" DESC LIMIT {HAPPENED}
"""


@dataclass(frozen=True)
class Facts:
    """What the catalog says of an episode.

    shots: by shot; `clip` is the take that the episode shows, and `source` the clip that it was made from where it is a finish. bare: the
    same of shots with a finish, as if they had none.
    words: shot to the latest word on each of its stages, oldest first. approved: shots whose clip or finish a person approved.
    rejections: shot to (label, takes), most first. runs, reviews: rows of the tables, oldest first. latest: shot to what changes with each
    row that it gets.
    """

    shots: dict[str, Row]
    bare: dict[str, Row]
    words: dict[str, list[Row]]
    approved: int
    rejections: dict[str, list[tuple[str, int]]]
    runs: list[Row]
    reviews: list[Row]
    happened: list[dict[str, Any]]
    verdicts: Verdicts
    latest: dict[str, tuple[Any, ...]]

    def shown(self, shot: str, last: str) -> Row | None:
        """The row of a shot that goes as far as the stage `last`."""
        row = self.shots.get(shot)
        return row if last == STAGES[-1] else self.bare.get(shot, row)


class Verdicts:
    """Every take of an episode with the verdict that holds. Only rows that are asked for become objects.

    Args:
        judged: the answer to JUDGED. takes: the rows as they were recorded.
    """

    def __init__(self, judged: pa.Table, takes: pa.Table):
        self.judged, self.takes = judged, takes
        self.recorded = _places(takes)
        self.places = _places(judged)
        self.shots: dict[str, list[int]] = {}
        for place, shot in enumerate(judged["shot"].to_pylist()):
            self.shots.setdefault(shot, []).append(place)

    def take(self, name: str) -> Row | None:
        place = self.places.get(name)
        return None if place is None else self._rows([place])[0]

    def file_of(self, name: str) -> Row | None:
        """The columns FILE alone."""
        place = self.places.get(name)
        return None if place is None else _rows(self.judged.select(FILE).slice(place, 1))[0]

    def of_shot(self, shot: str) -> list[Row]:
        """Oldest first."""
        return sorted(self._rows(self.shots.get(shot, [])), key=lambda row: row["at"])

    def _rows(self, places: list[int]) -> list[Row]:
        judged = _rows(self.judged.take(pa.array(places, pa.int64())))
        recorded = _rows(self.takes.select(WIDE).take(pa.array([self.recorded[row["take"]] for row in judged], pa.int64())))
        return [wide | row for wide, row in zip(recorded, judged, strict=True)]


def _places(table: pa.Table) -> dict[str, int]:
    return {take: place for place, take in enumerate(table["take"].to_pylist())}


def facts(rows: Mapping[str, pa.Table]) -> Facts:
    """Compute them. rows: an episode's, by table."""
    (judged,) = _of_takes().ask({name: rows[name] for name in READ}, JUDGED)
    asked = (SHOTS, LAST_WORDS, REJECTIONS, LAST_TAKES)
    shots, words, labels, last = map(_rows, _of_verdicts(judged.schema).ask({"reviews": rows["reviews"], "verdicts": judged}, *asked))
    rejections: dict[str, list[tuple[str, int]]] = {}
    for row in labels:
        rejections.setdefault(row["shot"], []).append((row["label"], row["takes"]))
    said: dict[str, list[Row]] = {}
    for row in words:
        said.setdefault(row["shot"], []).append(row)
    runs, reviews = _rows(rows["runs"].sort_by("at")), _rows(rows["reviews"].sort_by("at"))
    return Facts(
        {row["shot"]: row for row in shots if not row["bare"]},
        {row["shot"]: row for row in shots if row["bare"]},
        said,
        len({row["shot"] for row in words if row["stage"] in MOVING and row["verdict"] == "approved"}),
        rejections,
        runs,
        reviews,
        _happened(last, reviews, runs),
        Verdicts(judged, rows["takes"]),
        _latest(rows),
    )


def _latest(rows: Mapping[str, pa.Table]) -> dict[str, tuple[Any, ...]]:
    """Rows are only ever added: their number, and the time of the latest, tell whether a shot has new ones."""
    found: dict[str, tuple[Any, ...]] = {}
    for name in READ:
        shots = pc.list_element(pc.split_pattern(rows[name]["take"], "/"), 1)
        counted = pa.table({"shot": shots, "at": rows[name]["at"]}).group_by("shot").aggregate([("at", "count"), ("at", "max")])
        for shot, *latest in zip(*(counted[column].to_pylist() for column in ("shot", "at_count", "at_max")), strict=True):
            found[shot] = (*found.get(shot, ()), name, *latest)
    return found


def _happened(takes: list[Row], reviews: list[Row], runs: list[Row]) -> list[dict[str, Any]]:
    """The latest events of all kinds, newest first."""
    events = [_event("take", row, *says.take(row)) for row in takes]
    events += [_event("review", row, *says.review(row)) for row in reviews[-HAPPENED:]]
    events += [_event("run", row, *says.run(row)) for row in [r for r in runs if r["event"] != "alive"][-HAPPENED:]]
    return sorted(events, key=lambda e: e["at"], reverse=True)[:HAPPENED]


def _event(kind: str, row: Row, text: str, tone: str) -> dict[str, Any]:
    return {"at": row["at"], "kind": kind, "shot": says.shot(row), "take": row.get("take"), "text": text, "tone": tone}


def _rows(table: pa.Table) -> list[Row]:
    return table.to_pylist(maps_as_pydicts="strict")


@cache
def _of_takes() -> Memory:
    return Memory(WORDS + VERDICTS, {name: TABLES[name].schema for name in READ})


@cache
def _of_verdicts(schema: pa.Schema) -> Memory:
    """The views that follow from verdicts, over verdicts that are computed already."""
    return Memory(WORDS + STANDING, {"reviews": TABLES["reviews"].schema, "verdicts": schema})
