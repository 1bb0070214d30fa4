"""Judge stored takes again, from their measures alone: no GPU, no media, no Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalog.store import Catalog
from catalog.views import all_takes
from gates.rules import Profile
from pipeline.plan.verdicts import judge_again


@dataclass(frozen=True)
class Change:
    """A take whose verdict changes. Where a person approved it, it stands all the same.

    was, now: outcomes, as the gates say them. labels_were, labels_are: labels and warnings. row: the new judgement's row for the catalog.
    """

    take: str
    was: str
    now: str
    labels_were: tuple[str, ...]
    labels_are: tuple[str, ...]
    row: dict[str, Any]

    @property
    def flips(self) -> bool:
        return self.was != self.now


@dataclass(frozen=True)
class Rejudged:
    takes: int  # number of takes that were judged again
    changes: list[Change]


Declared = Mapping[str, Sequence[str]]  # shot -> what it declares


def rejudge(catalog: Catalog, profile: Profile | None, episode: str | None = None, declared: Declared | None = None) -> Rejudged:
    """Judge stored takes again, and compare with the verdicts that hold now.

    Takes that ended in an error have no measures, and takes that a person sent back stay rejected: both are left out.

    Args:
        profile: None: the profile that judged each take before, as its file is today.
        declared: what shots declare now. None, or a shot that is missing: what it declared when it was judged.
    """
    rows = [row for row in all_takes(catalog, episode) if row["outcome"] != "error" and row["measures"] and row["review"] != "retake"]
    now = [row | {"declared": list((declared or {}).get(row["shot"], row["declared"] or ()))} for row in rows]
    changes = [change for row in now if (change := _change(row, profile))]
    return Rejudged(len(rows), changes)


def apply(catalog: Catalog, changes: list[Change]) -> None:
    """Record the new judgements. They hold from then on; the rows of the takes do not change."""
    if changes:
        catalog.append_later("judgements", [c.row for c in changes])


def _change(row: dict[str, Any], profile: Profile | None) -> Change | None:
    now = judge_again(row, profile)
    if all(list(row[k] or ()) == now[k] for k in ("labels", "warnings")) and row["gate_outcome"] == now["outcome"]:
        return None
    shown_was, shown_now = _shown(row["labels"] or (), row["warnings"] or ()), _shown(now["labels"], now["warnings"])
    return Change(row["take"], row["gate_outcome"], now["outcome"], shown_was, shown_now, now)


def _shown(labels: Any, warnings: Any) -> tuple[str, ...]:
    return (*labels, *(f"{w} (warn)" for w in warnings))
