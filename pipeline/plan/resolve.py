"""Resolve what a shot is made from: prompts, workflows, files and their digests. An unknown name or a missing file is an error here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from actors.prompt_text import Weights, pieces
from actors.upscaler_files import check_reduces
from actors.values import Lora, ModelError, ModelFiles
from gates.rules import Profile
from pipeline.registry.files import inside
from pipeline.registry.fit import lora_of, misfit
from pipeline.registry.workflows import Ready, Registry
from pipeline.story.episode import Episode, Sequence, Shot
from pipeline.story.errors import InputError
from pipeline.story.fingerprint import SEEDS, FileDigests, digest, file_digest, seed_for, text_digest
from pipeline.story.fit import fills
from pipeline.story.letters import face
from pipeline.story.prompt import compose, compose_negative
from pipeline.story.rate import exact
from pipeline.story.settings import Settings
from pipeline.story.stages import MANY, STAGES, StageName
from pipeline.story.title import check_title
from pipeline.story.workflow import Workflow

from .guides import Guide, first_of, guides_of
from .words import Overrides

AS_WRITTEN, NOTHING = Overrides(), MappingProxyType[StageName, Overrides]({})


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage of one shot: everything that decides its pixels but the take's variation, from which the seed derives.

    parameters: values that the shot sets in place of the workflow's. reference_files: path and SHA-256 of the files that the shot itself
    brings: its characters' LoRAs, further keyframes, or the given picture. inputs: digest of all of this. It lacks the take that the
    stage starts from, which `inputs_from` adds. given: a person's picture, which is judged in place of a rendered keyframe. given_frame:
    of a clip that stands there instead, the frame. guides: a person's pictures and clips that the clip passes through. seed: what a
    retake asked for; None where the seed derives from names. frames: of a finish, how many its clip has.
    """

    stage: StageName
    ready: Ready
    prompt: str
    negative_prompt: str
    loras: tuple[Lora, ...]
    parameters: tuple[tuple[str, Any], ...]
    reference_files: tuple[tuple[str, str], ...]
    inputs: str
    given: Path | None = None
    given_frame: int | None = None
    guides: tuple[Guide, ...] = ()
    seed: int | None = None
    frames: int = 0

    @property
    def attempts(self) -> int:
        """Number of takes that one run may spend on this stage. What would be the same again is judged once, as a given picture is."""
        return 1 if self.given or not self.workflow.kind.generative else self.workflow.retry.max_attempts

    @property
    def workflow(self) -> Workflow:
        return self.ready.workflow

    @property
    def workflow_digest(self) -> str:
        return self.ready.digest

    @property
    def files(self) -> ModelFiles:
        return self.ready.files

    @property
    def profile(self) -> Profile:
        return self.ready.profile


def inputs_from(stage: StagePlan, media: str | None) -> str:
    """Digest of a stage's inputs and of the take that it starts from.

    Args:
        media: SHA-256 of that take's media file; None for the first stage, which starts from no take.
    """
    return stage.inputs if media is None else text_digest(f"{stage.inputs}/{media}")


def seed_of(stage: StagePlan, episode: str, shot: Shot, variation: int) -> int:
    """The seed of a take, 0 to SEEDS - 1. Where a retake asked for a seed, variation 0 has that one, and each further one adds 1."""
    if stage.seed is None:
        return seed_for(episode, shot.id, stage.stage, shot.variation, variation)
    return (stage.seed + variation) % SEEDS


