"""Views: the present state, computed from the rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from .store import Catalog

# The present verdict of a take: "rejected" if a person's latest review asks for a retake, else the latest judgement, else its own.
VIEWS = """
CREATE VIEW verdicts AS
SELECT t.* REPLACE (
    CASE WHEN r.verdict = 'retake' AND t.outcome != 'error' THEN 'rejected' ELSE coalesce(j.outcome, t.outcome) END AS outcome,
    coalesce(j.profile, t.profile) AS profile, coalesce(j.declared, t.declared) AS declared,
    coalesce(j.labels, t.labels) AS labels, coalesce(j.warnings, t.warnings) AS warnings, coalesce(j.findings, t.findings) AS findings
), r.verdict AS review, r.note AS review_note
FROM takes t
LEFT JOIN (SELECT * FROM judgements QUALIFY row_number() OVER (PARTITION BY take ORDER BY "at" DESC) = 1) j USING (take)
LEFT JOIN (
    SELECT * FROM reviews WHERE verdict != 'note' QUALIFY row_number() OVER (PARTITION BY take ORDER BY "at" DESC) = 1
) r USING (take);

CREATE VIEW shots AS
SELECT episode, sequence, shot,
    arg_max(take, "at") FILTER (stage = 'clip' AND outcome = 'accepted') AS clip,
    arg_max(media_path, "at") FILTER (stage = 'clip' AND outcome = 'accepted') AS media_path,
    count(*) FILTER (stage = 'keyframe') AS keyframe_takes, count(*) FILTER (stage = 'clip') AS clip_takes, max("at") AS last
FROM verdicts GROUP BY ALL;

CREATE VIEW episodes AS
SELECT episode, count(*) AS shots, count(clip) AS with_accepted_clip,
    sum(keyframe_takes + clip_takes)::BIGINT AS takes, max(last) AS last
FROM shots GROUP BY episode;
"""
READ = ("takes", "judgements", "reviews")  # the tables that VIEWS reads


def view(catalog: Catalog, query: str, **values: Any) -> pa.Table:
    """Run a query over VIEWS; `values` are its parameters, `$name` in its text."""
    return catalog.sql(query, READ, VIEWS, **values)


def all_takes(catalog: Catalog, episode: str | None = None) -> list[dict[str, Any]]:
    """Every take, oldest first, with its present verdict."""
    where = "WHERE episode = $episode" if episode is not None else ""
    values = {"episode": episode} if episode is not None else {}
    return view(catalog, f'SELECT * FROM verdicts {where} ORDER BY "at"', **values).to_pylist(maps_as_pydicts="strict")


def takes_of(catalog: Catalog, episode: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Every take of an episode, oldest first, by (shot, stage)."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in all_takes(catalog, episode):
        grouped.setdefault((row["shot"], row["stage"]), []).append(row)
    return grouped


def episodes(catalog: Catalog) -> list[dict[str, Any]]:
    """One row an episode: shots, takes, and how many shots have an accepted clip."""
    return view(catalog, "SELECT * FROM episodes ORDER BY last").to_pylist()


def take_counts(catalog: Catalog, episode: str) -> Counter[str]:
    """Shot to its number of takes, over both stages and all runs."""
    rows = catalog.sql("SELECT shot, count(*) AS takes FROM takes WHERE episode = $episode GROUP BY shot", ("takes",), episode=episode)
    return Counter({row["shot"]: row["takes"] for row in rows.to_pylist()})
