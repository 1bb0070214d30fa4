"""A driver's part in the desk's benchmark: it claims the episode, says what it does once a second, and commits takes at a render's rate.

    python -m benchmarks.desk_writer EPISODE        prints a line for each commit; until it is killed
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from catalog.store import Catalog
from pipeline.api.desk import desk_folder
from pipeline.plan.plan import Plan, make_plan
from pipeline.plan.stories import check_out, latest_story
from pipeline.registry.open_catalog import open_catalog
from pipeline.render.live import Live, LiveDevice, LiveStage, LiveWork, shown_live
from pipeline.render.run_log import RunLog
from pipeline.story.episode import load_episode
from pipeline.story.settings import load_settings

from .catalog import take_row

TAKES, SECONDS = 4, 0.5  # of a commit, between two commits
DEVICES = 8


async def render(catalog: Catalog, plan: Plan) -> None:
    log = RunLog(catalog, plan, False, {}, devices=DEVICES)
    numbers = itertools.count()
    with log.claimed():
        async with shown_live(catalog.place, log.run, lambda: says(log, next(numbers))):
            for rows in takes(plan, log.run):
                await asyncio.to_thread(catalog.append, "takes", rows)
                print(rows[-1]["take"], flush=True)
                await asyncio.sleep(SECONDS)


def takes(plan: Plan, run: str) -> Iterator[list[dict[str, object]]]:
    """Further clips of shot after shot, rejected all."""
    latest = {shot.shot.id: max((past.attempt for past in shot.history["clip"]), default=0) for shot in plan.shots}
    shots = itertools.cycle(plan.shots)
    for number in itertools.count():
        rows = []
        for shot in itertools.islice(shots, TAKES):
            name, stage = shot.shot.id, shot.stages[1]
            latest[name] += 1
            of = {"take": f"{shot.episode}/{name}/clip/v{latest[name]:03d}", "attempt": latest[name], "shot": name}
            of |= {"sequence": shot.sequence.id}
            made = {"stage": "clip", "run": run, "prompt": stage.prompt, "inputs": stage.inputs, "outcome": "error", "error": "made up"}
            none = dict.fromkeys(("media", "media_path", "media_bytes"))
            rows.append(take_row(shot.episode, number) | of | made | none | {"labels": [], "at": datetime.now(UTC)})
        yield rows


def says(log: RunLog, number: int) -> Live:
    """What the driver does at this moment."""
    shots = [shot.shot.id for shot in log.plan.shots]
    now = {shots[(number + k) % len(shots)]: f"clip v{k % 5 + 1:03d}" for k in range(3 * DEVICES)}
    devices = tuple(LiveDevice(f"gpu{k}", "a-node", True, (LiveWork("", "clip"),), datetime.now(UTC)) for k in range(DEVICES))
    stage = LiveStage(number, len(shots), DEVICES, 2 * DEVICES, number // 3, 0)
    counts = {"keyframe": 0, "clip": 2 * DEVICES, "prompt": 0}
    stages = {"keyframe": stage, "clip": stage}
    return Live(log.run, log.plan.episode.id, datetime.now(UTC), False, 600.0, stages, devices, now, counts, number / 60)


def main(episode: str) -> None:
    settings = load_settings()
    catalog = open_catalog(settings)
    story = latest_story(catalog, episode)
    assert story
    file = check_out(catalog, story, desk_folder(settings) / "stories")
    asyncio.run(render(catalog, make_plan(load_episode(file), file, settings, catalog)))


if __name__ == "__main__":
    main(sys.argv[1])
