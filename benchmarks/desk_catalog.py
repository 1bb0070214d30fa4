"""A catalog as nineteen finished renders and one that was interrupted have left it, for the desk's benchmark.

Rows come in commits of a render's size, and each finished episode is compacted, as a render does it at its end. Inputs are those of the
plan, so that the plan finds what was accepted. Files of media are real, and shared by many takes.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from actors.demo.train import scenes
from catalog.care import compact
from catalog.media import Media
from catalog.store import Catalog
from pipeline.plan.plan import Plan, ShotPlan, make_plan
from pipeline.plan.resolve import inputs_from
from pipeline.plan.stories import record_story
from pipeline.registry.open_catalog import open_catalog
from pipeline.render.run_log import RunLog
from pipeline.render.video_file import write_clip
from pipeline.story.episode import load_episode
from pipeline.story.settings import Settings

from .catalog import episode_file, take_row

CLIPS, FRAMES, WIDTH, HEIGHT = 24, 48, 192, 128  # different clips and stills
COMMIT, LATEST_COMMIT = 500, 16  # rows; the latest render is slow, and leaves more commits
APART = timedelta(milliseconds=500)  # between two takes
FINDING = {"label": "frozen", "measure": "reach", "value": 0.9, "threshold": 1.6, "outcome": "fail", "frames": [3, 40], "text": ""}


@dataclass(frozen=True)
class Size:
    """What the catalog holds: takes in all, episodes, shots of each."""

    takes: int
    episodes: int
    shots: int


def make_catalog(settings: Settings, size: Size) -> str:
    """Make it. Returns the id of the episode whose render was interrupted."""
    catalog = open_catalog(settings)
    stills, clips = _media(catalog)
    at = datetime.now(UTC) - size.takes * APART - timedelta(hours=1)
    names = [f"E{number:02d}" for number in range(1, size.episodes + 1)]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            plan = _story(catalog, settings, Path(folder), name, size.shots)
        log = RunLog(catalog, plan, False, {}, devices=8)
        rows = _takes(plan, log.run, size.takes // size.episodes, stills, clips, at)
        at = rows[-1]["at"] + APART
        latest = name == names[-1]
        _render(catalog, log, rows, LATEST_COMMIT if latest else COMMIT, finish=not latest)
        _words(catalog, name, rows)
    return names[-1]


def _media(catalog: Catalog) -> tuple[list[Media], list[Media]]:
    stills, clips = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(CLIPS):
            frames = scenes.clip(replace(scenes.sample(number), motion="walk right"), range(FRAMES), HEIGHT, WIDTH)
            clip, still = Path(folder) / "clip.mp4", Path(folder) / "still.png"
            write_clip(clip, frames, Fraction(24))
            Image.fromarray(frames[0]).save(still)
            clips.append(catalog.media.put(clip.read_bytes(), ".mp4"))
            stills.append(catalog.media.put(still.read_bytes(), ".png"))
    for made in (*clips, *stills):
        os.utime(catalog.place.folder / made.path, (0, 0))  # older than its rows, else every plan hashes it again
    return stills, clips


def _story(catalog: Catalog, settings: Settings, folder: Path, name: str, shots: int) -> Plan:
    file = episode_file(folder, shots, name)
    episode = load_episode(file)
    record_story(catalog, episode, file, "producer")
    return make_plan(episode, file, settings, catalog)


def _takes(plan: Plan, run: str, count: int, stills: list[Media], clips: list[Media], at: datetime) -> list[dict[str, Any]]:
    """The rows of a render, in the order in which they came: round after round over the shots, of which one in ten is never accepted."""
    chance, rows = random.Random(plan.episode.id), []
    each = max(2, -(-count // len(plan.shots)))
    tries = [_tries(shot, each, stills, clips, chance) for shot in plan.shots]
    for turn in range(each):
        rows += [made[turn] for made in tries]
    return [row | {"run": run, "at": at + number * APART} for number, row in enumerate(rows[:count])]


def _tries(shot: ShotPlan, count: int, stills: list[Media], clips: list[Media], chance: random.Random) -> list[dict[str, Any]]:
    """The takes of one shot: keyframes until one is accepted, then clips."""
    drafts, good, rows = chance.randint(1, count - 1), chance.random() < 0.9, []
    still: Media | None = None
    upstream = None
    for number in range(count):
        stage = shot.stages[number >= drafts]
        attempt = number + 1 - (drafts if stage is shot.stages[1] else 0)
        accepted = number + 1 == drafts or (number + 1 == count and good)
        made = chance.choice(clips if stage is shot.stages[1] else stills)
        take = f"{shot.episode}/{shot.shot.id}/{stage.stage}/v{attempt:03d}"
        rows.append(
            take_row(shot.episode, number)
            | {"take": take, "sequence": shot.sequence.id, "shot": shot.shot.id, "stage": stage.stage, "attempt": attempt}
            | {"variation": attempt - 1, "inputs": inputs_from(stage, still.digest if still else None)}
            | {"workflow": stage.ready.workflow.name, "workflow_digest": stage.ready.digest, "profile": stage.ready.profile_identity}
            | {"prompt": stage.prompt, "negative_prompt": stage.negative_prompt, "upstream": upstream}
            | {"keyframe_media": still.digest if still else None, "width": WIDTH, "height": HEIGHT}
            | {"media": made.digest, "media_path": made.path, "media_bytes": made.bytes}
            | {"frames": FRAMES if stage is shot.stages[1] else 1, "fps": 24.0 if stage is shot.stages[1] else None}
            | {"outcome": "accepted" if accepted else "rejected", "labels": [] if accepted else ["frozen"]}
            | {"findings": "[]" if accepted else json.dumps([FINDING])}
        )
        if number + 1 == drafts:
            still, upstream = made, take
    return rows


def _render(catalog: Catalog, log: RunLog, rows: list[dict[str, Any]], commit: int, finish: bool) -> None:
    """Commit the rows as a driver does it; a finished render compacts the table. Another one was interrupted."""
    catalog.append("runs", [log.row("started", at=rows[0]["at"])])
    for start in range(0, len(rows), commit):
        catalog.append("takes", rows[start : start + commit])
    accepted = len({row["shot"] for row in rows if row["stage"] == "clip" and row["outcome"] == "accepted"})
    event = "finished" if finish else "interrupted"
    catalog.append("runs", [log.row(event, at=rows[-1]["at"], accepted=accepted, exhausted=len(log.plan.shots) - accepted)])
    if finish:
        compact(catalog, ["takes"])


def _words(catalog: Catalog, episode: str, rows: list[dict[str, Any]]) -> None:
    """What people said: one clip in eight is approved, one in forty is asked for again, and one verdict in fifty was judged anew."""
    clips = [row for row in rows if row["stage"] == "clip"]
    done = [row for row in clips if row["outcome"] == "accepted"]
    said = [{"verdict": "approved", "note": "", "attempts": None} | _of(row) for row in done[::8]]
    said += [{"verdict": "retake", "note": "her hair flickers", "attempts": row["attempt"]} | _of(row) for row in done[1::40]]
    catalog.append_later("reviews", [row | {"by": "producer"} for row in said])
    judged = [row for row in clips if row["outcome"] == "rejected"][::50]
    again = {"outcome": "accepted", "labels": [], "warnings": ["frozen"], "declared": ["hold"], "findings": "[]"}
    catalog.append_later("judgements", [_of(row) | again | {"profile": row["profile"]} for row in judged])


def _of(row: dict[str, Any]) -> dict[str, Any]:
    return {"take": row["take"], "episode": row["episode"]}
