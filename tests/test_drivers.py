"""Two drivers on one episode: one renders, the other is told so. A dead one blocks nobody."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from PIL import Image

from catalog.store import Catalog
from pipeline.render.process import DEAD_AFTER
from pipeline.render.run_log import RunLog, living
from pipeline.story.errors import InputError

from .conftest import EPISODE, refused, takes_of, tower
from .test_faults import read_until, start


def log(catalog: Catalog, episode: str = "E90") -> RunLog:
    plan: Any = SimpleNamespace(episode=SimpleNamespace(id=episode), file="episode.yaml", file_digest="d", shots=[1, 2], stale=[1])
    return RunLog(catalog, plan, False, {"w@1": "proven"})


def test_the_second_of_two_drivers_is_told_who_renders(episode):
    process = start(episode)
    try:
        read_until(process, r"Ray: ")
        refused(tower("render", episode, cwd=episode.parent), "E90 is being rendered by run", f"process {process.pid} on", "wait for it")
    finally:
        process.kill()
        process.wait()
    events = [r["event"] for r in Catalog.open(episode.parent / "catalog-data").rows("runs")]
    assert events == ["started", "started", "refused"]


def test_a_claim_holds_until_it_is_ended_or_its_process_is_dead(tmp_path):
    catalog = Catalog.open(tmp_path)
    first = log(catalog)
    first.claim()
    with pytest.raises(InputError, match=f"being rendered by run {first.run}"):
        log(catalog).claim()
    log(catalog, "E91").claim()
    catalog.append("runs", [first.row("finished")])
    log(catalog).claim()


def test_a_run_names_the_job_that_it_is_part_of(episode):
    grey = Image.new("RGB", (300, 200), (120, 120, 120))
    grey.save(episode.parent / "grey.png")
    episode.write_text(EPISODE.replace("title: A test}", "keyframe: grey.png}"))
    for job in ({}, {"TOWER_JOB": "tower-E90-1"}):
        assert tower("render", episode, "--only", "SH0010", "--fresh", cwd=episode.parent, **job).code == 3
    rows = Catalog.open(episode.parent / "catalog-data").rows("runs")
    assert [(row["event"], row["job"]) for row in rows] == [
        ("started", None), ("finished", None), ("started", "tower-E90-1"), ("finished", "tower-E90-1"),
    ]  # fmt: skip


def test_a_killed_drivers_claim_is_void_at_once_on_its_machine_and_after_a_while_elsewhere(tmp_path):
    row = log(Catalog.open(tmp_path)).row("started")
    assert living([row]) == [row]
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    assert living([row | {"pid": dead.pid}]) == []
    zombie = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has reaped it
    created = psutil.Process(zombie.pid).create_time()
    assert living([row | {"pid": zombie.pid, "process_started": created}]) == []
    zombie.wait()
    parent = psutil.Process(os.getppid())
    assert living([row | {"pid": parent.pid, "process_started": parent.create_time() - 100}]) == [], "the number came round again"
    elsewhere = row | {"host": "another-machine"}
    assert living([elsewhere]) == [elsewhere]
    assert living([elsewhere | {"at": datetime.now(UTC) - DEAD_AFTER - timedelta(seconds=1)}]) == []
    assert living([elsewhere | {"at": datetime.now(UTC) - DEAD_AFTER - timedelta(seconds=1)}, elsewhere | {"event": "alive"}])


def test_a_driver_that_comes_to_its_claim_late_does_not_render_again_what_another_has_rendered(episode, here, monkeypatch):
    claim = RunLog.claim

    def late(self: RunLog) -> None:
        assert tower("render", episode, "--only", "SH0020", cwd=episode.parent).code == 0
        claim(self)

    monkeypatch.setattr(RunLog, "claim", late)
    done = here("render", episode, "--only", "SH0020")
    assert done.code == 0 and "1 to render" in done.out and "0 takes in this run" in done.out, done.out + done.err
    accepted = [t["stage"] for t in takes_of(episode.parent) if t["outcome"] == "accepted"]
    assert sorted(accepted) == ["clip", "keyframe"]


def claim_it(folder: str, start_at: Any, results: Any) -> None:
    catalog = Catalog.open(folder)
    start_at.wait()
    try:
        log(catalog).claim()
        results.put("mine")
    except InputError:
        results.put("told")
    except Exception as error:  # noqa: BLE001 - told to the test
        results.put(repr(error))
    start_at.wait()  # alive until all have tried


def test_of_many_drivers_that_start_at_once_exactly_one_renders(tmp_path):
    Catalog.open(tmp_path)
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        results, together = context.Queue(), context.Barrier(4)
        drivers = [context.Process(target=claim_it, args=(str(tmp_path), together, results)) for _ in range(4)]
        for d in drivers:
            d.start()
        assert sorted(results.get(timeout=60) for _ in drivers) == ["mine", "told", "told", "told"]
        for d in drivers:
            d.join(30)
