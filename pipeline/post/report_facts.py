"""What a report tells of an episode: its shots in order, every take with its verdict and its cost, and what people said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from catalog.standing import Row
from catalog.store import Catalog
from catalog.views import clips_that_stand, view
from gates.verdict import Finding
from pipeline.plan.history import shown_takes
from pipeline.story.episode import Episode
from pipeline.story.errors import InputError

COLUMNS = """take, run, "at", sequence, shot, stage, attempt, outcome, gate_outcome, labels, findings, error, review, seed, prompt,
workflow, workflow_version, media, media_path, width, height, frames, fps, upstream, queue_seconds, device_seconds, gate_seconds, device,
model_memory_bytes"""
WORDS = ("approved", "picked")  # of a person on a take that stands
GONE = "No longer in the episode"


@dataclass(frozen=True)
class Word:
    """What a person said of a take: approved, picked, retake or note. frames: what it is about, counted from 1; "" for all."""

    verdict: str
    note: str
    by: str
    at: datetime
    frames: str


@dataclass(frozen=True)
class Take:
    """A take. outcome: accepted, rejected or error, as it holds now. reasons: what the gate found, or the error. Times in seconds.

    gate: what the outcome is without people's words. stands: whether it is the clip that the episode shows.
    status: of its workflow when its run began; "" where it was not recorded.
    """

    take: str
    stage: str
    name: str
    at: datetime
    outcome: str
    gate: str
    stands: bool
    reasons: tuple[str, ...]
    words: tuple[Word, ...]
    seed: int | None
    prompt: str
    workflow: str
    status: str
    device: str
    on_gpu: bool
    queue_seconds: float
    device_seconds: float
    gate_seconds: float
    media: str
    media_path: str
    size: tuple[int, int]
    frames: int
    fps: float
    upstream: str | None
    review: str | None


@dataclass(frozen=True)
class ShotFacts:
    """A shot. state: approved, picked, accepted, retake, rejected or waiting. clip: the take that stands; keyframe: what it began with."""

    id: str
    what: str
    frames: int | None
    state: str
    takes: tuple[Take, ...]
    keyframe: Take | None
    clip: Take | None

    @property
    def device_seconds(self) -> float:
        return sum(take.device_seconds for take in self.takes)


@dataclass(frozen=True)
class SequenceFacts:
    id: str
    title: str
    shots: tuple[ShotFacts, ...]


@dataclass(frozen=True)
class Used:
    """A workflow that takes were made with, and its share of them."""

    workflow: str
    status: str
    takes: int
    accepted: int
    device_seconds: float


@dataclass(frozen=True)
class Facts:
    """An episode. seconds: its length; None where only the catalog is known."""

    id: str
    title: str
    seconds: float | None
    sequences: tuple[SequenceFacts, ...]
    used: tuple[Used, ...]

    @property
    def shots(self) -> list[ShotFacts]:
        return [shot for sequence in self.sequences for shot in sequence.shots]

    @property
    def takes(self) -> list[Take]:
        return [take for shot in self.shots for take in shot.takes]


def gather(catalog: Catalog, name: str, episode: Episode | None) -> Facts:
    """All that the catalog knows of an episode.

    Args:
        name: its id. episode: its file, which has order, titles and lengths; None: order and names are those of the takes.

    Raises:
        InputError: the catalog has no takes of it.
    """
    rows = view(catalog, f'SELECT {COLUMNS} FROM verdicts WHERE episode = $episode ORDER BY verdicts."at"', episode=name).to_pylist()
    if not rows:
        raise InputError(f"the catalog has no takes of episode {name}; `tower render` makes them")
    stands = set((shown_takes(catalog, episode) if episode else clips_that_stand(catalog, name)).values())
    statuses = {row["run"]: row["workflows"] or {} for row in catalog.rows("runs", name) if row["event"] == "started"}
    words = _words(catalog.rows("reviews", name))
    takes: dict[str, list[Take]] = {}
    for row in rows:
        take = _take(row, row["take"] in stands, statuses.get(row["run"], {}), words.get(row["take"], ()))
        takes.setdefault(row["shot"], []).append(take)
    length = float(episode.total_frames / episode.fps) if episode else None
    sequences = _written(episode, takes) if episode else _recorded(rows, takes)
    return Facts(name, " ".join(episode.title.split()) if episode else name, length, tuple(sequences), _used(takes.values()))


def _written(episode: Episode, takes: dict[str, list[Take]]) -> Iterable[SequenceFacts]:
    """The episode's sequences in order; at the end, the shots that it no longer has."""
    for sequence in episode.sequences:
        shots = []
        for shot in sequence.shots:
            people = ", ".join(episode.characters[name].name for name in shot.characters)
            what = ", ".join(filter(None, (people, shot.framing, shot.action, shot.camera)))
            shots.append(_shot(shot.id, what, shot.frames, takes.get(shot.id, []), episode.last_stage_of(shot)))
        yield SequenceFacts(sequence.id, sequence.title, tuple(shots))
    known = {shot.id for _, shot in episode.shots}
    if gone := sorted(set(takes) - known):
        yield SequenceFacts("", GONE, tuple(_shot(shot, "", None, takes[shot]) for shot in gone))


