"""What several commands share: their arguments, the catalog that may be there, the episode that is meant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.story.errors import InputError

if TYPE_CHECKING:
    from pipeline.story.episode import Episode

EpisodeFile = Annotated[Path, typer.Argument(metavar="EPISODE", help="episode file (YAML)")]
EpisodeId = Annotated[str, typer.Argument(metavar="EPISODE", help="episode id, such as E01, or its file")]
OnlyOption = Annotated[str, typer.Option(metavar="SHOTS", help="only these shots or sequences, separated by commas")]
Fresh = Annotated[bool, typer.Option("--fresh", help="render again even what is accepted, with the same seeds")]
NewSeeds = Annotated[bool, typer.Option("--new-seeds", help="render again even what is accepted, with seeds that no take has had")]
AllowExperimental = Annotated[bool, typer.Option("--allow-experimental", help="render with workflows that are not proven too")]
AsJson = Annotated[bool, typer.Option("--json", help="print a JSON list of objects")]


def catalog_if_any() -> Any:
    from catalog.store import Catalog
    from pipeline.story.settings import load_settings

    return Catalog.find(load_settings().place)  # commands that only look must not make one


def episode_id(given: str) -> str:
    written = episode_file(given)
    return written.id if written else given


def episode_file(given: str | None) -> Episode | None:
    if given is None or not given.endswith((".yaml", ".yml", ".json")):
        return None
    from pipeline.story.episode import load_episode

    return load_episode(Path(given))


def shots_named(given: str) -> tuple[str, ...]:
    wanted = tuple(name.strip() for name in given.split(",") if name.strip())
    if given and not wanted:
        raise InputError(f"--only {given!r} names no shot; give ids such as SH0010,SH0020")
    return wanted
