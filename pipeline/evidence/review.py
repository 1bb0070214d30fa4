"""Reviews: a person's word on a take, or a note about it. The rules are here, for the terminal and for the service."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from getpass import getuser
from pathlib import Path
from typing import Any

from catalog.standing import Row
from catalog.store import Catalog
from catalog.views import view
from pipeline.plan.resolve import Resolver
from pipeline.plan.stories import laid_out
from pipeline.plan.words import WORDS, Changed, Overrides, Words, combined, written
from pipeline.registry.workflows import Registry
from pipeline.story.episode import Episode, Sequence, Shot
from pipeline.story.errors import InputError
from pipeline.story.fingerprint import SEEDS
from pipeline.story.prompt import one_line
from pipeline.story.settings import Settings
from pipeline.story.stages import STAGES

VERDICTS = (*WORDS, "note")
NOTE, NAME, PROMPT, POINTS = 2_000, 100, 10_000, 5_000  # most letters of a note, a name and a prompt; most points of a drawing

Drawing = list[list[list[float]]]  # lines, each a list of points [x, y], in shares of width and height


@dataclass(frozen=True)
class Said:
    """What a person says of a take.

    verdict: approved, picked, retake or note. by: who; "" is the current user. first_frame, last_frame: what the note is about, from 0;
    None: the whole take. drawing: over first_frame. seed, prompt, parameters: for a retake, what the next take of the stage is made with.
    """

    take: str
    verdict: str
    note: str = ""
    by: str = ""
    first_frame: int | None = None
    last_frame: int | None = None
    drawing: Drawing | None = None
    seed: int | None = None
    prompt: str | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)

    @property
    def changes(self) -> bool:
        """Whether the next take is made otherwise than the shot says."""
        return self.seed is not None or self.prompt is not None or bool(self.parameters)


def say(catalog: Catalog, settings: Settings, said: Said, episode: Episode | None = None, file: Path | None = None) -> Row:
    """Record what a person says of a take. Returns the row.

    Args:
        episode, file: the episode as it is written now, and its file, where other files are looked for. What a retake changes is checked
            with them; not given, with the latest story of the episode in the catalog.

    Raises:
        InputError: there is no such take, the take cannot be what is said of it, or what the retake changes does not fit. Nothing is
            recorded then.
    """
    if said.verdict not in VERDICTS:
        raise InputError(f"{said.take}: verdict {said.verdict!r} is none of {', '.join(VERDICTS)}")
    _check_text(said)
    takes = takes_of_stage(catalog, said.take)
    take = next((t for t in takes if t["take"] == said.take), None)
    if take is None:
        raise InputError(f"the catalog has no take {said.take!r}")
    if said.verdict in ("approved", "picked"):
        _check_can_stand(catalog, take, said.verdict)
    row = {"take": said.take, "episode": take["episode"], "verdict": said.verdict, "note": said.note or None, "by": said.by or getuser()}
    row |= _frames(said, take)
    if said.verdict == "retake":
        row["attempts"] = max(t["attempt"] for t in takes)
    if said.changes:
        row |= _changes(catalog, settings, said, take, episode, file)
    return catalog.append_later("reviews", [row])[0]


def reviews(catalog: Catalog, episode: str, shot: str | None = None) -> list[Row]:
    """What was said of an episode's takes, or of one shot's, newest first."""
    found = [told(row) for row in reversed(catalog.rows("reviews", episode))]
    return [row for row in found if shot in (None, row["shot"])]


def told(row: Row) -> Row:
    """A row of the table, with its shot and stage, and its JSON as values."""
    _, shot, stage, _ = row["take"].split("/")
    values = {name: json.loads(row[name]) if row[name] else None for name in ("drawing", "overrides")}
    return {**row, "shot": shot, "stage": stage, **values}


def takes_of_stage(catalog: Catalog, take: str) -> list[Row]:
    """The takes of the same stage of the same shot, in the order of their attempts. Empty for an id that is none."""
    parts = take.split("/")
    if len(parts) != 4:
        return []
    query = "SELECT * FROM verdicts WHERE episode = $episode AND shot = $shot AND stage = $stage ORDER BY attempt"
    named = dict(zip(("episode", "shot", "stage"), parts, strict=False))
    return view(catalog, query, **named).to_pylist(maps_as_pydicts="strict")


def usual_take(catalog: Catalog, episode: str, shot: str, stage: str) -> Row:
    """The take that a word without a take is about: the one that a person chose, else the latest that is accepted or was sent back.

    Raises:
        InputError: there is no such stage or no such take.
    """
    if stage not in STAGES:
        raise InputError(f"--stage {stage!r} is none of {', '.join(STAGES)}")
    takes = takes_of_stage(catalog, f"{episode}/{shot}/{stage}/")
    takes = [t for t in takes if t["outcome"] == "accepted" or t["review"] == "retake"]
    word = Words.of(catalog, episode).on_stage.get((shot, stage))
    chosen = [t for t in takes if word and word.verdict != "retake" and t["take"] == word.take and t["outcome"] == "accepted"]
    if not takes:
        raise InputError(f"the catalog has no accepted {stage} of episode {episode}, shot {shot}; --take names any")
    return (chosen or takes)[-1]


def _check_text(said: Said) -> None:
    for text, most, name in ((said.note, NOTE, "note"), (said.by, NAME, "name"), (said.prompt or "", PROMPT, "prompt")):
        if len(text) > most:
            raise InputError(f"{said.take}: the {name} has {len(text)} letters; {most} are the most")
        if not _is_text(text):
            raise InputError(f"{said.take}: the {name} is not text in UTF-8")
    if said.verdict == "note" and not (said.note or said.drawing):
        raise InputError(f"{said.take}: a note says something or draws something")


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_can_stand(catalog: Catalog, take: Row, verdict: str) -> None:
    """Check that the take may be approved or picked.

    Raises:
        InputError: it has no file, or a gate rejects what is picked.
    """
    if take["outcome"] == "error":
        raise InputError(f"{take['take']} ended in an error and has no file; nobody can look at it")
    if not catalog.media.has(take["media_path"], take["media"], take["media_bytes"], take["at"].timestamp()):
        raise InputError(f"{take['take']} has lost its file; `tower render` makes it again")
    if verdict == "picked" and take["gate_outcome"] != "accepted":
        raise InputError(f"{take['take']} is rejected for {', '.join(take['labels'] or ())}; approve it, if it is as wanted")


def _frames(said: Said, take: Row) -> Row:
    """The columns that say which frames are meant.

    Raises:
        InputError: they lie outside the take, or the drawing is none.
    """
    count, first = take["frames"] or 1, said.first_frame
    if said.drawing and first is None and count == 1:
        first = 0
    last = first if said.last_frame is None else said.last_frame
    if first is None and (last is not None or said.drawing):
        raise InputError(f"{said.take}: {'a drawing' if said.drawing else 'a last frame'} needs a first frame")
    if first is not None and last is not None and not 0 <= first <= last < count:
        raise InputError(f"{said.take}: frames {first} to {last} are not in order inside its {count} frames, 0 to {count - 1}")
    drawing = json.dumps(_checked(said.take, said.drawing)) if said.drawing else None
    return {"first_frame": first, "last_frame": last, "drawing": drawing}


def _checked(take: str, drawing: Any) -> Drawing:
    points = [point for line in _listed(drawing) for point in _listed(line)]
    if not points or not all(_listed(drawing)) or not all(_is_point(point) for point in points):
        raise InputError(f"{take}: a drawing is a list of lines, each a list of points [x, y] with both in 0 to 1")
    if len(points) > POINTS:
        raise InputError(f"{take}: the drawing has {len(points)} points; {POINTS} are the most")
    return drawing


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list | tuple) else ()


def _is_point(value: Any) -> bool:
    pair = list(_listed(value))
    return len(pair) == 2 and all(isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x <= 1 for x in pair)


def _changes(catalog: Catalog, settings: Settings, said: Said, take: Row, episode: Episode | None, file: Path | None) -> Row:
    """The columns that say what a retake changes.

    Raises:
        InputError: it is no retake, the story is not known, or what is changed does not fit it.
    """
    if said.verdict != "retake":
        raise InputError(f"{said.take}: a seed, a prompt and parameters are for a retake, and not for {said.verdict}")
    if said.seed is not None and not 0 <= said.seed < SEEDS:
        raise InputError(f"{said.take}: seed {said.seed} is not in 0 to {SEEDS - 1}")
    prompt = None if said.prompt is None else one_line(said.prompt.strip())
    if prompt == "":
        raise InputError(f"{said.take}: the prompt is empty; leave it out to keep the shot's")
    with _as_written(catalog, take, episode, file) as (episode, file):
        sequence, shot = _shot(episode, file, take)
        changed = Changed(take["stage"], said.by, written(episode, sequence, shot), Overrides(said.seed, prompt, dict(said.parameters)))
        _check_fit(catalog, settings, changed, episode, file, sequence, shot)
    overrides = {"seed": said.seed, "prompt": prompt, "parameters": dict(said.parameters) or None}
    given = {name: value for name, value in overrides.items() if value is not None}
    return {"overrides": json.dumps(given, ensure_ascii=False), "written": changed.written}


@contextmanager
def _as_written(catalog: Catalog, take: Row, episode: Episode | None, file: Path | None) -> Iterator[tuple[Episode, Path]]:
    """The episode and its file, as they are given; else as the catalog has them, laid out for a while.

    Raises:
        InputError: neither is there.
    """
    if episode and file:
        yield episode, file
        return
    with laid_out(catalog, take["episode"]) as story:
        if story is None:
            raise InputError(f"{take['take']}: what a retake changes is checked with the story; give the episode's file in place of its id")
        yield story


def _shot(episode: Episode, file: Path, take: Row) -> tuple[Sequence, Shot]:
    if episode.id != take["episode"]:
        raise InputError(f"{take['take']}: {file} is episode {episode.id}")
    found = [(sequence, shot) for sequence, shot in episode.shots if shot.id == take["shot"]]
    if not found:
        raise InputError(f"{take['take']}: {file} has no shot {take['shot']}")
    return found[0]


def _check_fit(
    catalog: Catalog, settings: Settings, changed: Changed, episode: Episode, file: Path, sequence: Sequence, shot: Shot
) -> None:
    """Check what a retake changes as a plan would, together with what earlier retakes changed.

    Raises:
        InputError: a stage cannot be made with it.
    """
    if changed.stage not in episode.stages_of(shot):
        raise InputError(f"{file}: shot {shot.id} has no {changed.stage} now: neither it nor the episode has a {changed.stage}_workflow")
    earlier = [one for one in Words.of(catalog, episode.id).changed[shot.id] if one.written == changed.written]
    resolver = Resolver(episode, file, settings, Registry(catalog, settings))
    stages = resolver.stages(sequence, shot, combined([*earlier, changed]))
    resolver.digests.save()
    (stage,) = [stage for stage in stages if stage.stage == changed.stage]
    said = changed.overrides
    if not stage.workflow.kind.generative and (said.seed is not None or said.prompt is not None):
        raise InputError(f"{file}: shot {shot.id}: a {stage.stage} has neither seed nor prompt; they are for its clip")
    if stage.given:
        given = f"its {stage.stage} is {stage.given.name}, which a person gave"
        raise InputError(f"{file}: shot {shot.id}: {given}; a retake changes nothing of it")
