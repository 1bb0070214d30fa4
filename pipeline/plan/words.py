"""What people said of an episode's takes: the word that holds on each stage of a shot, and what retakes changed.

A word is a review that decides: approved, picked or retake. The latest word on any take of a stage is the word on that stage.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from catalog.standing import Row
from catalog.store import Catalog
from pipeline.story.episode import Episode, Sequence, Shot
from pipeline.story.fingerprint import digest
from pipeline.story.prompt import compose
from pipeline.story.stages import STAGES, StageName

from .history import Reason

WORDS = ("approved", "picked", "retake")
# Fields of a shot that change when its takes are made, how they are shown and what is heard, and nothing of what they are made from.
NOT_MADE = {"priority", "frames", "first_frame", "transition", "fit", "title", "dialogue", "audio", "finish_workflow", "finish_parameters"}


@dataclass(frozen=True, slots=True)
class Word:
    """verdict: one of WORDS. by: who said it, as text for people."""

    take: str
    verdict: str
    at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a stage is made with in place of what the shot says. A field that nobody gave is None, or empty.

    seed: of the first take with these inputs; further variations add to it. parameters: of the stage's workflow.
    """

    seed: int | None = None
    prompt: str | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)

    def told(self) -> str:
        """As text for people: "seed 5, guidance_scale 3"."""
        seed = [f"seed {self.seed}"] if self.seed is not None else []
        prompt = [f"prompt {self.prompt!r}"] if self.prompt is not None else []
        return ", ".join([*seed, *prompt, *(f"{name} {value:g}" for name, value in self.parameters.items())])


@dataclass(frozen=True, slots=True)
class Changed:
    """A retake that changed something. written: digest of the shot as it was written then."""

    stage: StageName
    by: str
    written: str | None
    overrides: Overrides

    @property
    def dropped(self) -> Reason:
        """Why nothing of it applies any more."""
        return self.misfit("the shot was written anew")

    def misfit(self, why: str) -> Reason:
        text = f"what {self.by} gave with the retake of the {self.stage} no longer applies, because {why}: {self.overrides.told()}"
        return Reason(self.stage, "override_dropped", text)


class Words:
    """The words on one episode's takes.

    Args:
        rows: of the table of reviews, oldest first.
    """

    def __init__(self, rows: Iterable[Row]):
        self.on_stage: dict[tuple[str, str], Word] = {}
        self.changed: defaultdict[str, list[Changed]] = defaultdict(list)  # shot to its retakes that changed something, oldest first
        for row in rows:
            if row["verdict"] not in WORDS:
                continue
            _, shot, stage, _ = row["take"].split("/")
            by = row["by"] or "a person"
            self.on_stage[shot, stage] = Word(row["take"], row["verdict"], row["at"], by)
            if row["overrides"]:
                self.changed[shot].append(Changed(stage, by, row["written"], Overrides(**json.loads(row["overrides"]))))

    @classmethod
    def of(cls, catalog: Catalog, episode: str) -> Words:
        return cls(catalog.rows("reviews", episode))

    @property
    def holding(self) -> list[str]:
        """The takes that are approved or picked now."""
        return [word.take for word in self.on_stage.values() if word.verdict != "retake"]

    def overrides(self, shot: str, written: Callable[[], Collection[str]]) -> tuple[dict[StageName, Overrides], list[Reason]]:
        """What each stage of a shot is made with in place of what the shot says, and what no longer applies.

        Of each field, the latest retake holds. A prompt is for its stage and for those after it.

        Args:
            written: gives the digests of the shot as it is written now.
        """
        said = self.changed.get(shot)
        if not said:
            return {}, []
        now = written()
        return combined([one for one in said if one.written in now]), [one.dropped for one in said if one.written not in now]


def combined(said: Iterable[Changed]) -> dict[StageName, Overrides]:
    """What these retakes of one shot, oldest first, change of each stage."""
    fields: defaultdict[StageName, dict[str, object]] = defaultdict(dict)
    for one in said:
        if one.overrides.seed is not None:
            fields[one.stage]["seed"] = one.overrides.seed
        if one.overrides.parameters:
            fields[one.stage]["parameters"] = one.overrides.parameters
        for stage in STAGES[STAGES.index(one.stage) :] if one.overrides.prompt is not None else ():
            fields[stage]["prompt"] = one.overrides.prompt
    return {stage: Overrides(**given) for stage, given in fields.items()}  # type: ignore[arg-type]


def written(episode: Episode, sequence: Sequence, shot: Shot) -> str:
    """Digest of what a shot's takes are made from, as it is written, with its composed prompt."""
    return _digest(episode, sequence, shot, NOT_MADE)


def written_before(episode: Episode, sequence: Sequence, shot: Shot) -> str:
    """As `written`, as catalogs have it that earlier versions wrote: with what changes how takes are shown."""
    return _digest(episode, sequence, shot, {"priority"})


def _digest(episode: Episode, sequence: Sequence, shot: Shot, exclude: set[str]) -> str:
    return digest([shot.model_dump(mode="json", exclude=exclude, exclude_defaults=True), compose(episode, sequence, shot)])
