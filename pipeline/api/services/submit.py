"""Submit an episode: its file and the files that it names, checked as the command line checks them, then kept in the catalog."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from catalog.store import Catalog
from pipeline.plan.plan import Plan, make_plan
from pipeline.plan.stories import check_out, latest_story, names_in, record_story
from pipeline.registry.files import inside
from pipeline.story.episode import Episode, load_episode
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings
from pipeline.story.yaml_file import comments_in_texts

from .reading import read_apart

STORIES, SUBMITTED, PART = "stories", "submitted", ".part-"  # in the desk's folder: what is laid out, what is looked at, and not done
LEFT_SECONDS = 24 * 3600.0  # a temporary folder that is older was left by a process that was killed
CHECKING = Lock()  # one submission at a time: an episode of 100,000 shots takes memory and seconds


@dataclass(frozen=True)
class Submitted:
    """notes: what is no error and may be a mistake."""

    episode: Episode
    plan: Plan
    digest: str
    notes: list[str]


@dataclass(frozen=True)
class Upload:
    """What a request brings.

    name: episode.yaml or episode.json. story: path of the bytes of the episode's file. files: file name to the path of its bytes.
    """

    name: str
    story: Path
    files: Mapping[str, Path]


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """A folder for one submission. What killed processes left behind goes.

    Args:
        folder: the desk's.
    """
    (folder / SUBMITTED).mkdir(parents=True, exist_ok=True)
    for left in (*(folder / SUBMITTED).glob(f"{PART}*"), *(folder / STORIES).glob(f"{PART}*")):
        with suppress(OSError):  # another service was quicker
            if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=PART, dir=folder / SUBMITTED) as own:
        yield Path(own)


def validate(upload: Upload, catalog: Catalog, settings: Settings, folder: Path) -> Submitted:
    """Check an episode and all that it names; nothing is kept.

    Args:
        folder: the desk's.

    Raises:
        InputError: as `tower plan` says it, with the line.
    """
    with _laid_out(upload, catalog, folder) as (file, episode):
        return _planned(file, episode, settings, catalog)


def submit(upload: Upload, catalog: Catalog, settings: Settings, folder: Path, by: str) -> Submitted:
    """Check an episode, and keep it in the catalog. Raises as `validate`; nothing is kept then."""
    with _laid_out(upload, catalog, folder) as (file, episode):
        found = _planned(file, episode, settings, catalog)
        record_story(catalog, episode, file, by)
        return found


def _planned(file: Path, episode: Episode, settings: Settings, catalog: Catalog) -> Submitted:
    plan = make_plan(episode, file, settings, catalog)
    notes = [_without(note, file.parent) for note in comments_in_texts(file)]
    return Submitted(episode, plan, plan.file_digest, notes)


@contextmanager
def _laid_out(upload: Upload, catalog: Catalog, folder: Path) -> Iterator[tuple[Path, Episode]]:
    """A temporary folder with the files of a submission, where the episode's file says that they are.

    A request's file names are only compared with names that the episode gives; no path is made of them. Files that an earlier version
    of the episode brought, and this request does not, are taken from there.
    """
    with temporary(folder) as laid_out:
        file = laid_out / upload.name
        shutil.copyfile(upload.story, file)
        try:
            read_apart(file)
            with CHECKING:
                episode = load_episode(file)
                _bring_files(episode, file, upload.files, _earlier(catalog, episode.id, folder / STORIES))
                yield file, episode
        except InputError as error:
            raise InputError(_without(str(error), laid_out)) from error


def _earlier(catalog: Catalog, episode: str, folder: Path) -> Path | None:
    """The folder of the latest story of the episode; None if it has none."""
    story = latest_story(catalog, episode)
    return check_out(catalog, story, folder).parent if story and len(story.files) > 1 else None


def _bring_files(episode: Episode, file: Path, brought: Mapping[str, Path], earlier: Path | None) -> None:
    """Put each file that the episode names in its place. Raises InputError where a request's files fit no name, or two."""
    named = sorted({os.path.normpath(name) for _, name in names_in(episode)})
    left = dict(brought)
    for name in named:
        to = inside(file.parent, name, f"{file}: file")
        source = left.pop(name, None) or _only(name, named, left)
        if source is None and earlier and (earlier / name).is_file():
            source = earlier / name
        if source is not None:
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, to)
    if left:
        unused = ", ".join(sorted(left)[:3])
        raise InputError(f"{file}: {unused}: the episode names no such file; it names {', '.join(named[:10]) or 'none'}")


def _only(name: str, named: list[str], left: dict[str, Path]) -> Path | None:
    """Browsers send a file's last name alone: it is this one's if no other name of the episode ends so."""
    last = os.path.basename(name)
    return left.pop(last, None) if sum(os.path.basename(other) == last for other in named) == 1 else None


def _without(sentence: str, folder: Path) -> str:
    """The sentence, with files named as the person named them, and not by the temporary folder."""
    return sentence.replace(f"{folder.resolve()}/", "").replace(f"{folder}/", "").replace(str(folder), "the episode's folder")
