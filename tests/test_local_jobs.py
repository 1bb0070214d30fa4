"""Renders as processes of their own: they outlive whoever started them, are stopped politely, and tell how they ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from PIL import Image

from catalog.store import Catalog
from pipeline.render import local_jobs as module
from pipeline.render.job import LOG_BYTES, Job
from pipeline.render.local_jobs import RECORD, LocalJob, LocalJobs, find, jobs, log_of
from pipeline.render.order import Order
from pipeline.render.process import process_columns
from pipeline.story.errors import InputError, StorageError
from pipeline.story.settings import Settings

from .conftest import EPISODE, PROJECT, environment
from .test_drivers import log

PATIENCE = 240  # seconds, after which what should have happened never will
STARTER = """\
import sys, time
from pathlib import Path
from tests.test_local_jobs import desk_in
desk = desk_in(Path(sys.argv[1]))
print(desk.jobs.start(desk.order).job, flush=True)
time.sleep(1000)
"""


@dataclass(frozen=True)
class Desk:
    """A folder with an episode, a catalog and jobs."""

    folder: Path
    jobs: LocalJobs

    @property
    def order(self) -> Order:
        return Order(self.folder / "episode.yaml", self.folder / "out", only=("SH0020",))

    @property
    def catalog(self) -> Catalog:
        return self.jobs.catalog

    def own(self, job: Job) -> Path:
        return self.jobs.folder / job.job

    def until(self, job: str, reached: Callable[[Job], bool]) -> list[Job]:
        """What is told of a job, each time that it is another state, up to what is waited for, or to its end."""
        told: list[Job] = []
        end = time.monotonic() + PATIENCE
        while not told or not (reached(told[-1]) or over(told[-1])):
            now = self.jobs.find(job)
            if not told or (now.state, now.run) != (told[-1].state, told[-1].run):
                told.append(now)
            assert time.monotonic() < end, (told, self.jobs.log(job))
            time.sleep(0.1)
        return told


def desk_in(folder: Path) -> Desk:
    settings = Settings(_env_file=None, catalog_uri=str(folder / "catalog-data"), models_dir=folder / "models", log_seconds=0)  # type: ignore[call-arg]
    return Desk(folder, LocalJobs(folder / "jobs", settings, Catalog.open(folder / "catalog-data")))


@pytest.fixture
def desk(tmp_path, seeded) -> Desk:
    shutil.copytree(seeded, tmp_path / "catalog-data")
    (tmp_path / "episode.yaml").write_text(EPISODE)
    return desk_in(tmp_path)


def over(job: Job) -> bool:
    return job.ended is not None


def a_record(desk: Desk, n: int = 0, **more: object) -> LocalJob:
    """The record of a job that ended, or of one that this process is."""
    name = f"tower-E90-{n:012x}"
    told = LocalJob(name, "E90", "episode.yaml", (), datetime.now(UTC) + timedelta(seconds=n), **process_columns())
    told = replace(told, **more)  # type: ignore[arg-type]
    (desk.jobs.folder / name).mkdir(parents=True)
    (desk.jobs.folder / name / "job.json").write_bytes(RECORD.dump_json(told))
    (desk.jobs.folder / name / "log.txt").write_text("so far\n")
    return told


def test_a_render_goes_on_when_its_starter_is_killed_and_anybody_may_see_how_far_it_is(desk):
    environ = environment(desk.folder, TOWER_CATALOG_URI="elsewhere")  # the starter's settings go before what it has in its environment
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(desk.folder)], cwd=PROJECT, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert starter.stdout
        job = starter.stdout.readline().strip()
    finally:
        starter.kill()
        starter.wait()
    first = desk.jobs.find(job)
    assert (first.episode, first.cancellable) == ("E90", True) and first.state in ("queued", "running")  # a starter may be slower to die
    with pytest.raises(InputError, match="E90 is being rendered by "):
        desk.jobs.start(desk.order)
    told = desk.until(job, over)
    assert [one.state for one in told if one.state != "queued"] == ["running", "succeeded"], (told, desk.jobs.log(job))
    last = told[-1]
    assert (last.message, last.done, last.total, last.cancellable) == ("", 1, 1, False) and last.started < last.ended  # type: ignore[operator]
    rows = desk.catalog.rows("runs")
    assert {(row["job"], row["run"]) for row in rows} == {(job, last.run)} and rows[-1]["event"] == "finished"
    assert (desk.folder / "out" / "E90" / "shots").is_dir()
    text, offset = desk.jobs.log(job)
    assert "1 of 1 shots accepted" in text and desk.jobs.log(job, offset) == ("", offset)
    assert [one.job for one in desk.jobs.list("E90")] == [job] and desk.jobs.list("E91") == []


def test_a_stopped_render_ends_as_after_ctrl_c_and_leaves_no_process(desk, monkeypatch):
    monkeypatch.setattr(module, "STOP_SECONDS", PATIENCE)  # a busy machine is slow to end a Ray
    job = desk.jobs.start(desk.order)
    pid = find(desk.jobs.folder, job.job).pid
    desk.until(job.job, lambda one: "accepted" in desk.jobs.log(one.job)[0])
    family = psutil.Process(pid).children(recursive=True)
    assert os.getsid(pid) == pid != os.getsid(0)
    stopped = desk.jobs.stop(job.job)
    assert (stopped.state, stopped.cancellable, stopped.message) == ("stopped", False, ""), desk.jobs.log(job.job)
    assert "interrupted; every take so far is in the catalog" in desk.jobs.log(job.job)[0]
    assert desk.catalog.rows("runs")[-1]["event"] == "interrupted"
    assert not psutil.wait_procs(family, timeout=20)[1] and not psutil.pid_exists(pid), "the process itself is reaped"
    assert desk.jobs.stop(job.job) == stopped, "once more changes nothing"


def test_a_render_that_hangs_is_killed_and_counts_as_stopped(desk, monkeypatch):
    job = desk.jobs.start(desk.order)
    desk.until(job.job, lambda one: one.state == "running")
    monkeypatch.setattr(module, "STOP_SECONDS", 2.0)
    (render,) = psutil.Process(find(desk.jobs.folder, job.job).pid).children()
    family = [render, *render.children(recursive=True)]
    render.suspend()
    monkeypatch.setattr(psutil.Process, "terminate", lambda self: None)  # a signal would wait until the process is resumed
    assert desk.jobs.stop(job.job).state == "stopped"
    assert not psutil.wait_procs(family, timeout=20)[1]


def test_a_render_whose_shots_are_exhausted_has_done_its_work_and_says_so(desk):
    Image.new("RGB", (300, 200), (120, 120, 120)).save(desk.folder / "grey.png")
    (desk.folder / "episode.yaml").write_text(EPISODE.replace("title: A test}", "keyframe: grey.png}"))
    job = desk.jobs.start(replace(desk.order, only=("SH0010",)))
    (*_, last) = desk.until(job.job, over)
    assert (last.state, last.message) == ("succeeded", "1 shot exhausted"), desk.jobs.log(job.job)


def test_a_render_that_is_refused_fails_with_its_own_sentence(desk):
    (desk.folder / "episode.yaml").write_text(EPISODE.replace("animatediff_16_demo", "animatediff_16"))  # its weights are nowhere
    job = desk.jobs.start(desk.order)
    (*_, last) = desk.until(job.job, over)
    assert last.state == "failed" and last.message.startswith("error: workflow animatediff_16: checkpoint") and last.run is None


def test_a_bad_order_is_one_sentence_and_starts_nothing(desk):
    with pytest.raises(InputError, match="SH0990"):
        desk.jobs.start(replace(desk.order, only=("SH0990",)))
    with pytest.raises(InputError, match=r"there is no job 'tower-E90-nowhere'"):
        desk.jobs.find("tower-E90-nowhere")
    for name in ("../catalog-data", "tower-/../x", ""):
        with pytest.raises(InputError, match="there is no job"):
            desk.jobs.log(name)
    assert not desk.jobs.folder.exists()


def test_an_episode_that_a_shell_renders_is_refused_with_who_does(desk):
    log(desk.catalog).claim()
    with pytest.raises(InputError, match=f"E90 is being rendered by run .*process {os.getpid()} on"):
        desk.jobs.start(desk.order)
    assert not desk.jobs.folder.exists()


def test_a_job_whose_record_cannot_be_written_never_begins(desk, monkeypatch):
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(StorageError, match="cannot be written: No space left on device"):
        desk.jobs.start(desk.order)
    monkeypatch.undo()
    (own,) = desk.jobs.folder.iterdir()
    assert module.started_here[-1].wait(20) != 0 and sorted(file.name for file in own.iterdir()) == ["log.txt"]
    assert (own / "log.txt").read_bytes() == b"" and desk.jobs.list() == [] and desk.catalog.rows("runs") == []


def test_a_process_that_ended_without_a_word_has_failed_and_a_number_that_came_round_again_is_another(desk):
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    told = process_columns(dead.pid)
    dead.wait()
    gone = a_record(desk, 1, **told)
    again = a_record(desk, 2, process_started=process_columns()["process_started"] - 100)
    living = a_record(desk, 3)
    found = {job.job: job for job in desk.jobs.list()}
    assert list(found) == [living.job, again.job, gone.job], "newest first"
    assert [found[job.job].state for job in (living, again, gone)] == ["queued", "failed", "failed"]
    assert "killed, or the machine went down" in found[gone.job].message and found[gone.job].ended


@pytest.mark.parametrize(
    ("code", "printed", "state", "message"),
    [
        ("0", "all well\n", "succeeded", ""),
        ("130", "interrupted\n", "stopped", ""),
        ("143", "", "stopped", ""),
        ("2", "error: first\nE90: 3 shots\nerror: the disk is full\nsome more\n", "failed", "error: the disk is full"),
        ("1", "Traceback (most recent call last):\nKeyError: 'x'\n\n", "failed", "KeyError: 'x'"),
        ("137", "E90: 3 shots\n", "failed", "it was killed by signal 9; signal 9 often means that memory ran out"),
        ("", "E90: 3 shots\n", "failed", "it was killed, or the machine went down, before it could tell how it ended"),
    ],
)
def test_an_exit_code_and_the_last_error_tell_how_a_job_ended(desk, code, printed, state, message):
    own = desk.jobs.folder / a_record(desk).job
    (own / "log.txt").write_text(printed)
    (own / "exit").write_text(code)
    (job,) = desk.jobs.list()
    assert (job.state, job.message) == (state, message) and job.ended and not job.cancellable


def test_a_log_is_read_in_parts_that_break_no_letter(desk, tmp_path):
    text = "はな" * LOG_BYTES
    (tmp_path / "log.txt").write_text(text + "é"[:1])
    parts, offset = [], 0
    while (part := log_of(tmp_path, offset))[0]:
        assert len(part[0].encode()) <= LOG_BYTES
        parts.append(part[0])
        offset = part[1]
    assert "".join(parts) == text + "é" and offset == (tmp_path / "log.txt").stat().st_size
    with (tmp_path / "log.txt").open("ab") as file:
        file.write("あ".encode()[:2])
        file.flush()
        assert log_of(tmp_path, offset) == ("", offset), "half a letter waits for its other half"
        file.write("あ".encode()[2:] + b"\xff!")
    text, end = log_of(tmp_path, offset)
    assert text == "あ\ufffd!" and log_of(tmp_path, end) == ("", end)
    assert log_of(tmp_path, end + 1000) == ("", end + 1000) and log_of(tmp_path / "none", 5) == ("", 5)


@pytest.mark.parametrize("record", ["", "{", "[]", '{"job": "tower-E90-1"}', "\0"])
def test_a_strange_record_is_no_job(desk, record):
    good = a_record(desk)
    odd = desk.jobs.folder / "tower-E90-odd"
    odd.mkdir()
    (odd / "job.json").write_text(record)
    (desk.jobs.folder / "tower-E90-copy").mkdir()
    shutil.copy(desk.jobs.folder / good.job / "job.json", desk.jobs.folder / "tower-E90-copy")
    assert [job.job for job in desk.jobs.list()] == [good.job]


def test_the_folders_of_the_oldest_jobs_go_and_never_that_of_one_that_lives(desk, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 2)
    living, *ended = [a_record(desk, n) for n in range(5)]
    for job in ended:
        (desk.jobs.folder / job.job / "exit").write_text("0")
    module._sweep(desk.jobs.folder)
    assert {job.job for job in jobs(desk.jobs.folder)} == {living.job, ended[-1].job, ended[-2].job}


@pytest.fixture(autouse=True)
def _nothing_is_left_running():
    yield
    for process in module.started_here:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
