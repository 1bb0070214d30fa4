"""Stories: each version of an episode's file, kept in the catalog together with the files that it names.

A render and the desk record them. So the desk shows an episode that was rendered in a shell, and a cluster renders one that was
submitted from a browser, although neither sees the other's folders.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from getpass import getuser
from pathlib import Path

from catalog.media import digest_in
from catalog.standing import Row
from catalog.store import Catalog
from pipeline.registry.files import inside
from pipeline.story.episode import Episode, load_episode
from pipeline.story.errors import InputError, StorageError
from pipeline.story.fingerprint import digest


@dataclass(frozen=True)
class Story:
    """A version of an episode's file.

    name: of the file. files: path that the episode's file gives (`name` for itself) to the path of the bytes, in the catalog.
    """

    episode: str
    at: datetime
    by: str
    name: str
    digest: str
    title: str
    files: dict[str, str]

    @classmethod
    def of(cls, row: Row) -> Story:
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})

    @property
    def version(self) -> str:
        """Digest of the episode's file and of all files that it names."""
        return digest({name: digest_in(path) for name, path in self.files.items()})


def latest_stories(catalog: Catalog) -> dict[str, Story]:
    """Id of each episode that has a story to its latest one."""
    return {row["episode"]: Story.of(row) for row in catalog.rows("stories")}


def latest_story(catalog: Catalog, episode: str) -> Story | None:
    rows = catalog.rows("stories", episode)
    return Story.of(rows[-1]) if rows else None


def record_story(catalog: Catalog, episode: Episode, file: Path, by: str = "") -> Story:
    """Keep an episode's file and the files that it names, unless they are the latest that is kept.

    Args:
        file: the episode's file. Relative paths in the episode start from its folder. by: who submits it; "" is the current user.

    Raises:
        InputError: a named file is missing, or lies outside the episode's folder.
        StorageError: the files cannot be stored.
    """
    found = {file.name: file} | dict(named_files(episode, file))
    try:
        files = {name: catalog.media.put(path.read_bytes(), _suffix(path)).path for name, path in found.items()}
    except OSError as error:
        raise StorageError(f"the files of {file} cannot be kept in {catalog.place}: {error.strerror or error}") from error
    before = latest_story(catalog, episode.id)
    if before and (before.name, before.files) == (file.name, files):
        return before
    row = {"episode": episode.id, "by": by or getuser(), "name": file.name, "digest": digest_in(files[file.name]), "files": files}
    return Story.of(catalog.append_later("stories", [row | {"title": " ".join(episode.title.split())}])[0])


def named_files(episode: Episode, file: Path) -> Iterator[tuple[str, Path]]:
    """The files that an episode names: its title font, its shots' given keyframes, pictures and clips that clips pass through, sound files.

    Yields:
        The path as it stands in the episode, without detours such as `./`, and the file's path on this machine.

    Raises:
        InputError: a file is missing, or lies outside the episode's folder.
    """
    for where, name in names_in(episode):
        path = inside(file.absolute().parent, name, f"{file}: {where}")
        if not path.is_file():
            raise InputError(f"{file}: {where}: file {path} does not exist")
        yield os.path.normpath(name), path


def names_in(episode: Episode) -> Iterator[tuple[str, str]]:
    """Who names a file, and the path as it stands in the episode."""
    if episode.title_font:
        yield "title_font", episode.title_font
    for _, shot in episode.shots:
        if shot.keyframe:
            yield f"shot {shot.id}: keyframe", shot.keyframe
        for passed in shot.keyframes:
            yield f"shot {shot.id}: keyframes", passed.file
    for sound in episode.sounds:
        yield sound.where, sound.audio.file


def check_out(catalog: Catalog, story: Story, folder: Path) -> Path:
    """Lay a story out as files again, in a folder of `folder` that is named by the story's version. Gives the episode's file.

    Raises:
        InputError: a path of the story leads outside the folder.
        MediaDamaged: a file is missing in the catalog, or holds other bytes.
    """
    target = folder / story.version[:16]
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
        try:
            for name, path in story.files.items():
                to = inside(part, name, f"story of {story.episode}: path")
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(catalog.media.read(path, digest_in(path)))
            _rename(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return target / story.name


@contextmanager
def laid_out(catalog: Catalog, episode: str) -> Iterator[tuple[Episode, Path] | None]:
    """The latest story of an episode and its file, laid out for the length of a `with` block; None where the catalog has no story of it.

    Raises:
        InputError, MediaDamaged: as `check_out`; the story is of another version of Tower, and does not fit.
    """
    story = latest_story(catalog, episode)
    with tempfile.TemporaryDirectory(prefix="tower-story-") as folder:
        file = check_out(catalog, story, Path(folder)) if story else None
        yield (load_episode(file), file) if file else None


def _rename(part: Path, target: Path) -> None:
    try:
        part.rename(target)
    except OSError:
        if not target.is_dir():  # else another process has laid out the same files meanwhile
            raise


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    return suffix if suffix[1:].isascii() and suffix[1:].isalnum() else ".bin"
