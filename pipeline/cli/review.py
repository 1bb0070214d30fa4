"""`tower review`: a person's word on a take, and what was said before."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.story.errors import InputError

from .common import AsJson, EpisodeId, catalog_if_any, episode_file
from .table import out, show


def review(
    episode: EpisodeId,
    shot: Annotated[str, typer.Argument(metavar="SHOT")],
    retake: Annotated[bool, typer.Option("--retake", help="no take of the stage so far counts any more; another is made")] = False,
    approve: Annotated[bool, typer.Option("--approve", help="the take stands, whatever changes; takes a retake back")] = False,
    pick: Annotated[str, typer.Option(metavar="v003", help="this take goes before other accepted ones made from the same")] = "",
    take: Annotated[str, typer.Option(metavar="v003", help="which take is meant; the one that stands, if not given")] = "",
    stage: Annotated[str, typer.Option(metavar="STAGE", help="keyframe, clip or finish")] = "clip",
    note: Annotated[str, typer.Option(metavar="TEXT", help="what to say of it")] = "",
    frames: Annotated[str, typer.Option(metavar="38-47", help="frames that the note is about, or one; the first frame is 0")] = "",
    seed: Annotated[int | None, typer.Option(metavar="N", help="with --retake: seed of the next take")] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="with --retake: prompt of this stage and of later ones")] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="with --retake: a parameter that the workflow lets shots set")
    ] = None,
    by: Annotated[str, typer.Option(metavar="WHO", help="who says so; you, if not given")] = "",
    as_json: AsJson = False,
) -> None:
    """A person's word on a shot's take; without one, what was said of the shot."""
    from pipeline.evidence.review import Said, say, usual_take
    from pipeline.story.settings import load_settings

    catalog, loaded = catalog_if_any(), episode_file(episode)
    if catalog is None:
        raise InputError("there is no catalog yet")
    name = loaded.id if loaded else episode
    verdict = _verdict(retake, approve, bool(pick), bool(note))
    if verdict is None:
        if take or frames or seed is not None or prompt is not None or parameters:
            raise InputError("say one thing: --retake, --approve, --pick, or a --note alone")
        _list(catalog, name, shot, as_json)
        return
    if pick and take:
        raise InputError("--pick names the take already; leave out --take")
    named = pick or take
    about = f"{name}/{shot}/{stage}/{named}" if named else usual_take(catalog, name, shot, stage)["take"]
    first, last = _frames(frames)
    said = Said(about, verdict, note, by, first, last, None, seed, prompt, _parameters(parameters or []))
    row = say(catalog, load_settings(), said, loaded, Path(episode) if loaded else None)
    out.print(f"{row['take']}: {row['verdict']}", highlight=False)


def _verdict(retake: bool, approve: bool, pick: bool, note: bool) -> str | None:
    """The one thing that is said; None where nothing is.

    Raises:
        InputError: two things are.
    """
    words = [word for word, given in (("retake", retake), ("approved", approve), ("picked", pick)) if given]
    if len(words) > 1:
        raise InputError("say one thing: --retake, --approve, --pick, or a --note alone")
    return words[0] if words else "note" if note else None


def _frames(text: str) -> tuple[int | None, int | None]:
    found = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", text)
    if text and not found:
        raise InputError(f"--frames {text!r} is neither a frame, such as 41, nor a range, such as 38-47")
    return (int(found[1]), int(found[2] or found[1])) if found else (None, None)


def _parameters(given: list[str]) -> dict[str, float]:
    values: dict[str, float] = {}
    for one in given:
        name, equals, text = one.partition("=")
        try:
            values[name] = float(text)
        except ValueError:
            equals = ""
        if not equals or not name or not math.isfinite(values[name]):
            raise InputError(f"--set {one!r} is not a name and a number, such as guidance_scale=3")
    return values


def _list(catalog: Any, episode: str, shot: str, as_json: bool) -> None:
    """What was said of a shot, newest first."""
    from catalog.views import take_counts
    from pipeline.evidence.review import reviews

    rows = reviews(catalog, episode, shot)
    if not rows and not take_counts(catalog, episode)[shot]:
        raise InputError(f"the catalog has no takes of episode {episode}, shot {shot}")
    if not as_json:
        keys = ("at", "take", "verdict", "by", "note", "overrides")
        rows = [{key: row[key] for key in keys} | {"frames": _told(row["first_frame"], row["last_frame"])} for row in rows]
    show(rows, as_json, f"nothing was said of {shot} yet")


def _told(first: int | None, last: int | None) -> str:
    return "" if first is None else str(first) if first == last else f"{first}-{last}"
