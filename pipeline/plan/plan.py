"""The plan: which shots hold, which must be rendered, and why.

Everything that can be wrong with names and files is found here, before Ray starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from catalog.registry import Row
from catalog.store import Catalog
from pipeline.registry.workflows import Registry
from pipeline.story.episode import Episode, Shot
from pipeline.story.episode import Sequence as EpisodeSequence
from pipeline.story.errors import InputError
from pipeline.story.fingerprint import file_digest
from pipeline.story.settings import Settings

from .costs import Costs
from .history import Past, Reason, latest_of_others, past_takes
from .resolve import Resolver, StagePlan, changes, clip_inputs
from .verdicts import Verdicts

STAGES = ("keyframe", "clip")


@dataclass(frozen=True, slots=True)
class ShotPlan:
    episode: str
    sequence: EpisodeSequence
    shot: Shot
    keyframe: StagePlan
    clip: StagePlan
    given_keyframe: Path | None
    history: dict[str, Sequence[Past]]  # stage -> takes so far, oldest first
    accepted_keyframe: Past | None
    accepted_clip: Past | None
    reasons: tuple[Reason, ...] = ()
    fresh: bool = False  # takes of earlier runs count for nothing but their numbers
    until: str = "clip"  # the last stage that is wanted: a benchmark of keyframes needs no clips

    @property
    def stale(self) -> bool:
        return (self.accepted_keyframe if self.until == "keyframe" else self.accepted_clip) is None

    @property
    def why(self) -> str:
        return "; ".join(r.text for r in self.reasons)


@dataclass(frozen=True)
class Plan:
    episode: Episode
    file: Path
    file_digest: str
    shots: list[ShotPlan]
    judgements: list[Row] = field(default_factory=list)  # verdicts that changed with a profile or a declaration, to be recorded
    costs: Costs = field(default_factory=Costs)

    @property
    def stale(self) -> list[ShotPlan]:
        return [s for s in self.shots if s.stale]

    def gpu_minutes(self, shot: ShotPlan) -> float | None:
        """Expected minutes on a device, from what the same workflows took before; None where they never ran."""
        if not shot.stale:
            return 0.0
        stages = [shot.clip] if shot.accepted_keyframe else [shot.clip] if shot.given_keyframe else [shot.keyframe, shot.clip]
        seconds = [self.costs.seconds(stage.ready) for stage in stages]
        return None if None in seconds else sum(s for s in seconds if s is not None) / 60


def make_plan(episode: Episode, file: Path, settings: Settings, catalog: Catalog, fresh: bool = False) -> Plan:
    """What holds and what must be rendered.

    Args:
        fresh: take nothing from the catalog as accepted.

    Raises:
        InputError: a workflow, checkpoint, LoRA or picture is missing or cannot fit.
    """
    registry = Registry(catalog, settings)
    resolver = Resolver(episode, file, settings, registry)
    resolved = [(sequence, shot, *resolver.stages(sequence, shot)) for sequence, shot in episode.shots]
    registry.digests.save()
    past = past_takes(catalog, episode.id)
    declared = {shot.id: shot.declares for _, shot in episode.shots}
    verdicts = Verdicts(catalog, episode.id, declared)
    verdicts.look(past, _wanted(resolved))
    shots = [_shot_plan(catalog, episode.id, past, verdicts, fresh, *parts) for parts in resolved]
    shots = _explained(catalog, shots, verdicts)
    return Plan(episode, file, file_digest(file), shots, verdicts.judgements, Costs.of(catalog, registry))


def _wanted(resolved: list[tuple[EpisodeSequence, Shot, StagePlan, StagePlan, Path | None]]) -> dict[tuple[str, str], str | None]:
    """(shot, stage) to the inputs whose verdicts matter; a clip's depend on its keyframe, so all of them are looked at."""
    wanted: dict[tuple[str, str], str | None] = {}
    for _, shot, keyframe, _, _ in resolved:
        wanted[shot.id, "keyframe"] = keyframe.inputs
        wanted[shot.id, "clip"] = None
    return wanted


def _shot_plan(
    catalog: Catalog,
    episode: str,
    past: dict[tuple[str, str], list[Past]],
    verdicts: Verdicts,
    fresh: bool,
    sequence: EpisodeSequence,
    shot: Shot,
    keyframe: StagePlan,
    clip: StagePlan,
    given: Path | None,
) -> ShotPlan:
    still, moving = None, None
    history = {stage: verdicts.now(past.get((shot.id, stage), ())) for stage in STAGES}
    if not fresh:
        still = accepted_take(catalog, history["keyframe"], keyframe.inputs)
        moving = still and accepted_take(catalog, history["clip"], clip_inputs(clip, still.media))
    return ShotPlan(episode, sequence, shot, keyframe, clip, given, history, still, moving, fresh=fresh)


