"""`tower import`, `tower new`: where an episode file comes from."""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import in_ascii
from .table import err, out

if TYPE_CHECKING:
    from pipeline.story.imports.draft import Draft

FIRST = "E01"
OTHERWISE = "choose another name with --out"


class Format(StrEnum):
    """What can be imported."""

    fountain = "fountain"
    fdx = "fdx"
    kitsu = "kitsu"
    storyboarder = "storyboarder"


OutFile = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="the episode file; <episode id>.yaml here, if not given")]


def import_story(
    kind: Annotated[Format, typer.Argument(metavar="KIND", help="fountain, fdx (Final Draft), kitsu (CSV) or storyboarder")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="what the other program wrote")],
    out_file: OutFile = None,
    own: Annotated[str, typer.Option("--id", metavar="E01", help="the episode's id; chooses one where the file has several")] = "",
) -> None:
    """Make an episode file of a script, a list of shots or a storyboard, to go on editing. What that does not say is a TODO."""
    from pipeline.story.imports.draft import finished
    from pipeline.story.imports.write import episode_text
    from pipeline.story.text_file import write_new

    _check_id(own)
    draft = _read(kind, file, own, out_file.parent if out_file else Path())
    draft.id = own or draft.id or FIRST
    target = _target(out_file, draft.id)
    text, todos = episode_text(finished(draft), file.name, f"tower import {kind.value}")
    write_new(target, text, OTHERWISE)
    for warned in draft.warnings:
        err.print(f"warning: {file}: {warned.where}: {warned.text}", soft_wrap=True)
    shots = [shot for sequence in draft.sequences for shot in sequence.shots]
    said = sum(len(shot.speeches) for shot in shots)
    out.print(
        f"{target}: sequences {len(draft.sequences)}, shots {len(shots)}, lines of dialogue {said}, characters {len(draft.characters)}, "
        f"warnings {len(draft.warnings)}, TODO {todos}; `tower plan {shlex.quote(str(target))}` names the first TODO",
        soft_wrap=True,
    )


def new(
    own: Annotated[str, typer.Argument(metavar="ID", help="the episode's id, such as E02")],
    out_file: OutFile = None,
) -> None:
    """Write a first episode file with every field explained: it can be planned and rendered as it is, with the demo's models."""
    from pipeline import PROJECT
    from pipeline.story.text_file import write_new

    _check_id(own)
    target = _target(out_file, own)
    text = (PROJECT / "configs" / "episodes" / "starter.yaml").read_text(encoding="utf-8")
    write_new(target, re.sub(r"^id: E01$", f"id: {own}", text, count=1, flags=re.M), OTHERWISE)
    out.print(f"{target} is written; `tower plan {shlex.quote(str(target))}` tells what it would render", soft_wrap=True)


def _read(kind: Format, file: Path, own: str, folder: Path) -> Draft:
    if kind is Format.fountain:
        from pipeline.story.imports.fountain import read_fountain

        return read_fountain(file)
    if kind is Format.fdx:
        from pipeline.story.imports.fdx import read_fdx

        return read_fdx(file)
    if kind is Format.kitsu:
        from pipeline.story.imports.kitsu import read_kitsu

        return read_kitsu(file, own)
    from pipeline.story.imports.storyboarder import read_storyboarder

    return read_storyboarder(file, folder)


def _check_id(own: str) -> None:
    """Raises InputError where an id is given that no episode can have."""
    from pipeline.story.errors import InputError

    if own and not re.fullmatch(r"E[0-9]{2,4}", in_ascii(own, "id")):
        raise InputError(f"{own!r} is not an episode's id; E and two to four digits are, such as E02")


def _target(given: Path | None, own: str) -> Path:
    from pipeline.story.errors import InputError

    target = given or Path(f"{own}.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise InputError(f"--out {str(target)!r} must end in .yaml, so that it is read as an episode file")
    return target
