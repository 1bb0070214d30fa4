"""One shot's life: keyframe, gate, clip, gate, until accepted or its attempts are spent."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from catalog.media import Media
from cluster.specs import Part
from pipeline.plan.plan import ShotPlan
from pipeline.plan.resolve import clip_inputs

if TYPE_CHECKING:
    from .studio import Studio, Take

MAX_ERRORS = 3  # failures that are not the picture's fault (a lost device, a model that raises), a stage and run


@dataclass(frozen=True)
class ShotOutcome:
    """How a shot ended: exactly one of accepted or exhausted, with the ids of the takes that decide it."""

    shot: str
    outcome: str
    keyframe: str | None
    clip: str | None
    why: str = ""


@dataclass(frozen=True)
class Start:
    """The accepted keyframe that a clip starts from. picture: its pixels in the object store, where they were drawn just now."""

    take: str
    media: Media
    picture: Part | None = None


async def render_shot(plan: ShotPlan, studio: Studio) -> ShotOutcome:
    """Render until the clip is accepted, or a stage has spent its attempts.

    A rejected take goes round again as its workflow's retry policy says for its labels: with a new seed,
    or with a new keyframe. An error goes round with the same seed, so that a crash changes nothing in
    the result.
    """
    first = plan.accepted_keyframe
    keyframe = Start(first.take, Media(first.media, first.media_path, first.media_bytes)) if first else None
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
            take = await studio.clip(plan, *numbers.of("clip", clip_inputs(plan.clip, keyframe.media.digest)), keyframe)
        numbers.add(take)

        if take.is_final:
            return _exhausted(plan, keyframe, take.row["error"])
        if take.outcome == "error":
            errors[stage.stage] += 1
            keyframe = keyframe and replace(keyframe, picture=None)  # it may be what was lost; the stored file is not
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
            keyframe = Start(take.id, take.media, take.picture)
            if plan.until == "keyframe":
                return ShotOutcome(plan.shot.id, "accepted", keyframe.take, None)
        else:
            return ShotOutcome(plan.shot.id, "accepted", keyframe.take, take.id)


class _Numbers:
    """Attempt numbers, which never repeat, and variations, which seeds derive from.

    The variation is the smallest that is not used up, so a crash, a lost file or --fresh gives the very
    same takes again. Used up are those that a gate rejected and those that were given up for a new keyframe.
    """

    def __init__(self, plan: ShotPlan):
        self.attempts = {stage: max((t.attempt for t in takes), default=0) for stage, takes in plan.history.items()}
        self.used: defaultdict[str, set[int]] = defaultdict(set)
        self.accepted: defaultdict[str, set[int]] = defaultdict(set)
        for past in () if plan.fresh else (t for takes in plan.history.values() for t in takes):
            self._note(past.outcome, past.inputs, past.variation)

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


def _exhausted(plan: ShotPlan, keyframe: Start | None, why: str) -> ShotOutcome:
    return ShotOutcome(plan.shot.id, "exhausted", keyframe.take if keyframe else None, None, why)
