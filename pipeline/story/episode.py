"""Episode files: the types, and the checks across their parts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from gates.rules import Declaration

from .audio import Audio
from .dialogue import Line
from .fit import Fit
from .rate import Rate
from .stages import STAGES, StageName
from .written import Name, Text, Written
from .yaml_file import TEMPLATES, Misfit, read_yaml

WorkflowRef = Annotated[
    str,
    Field(
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]{0,63}(@[1-9][0-9]{0,5})?|#[0-9a-f]{8,64})$",
        description="a workflow's name (its newest version), name@version, alias, or # and the beginning of its digest",
    ),
]


class Lora(Written):
    """A LoRA, of a character or of a workflow."""

    file: str = Field(description="safetensors file, relative to TOWER_MODELS_DIR")
    weight: float = Field(1.0, ge=-2, le=2)


class Character(Written):
    """Someone who appears in shots."""

    name: str = Field(description="as people say it")
    description: Text = Field(description="as it goes into prompts: looks and clothes, never the name alone")
    lora: Lora | None = Field(None, description="drawn with this LoRA in keyframes and AnimateDiff clips")


class Location(Written):
    """Somewhere that shots take place."""

    description: Text = Field(description="as it goes into prompts")


class Transition(Written):
    """How a shot begins. A dissolve of n frames lays the shot's first n over the previous shot's last n."""

    type: Literal["cut", "dissolve"] = "cut"
    frames: int = Field(0, ge=0, le=240, description="length, at the episode's fps; 0 for a cut")

    @model_validator(mode="after")
    def _length_fits(self) -> Transition:
        if (self.type == "cut") != (self.frames == 0):
            raise ValueError(f"a {self.type} of {self.frames} frames; a cut has none, a dissolve at least one")
        return self


class Keyframe(Written):
    """A picture, or a part of a clip, that a shot's clip passes through."""

    file: str = Field(description="picture or clip, relative to the episode file")
    frame: int = Field(ge=-1, le=4096, description="of the clip that is made, where it begins; -1: where it ends with the clip")
    strength: float = Field(1.0, gt=0, le=1, description="how closely it is followed; 1: exactly")
    start: int = Field(0, ge=-4096, le=4096, description="of a clip, its first frame that is used; negative: counted from its end")
    frames: int | None = Field(None, ge=1, le=4096, description="of a clip, how many are used; as many as fit if not given")


class Shot(Written):
    """The unit of work. Its length is what the episode shows, apart from what a model generates."""

    id: Annotated[str, Field(pattern=r"^SH[0-9]{4,6}$", description="SH0010, SH0020 … unique in the episode")]
    frames: int = Field(gt=0, le=24 * 600, description="length in the episode, at the episode's fps")
    framing: Text = Field("", description="wide shot, close-up …")
    characters: list[Name] = Field(default_factory=list)
    action: Text = Field("", description="what happens")
    location: Name | None = Field(None, description="the sequence's, if not given")
    time: Text = Field("", description="time of day; the sequence's, if not given")
    camera: Text = Field("", description="camera move")
    transition: Transition = Field(default_factory=Transition, description="how the shot begins")
    fit: Fit = Field(
        "trim",
        description="trim: the clip as it is, which must be long enough; hold: the last frame stands; stretch: the clip is retimed; "
        "on_twos, on_threes: each of its frames is held for two, three of the episode's; flow: in-betweens by optical flow",
    )
    first_frame: int = Field(
        0, ge=0, le=24 * 600, description="where in its clip the shot begins, in frames at the episode's fps; 0: at the clip's beginning"
    )
    title: str | None = Field(None, max_length=80, description="text over the picture")
    keyframe: str | None = Field(None, description="a picture to start from in place of a generated keyframe, relative to the episode file")
    keyframes: list[Keyframe] = Field(
        default_factory=list, description="what else the clip passes through (family ltx_video); a clip at frame 0 replaces the keyframe"
    )
    keyframe_workflow: WorkflowRef | None = None
    clip_workflow: WorkflowRef | None = None
    finish_workflow: WorkflowRef | None = None
    keyframe_parameters: dict[str, float] = Field(default_factory=dict, description="what the keyframe workflow lets a shot change")
    clip_parameters: dict[str, float] = Field(default_factory=dict, description="what the clip workflow lets a shot change")
    finish_parameters: dict[str, float] = Field(default_factory=dict, description="what the finish workflow lets a shot change")
    declares: tuple[Declaration, ...] = Field((), description="what is meant here, so that gates do not take it for a fault")
    variation: int = Field(0, ge=0, le=10**6, description="another number, another seed")
    dialogue: tuple[Line, ...] = Field((), description="what is said, for subtitles and sound")
    audio: tuple[Audio, ...] = Field((), description="sound files that begin in the shot")
    priority: int = Field(0, ge=-100, le=100, description="shots with more are rendered before others; what they look like does not change")

    @model_validator(mode="after")
    def _whole_where_stretched(self) -> Shot:
        if self.fit == "stretch" and self.first_frame:
            raise ValueError(f"'first_frame' is {self.first_frame}, but fit: stretch shows the whole clip; leave one of them out")
        return self

    def parameters_of(self, stage: StageName) -> dict[str, float]:
        """The parameters that the shot sets in place of the values of that stage's workflow."""
        return getattr(self, f"{stage}_parameters")


