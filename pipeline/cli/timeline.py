"""`tower timeline`, `conform`: an episode for an editor, and what the editor made of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.story.errors import InputError

from .common import EpisodeFile, EpisodeId, catalog_if_any, episode_file, latest_episode, nameable
from .table import err, out

if TYPE_CHECKING:
    from catalog.store import Catalog
    from pipeline.story.episode import Episode

OutPath = Annotated[Path | None, typer.Option("--out", metavar="FILE or FOLDER", help="out/<episode id>/timeline, if not given")]


def timeline(
    episode: EpisodeId,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="otio, edl or fcpxml")] = "otio",
    out_path: OutPath = None,
) -> None:
    """Write a timeline of the accepted clips for an editor, and their media beside it."""
    from pipeline.post.timeline import FORMATS, hand_off

    if to not in FORMATS:
        raise InputError(f"--to {to!r} is none of {', '.join(FORMATS)}")
    catalog = catalog_if_any()
    if catalog is None:
        raise InputError("there is no catalog yet")
    written = episode_file(episode) or _latest(catalog, episode)
    done = hand_off(catalog, written, to, _file(out_path, written.id, to))
    for sentence in done.told:
        err.print(sentence, soft_wrap=True)
    shots, clips = len(written.shots), len(done.copied) + len(done.kept)
    err.print(f"{written.id}: {shots} shots, {clips} clips; {len(done.copied)} copied, {len(done.kept)} were there", soft_wrap=True)
    out.print(str(done.file), soft_wrap=True)


def conform(
    edited: Annotated[Path, typer.Argument(metavar="EDITED", help="the editor's timeline, an .otio file")],
    episode: EpisodeFile,
    apply: Annotated[bool, typer.Option("--apply", help="write the changes to the episode's file; without it they are only shown")] = False,
) -> None:
    """What an editor changed, per shot, and what the episode's file says then."""
    from pipeline.plan.history import rows_of
    from pipeline.post.conform import conform as compare
    from pipeline.post.edited import read_edit
    from pipeline.post.patch import patch_of
    from pipeline.post.timeline import accepted_clips
    from pipeline.story.episode import load_episode

    catalog, written = catalog_if_any(), load_episode(episode)
    if catalog is None:
        raise InputError("there is no catalog yet")
    edit = read_edit(edited, written)
    clips = accepted_clips(catalog, written)
    named = [piece.take for piece in edit.pieces if piece.take.startswith(f"{written.id}/")]
    done = compare(edit, written, clips, rows_of(catalog, named))
    if not done.told:
        out.print("nothing was changed")
        return
    for one in done.told:
        out.print(f"{one.shot or '–':8} {one.kind:10} {one.text}", soft_wrap=True)
    patch = patch_of(episode, written, done)
    err.print(f"{done.unchanged} of {len(written.shots)} shots are unchanged", soft_wrap=True)
    if not patch.diff:
        return
    print(patch.diff, end="")
    if apply:
        patch.write()
    err.print(f"{episode} was changed" if apply else f"nothing was written; --apply changes {episode}", soft_wrap=True)


def _latest(catalog: Catalog, name: str) -> Episode:
    """The episode as its latest file in the catalog has it.

    Raises:
        InputError: the catalog has none.
    """
    if found := latest_episode(catalog, name):
        return found
    raise InputError(f"the catalog has no file of episode {name}; give the file, such as episode.yaml")


def _file(given: Path | None, episode: str, to: str) -> Path:
    """Where the timeline goes. A name with a suffix is a file's.

    Raises:
        InputError: the file's suffix is another format's, or no file can have that name.
    """
    nameable(given, "--out")
    if given is None:
        return Path("out") / episode / "timeline" / f"{episode}.{to}"
    if given.is_dir() or not given.suffix:
        return given / f"{episode}.{to}"
    if given.suffix.lower() != f".{to}":
        raise InputError(f"--out {given} ends in {given.suffix}, which is not the name of an {to} file; .{to} is wanted")
    return given
