"""`tower submit`, `jobs`, `logs`, `cancel`: renders as jobs on a Ray cluster that runs already."""

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
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.story.errors import InputError, StorageError

from .common import AllowExperimental, Fresh, NewSeeds, shots_named
from .table import out, show

if TYPE_CHECKING:
    from cluster.jobs import Job
    from pipeline.story.episode import Episode
    from pipeline.story.settings import Settings

PREFIX = "tower-"  # of the id of every job that Tower submits
PROFILE = ".tower-profile.yaml"  # the file name, in the job's folder, of a cluster profile that is copied there
STORAGE = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP")  # where a bucket is; nodes have their own keys

Address = Annotated[
    str | None, typer.Option(metavar="URL", help="Ray's job API; else RAY_API_SERVER_ADDRESS, RAY_ADDRESS, http://127.0.0.1:8265")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="the job's id, as `tower jobs` lists it")]


def submit(
    episode: Annotated[Path, typer.Argument(metavar="EPISODE", help="episode file (YAML)")],
    out_dir: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="a folder here, or, if absolute, there: where the episode's folder is written")
    ] = Path("out"),
    only: Annotated[str, typer.Option(metavar="SHOTS", help="only these shots or sequences, separated by commas")] = "",
    fresh: Fresh = False,
    new_seeds: NewSeeds = False,
    allow_experimental: AllowExperimental = False,
    address: Address = None,
    wait: Annotated[bool, typer.Option("--wait", help="print the job's log, and end as it ends")] = False,
) -> None:
    """Render as a job on a Ray cluster. The same submission again, while it runs, is that job."""
    from cluster import jobs
    from pipeline.story.episode import load_episode
    from pipeline.story.settings import load_settings

    settings, written = load_settings(), load_episode(episode)
    shots = _only(only, written, episode)
    profile = _profile_file(settings)
    named = named_files(written, episode) | ({PROFILE: profile} if profile else {})
    _check_workflows(written, episode, settings)
    client = jobs.connect(jobs.address_of(address))
    folder_out, here = _places(settings, out_dir)
    flags = {"--fresh": fresh, "--new-seeds": new_seeds, "--allow-experimental": allow_experimental}
    options = [*(["--only", ",".join(shots)] if shots else []), *(option for option, wanted in flags.items() if wanted)]
    command = _command(episode, [*options, "--out", folder_out], here)
    name = job_id(written.id, episode, named, [*options, folder_out, settings.place.uri])
    metadata = {"episode": written.id, "file": str(episode.absolute())}
    with _staged(episode, named) as folder:
        job, new = jobs.submit(client, name, command, folder, job_env(settings, profile), metadata)
    out.print(f"{'submitted' if new else 'already submitted'} as {job.id}, {job.state}", highlight=False, soft_wrap=True)
    if wait:
        _end_as(_followed(client, job))


def list_jobs(
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON list of objects")] = False, address: Address = None
) -> None:
    """Tower's jobs on a Ray cluster."""
    from cluster import jobs

    client = jobs.connect(jobs.address_of(address))
    rows = [
        {
            "job": job.id,
            "episode": job.metadata.get("episode", ""),
            "state": job.state,
            "since": job.started,
            "seconds": ((job.ended or datetime.now(UTC)) - job.started).total_seconds() if job.started else None,
            "message": _why(job),
        }
        for job in jobs.jobs(client, PREFIX)
    ]
    show(rows, as_json, "no jobs")


def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", help="go on until the job ends, and end as it ends")] = False,
    address: Address = None,
) -> None:
    """What a job has printed."""
    from cluster import jobs

    client = jobs.connect(jobs.address_of(address))
    found = jobs.find(client, job)
    if follow:
        _end_as(_followed(client, found))
    _tell(jobs.log_of(client, job))


def cancel(job: JobId, address: Address = None) -> None:
    """Stop a job. Its takes so far stay in the catalog, and the same submission again goes on from there."""
    from cluster import jobs

    client = jobs.connect(jobs.address_of(address))
    found = jobs.find(client, job)
    ended = found if found.over else jobs.stop(client, job)
    out.print(f"{job} {'had ended already' if found.over else 'ended'}: {ended.state}", highlight=False, soft_wrap=True)


def named_files(episode: Episode, file: Path) -> dict[str, Path]:
    """The pictures and the font that the episode names: path in the job's folder `episode`, to path on this machine.

    Raises:
        InputError: a file is missing or cannot be read, its path is absolute, or the font lacks a letter of a title.
    """
    from pipeline.plan.resolve import font_of, given_keyframe
    from pipeline.story.title import check_title

    found: dict[str, Path] = {}
    font = font_of(episode, file)
    if episode.title_font and font:
        found[_relative(episode.title_font, f"{file}: title_font")] = font
    for _, shot in episode.shots:
        where = f"{file}: shot {shot.id}"
        if shot.title:
            check_title(shot.title, font, where, (episode.width, episode.height))
        if shot.keyframe is None:
            continue
        found[_relative(shot.keyframe, f"{where}: keyframe")] = given_keyframe(file, shot.keyframe, where)
    return found