def accepted_take(catalog: Catalog, takes: Sequence[Past], inputs: str) -> Past | None:
    """The latest accepted take of exactly these inputs whose media is still there."""
    for take in reversed(takes):
        wanted = take.outcome == "accepted" and take.inputs == inputs
        if wanted and catalog.media.has(take.media_path, take.media, take.media_bytes, take.committed):
            return take
    return None


def _explained(catalog: Catalog, shots: list[ShotPlan], verdicts: Verdicts) -> list[ShotPlan]:
    """The same shots with their reasons. Only stale shots need rows in full: what changed is told from them."""
    stale = [s for s in shots if s.stale]
    rows = latest_of_others(catalog, [p.take for s in stale for takes in s.history.values() for p in takes[-1:]])
    explained = []
    for shot in shots:
        if not shot.stale and not verdicts.changed:
            explained.append(shot)
        elif not shot.stale:
            again = [r for p in (shot.accepted_keyframe, shot.accepted_clip) if p for r in verdicts.told(p)]
            explained.append(replace(shot, reasons=tuple(again)) if again else shot)
        else:
            explained.append(replace(shot, reasons=tuple(_reasons(shot, rows, verdicts))))
    return explained


def _reasons(shot: ShotPlan, rows: dict[str, Row], verdicts: Verdicts) -> list[Reason]:
    if shot.fresh:
        return [Reason("keyframe", "fresh", "fresh takes were asked for")]
    if shot.accepted_keyframe is None:
        return _stage_reasons("keyframe", shot, shot.keyframe, shot.keyframe.inputs, rows, verdicts)
    return _stage_reasons("clip", shot, shot.clip, clip_inputs(shot.clip, shot.accepted_keyframe.media), rows, verdicts)


def _stage_reasons(stage: str, shot: ShotPlan, made: StagePlan, inputs: str, rows: dict[str, Row], verdicts: Verdicts) -> list[Reason]:
    takes = shot.history[stage]
    if not takes:
        return [Reason(stage, "new", f"no {stage} yet")]
    same = [p for p in takes if p.inputs == inputs]
    if not same:
        row = rows[takes[-1].take]
        found = changes(row, made, shot.shot.variation)
        if stage == "clip" and shot.accepted_keyframe and row["keyframe_media"] != shot.accepted_keyframe.media:
            found.append(("upstream_changed", "its keyframe changed"))
        found = found or [("inputs_changed", f"what the {stage} is made from changed")]
        return [Reason(stage, code, text) for code, text in found]
    if any(p.outcome == "accepted" for p in same):
        return [Reason(stage, "media_gone", f"the {stage}'s file is gone or damaged")]
    last = same[-1]
    if last.review == "retake":
        return [Reason(stage, "retake", f"a retake of the {stage} was asked for" + (f": {last.note}" if last.note else ""))]
    flipped = [r for p in same for r in verdicts.told(p)]
    return flipped[-1:] or [Reason(stage, "none_accepted", f"no {stage} was accepted yet ({len(same)} takes)")]


def select(plan: Plan, only: Iterable[str]) -> Plan:
    """The plan with only these shots or sequences."""
    wanted = {w for w in only if w}
    if not wanted:
        return plan
    known = {s.shot.id for s in plan.shots} | {s.sequence.id for s in plan.shots}
    unknown = sorted(wanted - known)
    if unknown:
        raise InputError(f"--only {unknown[0]}: {plan.file} has no such shot or sequence; it has {', '.join(sorted(known)[:40])}")
    return replace(plan, shots=[s for s in plan.shots if s.shot.id in wanted or s.sequence.id in wanted])


def as_rows(plan: Plan, shots: Iterable[ShotPlan]) -> list[dict[str, Any]]:
    """One row a shot, for `tower plan`."""
    return [
        {
            "shot": s.shot.id,
            "sequence": s.sequence.id,
            "state": _state(s),
            "keyframe": "keep" if s.accepted_keyframe else "given" if s.given_keyframe else "render",
            "clip": "keep" if s.accepted_clip else "render",
            "why": [{"stage": r.stage, "code": r.code, "text": r.text} for r in s.reasons],
            "gpu_minutes": plan.gpu_minutes(s),
            "workflows": [s.keyframe.ready.name, s.clip.ready.name],
        }
        for s in shots
    ]


def _state(shot: ShotPlan) -> str:
    return "stale" if shot.stale else "rejudge" if shot.reasons else "clean"