class Resolver:
    """Resolves the shots of one episode. Each workflow and each model file is read once."""

    def __init__(self, episode: Episode, file: Path, settings: Settings, registry: Registry):
        self.episode, self.file, self.settings, self.registry = episode, file, settings, registry
        self.digests: FileDigests = registry.digests
        self.name, self.everybodys = str(file), {episode.workflow_of(None, stage) for stage in STAGES}
        self.ready = cache(self._ready)
        self.negative = cache(lambda negative: compose_negative(episode, negative))
        self.fixed = cache(lambda *parts: digest(parts))  # cached: most shots of a workflow differ only in prompt and variation
        self.words = cache(check_words)
        self.font = font_of(episode, file)

    def stages(self, sequence: Sequence, shot: Shot, overrides: Mapping[StageName, Overrides] = NOTHING) -> tuple[StagePlan, ...]:
        """The shot's stages, in the order of the chain.

        Args:
            overrides: what stages are made with in place of what the shot says.

        Raises:
            InputError: a workflow, file or parameter does not fit, or the shot is longer than its clip.
        """
        where = f"{self.name}: shot {shot.id}"
        loras = self._loras(where, shot)
        prompt = compose(self.episode, sequence, shot)
        if not prompt:
            raise InputError(f"{where}: the prompt is empty; give the shot an action, characters or a location")
        given = given_keyframe(self.file, shot.keyframe, where) if shot.keyframe else None
        stages = tuple(
            self._stage(name, where, shot, prompt, loras, given if i == 0 else None, overrides.get(name, AS_WRITTEN))
            for i, name in enumerate(self.episode.stages_of(shot))
        )
        for lora in loras:
            if not any(lora in stage.loras for stage in stages):
                raise InputError(f"{where}: LoRA {lora.file} {misfit(lora.file, stages[0].workflow.kind)}")
        if shot.keyframes:
            stages = self._guided(where, shot, stages)
        self._check_length(where, shot, stages[1].workflow)
        if len(stages) > 2:
            stages = self._finished(where, *stages)
        if shot.title:
            check_title(shot.title, self.font, where, (self.episode.width, self.episode.height))
        return stages

    def _stage(
        self, stage: StageName, where: str, shot: Shot, prompt: str, loras: tuple[Lora, ...], given: Path | None, overrides: Overrides
    ) -> StagePlan:
        ref = self.episode.workflow_of(shot, stage)
        assert ref
        ready = self.ready(ref, stage, where if ref not in self.everybodys else self.name)
        flow = ready.workflow
        prompt = prompt if overrides.prompt is None else overrides.prompt
        wanted = {**shot.parameters_of(stage), **overrides.parameters}
        parameters = tuple(flow.with_parameters(wanted, f"{where}: {stage}_parameters").items()) if wanted else ()
        if not flow.kind.generative:
            return StagePlan(stage, ready, "", "", (), parameters, (), self.fixed(stage, ready.digest, parameters))
        used = tuple(x for x in loras if not misfit(x.file, flow.kind)) if flow.kind.shots_loras else ()
        negative = self.negative(flow.negative_prompt)
        if given:
            references = ((given.name, file_digest(given)),)
            inputs = digest(["given", references[0][1], flow.width, flow.height])
            return StagePlan(stage, ready, prompt, negative, used, parameters, references, inputs, given)
        for text, field in ((prompt, "prompt"), (negative, "negative prompt")):
            self.words(flow.prompt_weights, tuple(flow.embeddings), text, f"{where}: {field}, for workflow {flow.name}")
        references = tuple((x.file, self.digests.of(Path(x.file))) for x in used)  # type: ignore[assignment]
        weights = tuple(x.weight for x in used)
        fixed = self.fixed(stage, negative, ready.digest, references, weights, parameters)
        inputs = text_digest(f"{fixed}/{shot.variation}/{prompt}")
        if overrides.seed is not None:
            inputs = digest([inputs, overrides.seed])
        return StagePlan(stage, ready, prompt, negative, used, parameters, references, inputs, seed=overrides.seed)

    def _guided(self, where: str, shot: Shot, stages: tuple[StagePlan, ...]) -> tuple[StagePlan, ...]:
        """The stages, of which the clip passes through the shot's further keyframes; the first is given where a clip is the start."""
        still, clip, *after = stages
        guides = guides_of(self.file, shot, where, clip.workflow, clip.files)
        files = tuple((str(guide.path.name), guide.digest) for guide in guides)
        inputs = digest([clip.inputs, *(guide.inputs for guide in guides)])
        if (first := first_of(guides)) is not None:
            flow, start = still.workflow, (first.path.name, first.digest)
            given = digest(["given", first.digest, flow.width, flow.height, first.start])
            still = replace(still, reference_files=(start,), inputs=given, given=first.path, given_frame=first.start)
        return still, replace(clip, reference_files=clip.reference_files + files, inputs=inputs, guides=guides), *after

    def _finished(self, where: str, still: StagePlan, clip: StagePlan, finish: StagePlan) -> tuple[StagePlan, ...]:
        """The stages, of which the finish knows how long its clip is."""
        made, wanted = clip.workflow, finish.workflow
        assert made.num_frames and wanted.scale
        try:
            check_reduces((made.width, made.height), wanted.scale, (wanted.width, wanted.height))
        except ModelError as error:
            raise InputError(f"{where}: workflows {made.name} and {wanted.name} do not fit together: {error}") from error
        return still, clip, replace(finish, frames=made.num_frames)

    def _ready(self, ref: str, stage: StageName, asked_by: str) -> Ready:
        workflow = self.registry.resolve(ref, asked_by)
        if workflow.stage != stage:
            made, wanted = MANY[workflow.stage], MANY[stage]
            raise InputError(f"{asked_by}: {stage}_workflow {ref!r} makes {made}; a workflow that makes {wanted} is wanted")
        return self.registry.prepare(workflow)

    def _loras(self, where: str, shot: Shot) -> tuple[Lora, ...]:
        """The LoRAs of the shot's characters. One that several have, such as twins, is on once."""
        found: dict[str, Lora] = {}
        for name in shot.characters:
            if self.episode.characters[name].lora:
                lora = self._lora(where, name)
                if (other := found.setdefault(lora.file, lora)) != lora:
                    weights = f"weights {other.weight:g} and {lora.weight:g}"
                    raise InputError(f"{where}: its characters name LoRA {lora.file} with {weights}; in one shot it has one weight")
        return tuple(found.values())

    def _lora(self, where: str, character: str) -> Lora:
        lora = self.episode.characters[character].lora
        assert lora
        return lora_of(f"{where}: character {character}: lora", self.settings, lora.file, lora.weight)

    def _check_length(self, where: str, shot: Shot, workflow: Workflow) -> None:
        assert workflow.num_frames and workflow.fps
        rates, first = (exact(workflow.fps), self.episode.fps), shot.first_frame
        moving = fills("trim", workflow.num_frames, *rates)
        if shot.fit == "hold" and moving is not None and first >= moving:
            raise InputError(f"{where}: first_frame {first} lies behind the {moving} frames that workflow {workflow.name} makes")
        have = fills(shot.fit, workflow.num_frames, *rates)
        if have is not None and first + shot.frames > have:
            behind = f" after the first {first}" if first else ""
            raise InputError(
                f"{where}: frames {shot.frames}{behind} are more than the {have} that workflow {workflow.name} makes; "
                f"shorten the shot, or set fit: hold or fit: stretch"
            )


