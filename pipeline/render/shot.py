"""One shot's life: stage after stage, each made, judged and made again until it is accepted or its attempts are spent."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.plan.plan import ShotPlan
from pipeline.plan.resolve import StagePlan, inputs_from

from .take import Start, Take

MAX_ERRORS = 3  # failures that are not the picture's fault (a lost device, a model that raises), a stage and run


@dataclass(frozen=True, slots=True)
class ShotOutcome:
    """How a shot ended: exactly one of accepted or exhausted, with the ids of the takes that decide it, by their stage."""

    shot: str
    outcome: str
    takes: dict[str, str] = field(default_factory=dict)
    why: str = ""


class Takes(Protocol):
    """What a shot's life asks for; the studio makes it."""

    async def take(self, plan: ShotPlan, stage: StagePlan, attempt: int, variation: int, start: Start | None) -> Take: ...


async def render_shot(plan: ShotPlan, studio: Takes) -> ShotOutcome:
    """Render until the last stage is accepted, or a stage has spent its attempts.

    A rejected take goes round again as its workflow's retry policy says for its labels: with a new seed,
    or with a new keyframe. An error goes round with the same seed, so that a crash changes nothing in
    the result.
    """
    made = [Start.of_past(take) for take in plan.accepted]
    spent: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    numbers = _Numbers(plan)
    why = ""

    def ended(outcome: str, why: str = "") -> ShotOutcome:
        return ShotOutcome(plan.shot.id, outcome, {s.stage: m.take for s, m in zip(plan.stages, made, strict=False)}, why)

    while len(made) < len(plan.stages):
        stage, start = plan.stages[len(made)], made[-1] if made else None
        if spent[stage.stage] >= stage.attempts:
            return ended("exhausted", f"{stage.stage} rejected {spent[stage.stage]} times, last for {why}")

        take = await studio.take(plan, stage, *numbers.of(stage.stage, inputs_from(stage, start.media.digest if start else None)), start)
        numbers.add(take)

        if take.model_broken:
            return ended("exhausted", take.row["error"])
        if take.outcome == "error":
            errors[stage.stage] += 1
            made[-1:] = [start.from_file()] if start else []
            if errors[stage.stage] >= MAX_ERRORS:
                return ended("exhausted", f"{stage.stage} failed {MAX_ERRORS} times: {take.row['error']}")
        elif take.outcome == "rejected":
            spent[stage.stage] += 1
            why = ", ".join(take.labels)
            action = stage.workflow.retry.action(take.labels)
            if action == "give_up":
                return ended("exhausted", f"{stage.stage} rejected for {why}, which another seed cannot mend")
            if action == "new_keyframe" and not plan.stages[0].given:
                made.clear()
                numbers.give_up(plan.stages[0].inputs)
        else:
            made.append(Start.of(take))
    return ended("accepted")


class _Numbers:
    """Attempt numbers, which never repeat, and variations, which seeds derive from.

    The variation is the smallest that is not used up, so a crash, a lost file or --fresh gives the very
    same takes again. Used up are those that a gate rejected, those that were given up for a new keyframe, and, where new
    seeds were asked for, all that any take has had.
    """

    def __init__(self, plan: ShotPlan):
        self.attempts = {stage: max((t.attempt for t in takes), default=0) for stage, takes in plan.history.items()}
        self.used: defaultdict[str, set[int]] = defaultdict(set)
        self.accepted: defaultdict[str, set[int]] = defaultdict(set)
        for past in () if plan.fresh and not plan.new_seeds else (t for takes in plan.history.values() for t in takes):
            self._note("rejected" if plan.new_seeds else past.outcome, past.inputs, past.variation)

    def of(self, stage: str, inputs: str) -> tuple[int, int]:
        return self.attempts[stage] + 1, next(v for v in itertools.count() if v not in self.used[inputs])

    def add(self, take: Take) -> None:
        self.attempts[take.row["stage"]] = take.row["attempt"]
        self._note(take.outcome, take.row["inputs"], take.row["variation"])

    def give_up(self, inputs: str) -> None:
        self.used[inputs] |= self.accepted[inputs]

    def _note(self, outcome: str, inputs: str, variation: int) -> None:
        if outcome != "error":
            (self.used if outcome == "rejected" else self.accepted)[inputs].add(variation)
