"""Renders as jobs on this machine: each a process of its own, which goes on when whoever started it has ended.

A job is a folder: `job.json` says what was asked for and which process it is, `log.txt` holds what it prints, and `exit` its exit code.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from pydantic import TypeAdapter, ValidationError

from catalog.store import Catalog
from pipeline import PROJECT
from pipeline.story.episode import load_episode
from pipeline.story.errors import InputError, NoSuch, StorageError
from pipeline.story.settings import Settings

from .job import ENDS, LOG_BYTES, End, Facts, Job, log_part, reason
from .order import Order
from .process import may_be_running, process_columns
from .run_log import living_runs, taken
from .submission import JOB, PREFIX, check_shots, profile_file, settings_env

STOP_SECONDS = 30.0  # time for a stopped job to end by itself; then it is killed
LOOK_SECONDS = 0.1  # between two looks at a job that is stopping
TAIL_BYTES = 16 * 2**10  # of a log's end, in which an error is looked for
KEPT = 200  # folders of jobs; older ones go when a job starts

# The shell begins nothing before it reads a line, so a job whose record was not written never runs. It outlives the render by the time
# that it takes to write the exit code. A trap, unlike an ignored signal, is not handed down to the render.
SHELL = 'trap : HUP INT TERM; read -r go && { "$@" </dev/null; echo $? >exit.part; mv exit.part exit; }'

started_here: list[subprocess.Popen[bytes]] = []  # processes that this one has to reap when they have ended


@dataclass(frozen=True)
class LocalJob:
    """A job as its folder tells it. options: of `tower render`. host, pid, pid_space, process_started: as in the table of runs."""

    job: str
    episode: str
    file: str
    options: tuple[str, ...]
    at: datetime
    host: str
    pid: int
    pid_space: str
    process_started: float


RECORD = TypeAdapter(LocalJob)


class LocalJobs:
    """`Jobs` on this machine.

    Args:
        folder: holds the jobs' folders. Several services of this machine may share it.
        settings: of the renders. catalog: of the settings.
    """

    def __init__(self, folder: Path, settings: Settings, catalog: Catalog):
        self.folder, self.settings, self.catalog = folder, settings, catalog

    def start(self, order: Order) -> Job:
        return self._told(start(self.folder, order, self.settings, self.catalog))

    def list(self, episode: str | None = None) -> Sequence[Job]:
        found = [(job, self._end(job)) for job in jobs(self.folder) if episode in (None, job.episode)]
        facts = Facts(self.catalog)
        return [facts.job(job.job, job.episode, job.at, end) for job, end in found]

    def find(self, job: str) -> Job:
        return self._told(find(self.folder, job))

    def log(self, job: str, offset: int = 0) -> tuple[str, int]:
        find(self.folder, job)
        return log_of(self.folder / job, offset)

    def stop(self, job: str) -> Job:
        found = find(self.folder, job)
        stop(self.folder / job, found)
        return self._told(found)

    def _told(self, job: LocalJob) -> Job:
        end = self._end(job)  # before the catalog is asked: of a job that has ended, every row is there
        return Facts(self.catalog).job(job.job, job.episode, job.at, end)

    def _end(self, job: LocalJob) -> End | None:
        return end_of(self.folder / job.job, job)


def start(folder: Path, order: Order, settings: Settings, catalog: Catalog) -> LocalJob:
    """Start a render as a process of its own.

    Args:
        folder: gets the job's folder. settings: as the render is to have them. catalog: of the settings; tells who renders now.

    Raises:
        InputError: the order or a setting is wrong, or the episode is being rendered. If two start at once, the driver refuses one.
        StorageError: the job's folder cannot be written.
    """
    episode = load_episode(order.file)
    check_shots(order.only, episode, order.file)
    profile = profile_file(settings)
    _refuse_a_second(folder, episode.id, catalog)
    name = f"{PREFIX}{episode.id}-{secrets.token_hex(6)}"
    options = (*order.options, "--out", str(order.out.absolute()))
    command = [sys.executable, "-u", "-m", "pipeline.cli", "render", str(order.file.absolute()), *options]
    path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    env = os.environ | settings_env(settings) | {JOB: name, "PYTHONPATH": path}
    if profile:
        env["TOWER_CLUSTER_PROFILE"] = str(profile.absolute())
    try:
        own = folder / name
        own.mkdir(parents=True)
        with (own / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", SHELL, "tower", *command],
                cwd=own, env=env, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        started_here.append(process)
        assert process.stdin
        with process.stdin as gate:
            told = process_columns(process.pid)
            job = LocalJob(name, episode.id, str(order.file.absolute()), options, datetime.now(UTC), **told)
            _write(own / "job.json", RECORD.dump_json(job))
            gate.write(b"go\n")
    except OSError as error:
        raise StorageError(f"folder {folder} cannot be written: {error.strerror or error}") from error
    _sweep(folder)
    return job


def jobs(folder: Path) -> list[LocalJob]:
    """The jobs whose folders are here, newest first. A folder without a whole record holds no job."""
    found = [job for path in folder.glob(f"{PREFIX}*/job.json") if (job := _read(path))]
    return sorted(found, key=lambda job: job.at, reverse=True)


def find(folder: Path, name: str) -> LocalJob:
    """Raises InputError where there is no such job."""
    job = _read(folder / name / "job.json") if re.fullmatch(rf"{PREFIX}[A-Za-z0-9-]+", name) else None
    if job is None:
        raise NoSuch(f"there is no job {name!r} on this machine")
    return job


def alive(own: Path, job: LocalJob) -> bool:
    """Whether the job has not ended. own: its folder."""
    for process in list(started_here):
        if process.poll() is not None:  # reaps it
            with suppress(ValueError):  # another thread was quicker
                started_here.remove(process)
    return not (own / "exit").exists() and may_be_running(asdict(job))


def end_of(own: Path, job: LocalJob) -> End | None:
    """How the job ended; None while it lives. own: its folder."""
    if alive(own, job):
        return None
    try:
        code = int((own / "exit").read_text())
    except (OSError, ValueError):
        return End("failed", _changed(own / "log.txt"), "it was killed, or the machine went down, before it could tell how it ended")
    at = _changed(own / "exit")
    if code in ENDS:
        return End(ENDS[code], at)
    if code > 128:
        return End("failed", at, f"it was killed by signal {code - 128}; signal 9 often means that memory ran out")
    return End("failed", at, reason(_tail(own / "log.txt").splitlines()))


def log_of(own: Path, offset: int = 0) -> tuple[str, int]:
    """A part of what the job has printed, at most LOG_BYTES, and the offset of what follows.

    Args:
        own: the job's folder. offset: in bytes, from 0; where a part ended, or anywhere.
    """
    try:
        with (own / "log.txt").open("rb") as log:
            log.seek(offset)
            data = log.read(LOG_BYTES)
    except OSError:
        return "", offset
    return log_part(data, offset)


def stop(own: Path, job: LocalJob) -> None:
    """Stop the job as a scheduler does, and kill it where it has not ended after STOP_SECONDS. Returns when it has ended.

    Only the render itself is told to stop. It ends its Ray, whose processes belong to the same group and must not die before it.
    """
    if not alive(own, job):
        return
    with suppress(psutil.NoSuchProcess):
        for render in psutil.Process(job.pid).children():  # of the shell, which has no other child
            render.terminate()
    if _has_ended(own, job):
        return
    with suppress(ProcessLookupError):
        os.killpg(job.pid, signal.SIGKILL)
    if _has_ended(own, job) and not (own / "exit").exists():
        _write(own / "exit", b"130")


def _has_ended(own: Path, job: LocalJob) -> bool:
    """Wait until the job has ended, at most STOP_SECONDS."""
    end = time.monotonic() + STOP_SECONDS
    while alive(own, job):
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _refuse_a_second(folder: Path, episode: str, catalog: Catalog) -> None:
    for row in living_runs(catalog, episode):
        raise InputError(taken(episode, row))
    for job in jobs(folder):
        if job.episode == episode and alive(folder / job.job, job):
            raise InputError(f"episode {episode} is being rendered by job {job.job}; wait for it, or stop it")


def _sweep(folder: Path) -> None:
    """Remove the folders of the oldest jobs that have ended."""
    for job in jobs(folder)[KEPT:]:
        if not alive(folder / job.job, job):
            shutil.rmtree(folder / job.job, ignore_errors=True)


def _read(path: Path) -> LocalJob | None:
    try:
        job = RECORD.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return job if job.job == path.parent.name else None


def _write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return log.read().decode(errors="replace")
    except OSError:
        return ""


def _changed(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None
