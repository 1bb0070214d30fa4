"""The plan: which shots are finished, which must be rendered, and why.

Wrong names and missing files are reported here, before Ray starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from catalog.standing import Row
from catalog.store import Catalog
from pipeline.registry.workflows import Registry
from pipeline.story.cues import Cue
from pipeline.story.episode import Episode, Shot
from pipeline.story.episode import Sequence as EpisodeSequence
from pipeline.story.errors import InputError
from pipeline.story.fingerprint import file_digest
from pipeline.story.settings import Settings

from .changes import changes
from .costs import Costs
from .held import Held, Holder
from .history import Past, Reason, latest_of_others, past_takes
from .resolve import Resolver, StagePlan, inputs_from
from .sound_file import SoundFacts
from .sounds import Placed, placed_sounds
from .subtitles import planned_cues
from .verdicts import Verdicts
from .words import Words, written, written_before


@dataclass(frozen=True, slots=True)
class ShotPlan:
    """One shot: the stages that it goes through, and how far it is.

    Args:
        stages: in order. A benchmark of keyframes has only the keyframe.
        history: stage to its earlier takes, oldest first.
        accepted: one valid take for each of the first stages, up to the first stage that must be rendered.
        held: for how many of them a person's word is the reason: no retry policy gives them up.
        reasons: why that stage must be rendered, why the verdict of an accepted take changed, or what became of a person's words.
        fresh: the outcomes of earlier takes are ignored. The same seeds are used again, and give the same pictures.
        new_seeds: no seed of an earlier take is used again, so that other pictures are made. Only together with `fresh`.
    """

    episode: str
    sequence: EpisodeSequence
    shot: Shot
    stages: tuple[StagePlan, ...]
    history: dict[str, Sequence[Past]]
    accepted: tuple[Past, ...] = ()
    held: int = 0
    reasons: tuple[Reason, ...] = ()
    fresh: bool = False
    new_seeds: bool = False

    @property
    def todo(self) -> tuple[StagePlan, ...]:
        """The stages that this shot still needs, in order."""
        return self.stages[len(self.accepted) :]

    @property
    def on_devices(self) -> tuple[StagePlan, ...]:
        """The stages of `todo` that a model makes. A picture that a person gave is only judged."""
        return tuple(stage for stage in self.todo if not stage.given)

    @property
    def stale(self) -> bool:
        """Whether a stage still has no valid take."""
        return len(self.accepted) < len(self.stages)

    @property
    def why(self) -> str:
        return "; ".join(r.text for r in self.reasons)


@dataclass(frozen=True)
class Plan:
    episode: Episode
    file: Path
    file_digest: str
    shots: list[ShotPlan]
    judgements: list[Row] = field(default_factory=list)  # new verdicts, after a change of profile or declaration; the render records them
    costs: Costs = field(default_factory=Costs)
    sounds: tuple[Placed, ...] = ()
    cues: tuple[Cue, ...] = ()

    @property
    def stale(self) -> list[ShotPlan]:
        return [s for s in self.shots if s.stale]

    def gpu_minutes(self, shot: ShotPlan) -> float | None:
        """Expected minutes on a device, from earlier takes of the same workflows; None if one of them never ran."""
        if not shot.stale:
            return 0.0
        seconds = [self.costs.seconds(stage.ready) for stage in shot.on_devices]
        return None if None in seconds else sum(s for s in seconds if s is not None) / 60


def make_plan(episode: Episode, file: Path, settings: Settings, catalog: Catalog, fresh: bool = False, new_seeds: bool = False) -> Plan:
    """Find the takes of each shot that are still valid, and the stages that must be rendered.

    Args:
        file: the episode's file. Relative paths in the episode start from its folder.
        fresh: treat no earlier take as accepted, but those that a person approved. new_seeds: as `fresh`, with seeds that no take has had.

    Raises:
        InputError: a workflow, checkpoint, LoRA, picture, sound file or subtitle is missing or does not fit.
    """
    registry = Registry(catalog, settings)
    resolver = Resolver(episode, file, settings, registry)
    words = Words.of(catalog, episode.id)
    dropped: dict[str, list[Reason]] = {}
    resolved = [(sequence, shot, _stages(resolver, words, sequence, shot, dropped)) for sequence, shot in episode.shots]
    facts = SoundFacts(registry.digests)
    sounds, cues = placed_sounds(episode, file, facts), planned_cues(episode, file, facts)
    registry.digests.save()
    past = past_takes(catalog, episode.id)
    declared = {shot.id: shot.declares for _, shot in episode.shots}
    verdicts = Verdicts(catalog, episode.id, declared)
    verdicts.look(past, _wanted(resolved))
    holder = Holder(catalog, episode, words)
    shots = [_shot_plan(holder, past, verdicts, *parts, fresh=fresh or new_seeds) for parts in resolved]
    if new_seeds:
        shots = [replace(shot, new_seeds=True) for shot in shots]
    shots = _explained(catalog, shots, verdicts, dropped)
    return Plan(episode, file, file_digest(file), shots, verdicts.judgements, Costs.of(catalog, registry), sounds, cues)


def _stages(
    resolver: Resolver, words: Words, sequence: EpisodeSequence, shot: Shot, dropped: dict[str, list[Reason]]
) -> tuple[StagePlan, ...]:
    """The shot's stages, with what retakes changed. What no longer applies, or no longer fits, is added to `dropped`."""
    parts = resolver.episode, sequence, shot
    overrides, outdated = words.overrides(shot.id, lambda: (written(*parts), written_before(*parts)))
    if outdated:
        dropped[shot.id] = outdated
    if not overrides:
        return resolver.stages(sequence, shot)
    try:
        return resolver.stages(sequence, shot, overrides)
    except InputError as error:  # it fitted when it was said: a workflow has changed since
        stages = resolver.stages(sequence, shot)
        dropped[shot.id] = [one.misfit(str(error)) for one in words.changed[shot.id]]
        return stages


