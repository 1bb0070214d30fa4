"""Fetches a checkpoint, a motion adapter or a single file from a hub: pinned to a commit, checked byte for byte, whole or not at all.

The library reads HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE from the environment.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

# Read by the library when it is imported: it tells nobody who calls it, and on what machine.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Before `actors`: that package keeps the library off the network.
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, logging

# isort: split
from actors.files import in_one_line, read_json
from actors.folders import parts_of, weight_names
from actors.values import ModelError
from pipeline.story.errors import InputError
from pipeline.story.fingerprint import MODEL_SUFFIXES
from pipeline.story.settings import Settings

from .files import inside

PULLING = ".pulling"  # folder in TOWER_MODELS_DIR in which files are gathered
SPARE_BYTES = 1e9  # left free on the disk
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Listed:
    """A file as the hub lists it. sha256: of large files. blob: git's own digest, of every file that is not large."""

    name: str
    size: int
    blob: str
    sha256: str | None

    def check(self, path: Path) -> str:
        """The file's SHA-256. Raises InputError where the bytes are not those that the hub lists."""
        whole, git = hashlib.sha256(), hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                whole.update(block)
                None if self.sha256 else git.update(block)
        found, wanted = (whole.hexdigest(), self.sha256) if self.sha256 else (git.hexdigest(), self.blob)
        if path.stat().st_size != self.size or found != wanted:
            told = f"its digest is {found[:12]} and not {wanted[:12]}"
            raise InputError(f"{self.name} came with other bytes than the hub lists: {told}; it was deleted, pull again")
        return whole.hexdigest()


@dataclass(frozen=True)
class Source:
    """What is pulled. file: one file of the repository; "" for what a diffusers folder needs of it. revision: a commit."""

    repository: str
    file: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repository}{'/' if self.file else ''}{self.file} at {self.revision}"


def pull(given: str, revision: str, name: str, settings: Settings, tell: Callable[[str], None]) -> Path:
    """Fetch what Tower would open of a repository into TOWER_MODELS_DIR, and record beside it where it came from.

    An interrupted pull goes on where it was. Nothing that is there already is changed.

    Args:
        given: owner/repository, or owner/repository/path/of/one/file.safetensors. revision: a commit, 40 digits. name: of the folder or
            file in TOWER_MODELS_DIR; "" takes that of the repository or the file. tell: is called with each line for people.

    Raises:
        InputError: no hub answers, it has no such thing, bytes differ, the disk is too small, or the name is taken.
    """
    logging.set_verbosity_error()  # its warnings of each retry
    source = _source(given, revision)
    target = _target(settings.models_dir.expanduser(), source, name)
    with _hub_errors(source):
        _pinned(source)
        listed = {file.name: file for file in _listing(source)}
        with _gathering(target, source) as folder:
            wanted = _wanted(source, listed, folder)
            tell(f"{len(wanted)} files, {sum(f.size for f in wanted) / 1e9:.2f} GB, from {source}")
            _room(folder, wanted)
            digests = {file.name: _fetched(source, file, folder) for file in wanted}
            _put(target, source, folder, digests)
    return target


def _source(given: str, revision: str) -> Source:
    parts = given.split("/")
    if len(parts) < 2 or not all(parts) or ".." in parts:
        raise InputError(f"{given!r} is no repository; give owner/repository, or owner/repository/FILE.safetensors for one file of it")
    file = "/".join(parts[2:])
    if file and not file.endswith(".safetensors"):
        raise InputError(f"{file} of {'/'.join(parts[:2])} is not a .safetensors file; Tower loads no others")
    return Source("/".join(parts[:2]), file, revision)


def _target(models: Path, source: Source, name: str) -> Path:
    name = name or PurePosixPath(source.file or source.repository).name
    if "/" in name or name.startswith("."):
        raise InputError(f"--as {name!r} is no name for a folder in TOWER_MODELS_DIR; it has no / and does not begin with a dot")
    if source.file and not name.endswith(".safetensors"):
        raise InputError(f"--as {name!r}: the name of a single file ends in .safetensors")
    target = inside(models, name, "--as")
    if os.path.lexists(target):
        raise InputError(f"{target} is there already, and is left as it is; choose another name with --as")
    return target


def _record(target: Path) -> Path:
    """The file beside the model that says where it came from."""
    return target.with_name(f"{target.name}.source.json")


@contextmanager
def _hub_errors(source: Source) -> Iterator[None]:
    """Turns what the library raises into one sentence."""
    where = f"the hub at {constants.ENDPOINT}"
    if constants.is_offline_mode():
        raise InputError("no hub is asked while HF_HUB_OFFLINE is set; unset it, or copy the files into TOWER_MODELS_DIR yourself")
    try:
        yield
    except GatedRepoError as error:
        raise InputError(f"{source.repository} is gated: accept its terms at {where}, and give your token as HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise InputError(f"{where} has no repository {source.repository}, or does not show it without a token (HF_TOKEN)") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{source.repository} has no revision {source.revision}") from error
    except HFValidationError as error:
        raise InputError(f"{source.repository!r} is no name of a repository: {in_one_line(error)}") from error
    except HfHubHTTPError as error:
        raise InputError(f"{where} refuses {source}: {in_one_line(error)}") from error
    except HTTPError as error:
        raise InputError(f"{where} cannot be reached: {in_one_line(error)}; the same command goes on where it was") from error
    except ModelError as error:
        raise InputError(f"{source}: {error}") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, None):
            raise
        raise InputError(f"{source} could not be pulled: {in_one_line(error)}; the same command goes on") from error



