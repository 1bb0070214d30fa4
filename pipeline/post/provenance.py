"""Provenance: what a delivered movie, sheet, picture and clip say of themselves, and the list of all that an episode was made from."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import PurePath
from typing import Any

import av

from catalog.standing import Row
from catalog.store import Catalog
from pipeline.render.marks import SOURCE_TYPES, Marks, SourceType, is_given, take_marks
from pipeline.story.episode import Episode
from pipeline.story.stages import STAGES

TOOLS = ("tower", "av", "numpy", "opencv-python-headless", "pillow")  # what makes a movie of accepted takes, beside FFmpeg
LORAS = ".safetensors"  # by which a row's reference files that are models differ from pictures and clips of people

Shots = Mapping[str, Mapping[str, Row]]  # shot id to stage to the row of the accepted take


def shot_marks(takes: Mapping[str, Row], stage: str, title: str) -> Marks:
    """Marks of a take that is delivered as a file: those of its stored file, with its id and a title.

    Args:
        takes: stage to row, of one shot. title: of the episode.
    """
    row = takes[stage]
    until = STAGES[: STAGES.index(stage) + 1]
    stored = take_marks(row, composite=any(_given(takes[s]) for s in until if s in takes))
    return replace(stored, facts={"title": f"{title}, {row['shot']}", "take": row["take"], **stored.facts})


def episode_marks(episode: Episode, episode_digest: str, shots: Shots) -> Marks:
    """Marks of the movie and of the contact sheet.

    Args:
        episode_digest: of all in the episode's file that is seen or heard.
    """
    facts = {"title": episode.title, "episode": episode.id, "episode_digest": episode_digest}
    flows = sorted({f"{name} {row['workflow_digest']}" for name, row in _flows(shots)})
    return Marks(_source(episode, shots), {**facts, "workflows": ", ".join(flows)})


def provenance(episode: Episode, episode_digest: str, shots: Shots, catalog: Catalog) -> dict[str, Any]:
    """All that the movie was made from, for a JSON file beside it. It holds neither times nor runs: the same movie has the same file.

    Models and libraries are told of workflows whose registered version has the digest that the takes were made with.
    """
    used = {(name, row["workflow_digest"]) for name, row in _flows(shots)}
    registered = {(f"{row['workflow']}@{row['version']}", row["digest"]): row for row in catalog.rows("workflows")}
    known = {name: registered[name, lock] for name, lock in sorted(used & registered.keys())}
    return {
        "episode": episode.id,
        "title": episode.title,
        "episode_digest": episode_digest,
        "digital_source_type": SOURCE_TYPES + _source(episode, shots),
        "shots": [{"shot": shot.id, "takes": [_take(row) for row in _chain(shots.get(shot.id, {}))]} for _, shot in episode.shots],
        "workflows": [
            {"workflow": name, "digest": row["digest"], "models": dict(row["models"]), "libraries": dict(row["libraries"])}
            for name, row in known.items()
        ],
        "tools": {name: version(name) for name in TOOLS} | {"python": platform.python_version(), "ffmpeg": av.ffmpeg_version_info},
    }


def _take(row: Row) -> dict[str, Any]:
    said = {"take": row["take"], "stage": row["stage"], "media": row["media"], "given": _given(row)}
    if is_given(row):
        return said
    flow = {"workflow": f"{row['workflow']}@{row['workflow_version']}", "workflow_digest": row["workflow_digest"], "seed": row["seed"]}
    return said | flow | {"loras": {name: digest for name, digest in _files(row).items() if name.endswith(LORAS)}}


def _given(row: Row) -> dict[str, str]:
    """The pictures and clips of people's in what a take was made from, by name with their digests."""
    return {name: digest for name, digest in _files(row).items() if not name.endswith(LORAS)}


def _files(row: Row) -> dict[str, str]:
    return {PurePath(name).name: digest for name, digest in dict(row["reference_files"] or {}).items()}


def _chain(takes: Mapping[str, Row]) -> list[Row]:
    return [takes[stage] for stage in STAGES if stage in takes]


def _source(episode: Episode, shots: Shots) -> SourceType:
    """Sound files are people's. Titles and subtitles are no media of their own."""
    given = any(_given(row) for takes in shots.values() for row in takes.values())
    return "compositeWithTrainedAlgorithmicMedia" if given or any(episode.sounds) else "trainedAlgorithmicMedia"


def _flows(shots: Shots) -> Iterable[tuple[str, Row]]:
    """name@version and row of each take that a workflow made."""
    every = (row for takes in shots.values() for row in takes.values())
    return ((f"{row['workflow']}@{row['workflow_version']}", row) for row in every if not is_given(row))