def _wanted(resolved: list[tuple[EpisodeSequence, Shot, tuple[StagePlan, ...]]]) -> dict[tuple[str, str], str | None]:
    """(shot, stage) to the inputs whose takes count; None: all takes count.

    The inputs of a later stage depend on the take that it starts from, and that take is not chosen yet.
    """
    every = ((shot.id, i, stage) for _, shot, stages in resolved for i, stage in enumerate(stages))
    return {(shot, stage.stage): None if i else stage.inputs for shot, i, stage in every}


def _shot_plan(
    holder: Holder,
    past: dict[tuple[str, str], list[Past]],
    verdicts: Verdicts,
    sequence: EpisodeSequence,
    shot: Shot,
    stages: tuple[StagePlan, ...],
    *,
    fresh: bool,
) -> ShotPlan:
    history: dict[str, Sequence[Past]] = {stage.stage: verdicts.now(past.get((shot.id, stage.stage), ())) for stage in stages}
    held = holder.held(shot, stages, history, fresh) if holder.rows else Held()
    accepted = list(held.takes)
    for stage in () if fresh else stages[len(accepted) :]:
        take = accepted_take(holder.catalog, history[stage.stage], inputs_from(stage, accepted[-1].media if accepted else None))
        if take is None:
            break
        accepted.append(take)
    return ShotPlan(holder.episode.id, sequence, shot, stages, history, tuple(accepted), len(held.takes), held.reasons, fresh)


def accepted_take(catalog: Catalog, takes: Sequence[Past], inputs: str) -> Past | None:
    """The latest accepted take with exactly these inputs whose media file still exists."""
    for take in reversed(takes):
        wanted = take.outcome == "accepted" and take.inputs == inputs
        if wanted and catalog.media.has(take.media_path, take.media, take.media_bytes, take.committed):
            return take
    return None