def check_words(weights: Weights, embeddings: tuple[str, ...], text: str, where: str) -> None:
    """Raises InputError where a text holds what would be read as plain words and is meant otherwise."""
    try:
        pieces(text, weights)
    except ModelError as error:
        raise InputError(f"{where}: {error}") from error
    for name in re.findall(r"(?<!\w)embedding:\s*([\w.-]+)", text, re.IGNORECASE):
        if name.lower() not in map(str.lower, embeddings):
            known = ", ".join(embeddings) or "none"
            raise InputError(f"{where}: embedding {name!r} would be read as plain words; the workflow's embeddings are {known}")


def given_keyframe(file: Path, name: str, where: str) -> Path:
    """Path of the still that an episode file gives for a shot.

    Raises:
        InputError: the still is missing, lies outside the episode's folder, is not a readable picture, or is an animation.
    """
    from gates.still import Undecodable, read_still

    path = inside(file.absolute().parent, name, f"{where}: keyframe")
    if not path.is_file():
        raise InputError(f"{where}: keyframe: file {path} does not exist")
    try:
        still = read_still(path)
    except Undecodable as error:
        raise InputError(f"{where}: keyframe: file {path} is not a picture that can be read: {error}") from error
    if still.frames > 1:
        raise InputError(f"{where}: keyframe: file {path} is an animation of {still.frames} pictures; a keyframe is one")
    if not still.finite:
        raise InputError(f"{where}: keyframe: file {path} holds values that are no numbers")
    return path


def font_of(episode: Episode, file: Path) -> Path | None:
    """Path of the episode's title font; None for the built-in font.

    Raises:
        InputError: the font is missing, cannot be read, or lies outside the episode's folder.
    """
    if episode.title_font is None:
        return None
    path = inside(file.absolute().parent, episode.title_font, f"{file}: title_font")
    if not path.is_file():
        raise InputError(f"{file}: title_font: file {path} does not exist")
    try:
        face(path, 32)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return path