@contextmanager
def _staged(episode: Path, named: dict[str, Path]) -> Iterator[Path]:
    """A temporary folder with all that a render reads.

    Raises:
        StorageError: it cannot be written, mostly because the disk is full.
    """
    try:
        folder = tempfile.mkdtemp(prefix="tower-")
    except OSError as error:
        raise StorageError(f"no temporary folder can be made: {error.strerror or error}; make room, or set TMPDIR") from error
    try:
        try:
            stage(Path(folder), episode, named)
        except (OSError, shutil.Error) as error:
            why = getattr(error, "strerror", None) or error
            raise StorageError(f"{folder} cannot be written: {str(why)[:200]}; make room, or set TMPDIR to another disk") from error
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stage(folder: Path, episode: Path, named: dict[str, Path]) -> None:
    """Copy all that a render reads into a folder: the project, the episode file, and the files that the episode names."""
    from cluster.code import copy_code

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


def job_env(settings: Settings, profile: Path | None) -> dict[str, str]:
    """The job's environment: the settings that the submitter has set, the catalog's place, and the models folder if it exists here.

    All other settings are those of the nodes.
    """
    values = settings.model_dump(mode="json", include=settings.model_fields_set, exclude_none=True)
    env = {f"TOWER_{name.upper()}": value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    env["TOWER_CATALOG_URI"] = settings.place.uri
    if profile:
        env["TOWER_CLUSTER_PROFILE"] = f"episode/{PROFILE}"
    if "models_dir" in values or settings.models_dir.is_dir():
        env["TOWER_MODELS_DIR"] = str(settings.models_dir.expanduser().absolute())
    if not settings.place.is_local:
        env |= {name: os.environ[name] for name in STORAGE if name in os.environ}
    if sys.prefix != sys.base_prefix:  # a cluster on this machine may have been started outside of the virtual environment
        env["PATH"] = f"{Path(sys.executable).parent}:${{PATH}}"
    return env


def _profile_file(settings: Settings) -> Path | None:
    """The cluster profile, if it is a file that must be copied to the job. A profile that is given by name comes with the project."""
    from pipeline.story.cluster_profile import cluster_profile

    cluster_profile(settings)  # raises InputError if the profile is wrong
    return Path(settings.cluster_profile) if settings.cluster_profile and settings.cluster_profile.endswith((".yaml", ".yml")) else None


def _places(settings: Settings, out_dir: Path) -> tuple[str, list[str]]:
    """The output folder, and the folders that this machine must share with the job's machine.

    A relative path means a folder on this machine. It is made here, and the job starts only if its machine sees the same folder.
    An absolute path or a bucket is taken as the cluster's, and is not checked.
    """
    from pipeline.render.render import writable

    here = []
    if settings.place.is_local and not Path(settings.catalog_uri).is_absolute():
        here.append(str(writable(settings.place.folder)))
    if not out_dir.is_absolute():
        here.append(str(writable(out_dir.absolute())))
    return str(out_dir.absolute()), here


def _command(episode: Path, options: list[str], here: list[str]) -> str:
    """The job's shell command. It renders only if all folders `here` exist on the job's machine."""
    render = shlex.join(["python", "-m", "pipeline.cli", "render", f"episode/{episode.name}", *options])
    if not here:
        return render
    problem = "is not on the machine that runs the job; give TOWER_CATALOG_URI and --out as absolute paths that all nodes share"
    folders = " ".join(map(shlex.quote, here))
    return f'for d in {folders}; do [ -d "$d" ] || {{ echo "error: folder $d {problem}"; exit 2; }}; done; exec {render}'


def _relative(name: str, where: str) -> str:
    if Path(name).is_absolute():
        raise InputError(f"{where}: {name} is an absolute path, which means nothing on another machine; give it relative to the file")
    return os.path.normpath(name)


def _only(given: str, episode: Episode, file: Path) -> tuple[str, ...]:
    wanted = shots_named(given)
    known = {name for sequence, shot in episode.shots for name in (sequence.id, shot.id)}
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise InputError(f"--only {unknown[0]}: {file} has no such shot or sequence; it has {', '.join(sorted(known)[:40])}")
    return wanted


def _check_workflows(episode: Episode, file: Path, settings: Settings) -> None:
    """Check the names of workflows, if there is a catalog that this machine can read. Else the job finds unknown names."""
    from catalog.store import Catalog, CatalogError
    from pipeline.registry.workflows import Registry

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


def _followed(client: Any, job: Job) -> Job:
    from cluster import jobs

    try:
        return jobs.follow(client, job.id, _tell)
    except KeyboardInterrupt:
        out.print(f"{job.id} goes on; `tower cancel {job.id}` stops it", highlight=False, soft_wrap=True)
        raise


def _end_as(job: Job) -> None:
    """End with the exit code of the job's own command; 130 if it was stopped."""
    out.print(f"{job.id} ended: {job.state}", highlight=False, soft_wrap=True)
    if job.state != "SUCCEEDED":
        raise typer.Exit(130 if job.state == "STOPPED" else job.exit_code or 1)
    raise typer.Exit(0)


def _why(job: Job) -> str:
    """Why a job failed: its command's last error, or the last shot that is exhausted, else Ray's message. "" for any other job."""
    if job.state != "FAILED":
        return ""
    lines = [line.strip() for line in job.message.splitlines() if line.strip()] or [""]
    return next((line for line in reversed(lines) if line.startswith("error: ") or " exhausted: " in line), lines[0])


def _tell(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
