"""Render one shot, stage after stage. A stage gets takes until one is accepted or its attempts are spent."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.plan.plan import ShotPlan
from pipeline.plan.resolve import StagePlan, inputs_from

from .take import Start, Take

MAX_ERRORS = 3  # errors of one stage in one run (a lost device, a model that raises), after which the shot is exhausted


@dataclass(frozen=True, slots=True)
class ShotOutcome:
    """How a shot ended.

    outcome: accepted or exhausted. takes: stage to the id of its accepted take. why: the reason, if exhausted.
    """

    shot: str
    outcome: str
    takes: dict[str, str] = field(default_factory=dict)
    why: str = ""


class Takes(Protocol):
    """Makes takes, as the studio does."""

    async def take(self, plan: ShotPlan, stage: StagePlan, attempt: int, variation: int, start: Start | None) -> Take: ...


async def render_shot(plan: ShotPlan, studio: Takes) -> ShotOutcome:
    """Render until the last stage is accepted, or a stage has spent its attempts.

    After a rejected take, the workflow's retry policy decides by the take's labels: a new seed, a new keyframe, or give up.
    After an error, the same seed is tried again, so that a crash does not change the result.

    Raises:
        Stopped: the pool begins nothing more.
        StorageError: a media file cannot be written.
    """
    accepted = [Start.of_past(take) for take in plan.accepted]  # one for each stage that is done
    spent: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    numbers = _Numbers(plan)
    why = ""

    def ended(outcome: str, why: str = "") -> ShotOutcome:
        return ShotOutcome(plan.shot.id, outcome, {s.stage: m.take for s, m in zip(plan.stages, accepted, strict=False)}, why)

    while len(accepted) < len(plan.stages):
        stage, start = plan.stages[len(accepted)], accepted[-1] if accepted else None
        if spent[stage.stage] >= stage.attempts:
            return ended("exhausted", f"{stage.stage} rejected {spent[stage.stage]} times, last for {why}")

        take = await studio.take(plan, stage, *numbers.of(stage.stage, inputs_from(stage, start.media.digest if start else None)), start)
        numbers.add(take)

        if take.model_broken:
            return ended("exhausted", take.row["error"])
        if take.outcome == "error":
            errors[stage.stage] += 1
            accepted[-1:] = [start.from_file()] if start else []
            if errors[stage.stage] >= MAX_ERRORS:
                return ended("exhausted", f"{stage.stage} failed {MAX_ERRORS} times: {take.row['error']}")
        elif take.outcome == "rejected":
            spent[stage.stage] += 1
            why = ", ".join(take.labels)
            action = stage.workflow.retry.action(take.labels)
            if action == "give_up":
                return ended("exhausted", f"{stage.stage} rejected for {why}, which another seed cannot mend")
            if action == "new_keyframe" and not plan.stages[0].given:
                accepted.clear()
                numbers.give_up(plan.stages[0].inputs)
        else:
            accepted.append(Start.of(take))
    return ended("accepted")


class _Numbers:
    """Chooses attempt numbers, which never repeat, and variations, from which seeds derive.

    The next variation is the smallest unused one. So after a crash, a lost file or with --fresh, the same takes are made again.
    A variation is used if a gate rejected its take, or if its keyframe was given up for a new one. With --new-seeds, the
    variation of every earlier take is used.
    """

    def __init__(self, plan: ShotPlan):
        self.attempts = {stage: max((t.attempt for t in takes), default=0) for stage, takes in plan.history.items()}
        self.used: defaultdict[str, set[int]] = defaultdict(set)
        self.accepted: defaultdict[str, set[int]] = defaultdict(set)
        for past in () if plan.fresh and not plan.new_seeds else (t for takes in plan.history.values() for t in takes):
            self._note("rejected" if plan.new_seeds else past.outcome, past.inputs, past.variation)

    def of(self, stage: str, inputs: str) -> tuple[int, int]:
        """(attempt, from 1; variation, from 0) of the stage's next take with these inputs."""
        return self.attempts[stage] + 1, next(v for v in itertools.count() if v not in self.used[inputs])

    def add(self, take: Take) -> None:
        self.attempts[take.row["stage"]] = take.row["attempt"]
        self._note(take.outcome, take.row["inputs"], take.row["variation"])

    def give_up(self, inputs: str) -> None:
        """Mark the accepted variations of these inputs as used: the next take gets another seed."""
        self.used[inputs] |= self.accepted[inputs]

    def _note(self, outcome: str, inputs: str, variation: int) -> None:
        if outcome != "error":
            (self.used if outcome == "rejected" else self.accepted)[inputs].add(variation)
