"""A render as a job on a cluster: what travels there, what the job is called, its command and its environment."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from catalog.store import Catalog, CatalogError
from cluster.code import copy_code
from pipeline.plan.guides import guide_file
from pipeline.plan.resolve import font_of, given_keyframe
from pipeline.plan.sound_file import SoundFacts
from pipeline.plan.sounds import placed_sounds
from pipeline.plan.subtitles import planned_cues
from pipeline.registry.workflows import Registry, user_memory
from pipeline.story.cluster_profile import cluster_profile
from pipeline.story.episode import Episode, load_episode
from pipeline.story.errors import InputError, StorageError
from pipeline.story.fingerprint import FileDigests
from pipeline.story.settings import Settings
from pipeline.story.title import check_title

from .order import Order
from .render import writable

PREFIX = "tower-"  # of the id of every job that Tower starts
JOB = "TOWER_JOB"  # the setting that tells a render its job's id
PROFILE = ".tower-profile.yaml"  # the file name, in the job's folder, of a cluster profile that is copied there
STORAGE = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP")  # where a bucket is; nodes have their own keys


@dataclass(frozen=True)
class Submission:
    """A render that can be sent to a cluster.

    name: id of the job, if it is free. file: the episode. named: what travels with it, as `named_files`.
    here: folders that this machine must share with the job's machine. command, env, metadata: of the job.
    """

    name: str
    file: Path
    named: dict[str, Path]
    here: list[Path]
    command: str
    env: dict[str, str]
    metadata: dict[str, str]

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A temporary folder with all that the render reads. The folders `here` are made, too.

        Raises:
            InputError: one of the folders `here` cannot be written.
            StorageError: the temporary folder cannot be written, mostly because the disk is full.
        """
        for shared in self.here:
            writable(shared)
        try:
            folder = tempfile.mkdtemp(prefix="tower-")
        except OSError as error:
            raise StorageError(f"no temporary folder can be made: {error.strerror or error}; make room, or set TMPDIR") from error
        try:
            try:
                stage(Path(folder), self.file, self.named)
            except (OSError, shutil.Error) as error:
                why = getattr(error, "strerror", None) or error
                raise StorageError(f"{folder} cannot be written: {str(why)[:200]}; make room, or set TMPDIR to another disk") from error
            yield Path(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def submission(order: Order, settings: Settings) -> Submission:
    """Check an order and make it ready to be sent. Nothing is written.

    Raises:
        InputError: the episode, a file that it names, a setting or the order is wrong.
    """
    episode = load_episode(order.file)
    check_shots(order.only, episode, order.file)
    profile = profile_file(settings)
    named = named_files(episode, order.file) | ({PROFILE: profile} if profile else {})
    check_workflows(episode, order.file, settings)
    out, here = str(order.out.absolute()), shared_folders(settings, order.out)
    return Submission(
        job_id(episode.id, order.file, named, [*order.options, out, settings.place.uri]),
        order.file,
        named,
        here,
        command(order.file, [*order.options, "--out", out], here),
        job_env(settings, profile),
        {"episode": episode.id, "file": str(order.file.absolute()), "catalog": settings.place.uri},
    )


def named_files(episode: Episode, file: Path) -> dict[str, Path]:
    """The pictures, clips, sounds and the font that the episode names: path in the job's folder `episode`, to path on this machine.

    Raises:
        InputError: a file is missing, cannot be read or does not fit, its path is absolute, a title or a subtitle cannot be shown.
    """
    found: dict[str, Path] = {}
    font = font_of(episode, file)
    if episode.title_font and font:
        found[_relative(episode.title_font, f"{file}: title_font")] = font
    for _, shot in episode.shots:
        where = f"{file}: shot {shot.id}"
        if shot.title:
            check_title(shot.title, font, where, (episode.width, episode.height))
        if shot.keyframe is not None:
            found[_relative(shot.keyframe, f"{where}: keyframe")] = given_keyframe(file, shot.keyframe, where)
        for further in shot.keyframes:
            found[_relative(further.file, f"{where}: keyframes")] = guide_file(file, further, f"{where}: keyframes")
    facts = SoundFacts(FileDigests(user_memory()))
    planned_cues(episode, file, facts)
    for sound in placed_sounds(episode, file, facts):
        found[_relative(sound.name, f"{file}: {sound.where}")] = sound.path
    return found


def stage(folder: Path, episode: Path, named: dict[str, Path]) -> None:
    """Copy all that a render reads into a folder: the project, the episode file, and the files that the episode names."""
    copy_code(folder)
    for name, path in {episode.name: episode, **named}.items():
        target = folder / "episode" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def job_id(episode: str, file: Path, named: dict[str, Path], asked: list[str]) -> str:
    """The job's id, such as `tower-E01-1a2b3c4d5e6f`. Equal files and options give an equal id.

    Args:
        named: as `named_files`. asked: the options.
    """
    files = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in {"": file, **named}.items()}
    text = json.dumps([files, asked], sort_keys=True)
    return f"{PREFIX}{episode}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def settings_env(settings: Settings) -> dict[str, str]:
    """The settings that were set here, as environment variables; the catalog's place, wherever the job runs."""
    values = settings.model_dump(mode="json", include=settings.model_fields_set, exclude_none=True)
    env = {f"TOWER_{name.upper()}": value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    if "models_dir" in values:
        env["TOWER_MODELS_DIR"] = str(settings.models_dir.expanduser().absolute())
    return env | {"TOWER_CATALOG_URI": settings.place.uri}


def cluster_env(settings: Settings) -> dict[str, str]:
    """The environment of what runs on a cluster: the settings that are set here, the catalog's place, and the models folder.

    The folder of models counts if it exists here. All other settings are those of the nodes.
    """
    env = settings_env(settings)
    if settings.models_dir.is_dir():
        env["TOWER_MODELS_DIR"] = str(settings.models_dir.expanduser().absolute())
    if not settings.place.is_local:
        env |= {name: os.environ[name] for name in STORAGE if name in os.environ}
    return env


def job_env(settings: Settings, profile: Path | None) -> dict[str, str]:
    """The job's environment. What only the desk may know stays here."""
    env = cluster_env(settings)
    env.pop("TOWER_DESK_TOKEN", None)
    if profile:
        env["TOWER_CLUSTER_PROFILE"] = f"episode/{PROFILE}"
    if sys.prefix != sys.base_prefix:  # a cluster on this machine may have been started outside of the virtual environment
        env["PATH"] = f"{Path(sys.executable).parent}:${{PATH}}"
    return env


def profile_file(settings: Settings) -> Path | None:
    """The cluster profile, if it is a file that must be copied to the job. A profile that is given by name comes with the project.

    Raises:
        InputError: the profile is wrong.
    """
    cluster_profile(settings)
    return Path(settings.cluster_profile) if settings.cluster_profile and settings.cluster_profile.endswith((".yaml", ".yml")) else None


def command(episode: Path, options: list[str], here: list[Path]) -> str:
    """The job's shell command. It renders only if all folders `here` exist on the job's machine."""
    render = shlex.join(["python", "-m", "pipeline.cli", "render", f"episode/{episode.name}", *options])
    if not here:
        return render
    problem = "is not on the machine that runs the job; give TOWER_CATALOG_URI and --out as absolute paths that all nodes share"
    folders = " ".join(shlex.quote(str(folder)) for folder in here)
    return f'for d in {folders}; do [ -d "$d" ] || {{ echo "error: folder $d {problem}"; exit 2; }}; done; exec {render}'


def check_shots(only: tuple[str, ...], episode: Episode, file: Path) -> None:
    """Raises InputError where `only` names a shot or sequence that the episode lacks."""
    known = {name for sequence, shot in episode.shots for name in (sequence.id, shot.id)}
    unknown = sorted(set(only) - known)
    if unknown:
        raise InputError(f"--only {unknown[0]}: {file} has no such shot or sequence; it has {', '.join(sorted(known)[:40])}")


def check_workflows(episode: Episode, file: Path, settings: Settings) -> None:
    """Check the names of workflows, if there is a catalog that this machine can read. Else the job finds unknown names.

    Raises:
        InputError: there is no such workflow.
    """
    try:
        catalog = Catalog.find(settings.place)
    except CatalogError:
        return
    if catalog is None:
        return
    registry = Registry(catalog, settings)
    defaults = {episode.keyframe_workflow: str(file), episode.clip_workflow: str(file)}
    of_shots = {ref: f"{file}: shot {shot.id}" for _, shot in episode.shots for ref in (shot.keyframe_workflow, shot.clip_workflow) if ref}
    for ref, where in (of_shots | defaults).items():
        registry.resolve(ref, where)


def shared_folders(settings: Settings, out: Path) -> list[Path]:
    """The folders of catalog and output that are given as relative paths, and so mean folders on this machine.

    The job starts only if its machine sees the same folders. An absolute path or a bucket is taken as the cluster's, and is not checked.
    """
    return shared_catalog(settings) + ([] if out.is_absolute() else [out.absolute()])


def shared_catalog(settings: Settings) -> list[Path]:
    """The catalog's folder, if its path is relative; else nothing."""
    return [settings.place.folder] if settings.place.is_local and not Path(settings.catalog_uri).is_absolute() else []


def _relative(name: str, where: str) -> str:
    if Path(name).is_absolute():
        raise InputError(f"{where}: {name} is an absolute path, which means nothing on another machine; give it relative to the file")
    return os.path.normpath(name)
