"""Shared by several commands: arguments, and functions that find the catalog and the episode."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.story.errors import InputError
from pipeline.story.yaml_values import shortened

from .table import err

if TYPE_CHECKING:
    from catalog.store import Catalog
    from pipeline.story.episode import Episode

EpisodeFile = Annotated[Path, typer.Argument(metavar="EPISODE", help="episode file (YAML)")]
EpisodeId = Annotated[str, typer.Argument(metavar="EPISODE", help="episode id, such as E01, or its file")]
OnlyOption = Annotated[str, typer.Option(metavar="SHOTS", help="only these shots or sequences, separated by commas")]
Fresh = Annotated[bool, typer.Option("--fresh", help="render again even what is accepted, but not what is approved, with the same seeds")]
NewSeeds = Annotated[bool, typer.Option("--new-seeds", help="the same, with seeds that no take has had")]
AllowExperimental = Annotated[bool, typer.Option("--allow-experimental", help="render with workflows that are not proven too")]
AsJson = Annotated[bool, typer.Option("--json", help="print a JSON list of objects")]


def nameable(path: Path | None, what: str) -> None:
    """Check that a file could have this name, whether there is one or not.

    Raises:
        InputError: it could not, or its folder cannot be read.
    """
    try:
        if path is not None:
            path.lstat()
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError) or error.errno not in (errno.ENOENT, errno.ENOTDIR):
            why = getattr(error, "strerror", None) or error
            raise InputError(f"{what} {shortened(str(path))!r} is not a name that can be read: {why}") from error


def in_ascii(text: str, what: str) -> str:
    """The text, which is a name or a number.

    Raises:
        InputError: it has other letters or digits than ASCII's, such as the full-width ones.
    """
    if not text.isascii():
        raise InputError(f"{what} {shortened(text)!r} has {next(c for c in text if not c.isascii())!r} in it; write it in ASCII")
    return text


def catalog_if_any() -> Any:
    """The catalog; None if there is none yet. Commands that only read must not create it."""
    from catalog.store import Catalog
    from pipeline.story.settings import load_settings

    return Catalog.find(load_settings().place)


def episode_id(given: str) -> str:
    """The id of an episode that is given as an id or as a file."""
    episode = episode_file(given)
    return episode.id if episode else given


def episode_file(given: str | None) -> Episode | None:
    """The episode, if it is given as a file; None if it is given as an id, or not at all."""
    if given is None or not given.endswith((".yaml", ".yml", ".json")):
        return None
    from pipeline.story.episode import load_episode

    return load_episode(Path(given))


def latest_episode(catalog: Catalog, name: str) -> Episode | None:
    """The episode as its latest file in the catalog has it; None where the catalog has no file of it, or none that can be read now."""
    from pipeline.plan.stories import laid_out

    try:
        with laid_out(catalog, name) as story:
            return story[0] if story else None
    except InputError as error:  # such as a file of an earlier version of Tower
        err.print(f"note: the latest file of {name} cannot be read, so its takes alone are told of: {error}", soft_wrap=True, markup=False)
        return None


def shots_named(given: str) -> tuple[str, ...]:
    """The ids in the value of --only, which are separated by commas.

    Raises:
        InputError: the value holds no id.
    """
    wanted = tuple(name.strip() for name in given.split(",") if name.strip())
    if given and not wanted:
        raise InputError(f"--only {given!r} names no shot; give ids such as SH0010,SH0020")
    return wanted
