"""The plan: every shot's prompts, workflows and inputs, and which of its takes still hold.

Everything that can be wrong with names and files is found here, before Ray starts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from actors.files import check_folder, check_frames, check_size
from actors.values import Lora, ModelError, ModelFiles
from catalog.store import Catalog
from catalog.views import accepted_take, takes_of
from gates.decode import Undecodable, read_still
from gates.rules import Profile

from .episode import Episode, Sequence, Shot
from .errors import InputError
from .fingerprint import FileDigests, digest, file_digest
from .profile import load_profile
from .prompt import compose, compose_negative
from .settings import PROJECT, Settings
from .title import check_title
from .workflow import Workflow, load_workflow

DEMO = PROJECT / "actors" / "demo"
Row = dict[str, Any]


@dataclass(frozen=True)
class StagePlan:
    """One stage of one shot: everything that decides its pixels, but the seed's variation.

    inputs: digest of it all; for clips without the keyframe, which `clip_inputs` adds when it is known.
    """

    stage: Literal["keyframe", "clip"]
    workflow: Workflow
    workflow_digest: str
    files: ModelFiles
    prompt: str
    negative_prompt: str
    loras: tuple[Lora, ...]
    profile: Profile
    inputs: str


@dataclass(frozen=True)
class ShotPlan:
    episode: str
    sequence: Sequence
    shot: Shot
    keyframe: StagePlan
    clip: StagePlan
    given_keyframe: Path | None
    history: dict[str, list[Row]]  # stage -> takes so far, oldest first
    accepted_keyframe: Row | None
    accepted_clip: Row | None
    why: str
    fresh: bool = False  # takes of earlier runs count for nothing but their numbers

    @property
    def stale(self) -> bool:
        return self.accepted_clip is None


@dataclass(frozen=True)
class Plan:
    episode: Episode
    file: Path
    file_digest: str
    shots: list[ShotPlan]

    @property
    def stale(self) -> list[ShotPlan]:
        return [s for s in self.shots if s.stale]


def make_plan(episode: Episode, file: Path, settings: Settings, catalog: Catalog, fresh: bool = False) -> Plan:
    """What holds and what must be rendered.

    Args:
        fresh: take nothing from the catalog as accepted.

    Raises:
        InputError: a workflow, checkpoint, LoRA or picture is missing or cannot fit.
    """
    digests = FileDigests(catalog.root / "model-digests.json")
    planner = _Planner(episode, file, settings, digests)
    history = takes_of(catalog, episode.id)
    shots = []
    for sequence, shot in episode.shots:
        keyframe, clip, given = planner.stages(sequence, shot)
        takes = {stage: history.get((shot.id, stage), []) for stage in ("keyframe", "clip")}
        shots.append(_with_takes(catalog, episode.id, sequence, shot, keyframe, clip, given, takes, fresh))
    digests.save()
    return Plan(episode, file, file_digest(file), shots)


def clip_inputs(clip: StagePlan, keyframe_media: str) -> str:
    """A clip's inputs with the keyframe that it starts from."""
    return digest([clip.inputs, keyframe_media])


def _with_takes(
    catalog: Catalog,
    episode: str,
    sequence: Sequence,
    shot: Shot,
    keyframe: StagePlan,
    clip: StagePlan,
    given: Path | None,
    takes: dict[str, list[Row]],
    fresh: bool,
) -> ShotPlan:
    still = None if fresh else accepted_take(catalog, takes["keyframe"], keyframe.inputs)
    moving = None if fresh or still is None else accepted_take(catalog, takes["clip"], clip_inputs(clip, still["media"]))
    return ShotPlan(episode, sequence, shot, keyframe, clip, given, takes, still, moving, _why(takes, still, moving, fresh), fresh)


def _why(takes: dict[str, list[Row]], still: Row | None, moving: Row | None, fresh: bool) -> str:
    if moving:
        return "accepted"
    if fresh:
        return "fresh takes were asked for"
    stage = "clip" if still else "keyframe"
    if not takes[stage]:
        return f"no {stage} yet"
    if any(t["outcome"] == "accepted" for t in takes[stage]):
        return f"what the {stage} is made from has changed, or its file is gone"
    return f"no {stage} was accepted yet ({len(takes[stage])} takes)"