def _explained(catalog: Catalog, shots: list[ShotPlan], verdicts: Verdicts, dropped: dict[str, list[Reason]]) -> list[ShotPlan]:
    """The same shots with all their reasons. Only the latest takes of stale shots are read again, to find what changed.

    Args:
        dropped: shot to what of its retakes no longer applies. It is told where it is why a shot, or an approved take, is not as today.
    """
    stale = [s for s in shots if s.stale]
    rows = latest_of_others(catalog, [takes[-1].take for s in stale for takes in s.history.values() if takes])
    explained = []
    for shot in shots:
        outdated = dropped.get(shot.shot.id, []) if shot.stale or any(r.code == "approved" for r in shot.reasons) else []
        found = _reasons(shot, rows, verdicts, bool(outdated)) if shot.stale else [r for take in shot.accepted for r in verdicts.told(take)]
        explained.append(replace(shot, reasons=(*shot.reasons, *outdated, *found)) if outdated or found else shot)
    return explained


def _reasons(shot: ShotPlan, rows: dict[str, Row], verdicts: Verdicts, explained: bool) -> list[Reason]:
    """Why the first stage without a valid take must be rendered. explained: something else says it already."""
    missing = shot.todo[0]
    stage, takes, start = missing.stage, shot.history[missing.stage], shot.accepted[-1].media if shot.accepted else None
    if shot.fresh:
        return [Reason(stage, "fresh", "takes with new seeds were asked for" if shot.new_seeds else "fresh takes were asked for")]
    if not takes:
        return [Reason(stage, "new", f"no {stage} yet")]
    inputs = inputs_from(missing, start)
    same = [p for p in takes if p.inputs == inputs]
    asked = _asked((same or takes)[-1])
    if not same:
        row = rows[takes[-1].take]
        found = changes(row, missing, shot.shot.variation)
        if start and row["keyframe_media"] != start:
            found.append(("upstream_changed", f"its {shot.stages[len(shot.accepted) - 1].stage} changed"))
        # Rows tell no LoRA's weight: where a shot has LoRAs and all that rows tell is the same, it is the likely cause.
        such_as = ", such as the weight of a LoRA" if missing.loras else ""
        if not found and not asked and not explained:
            found = [("inputs_changed", f"what the {stage} is made from changed{such_as}")]
        return asked + [Reason(stage, code, text) for code, text in found]
    if any(p.outcome == "accepted" for p in same):
        return [Reason(stage, "media_gone", f"the {stage}'s file is gone or damaged")]
    flipped = [r for p in same for r in verdicts.told(p)]
    return asked or flipped[-1:] or [Reason(stage, "none_accepted", f"no {stage} was accepted yet ({len(same)} takes)")]


def _asked(take: Past) -> list[Reason]:
    """The reason, if a person asked for a retake of this take; else an empty list."""
    if take.review != "retake":
        return []
    who, note = f" by {take.by}" if take.by else "", f": {take.note}" if take.note else ""
    return [Reason(take.stage, "retake", f"a retake of the {take.stage} was asked for{who}{note}")]


def select(plan: Plan, only: Iterable[str]) -> Plan:
    """The plan, reduced to these shots and sequences; the whole plan if none is named.

    Raises:
        InputError: the plan has no shot or sequence of that name.
    """
    wanted = {w for w in only if w}
    if not wanted:
        return plan
    known = {s.shot.id for s in plan.shots} | {s.sequence.id for s in plan.shots}
    unknown = sorted(wanted - known)
    if unknown:
        raise InputError(f"--only {unknown[0]}: {plan.file} has no such shot or sequence; it has {', '.join(sorted(known)[:40])}")
    return replace(plan, shots=[s for s in plan.shots if s.shot.id in wanted or s.sequence.id in wanted])


def as_rows(plan: Plan, shots: Iterable[ShotPlan]) -> list[dict[str, Any]]:
    """One row for each shot, for `tower plan`."""
    return [
        {
            "shot": s.shot.id,
            "sequence": s.sequence.id,
            "state": _state(s),
            **{x.stage: "keep" if i < len(s.accepted) else "given" if x.given else "render" for i, x in enumerate(s.stages)},
            "why": [{"stage": r.stage, "code": r.code, "text": r.text} for r in s.reasons],
            "gpu_minutes": plan.gpu_minutes(s),
            "workflows": [stage.ready.name for stage in s.stages],
        }
        for s in shots
    ]


def _state(shot: ShotPlan) -> str:
    judged = any(r.code in ("profile_changed", "declares_changed") for r in shot.reasons)
    return "stale" if shot.stale else "rejudge" if judged else "clean"