def _recorded(rows: Sequence[Row], takes: dict[str, list[Take]]) -> Iterable[SequenceFacts]:
    latest = {row["shot"]: row["sequence"] for row in rows}
    for sequence, shots in groupby(sorted(latest, key=lambda shot: (latest[shot], shot)), key=lambda shot: latest[shot]):
        yield SequenceFacts(sequence, "", tuple(_shot(shot, "", None, takes[shot]) for shot in shots))


def _shot(shot: str, what: str, frames: int | None, takes: list[Take], last: str | None = None) -> ShotFacts:
    """last: the shot's last stage; None where it is not known."""
    clip = next((take for take in takes if take.stands), None)
    stills = [take for take in takes if take.stage == "keyframe" and take.outcome == "accepted"]
    source = _still_of(clip, takes) or (stills[-1] if stills else None)
    if clip and last in (clip.stage, None):
        made_from = [take for take in takes if take.take == clip.upstream and take.stage != "keyframe"]
        state = next((take.review for take in (clip, *made_from) if take.review in WORDS), "accepted")
    else:
        tried = [take for take in takes if take.stage == last] if clip else takes
        rejected = any(take.outcome != "accepted" for take in tried) if clip else bool(tried)
        state = "retake" if any(take.review == "retake" for take in tried) else "rejected" if rejected else "waiting"
    return ShotFacts(shot, what, frames, state, tuple(takes), source, clip)


def _still_of(take: Take | None, takes: list[Take]) -> Take | None:
    """The keyframe that the take began with; None where the catalog does not know it."""
    while take and take.stage != "keyframe":
        take = next((one for one in takes if one.take == take.upstream), None) if take.upstream else None
    return take


def _take(row: Row, stands: bool, statuses: dict[str, str], words: tuple[Word, ...]) -> Take:
    found = [Finding(**finding | {"frames": tuple(finding["frames"])}) for finding in json.loads(row["findings"] or "[]")]
    reasons = [f"{finding}{_at(finding.frames)}" for finding in found]
    workflow = f"{row['workflow']}@{row['workflow_version']}"
    return Take(
        take=row["take"],
        stage=row["stage"],
        name=f"{row['stage']} v{row['attempt']:03}",
        at=row["at"],
        outcome=row["outcome"],
        gate=row["gate_outcome"],
        stands=stands,
        reasons=tuple(reasons or row["labels"] or ([row["error"]] if row["error"] else [])),
        words=words,
        seed=row["seed"],
        prompt=row["prompt"] or "",
        workflow=workflow,
        status=statuses.get(workflow, ""),
        device=row["device"] or "",
        on_gpu=row["model_memory_bytes"] is not None,
        queue_seconds=row["queue_seconds"] or 0.0,
        device_seconds=row["device_seconds"] or 0.0,
        gate_seconds=row["gate_seconds"] or 0.0,
        media=row["media"] or "",
        media_path=row["media_path"] or "",
        size=(row["width"] or 0, row["height"] or 0),
        frames=row["frames"] or 0,
        fps=row["fps"] or 0.0,
        upstream=row["upstream"],
        review=row["review"],
    )


def _at(frames: Sequence[int]) -> str:
    return f", {shown(frames[0], frames[-1])}" if frames else ""


def shown(first: int, last: int) -> str:
    """Frames for people, who count from 1: `frame 42`, `frames 39–48`. first, last: counted from 0."""
    return f"frame {first + 1}" if first == last else f"frames {first + 1}–{last + 1}"


def _words(reviews: Sequence[Row]) -> dict[str, tuple[Word, ...]]:
    """Take to what was said of it, oldest first."""
    said: dict[str, tuple[Word, ...]] = {}
    for row in reviews:
        first = row["first_frame"]
        frames = "" if first is None else shown(first, first if row["last_frame"] is None else row["last_frame"])
        word = Word(row["verdict"], row["note"] or "", row["by"] or "", row["at"], frames)
        said[row["take"]] = (*said.get(row["take"], ()), word)
    return said


def _used(shots: Iterable[list[Take]]) -> tuple[Used, ...]:
    by_name: dict[str, list[Take]] = {}
    for take in (take for takes in shots for take in takes):
        by_name.setdefault(take.workflow, []).append(take)
    return tuple(
        Used(
            name,
            max(takes, key=lambda take: take.at).status,
            len(takes),
            sum(take.outcome == "accepted" for take in takes),
            sum(take.device_seconds for take in takes),
        )
        for name, takes in sorted(by_name.items())
    )
