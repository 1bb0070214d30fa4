"""One shot's life: keyframe, gate, clip, gate, until accepted or its attempts are spent."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from catalog.media import Media

from .plan import ShotPlan, clip_inputs
from .studio import Studio, Take

MAX_ERRORS = 3  # failures that are not the picture's fault (a lost device, a model that raises), a stage and run


@dataclass(frozen=True)
class ShotOutcome:
    """How a shot ended: exactly one of accepted or exhausted, with the takes that decide it."""

    shot: str
    outcome: str
    keyframe: dict[str, Any] | None
    clip: dict[str, Any] | None
    why: str = ""


async def render_shot(plan: ShotPlan, studio: Studio) -> ShotOutcome:
    """Render until the clip is accepted, or a stage has spent its attempts.

    A rejected take goes round again as its workflow's retry policy says for its labels: with a new seed,
    or with a new keyframe. An error goes round with the same seed, so that a crash changes nothing in
    the result.
    """
    keyframe = plan.accepted_keyframe
    spent: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    numbers = _Numbers(plan)
    why = ""
    while True:
        stage = plan.clip if keyframe else plan.keyframe
        allowed = 1 if stage.stage == "keyframe" and plan.given_keyframe else stage.workflow.retry.max_attempts
        if spent[stage.stage] >= allowed:
            return _exhausted(plan, keyframe, f"{stage.stage} rejected {spent[stage.stage]} times, last for {why}")

        if keyframe is None:
            take = await studio.keyframe(plan, *numbers.of("keyframe", plan.keyframe.inputs))
        else:
            still = Media(keyframe["media"], keyframe["media_path"], keyframe["media_bytes"])
            take = await studio.clip(plan, *numbers.of("clip", clip_inputs(plan.clip, still.digest)), still)
        numbers.add(take)

        if take.outcome == "error":
            errors[stage.stage] += 1
            if errors[stage.stage] >= MAX_ERRORS:
                return _exhausted(plan, keyframe, f"{stage.stage} failed {MAX_ERRORS} times: {take.row['error']}")
        elif take.outcome == "rejected":
            spent[stage.stage] += 1
            why = ", ".join(take.labels)
            action = stage.workflow.retry.action(take.labels)
            if action == "give_up":
                return _exhausted(plan, keyframe, f"{stage.stage} rejected for {why}, which another seed cannot mend")
            if action == "new_keyframe" and not plan.given_keyframe:
                keyframe = None
                numbers.give_up(plan.keyframe.inputs)
        elif keyframe is None:
            keyframe = take.row
        else:
            return ShotOutcome(plan.shot.id, "accepted", keyframe, take.row)


class _Numbers:
    """Attempt numbers, which never repeat, and variations, which seeds derive from.

    The variation is the smallest that is not used up, so a crash, a lost file or --fresh gives the very
    same takes again. Used up are those that a gate rejected and those that were given up for a new keyframe.
    """

    def __init__(self, plan: ShotPlan):
        takes = [t for stage in plan.history.values() for t in stage]
        self.attempts = {stage: max((t["attempt"] for t in rows), default=0) for stage, rows in plan.history.items()}
        self.used: defaultdict[str, set[int]] = defaultdict(set)
        self.accepted: defaultdict[str, set[int]] = defaultdict(set)
        for row in [] if plan.fresh else takes:
            self._note(row)

    def of(self, stage: str, inputs: str) -> tuple[int, int]:
        return self.attempts[stage] + 1, next(v for v in itertools.count() if v not in self.used[inputs])

    def add(self, take: Take) -> None:
        self.attempts[take.row["stage"]] = take.row["attempt"]
        self._note(take.row)

    def give_up(self, inputs: str) -> None:
        self.used[inputs] |= self.accepted[inputs]

    def _note(self, row: dict[str, Any]) -> None:
        if row["outcome"] in ("accepted", "rejected"):
            (self.used if row["outcome"] == "rejected" else self.accepted)[row["inputs"]].add(row["variation"])


def _exhausted(plan: ShotPlan, keyframe: dict[str, Any] | None, why: str) -> ShotOutcome:
    return ShotOutcome(plan.shot.id, "exhausted", keyframe, None, why)
