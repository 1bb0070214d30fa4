"""A shot with all its takes: what was made, how, what the gates say of it, what people said."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from catalog.standing import Row, name_of
from gates import measures
from gates.rules import Profile, Rule
from pipeline.evidence.curves import CURVE_OF, PER_FRAME, UNITS
from pipeline.plan.plan import Plan
from pipeline.story.errors import InputError
from pipeline.story.gate_profile import load_profile, profile_identity
from pipeline.story.stages import GATES, StageName

from . import says
from .as_json import as_json
from .facts import Facts

AS_THEY_ARE = (
    "take", "episode", "shot", "sequence", "stage", "attempt", "at", "run", "outcome", "labels", "warnings", "seed", "prompt",
    "negative_prompt", "prompt_cut", "upstream", "width", "height", "frames", "fps", "profile", "declared", "device", "node",
    "queue_seconds", "device_seconds", "gate_seconds", "peak_memory_bytes", "error", "measures",
)  # fmt: skip


def takes_of_shot(known: Facts, shot: str, last: str, statuses: dict[str, str]) -> dict[str, bytes]:
    """Every take of a shot, oldest first: its id, and the take as JSON.

    Args:
        last: the shot's last stage. statuses: name@version of workflows to their status.
    """
    shown = known.shown(shot, last)
    return {row["take"]: as_json(_told(row, shown, statuses)) for row in known.verdicts.of_shot(shot)}


def _told(row: Row, standing: Row | None, statuses: dict[str, str]) -> dict[str, Any]:
    """A take, from its row with the verdict that holds. standing: its shot's."""
    url = f"/takes/{row['take']}"
    return {name: row[name] for name in AS_THEY_ARE} | {
        "gate": row["gate_outcome"],
        "stands": standing is not None and row["take"] in (standing["clip"], standing["source"], standing["keyframe"]),
        "word": _word(row),
        "workflow": name_of(row),
        "status": statuses.get(name_of(row)),
        "parameters": json.loads(row["parameters"] or "{}"),
        "reference_files": row["reference_files"] or {},
        "findings": [_finding(row["stage"], found) for found in (*says.findings(row), *_passed(row))],
        "why": says.failure(row) if row["outcome"] != "accepted" or row["labels"] else "",
        "media": f"{url}/media" if row["media"] else None,
        "poster": f"{url}/frames/0.jpg" if row["media"] else None,
    }


def _word(row: Row) -> dict[str, Any] | None:
    """What a person decided about the take."""
    if row["review"] is None:
        return None
    return {"verdict": row["review"], "note": row["review_note"], "by": row["review_by"], "at": row["review_at"]}


def _finding(stage: StageName, found: dict[str, Any]) -> dict[str, Any]:
    """A finding with its measure's unit, and the words that say what is measured."""
    known = (measures.IMAGE if GATES[stage] == "image" else measures.VIDEO).get(found["measure"])
    return found | {"unit": known.unit if known else "", "says": known.says if known else ""}


def _passed(row: Row) -> list[dict[str, Any]]:
    """The rules of the profile that found nothing, in the shape of findings: what was measured, and where the limit is."""
    profile, values = _profile(row["profile"] or ""), row["measures"] or {}
    if profile is None:
        return []
    faulty = {one["measure"] for one in says.findings(row)}
    rules = {rule.measure: rule for rule in reversed(profile.rules(GATES[row["stage"]])) if rule.measure not in faulty}
    passed = [rule for name, rule in reversed(rules.items()) if name in values]  # of two rules on a measure, the first in the profile
    return [
        {"label": rule.label, "measure": rule.measure, "value": values[rule.measure], "threshold": limit, "outcome": "pass", "frames": []}
        for rule in passed
        if (limit := values.get(rule.differs_from) if rule.differs_from else _limit(rule)) is not None
    ]


def _limit(rule: Rule) -> float | None:
    return rule.below if rule.below is not None else rule.above


def drawn(row: Row, curves: dict[str, list[float]]) -> list[dict[str, Any]]:
    """The curves of a clip, those with faults first: values, threshold, and the frames that the findings name.

    Args:
        row: the take's. curves: measure to its value in each frame.
    """
    profile = _profile(row["profile"] or "")
    found: dict[str, list[dict[str, Any]]] = {}
    for one in says.findings(row):
        found.setdefault(CURVE_OF.get(one["measure"], one["measure"]), []).append(one)

    def curve(name: str) -> dict[str, Any]:
        mine = found.get(name, [])
        worst = "fail" if any(f["outcome"] == "fail" for f in mine) else "warn" if mine else "pass"
        return {
            "measure": name,
            "says": measures.VIDEO[name].says,
            "unit": UNITS[name],
            "values": curves[name],
            "threshold": _threshold(profile, name),
            "value": row["measures"].get(name),
            "findings": mine,
            "at": [[f["frames"][0], f["frames"][-1]] for f in mine if f["frames"]],
            "outcome": worst,
        }

    order = {"fail": 0, "warn": 1, "pass": 2}
    return sorted((curve(name) for name in curves), key=lambda c: order[c["outcome"]])


def _threshold(profile: Profile | None, measure: str) -> float | None:
    """The profile's threshold, where it has the unit of the curve."""
    if profile is None or measure not in PER_FRAME:
        return None
    limits = [_limit(rule) for rule in profile.video if rule.measure == measure]
    return next((limit for limit in limits if limit is not None), None)


@lru_cache(maxsize=32)
def _profile(identity: str) -> Profile | None:
    """The profile of that identity, such as `anime#0123456789ab`; None where its file is another today, or there is none."""
    try:
        profile = load_profile(identity.partition("#")[0])
    except InputError:
        return None
    return profile if profile_identity(profile) == identity else None


def changeable(plan: Plan, shot: str) -> dict[str, Any]:
    """What a retake of the shot may change: its prompt, and the parameters that its workflows leave to shots."""
    found = next(s for s in plan.shots if s.shot.id == shot)
    return {
        "prompt": next(stage.prompt for stage in reversed(found.stages) if stage.workflow.kind.generative),
        "parameters": {
            stage.stage: {
                name: {"now": dict(stage.parameters).get(name, getattr(stage.workflow, name)), "low": span.minimum, "high": span.maximum}
                for name, span in stage.workflow.parameters.items()
            }
            for stage in found.stages
        },
    }