def _pinned(source: Source) -> None:
    """Raises InputError unless the revision is a commit: a branch moves, and a tag may."""
    now = HfApi().model_info(source.repository, revision=source.revision, timeout=constants.DEFAULT_REQUEST_TIMEOUT).sha
    if not COMMIT.fullmatch(source.revision) or now != source.revision:
        raise InputError(f"revision {source.revision!r} may mean another commit tomorrow; now it is {now}, so give --revision {now}")


def _listing(source: Source) -> Iterator[Listed]:
    for found in HfApi().list_repo_tree(source.repository, recursive=True, revision=source.revision):
        path = PurePosixPath(found.path)
        if isinstance(found, RepoFile) and not path.is_absolute() and ".." not in path.parts:
            yield Listed(found.path, found.size, found.blob_id, found.lfs.sha256 if found.lfs else None)


@contextmanager
def _gathering(target: Path, source: Source) -> Iterator[Path]:
    """The folder in which files of this commit are gathered, for one process at a time. Left empty, it is removed."""
    folder = target.parent / PULLING / f"{target.name}@{source.revision[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder.parent / f"{folder.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(f"{target.name} is being pulled by another process; wait for it, or choose another name") from error
            try:
                yield folder
            finally:
                os.unlink(lock.name)
    finally:
        for empty in (folder, folder.parent):
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()


def _wanted(source: Source, listed: dict[str, Listed], folder: Path) -> list[Listed]:
    """The files that Tower would open. Configurations that say which these are, are fetched on the way."""
    if source.file:
        if source.file not in listed:
            raise InputError(f"{source.repository} has no {source.file}{_instead(listed)}")
        return [listed[source.file]]

    def read(name: str) -> dict:
        _fetched(source, listed[name], folder)
        return read_json(folder / name)

    if "model_index.json" in listed:
        return [listed["model_index.json"], *(f for part in parts_of(read("model_index.json")) for f in _part(f"{part}/", listed, read))]
    if "config.json" in listed:
        return _part("", listed, read)
    raise InputError(f"{source.repository} holds no diffusers folder: it has no model_index.json and no config.json{_instead(listed)}")


def _instead(listed: dict[str, Listed]) -> str:
    names = [name for name in listed if name.endswith(".safetensors")]
    return f"; it has {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}" if names else "; it has no .safetensors file at all"


def _part(prefix: str, listed: dict[str, Listed], read: Callable[[str], dict]) -> list[Listed]:
    """Of the files right in a folder: the weights that would be opened, and every small file of the kinds that models are made of."""
    there = [name.removeprefix(prefix) for name in listed if name.startswith(prefix) and "/" not in name.removeprefix(prefix)]
    weights, _ = weight_names(there, lambda index: read(prefix + index))
    small = [name for name in there if PurePosixPath(name).suffix in MODEL_SUFFIXES and not name.endswith(".safetensors")]
    missing = [name for name in weights if name not in there]
    if missing:
        raise InputError(f"{prefix}{missing[0]} is in the index of shards, and the hub does not list it")
    return [listed[prefix + name] for name in (*small, *weights)]


def _room(folder: Path, wanted: list[Listed]) -> None:
    have = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    need, free = sum(f.size for f in wanted) - have, shutil.disk_usage(folder).free
    if need + SPARE_BYTES > free:
        raise InputError(f"{need / 1e9:.1f} GB are to come, and the disk of {folder.parent.parent} has {free / 1e9:.1f} GB free")


def _fetched(source: Source, file: Listed, folder: Path) -> str:
    """The SHA-256 of a file that is in the folder when this ends, with the bytes that the hub lists."""
    target = folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        part = target.with_name(f"{target.name}.part")
        with part.open("ab") as out:
            if out.tell() > file.size:
                out.truncate(0)
            url = hf_hub_url(source.repository, file.name, revision=source.revision)
            http_get(url, out, resume_size=out.tell(), headers=build_hf_headers(), expected_size=file.size, displayed_filename=file.name)
            out.flush()
            os.fsync(out.fileno())
        part.rename(target)
    try:
        return file.check(target)
    except InputError:
        target.unlink()
        raise


def _put(target: Path, source: Source, folder: Path, digests: dict[str, str]) -> None:
    """The record first: whatever stands under that name then has one. Both are whole or not there."""
    told = {
        "source": str(source), "hub": constants.ENDPOINT, "repository": source.repository, "revision": source.revision,
        "pulled": datetime.now(UTC).isoformat(timespec="seconds"), "sha256": digests,
    }  # fmt: skip
    part = folder.with_name(f"{folder.name}.source.json")
    part.write_text(json.dumps(told, indent=2))
    part.replace(_record(target))
    (folder / source.file if source.file else folder).rename(target)
    if source.file:
        shutil.rmtree(folder)