class _Planner:
    """Resolves names and files; each workflow and file is checked once."""

    def __init__(self, episode: Episode, file: Path, settings: Settings, digests: FileDigests):
        self.episode, self.file, self.settings, self.digests = episode, file, settings, digests
        self.workflows: dict[str, tuple[Workflow, str, ModelFiles]] = {}

    def stages(self, sequence: Sequence, shot: Shot) -> tuple[StagePlan, StagePlan, Path | None]:
        where = f"{self.file}: shot {shot.id}"
        loras = tuple(self._lora(where, name) for name in shot.characters if self.episode.characters[name].lora)
        keyframe = self._stage("keyframe", sequence, shot, shot.keyframe_workflow or self.episode.keyframe_workflow, where, loras)
        clip_name = shot.clip_workflow or self.episode.clip_workflow
        clip = self._stage("clip", sequence, shot, clip_name, where, loras)
        self._length(where, shot, clip.workflow)
        self._title(where, shot)
        given = self._given(where, shot.keyframe)
        if given:
            keyframe = StagePlan(
                **{**keyframe.__dict__, "inputs": digest(["given", file_digest(given), keyframe.workflow.width, keyframe.workflow.height])}
            )
        return keyframe, clip, given

    def _stage(
        self, stage: Literal["keyframe", "clip"], sequence: Sequence, shot: Shot, name: str, where: str, loras: tuple[Lora, ...]
    ) -> StagePlan:
        workflow, workflow_digest, files = self._workflow(name, where)
        if workflow.stage != stage:
            raise InputError(f"{where}: {stage}_workflow {name!r} makes {workflow.stage}s; a workflow that makes {stage}s is wanted")
        used = loras if workflow.family != "ltx_video" else ()
        prompt = compose(self.episode, sequence, shot)
        negative = compose_negative(self.episode, workflow.negative_prompt)
        if not prompt:
            raise InputError(f"{where}: the prompt is empty; give the shot an action, characters or a location")
        lora_digests = [[self.digests.of(Path(x.file)), x.weight] for x in used]
        inputs = digest([stage, prompt, negative, workflow_digest, lora_digests, shot.variation])
        profile = load_profile(workflow.gates, f"workflow {workflow.name}: gates")
        return StagePlan(stage, workflow, workflow_digest, files, prompt, negative, used, profile, inputs)

    def _workflow(self, name: str, where: str) -> tuple[Workflow, str, ModelFiles]:
        if name not in self.workflows:
            workflow = load_workflow(name, where)
            files = files_of(workflow, self.settings)
            check_files(workflow, files)
            identity = [workflow.model_dump(exclude={"description", "retry", "gates"}), self.digests.of(Path(files.checkpoint))]
            identity += [self.digests.of(Path(x)) for x in (files.motion_adapter, *(x.file for x in files.loras)) if x]
            self.workflows[name] = workflow, digest(identity), files
        return self.workflows[name]

    def _lora(self, where: str, character: str) -> Lora:
        lora = self.episode.characters[character].lora
        assert lora
        return lora_file(f"{where}: character {character}: lora", self.settings, lora.file, lora.weight)

    def _given(self, where: str, name: str | None) -> Path | None:
        if name is None:
            return None
        path = _inside(self.file.absolute().parent, name, f"{where}: keyframe")
        if not path.is_file():
            raise InputError(f"{where}: keyframe: file {path} does not exist")
        try:
            read_still(path)
        except Undecodable as error:
            raise InputError(f"{where}: keyframe: file {path} is not a picture that can be read: {error}") from error
        return path

    def _length(self, where: str, shot: Shot, workflow: Workflow) -> None:
        assert workflow.num_frames and workflow.fps
        have = workflow.num_frames / workflow.fps * self.episode.fps
        if shot.fit == "trim" and shot.frames > have + 1e-6:
            raise InputError(
                f"{where}: frames {shot.frames} are more than the {have:.0f} that workflow {workflow.name} makes; "
                f"shorten the shot, or set fit: hold or fit: stretch"
            )

    def _title(self, where: str, shot: Shot) -> None:
        if shot.title:
            check_title(shot.title, font_of(self.episode, self.file), where)


def font_of(episode: Episode, file: Path) -> Path | None:
    if episode.title_font is None:
        return None
    path = _inside(file.absolute().parent, episode.title_font, f"{file}: title_font")
    if not path.is_file():
        raise InputError(f"{file}: title_font: file {path} does not exist")
    return path


def files_of(workflow: Workflow, settings: Settings) -> ModelFiles:
    """The workflow's paths on this machine."""
    loras = tuple(lora_file(f"workflow {workflow.name}: loras", settings, x.file, x.weight) for x in workflow.loras)
    adapter = str(model_path(settings, workflow.motion_adapter)) if workflow.motion_adapter else None
    return ModelFiles(str(model_path(settings, workflow.checkpoint)), adapter, loras, workflow.dtype)


def model_path(settings: Settings, name: str) -> Path:
    """`demo:NAME` is in actors/demo; anything else starts from the models folder, and stays in it."""
    if name.startswith("demo:"):
        return _inside(DEMO, name.removeprefix("demo:"), "model path")
    return _inside(settings.models_dir, name, "model path")


def lora_file(where: str, settings: Settings, name: str, weight: float) -> Lora:
    path = model_path(settings, name)
    if not path.is_file():
        raise InputError(f"{where}: file {path} does not exist")
    if path.suffix != ".safetensors":
        raise InputError(f"{where}: file {path.name} is not a .safetensors file")
    return Lora(str(path), weight)


def check_files(workflow: Workflow, files: ModelFiles) -> None:
    """The cheap checks: folders, sizes and frame counts. Loading finds the rest, still before anything renders."""
    field = "checkpoint"
    try:
        check_folder(files.checkpoint, "checkpoint")
        field = "width, height"
        check_size(workflow.width, workflow.height, 32 if workflow.family == "ltx_video" else 8)
        field = "num_frames"
        if workflow.family == "ltx_video":
            check_frames(files.checkpoint, workflow.num_frames or 0)
        field = "motion_adapter"
        if files.motion_adapter:
            check_folder(files.motion_adapter, "motion adapter", part="config.json")
    except ModelError as error:
        raise InputError(f"workflow {workflow.name}: {field}: {error}") from error


def _inside(folder: Path, name: str, what: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(f"{what} {name!r} leads outside {folder}; only paths inside it are read")
    return path


def select(plan: Plan, only: Iterable[str]) -> Plan:
    """The plan with only these shots or sequences."""
    wanted = [w for w in only if w]
    if not wanted:
        return plan
    known = {s.shot.id for s in plan.shots} | {s.sequence.id for s in plan.shots}
    unknown = [w for w in wanted if w not in known]
    if unknown:
        raise InputError(f"--only {unknown[0]}: {plan.file} has no such shot or sequence; it has {', '.join(sorted(known))}")
    return Plan(plan.episode, plan.file, plan.file_digest, [s for s in plan.shots if s.shot.id in wanted or s.sequence.id in wanted])
