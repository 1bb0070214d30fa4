"""Render one shot, stage after stage. A stage gets takes until one is accepted, or the shot is exhausted."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipeline.plan.plan import ShotPlan
from pipeline.plan.resolve import StagePlan, inputs_from
from pipeline.story.workflow import Retry

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
    """Render until the last stage is accepted, or the shot is exhausted.

    A shot is exhausted when a stage has spent its attempts, when the retry policy gives up, after MAX_ERRORS errors of a stage, or
    when a model has killed device after device.

    After a rejected take, the workflow's retry policy decides by the take's labels: a new seed, with more compression of the keyframe or
    without, a new keyframe, or give up.
    After an error, the same seed is tried again, so that a crash does not change the result.

    Raises:
        Stopped: the pool begins nothing more.
        StorageError: a media file cannot be written.
    """
    done = [Start.of_past(take) for take in plan.accepted]  # the accepted take of each stage that is done
    spent: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    numbers = _Numbers(plan)
    why = ""

    def ended(outcome: str, reason: str = "") -> ShotOutcome:
        takes: dict[str, str] = {stage.stage: start.take for stage, start in zip(plan.stages, done, strict=False)}
        return ShotOutcome(plan.shot.id, outcome, takes, reason)

    while len(done) < len(plan.stages):
        stage, start = plan.stages[len(done)], done[-1] if done else None
        if spent[stage.stage] >= stage.attempts:
            return ended("exhausted", f"{stage.stage} rejected {spent[stage.stage]} times, last for {why}")

        inputs = inputs_from(stage, start.media.digest if start else None)
        attempt, variation = numbers.of(stage.stage, inputs)
        take = await studio.take(plan, numbers.compressed(stage, inputs), attempt, variation, start)
        numbers.add(take)

        if take.model_broken:
            return ended("exhausted", take.row["error"])
        if take.outcome == "error":
            errors[stage.stage] += 1
            if start:
                done[-1] = start.from_file()  # its pixels may have died with the device; the stored file has not
            if errors[stage.stage] >= MAX_ERRORS:
                return ended("exhausted", f"{stage.stage} failed {MAX_ERRORS} times: {take.row['error']}")
        elif take.outcome == "rejected":
            spent[stage.stage] += 1
            why = ", ".join(take.labels)
            action = stage.workflow.retry.action(take.labels)
            if action == "give_up":
                return ended("exhausted", f"{stage.stage} rejected for {why}, which another seed cannot mend")
            if action == "new_keyframe" and not (plan.stages[0].given or plan.held):  # what a person gave or chose stays: then a new seed
                done.clear()  # the clip's spent attempts stay spent, so this ends
                numbers.give_up(plan.stages[0].inputs)
        else:
            done.append(Start.of(take))
    return ended("accepted")


class _Numbers:
    """Chooses attempt numbers, which never repeat, variations, from which seeds derive, and how far the keyframe is compressed.

    The next variation is the smallest that is not used up. So after a crash, a lost file or with --fresh, the same takes are made
    again. A variation is used up when a gate has rejected its take, or when its keyframe was given up for a new one. With
    --new-seeds, the variations of all earlier takes count as used up. The compression follows from the rejections that count, too.
    """

    def __init__(self, plan: ShotPlan):
        self.attempts = {stage: max((t.attempt for t in takes), default=0) for stage, takes in plan.history.items()}
        self.used_up: defaultdict[str, set[int]] = defaultdict(set)
        self.accepted: defaultdict[str, set[int]] = defaultdict(set)
        self.retries: dict[str, Retry] = {stage.stage: stage.workflow.retry for stage in plan.stages}
        self.frozen: Counter[str] = Counter()  # inputs to the rejections that called for more compression
        for past in (take for takes in plan.history.values() for take in takes):
            if plan.new_seeds:
                self.used_up[past.inputs].add(past.variation)
            elif not plan.fresh:
                self._note(past.stage, past.outcome, past.inputs, past.variation, tuple(filter(None, past.labels.split(","))))

    def of(self, stage: str, inputs: str) -> tuple[int, int]:
        """(attempt, from 1; variation, from 0) of the stage's next take with these inputs."""
        return self.attempts[stage] + 1, next(v for v in itertools.count() if v not in self.used_up[inputs])

    def add(self, take: Take) -> None:
        self.attempts[take.row["stage"]] = take.row["attempt"]
        self._note(take.row["stage"], take.outcome, take.row["inputs"], take.row["variation"], take.labels)

    def give_up(self, inputs: str) -> None:
        """Mark the accepted variations of these inputs as used up: the next take gets another seed."""
        self.used_up[inputs] |= self.accepted[inputs]

    def compressed(self, stage: StagePlan, inputs: str) -> StagePlan:
        """The stage, with its keyframe compressed as far as the earlier rejections of these inputs call for."""
        if not self.frozen[inputs]:
            return stage
        told, flow = dict(stage.parameters), stage.workflow
        crf = flow.more_compressed(told.get("keyframe_crf", flow.keyframe_crf), self.frozen[inputs])
        return replace(stage, parameters=tuple(sorted((told | {"keyframe_crf": crf}).items())))

    def _note(self, stage: str, outcome: str, inputs: str, variation: int, labels: tuple[str, ...]) -> None:
        self.frozen[inputs] += outcome == "rejected" and self.retries[stage].action(labels) == "more_compression"
        if outcome != "error":
            (self.used_up if outcome == "rejected" else self.accepted)[inputs].add(variation)
