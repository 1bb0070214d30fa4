"""The command line: `tower`."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from .cli_catalog import catalog_app
from .cli_doctor import doctor
from .cli_gate import gate_app
from .cli_jobs import cancel, list_jobs, logs, submit
from .cli_workflows import benchmark, docs, workflows_app
from .errors import InputError, StorageError
from .table import out, show

if TYPE_CHECKING:
    from .episode import Episode

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Render whole anime episodes in batch.")
app.add_typer(gate_app, name="gate")
app.add_typer(workflows_app, name="workflows")
app.add_typer(catalog_app, name="catalog")
app.command()(benchmark)
app.command()(docs)
app.command()(submit)
app.command("jobs")(list_jobs)
app.command()(logs)
app.command()(cancel)
app.command()(doctor)
err = Console(stderr=True)

EpisodeFile = Annotated[Path, typer.Argument(metavar="EPISODE", help="episode file (YAML)")]
EpisodeId = Annotated[str, typer.Argument(metavar="EPISODE", help="episode id, such as E01, or its file")]
OnlyOption = Annotated[str, typer.Option(metavar="SHOTS", help="only these shots or sequences, separated by commas")]
AsJson = Annotated[bool, typer.Option("--json", help="print a JSON list of objects")]


@app.command()
def render(
    episode: EpisodeFile,
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="where the episode's folder is written")] = Path("out"),
    only: OnlyOption = "",
    fresh: Annotated[bool, typer.Option(help="render again even what is accepted")] = False,
    allow_experimental: Annotated[bool, typer.Option(help="render with workflows that are not proven too")] = False,
) -> None:
    """Render what is stale, then assemble DIR/<episode id>/episode.mp4."""
    from .render import Order
    from .render import render as run
    from .settings import load_settings

    summary = run(Order(episode, out_dir, _only(only), fresh, allow_experimental), load_settings(), out)
    for outcome in summary.exhausted:
        err.print(f"{outcome.shot} exhausted: {outcome.why}", highlight=False, markup=False, soft_wrap=True)
    done = len(summary.outcomes) - len(summary.exhausted)
    out.print(f"{done} of {len(summary.outcomes)} shots accepted; {summary.takes} takes in this run", highlight=False)
    out.print(f"{summary.movie or summary.folder / 'contact_sheet.png'}", highlight=False, soft_wrap=True)
    if summary.exhausted:
        raise typer.Exit(3)


@app.command()
def plan(
    episode: EpisodeFile,
    only: OnlyOption = "",
    fresh: Annotated[bool, typer.Option(help="as if nothing were accepted")] = False,
    as_json: AsJson = False,
) -> None:
    """What `tower render` would render, why, and about how long it would take. Nothing is rendered or recorded."""
    from .episode import load_episode
    from .open import open_catalog
    from .plan import as_rows, make_plan, select
    from .settings import load_settings

    gc.disable()  # a hundred thousand shots are millions of objects that all live to the end: looking for dead ones takes half the time
    settings = load_settings()
    made = select(make_plan(load_episode(episode), episode, settings, open_catalog(settings), fresh), _only(only))
    if as_json:
        show(as_rows(made, made.shots), True)
        return
    rows = as_rows(made, [s for s in made.shots if s.stale or s.reasons])
    told = [r | {"why": "; ".join(w["text"] for w in r["why"])} for r in rows]
    show([{k: r[k] for k in ("shot", "state", "keyframe", "clip", "gpu_minutes", "why")} for r in told], False, "nothing is stale")
    known = [r["gpu_minutes"] for r in rows if r["gpu_minutes"] is not None]
    unknown = len(rows) - len(known)
    minutes = f"about {sum(known):.1f} GPU-minutes" + (f", and {unknown} shots of workflows that never ran here" if unknown else "")
    out.print(f"{len(made.shots)} shots, {len(made.stale)} to render, {minutes}", highlight=False)


@app.command()
def status(
    episode: Annotated[str | None, typer.Argument(metavar="[EPISODE]", help="episode id or file; all episodes if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """What the catalog says: shots, takes and outcomes."""
    from catalog.views import episodes, takes_of

    catalog = _catalog()
    if episode is None:
        rows = episodes(catalog) if catalog else []
    else:
        rows = _shot_status(takes_of(catalog, _episode_id(episode))) if catalog else []
        if not rows:
            raise InputError(f"the catalog has no takes of episode {_episode_id(episode)}")
    show(rows, as_json)


@app.command()
def takes(episode: EpisodeId, shot: Annotated[str | None, typer.Argument(metavar="[SHOT]")] = None, as_json: AsJson = False) -> None:
    """Every attempt, with its seed, its outcome and why."""
    from catalog.views import all_takes

    catalog, name = _catalog(), _episode_id(episode)
    rows = all_takes(catalog, name) if catalog else []
    if shot:
        rows = [r for r in rows if r["shot"] == shot]
    if not rows:
        raise InputError(f"the catalog has no takes of episode {name}" + (f", shot {shot}" if shot else ""))
    if not as_json:
        keys = ("take", "outcome", "labels", "warnings", "review", "workflow", "seed", "device_seconds", "media_path")
        rows = [{k: r[k] for k in keys} for r in rows]
    show(rows, as_json)


@app.command()
def review(
    episode: EpisodeId,
    shot: Annotated[str, typer.Argument(metavar="SHOT")],
    retake: Annotated[bool, typer.Option("--retake", help="the accepted take counts as rejected: the next render makes another")] = False,
    approve: Annotated[bool, typer.Option("--approve", help="the take is as wanted; takes a retake back")] = False,
    stage: Annotated[str, typer.Option(metavar="STAGE", help="clip or keyframe")] = "clip",
    note: Annotated[str, typer.Option(metavar="TEXT", help="what to say of it")] = "",
    by: Annotated[str, typer.Option(metavar="WHO", help="who says so; you, if not given")] = "",
) -> None:
    """A person's word on a shot's latest take."""
    from .review import add_review

    catalog = _catalog()
    if catalog is None:
        raise InputError("there is no catalog yet")
    row = add_review(catalog, _episode_id(episode), shot, stage, retake, approve, note, by)
    out.print(f"{row['take']}: {row['verdict']}", highlight=False)


@app.command()
def pause(episode: EpisodeId) -> None:
    """Let a running render begin nothing more; what its devices are at ends, and is recorded."""
    _tell(episode, "pause")


@app.command()
def resume(episode: EpisodeId) -> None:
    """Let a paused render go on."""
    _tell(episode, "resume")


def _tell(episode: str, action: Any) -> None:
    from .controls import say

    catalog = _catalog()
    if catalog is None:
        raise InputError("there is no catalog yet")
    row = say(catalog, _episode_id(episode), action)
    out.print(f"{action} was said to run {row['run']}; it hears it within seconds", highlight=False)


@app.command()
def rejudge(
    episode: Annotated[str | None, typer.Argument(metavar="[EPISODE]", help="episode id or file; all episodes if not given")] = None,
    profile: Annotated[str | None, typer.Option(metavar="PROFILE", help="each take's own, as it is today, if not given")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="record the new verdicts; without it they are only shown")] = False,
    as_json: AsJson = False,
) -> None:
    """Judge stored takes again from their measures: no GPU. An episode file says what its shots declare now."""
    from . import rejudge as job
    from .profile import load_profile

    wanted = load_profile(profile, "--profile") if profile else None
    written = _episode_file(episode)
    name = written.id if written else episode
    declared = {shot.id: shot.declares for _, shot in written.shots} if written else None
    catalog = _catalog()
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
    told = "recorded" if apply else "nothing recorded; --apply does"
    sentence = f"{result.takes} takes judged again, {len(rows)} verdicts change, {flips} of them flip ({told})"
    err.print(sentence, highlight=False, soft_wrap=True)


@app.command()
def models(as_json: AsJson = False) -> None:
    """Which workflows there are, and whether their model files are here."""
    from .models import list_models
    from .open import open_catalog
    from .registry import Registry
    from .settings import load_settings

    settings = load_settings()
    show(list_models(Registry(open_catalog(settings), settings)), as_json)


def _catalog() -> Any:
    from catalog.store import Catalog

    from .settings import load_settings

    return Catalog.find(load_settings().place)  # commands that only look must not make one


def _only(given: str) -> tuple[str, ...]:
    wanted = tuple(name.strip() for name in given.split(",") if name.strip())
    if given and not wanted:
        raise InputError(f"--only {given!r} names no shot; give ids such as SH0010,SH0020")
    return wanted


def _episode_id(given: str) -> str:
    written = _episode_file(given)
    return written.id if written else given


def _episode_file(given: str | None) -> Episode | None:
    if given is None or not given.endswith((".yaml", ".yml", ".json")):
        return None
    from .episode import load_episode

    return load_episode(Path(given))


def _shot_status(history: dict[tuple[str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    rows = []
    for shot in sorted({shot for shot, _ in history}):
        stages = {stage: history.get((shot, stage), []) for stage in ("keyframe", "clip")}
        latest = [t for stage in ("keyframe", "clip") for t in stages[stage]][-1]
        done = any(t["outcome"] == "accepted" for t in stages["clip"])
        rows.append(
            {
                "shot": shot,
                "sequence": latest["sequence"],
                "outcome": "accepted" if done else latest["outcome"],
                "keyframe_takes": len(stages["keyframe"]),
                "clip_takes": len(stages["clip"]),
                "rejected_for": sorted({label for takes in stages.values() for t in takes for label in t["labels"]}),
                "last": latest["at"],
            }
        )
    return rows


def main() -> None:
    """The console script: every failure that is not a bug is one sentence and an exit code."""
    code = _run()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is closed by now. Native threads of the table library can abort an interpreter that takes itself apart.
    os._exit(code)


def _run() -> int:
    import signal

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's polite stop is an interruption too
    try:
        code = app(standalone_mode=False) or 0
    except typer.Exit as stop:
        code = stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        err.print(f"error: {sentence}", highlight=False, markup=False, soft_wrap=True)
        return 2
    if code == 130:  # typer turns an interruption into this code
        err.print("interrupted; every take so far is in the catalog, and `tower render` goes on from there", highlight=False)
    return code


def _sentence(error: Exception) -> str | None:
    """The sentence of an error that a person can act on; None for a bug, which keeps its traceback."""
    from catalog.media import MediaDamaged
    from catalog.store import CatalogError
    from cluster.specs import ModelBroken, NothingCanRun
    from cluster.start import ClusterError
    from gates.still import Undecodable

    if hasattr(error, "format_message"):  # typer's usage errors; their class is private to it
        return " ".join(error.format_message().split()) or "a command is missing; see tower --help"
    told = InputError | StorageError | CatalogError | ClusterError | MediaDamaged | ModelBroken | NothingCanRun | Undecodable
    return str(error) if isinstance(error, told) else None


if __name__ == "__main__":
    main()
