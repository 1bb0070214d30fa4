"""`tower status`, `takes`, `rejudge`, `pause`, `resume`: show takes and judge them again; pause and resume a render."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.story.errors import InputError
from pipeline.story.stages import MOVING, STAGES, in_use

from .common import AsJson, EpisodeId, catalog_if_any, episode_file, episode_id, latest_episode
from .table import err, out, show

if TYPE_CHECKING:
    from catalog.store import Catalog
    from pipeline.story.episode import Episode


def status(
    episode: Annotated[str | None, typer.Argument(metavar="[EPISODE]", help="episode id or file; all episodes if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """What the catalog says: shots, takes and outcomes."""
    from catalog.views import episodes, takes_of

    catalog = catalog_if_any()
    if episode is None:
        rows = episodes(catalog) if catalog else []
    else:
        written = episode_file(episode)
        name = written.id if written else episode
        rows = _shot_status(takes_of(catalog, name), _shown(catalog, name, written)) if catalog else []
        if not rows:
            raise InputError(f"the catalog has no takes of episode {name}")
    if not as_json and episode is not None:
        rows = [{key: value for key, value in (row | {"outcome": row["told"]}).items() if key != "told"} for row in rows]
    show(rows, as_json)


def takes(episode: EpisodeId, shot: Annotated[str | None, typer.Argument(metavar="[SHOT]")] = None, as_json: AsJson = False) -> None:
    """Every attempt, with its seed, its outcome and why."""
    from catalog.views import all_takes

    catalog, name = catalog_if_any(), episode_id(episode)
    rows = all_takes(catalog, name) if catalog else []
    if shot:
        rows = [r for r in rows if r["shot"] == shot]
    if not rows:
        raise InputError(f"the catalog has no takes of episode {name}" + (f", shot {shot}" if shot else ""))
    if not as_json:
        keys = ("take", "outcome", "labels", "warnings", "review_note", "workflow", "seed", "device_seconds", "media_path")
        rows = [{k: r[k] for k in keys} | {"outcome": _told(r)} for r in rows]
    show(rows, as_json)


def pause(episode: EpisodeId) -> None:
    """Let a running render begin nothing more; what its devices are at ends, and is recorded."""
    _tell(episode, "pause")


def resume(episode: EpisodeId) -> None:
    """Let a paused render go on."""
    _tell(episode, "resume")


def _tell(episode: str, action: Any) -> None:
    from pipeline.render.controls import say

    catalog = catalog_if_any()
    if catalog is None:
        raise InputError("there is no catalog yet")
    row = say(catalog, episode_id(episode), action)
    out.print(f"{action} was said to run {row['run']}; it hears it within seconds", highlight=False)


def rejudge(
    episode: Annotated[str | None, typer.Argument(metavar="[EPISODE]", help="episode id or file; all episodes if not given")] = None,
    profile: Annotated[str | None, typer.Option(metavar="PROFILE", help="each take's own, as it is today, if not given")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="record the new verdicts; without it they are only shown")] = False,
    as_json: AsJson = False,
) -> None:
    """Judge stored takes again from their measures: no GPU. An episode file says what its shots declare now."""
    from pipeline.evidence import rejudge as job
    from pipeline.story.gate_profile import load_profile

    wanted = load_profile(profile, "--profile") if profile else None
    loaded = episode_file(episode)
    name = loaded.id if loaded else episode
    declared = {shot.id: shot.declares for _, shot in loaded.shots} if loaded else None
    catalog = catalog_if_any()
    result = job.rejudge(catalog, wanted, name, declared) if catalog else job.Rejudged(0, [])
    if not result.takes:
        raise InputError("the catalog has no judged takes" + (f" of episode {name}" if name else ""))
    if apply:
        job.apply(catalog, result.changes)
    rows = [
        {"take": c.take, "was": c.was, "now": c.now, "labels_were": list(c.labels_were), "labels_are": list(c.labels_are)}
        for c in result.changes
    ]
    if rows or as_json:
        show(rows, as_json)
    flips = sum(c.flips for c in result.changes)
    recorded = "recorded" if apply else "nothing recorded; --apply does"
    sentence = f"{result.takes} takes judged again, {len(rows)} verdicts change, {flips} of them flip ({recorded})"
    err.print(sentence, highlight=False, soft_wrap=True)


def _shown(catalog: Catalog, name: str, written: Episode | None) -> dict[str, str]:
    """Shot to the take that the episode shows of it, as its file, or else its latest file in the catalog, is."""
    from catalog.views import clips_that_stand
    from pipeline.plan.history import shown_takes

    known = written or latest_episode(catalog, name)
    return shown_takes(catalog, known) if known else clips_that_stand(catalog, name)


def _shot_status(history: dict[tuple[str, str], list[dict[str, Any]]], clips: dict[str, str]) -> list[dict[str, Any]]:
    """One row a shot. clips: shot to the take that the episode shows of it."""
    rows, used = [], in_use(stage for _, stage in history)
    for shot in sorted({shot for shot, _ in history}):
        stages = {stage: history.get((shot, stage), []) for stage in STAGES}
        latest = [t for stage in STAGES for t in stages[stage]][-1]
        shown = next((t for stage in MOVING for t in stages[stage] if t["take"] == clips.get(shot)), latest)
        rows.append(
            {
                "shot": shot,
                "sequence": latest["sequence"],
                "outcome": shown["outcome"],
                "told": _told(shown),
                "clip": clips.get(shot),
                **{f"{stage}_takes": len(stages[stage]) for stage in used},
                "rejected_for": sorted({label for takes in stages.values() for t in takes for label in t["labels"]}),
                "last": latest["at"],
            }
        )
    return rows


def _told(take: dict[str, Any]) -> str:
    """The outcome as text for people: "accepted (approved by Mika; the gate: rejected for flicker)"."""
    if take["review"] is None or take["outcome"] == "error":
        return take["outcome"]
    gate = f"rejected for {', '.join(take['labels'] or ())}" if take["gate_outcome"] == "rejected" else take["gate_outcome"]
    word = "retake asked for" if take["review"] == "retake" else take["review"]
    beaten = f"; the gate: {gate}" if take["gate_outcome"] != take["outcome"] else ""
    return f"{take['outcome']} ({word} by {take['review_by'] or 'a person'}{beaten})"