class Sequence(Written):
    """Shots that belong together."""

    id: Annotated[str, Field(pattern=r"^S[0-9]{3,5}$", description="S010, S020 …")]
    title: str = ""
    location: Name | None = None
    time: Text = ""
    audio: tuple[Audio, ...] = Field((), description="sound files that begin in the sequence")
    shots: list[Shot] = Field(min_length=1)

    @property
    def frames(self) -> int:
        """From the first shot's first frame to the last shot's last, in the cut."""
        return sum(shot.frames for shot in self.shots) - sum(shot.transition.frames for shot in self.shots[1:])


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound file of an episode.

    where: who names it, for error messages. first, frames: of the cut: the first frame, and the number of frames, of what it stands in.
    """

    where: str
    first: int
    frames: int
    audio: Audio


class Episode(Written):
    """A whole episode."""

    model_config = ConfigDict(json_schema_extra=TEMPLATES)

    id: Annotated[str, Field(pattern=r"^E[0-9]{2,4}$", description="E01, E02 …")]
    title: str = Field(max_length=200)
    width: int = Field(ge=64, le=4096, multiple_of=2)
    height: int = Field(ge=64, le=4096, multiple_of=2)
    fps: Rate
    style: Text = Field("", description="ends every prompt")
    negative_prompt: Text = Field("", description="added to every workflow's own")
    keyframe_workflow: WorkflowRef
    clip_workflow: WorkflowRef
    finish_workflow: WorkflowRef | None = Field(None, description="makes clips larger and crisper; without one they stay as they are")
    title_font: str | None = Field(
        None, description="TrueType file for titles, relative to the episode file; needed for letters that the built-in font lacks"
    )
    subtitles: Literal["none", "soft", "burnt"] = Field(
        "soft", description="of the dialogue; soft: files and a track that a player shows or not; burnt: drawn into the picture too"
    )
    loudness: float = Field(-16.0, ge=-40, le=-5, description="of the whole sound, in LUFS (EBU R128, integrated)")
    audio: tuple[Audio, ...] = Field((), description="sound files that begin in the episode")
    characters: dict[Name, Character] = Field(default_factory=dict)
    locations: dict[Name, Location] = Field(default_factory=dict)
    sequences: list[Sequence] = Field(min_length=1)

    @property
    def shots(self) -> list[tuple[Sequence, Shot]]:
        return [(sequence, shot) for sequence in self.sequences for shot in sequence.shots]

    def stages_of(self, shot: Shot) -> list[StageName]:
        """The stages that the shot goes through, in order."""
        return [stage for stage in STAGES if self.workflow_of(shot, stage)]

    def last_stage_of(self, shot: Shot) -> StageName:
        """The stage whose take the episode shows."""
        return self.stages_of(shot)[-1]

    def workflow_of(self, shot: Shot | None, stage: StageName) -> str | None:
        """Reference to the workflow of this stage: the shot's own, else the episode's; None where neither has one.

        Without a shot: the episode's.
        """
        name = f"{stage}_workflow"
        return (getattr(shot, name) if shot else None) or getattr(self, name)

    @property
    def total_frames(self) -> int:
        """Length of the finished episode, in frames. A dissolve of n frames makes two shots overlap by n frames."""
        return sum(shot.frames - shot.transition.frames for _, shot in self.shots)

    @property
    def cut(self) -> Iterator[tuple[Sequence, Shot, int]]:
        """Each shot with its sequence, and the frame of the episode at which it begins. A dissolve begins before the previous shot ends."""
        start = 0
        for sequence, shot in self.shots:
            start -= shot.transition.frames
            yield sequence, shot, start
            start += shot.frames

    @property
    def sounds(self) -> Iterator[Sound]:
        """Every sound file, those of dialogue lines too."""
        for n, audio in enumerate(self.audio, 1):
            yield Sound(f"audio {n}", 0, self.total_frames, audio)
        begun: Sequence | None = None
        for sequence, shot, start in self.cut:
            if sequence is not begun:
                for n, audio in enumerate(sequence.audio, 1):
                    yield Sound(f"sequence {sequence.id}: audio {n}", start, sequence.frames, audio)
                begun = sequence
            for n, audio in enumerate(shot.audio, 1):
                yield Sound(f"shot {shot.id}: audio {n}", start, shot.frames, audio)
            for n, line in enumerate(shot.dialogue, 1):
                if line.sound:
                    yield Sound(f"shot {shot.id}: dialogue {n}", start, shot.frames, line.sound)


def load_episode(path: Path) -> Episode:
    """Read an episode file, and check it across its parts.

    Raises:
        InputError: the file does not fit. The message is one sentence with file, line and shot.
    """
    return read_yaml(path, CheckedEpisode)


class CheckedEpisode(Episode):
    """An episode with unique ids, only defined characters and locations, and dissolves that fit their shots."""

    @model_validator(mode="after")
    def _parts_agree(self) -> CheckedEpisode:
        seen: dict[str, set[str]] = {"sequence": set(), "shot": set()}
        before: Shot | None = None
        for i, sequence in enumerate(self.sequences):
            _new(seen["sequence"], "sequence", sequence.id, "sequences", i, "id")
            for j, shot in enumerate(sequence.shots):
                place = ("sequences", i, "shots", j)
                _new(seen["shot"], "shot", shot.id, *place, "id")
                for name in shot.characters:
                    _known("character", name, list(self.characters), *place, "characters")
                if shot.location or sequence.location:
                    _known("location", shot.location or sequence.location or "", list(self.locations), *place, "location")
                _transition_fits(before, shot, *place, "transition")
                before = shot
        for frames, sounds, loc in _sounds(self):
            _begin_within(sounds, frames, self.fps, *loc)
        return self


def _new(seen: set[str], kind: str, name: str, *loc: int | str) -> None:
    if name in seen:
        raise Misfit(f"{kind} id {name} is defined twice; give every {kind} its own", *loc)
    seen.add(name)


def _known(kind: str, name: str, known: list[str], *loc: int | str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        raise Misfit(
            f"unknown {kind} {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known) or 'none'}"), *loc
        )


def _transition_fits(before: Shot | None, shot: Shot, *loc: int | str) -> None:
    wanted = shot.transition.frames
    if wanted and before is None:
        raise Misfit("the first shot cannot dissolve from anything; begin it with a cut", *loc)
    if wanted and before:
        room = min(before.frames - before.transition.frames, shot.frames)
        if wanted > room:
            raise Misfit(f"a dissolve of {wanted} frames does not fit; {before.id} and {shot.id} leave room for {room}", *loc)


def _sounds(episode: Episode) -> Iterator[tuple[int, Iterable[Audio | Line], tuple[int | str, ...]]]:
    """The length in frames of whatever sounds and lines stand in; these; and their place in the file."""
    if episode.audio:
        yield episode.total_frames, episode.audio, ("audio",)
    for i, sequence in enumerate(episode.sequences):
        if sequence.audio:
            yield sequence.frames, sequence.audio, ("sequences", i, "audio")
        for j, shot in enumerate(sequence.shots):
            if shot.audio:
                yield shot.frames, shot.audio, ("sequences", i, "shots", j, "audio")
            if shot.dialogue:
                yield shot.frames, shot.dialogue, ("sequences", i, "shots", j, "dialogue")


def _begin_within(sounds: Iterable[Audio | Line], frames: int, fps: Fraction, *loc: int | str) -> None:
    for i, sound in enumerate(sounds):
        if sound.start * fps >= frames:
            what = f"{loc[-1]}: number {i + 1} starts at {sound.start:g} s, and all that it stands in lasts {float(frames / fps):g} s"
            raise Misfit(f"{what}; give it an earlier start", *loc, i, "start")
