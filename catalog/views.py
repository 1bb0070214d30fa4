"""Views: the present state, computed from the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import pyarrow as pa

from .store import Catalog

# A word is what a person decided; a note decides nothing. A retake is a word on its take and on every attempt that the stage had then.
# The present outcome of a take: what the latest word on it says, else what the gates say, which `gate_outcome` keeps in any case.
WORDS = """
CREATE VIEW words AS
SELECT take, verdict, attempts, "at",
    split_part(take, '/', 1) AS episode, split_part(take, '/', 2) AS shot, split_part(take, '/', 3) AS stage,
    {'at': "at", 'verdict': verdict, 'note': note, 'by': "by"} AS word
FROM reviews WHERE verdict IN ('approved', 'picked', 'retake');

CREATE VIEW words_on_takes AS
SELECT * FROM words QUALIFY row_number() OVER (PARTITION BY take ORDER BY "at" DESC) = 1;

CREATE VIEW words_on_stages AS
SELECT * FROM words QUALIFY row_number() OVER (PARTITION BY episode, shot, stage ORDER BY "at" DESC) = 1;

CREATE VIEW retakes AS
SELECT * FROM words WHERE verdict = 'retake' AND attempts IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY episode, shot, stage ORDER BY "at" DESC) = 1;

"""
VERDICTS = """
CREATE VIEW reviewed AS
SELECT t.*, greatest(own.word, CASE WHEN t.attempt <= retake.attempts THEN retake.word END) AS said
FROM takes t
LEFT JOIN words_on_takes own ON own.take = t.take
LEFT JOIN retakes retake ON retake.episode = t.episode AND retake.shot = t.shot AND retake.stage = t.stage;

CREATE VIEW verdicts AS
SELECT t.* EXCLUDE (said) REPLACE (
    CASE WHEN t.outcome = 'error' THEN 'error'
        WHEN said.verdict = 'approved' THEN 'accepted'
        WHEN said.verdict = 'retake' THEN 'rejected'
        ELSE coalesce(j.outcome, t.outcome) END AS outcome,
    coalesce(j.profile, t.profile) AS profile, coalesce(j.declared, t.declared) AS declared,
    coalesce(j.labels, t.labels) AS labels, coalesce(j.warnings, t.warnings) AS warnings, coalesce(j.findings, t.findings) AS findings
), said.verdict AS review, said.note AS review_note, said."by" AS review_by, said."at" AS review_at,
    coalesce(j.outcome, t.outcome) AS gate_outcome
FROM reviewed t
LEFT JOIN (SELECT * FROM judgements QUALIFY row_number() OVER (PARTITION BY take ORDER BY "at" DESC) = 1) j USING (take);
"""
STANDING = """
-- The takes that started from one that a person sent back, and which nobody approved since: they stand no longer. Nor do those that
-- started from them: the chain has three stages.
CREATE VIEW without_start AS
WITH next AS (
    SELECT v.take, v.episode, v.shot, v.media, start.review_at AS back
    FROM verdicts start
    JOIN verdicts v ON v.episode = start.episode AND v.shot = start.shot AND v.keyframe_media = start.media
        AND coalesce(v.upstream, start.take) = start.take
    WHERE start.review = 'retake' AND (v.review IS DISTINCT FROM 'approved' OR v.review_at < start.review_at)
)
SELECT take FROM next
UNION
SELECT v.take FROM next
JOIN verdicts v ON v.episode = next.episode AND v.shot = next.shot AND v.upstream = next.take
WHERE v.review IS DISTINCT FROM 'approved' OR v.review_at < next.back;

-- The takes that stand before later ones: the latest word on their stage approved or picked them.
CREATE VIEW preferred AS
SELECT v.take, v.episode, v.shot, v.stage, w."at" AS said
FROM words_on_stages w
JOIN verdicts v ON v.take = w.take AND v.review IN ('approved', 'picked') AND v.outcome = 'accepted'
ANTI JOIN without_start lost ON lost.take = v.take;

-- `clip` is the take that the episode shows: a finish, or a clip that has none. What is said of a clip holds for its finish as well.
-- `bare` is what it shows where the shot has no finish any more: a clip in any case.
CREATE VIEW shots AS
SELECT episode, arg_max(sequence, "at") AS sequence, shot,
    arg_max(take, place) FILTER (stands) AS clip, arg_max(media_path, place) FILTER (stands) AS media_path,
    arg_max(take, place) FILTER (stands AND stage = 'clip') AS bare, count(*) AS takes, max("at") AS last
FROM (
    SELECT v.*, v.stage <> 'keyframe' AND v.outcome = 'accepted' AND lost.take IS NULL AS stands,
        (coalesce(epoch_us(greatest(chosen.said, source.said)), 0), v."at") AS place
    FROM verdicts v
    LEFT JOIN preferred chosen ON chosen.take = v.take
    LEFT JOIN preferred source ON source.take = v.upstream AND source.stage <> 'keyframe'
    LEFT JOIN without_start lost ON lost.take = v.take
)
GROUP BY episode, shot;

CREATE VIEW episodes AS
SELECT episode, count(*) AS shots, count(clip) AS with_accepted_clip,
    sum(takes)::BIGINT AS takes, max(last) AS last
FROM shots GROUP BY episode;
"""
VIEWS = WORDS + VERDICTS + STANDING
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


def clips_that_stand(catalog: Catalog, episode: str, bare: Collection[str] = ()) -> dict[str, str]:
    """Shot to the take that the episode shows of it, a clip or its finish, as far as verdicts and people's words tell it.

    A shot without one is left out.

    Args:
        bare: shots that have no finish now, whatever was made before.
    """
    rows = view(catalog, "SELECT shot, clip, bare FROM shots WHERE episode = $episode AND clip IS NOT NULL", episode=episode).to_pylist()
    shown = {row["shot"]: row["bare" if row["shot"] in bare else "clip"] for row in rows}
    return {shot: take for shot, take in shown.items() if take}


def preferred_clips(catalog: Catalog, episode: str) -> dict[tuple[str, str], str]:
    """(shot, stage) to the clip or finish that a person approved or picked, where the latest word did."""
    query = "SELECT shot, stage, take FROM preferred WHERE episode = $episode AND stage <> 'keyframe'"
    return {(row["shot"], row["stage"]): row["take"] for row in view(catalog, query, episode=episode).to_pylist()}


def episodes(catalog: Catalog) -> list[dict[str, Any]]:
    """One row an episode: shots, takes, and how many shots have an accepted clip."""
    return view(catalog, "SELECT * FROM episodes ORDER BY last").to_pylist()


def take_counts(catalog: Catalog, episode: str) -> Counter[str]:
    """Shot to its number of takes, over all stages and runs."""
    rows = catalog.sql("SELECT shot, count(*) AS takes FROM takes WHERE episode = $episode GROUP BY shot", ("takes",), episode=episode)
    return Counter({row["shot"]: row["takes"] for row in rows.to_pylist()})
