"""What a running render says of itself to other processes: in a file that nobody needs, and that no fault of the disk makes dangerous."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalog.place import PART, Place
from catalog.store import Catalog
from pipeline.render import live as module
from pipeline.render.live import FILE, LEFT, Live, LiveDevice, LiveStage, LiveWork, living_now, shown_live
from pipeline.render.run_log import RunLog

from .conftest import takes_of
from .test_drivers import log
from .test_faults import read_until, start

STEP = re.compile(r"(keyframe|clip) v\d{3}( waits)?|gate [12]")


def said(run: str, **more: object) -> Live:
    """What a run might say."""
    stage = LiveStage(1, 3, 1, 0, 0, 0)
    device = LiveDevice("device 0 on here", "here", True, (LiveWork("E90/SH0010/clip/v001", "clip ltx@1"),), datetime.now(UTC))
    live = Live(run, "E90", datetime.now(UTC), False, 12.5, {"keyframe": stage, "clip": stage}, (device,), {"SH0010": "clip v001"}, {"clip": 0}, 0.5)
    return replace(live, **more)  # type: ignore[arg-type]


@pytest.fixture
def running(tmp_path) -> RunLog:
    """A run that this process has claimed."""
    run = log(Catalog.open(tmp_path / "catalog-data"))
    run.claim()
    return run


def file_of(run: RunLog) -> Path:
    file = run.catalog.place.folder / "live" / f"{run.run}.json"
    file.parent.mkdir(exist_ok=True)
    return file


@pytest.mark.ray
def test_another_process_sees_what_a_render_does_and_nothing_once_it_has_ended(episode):
    process = start(episode)
    try:
        read_until(process, "^Ray: ")
        catalog, seen = Catalog.open(episode.parent / "catalog-data"), []
        while process.poll() is None:
            seen += [live for live in living_now(catalog) if not seen or live.at != seen[-1].at]
            time.sleep(0.1)
        assert process.returncode == 0, process.stdout.read() if process.stdout else ""
    finally:
        process.kill()
    takes = takes_of(episode.parent)
    assert {(live.run, live.episode) for live in seen} == {(takes[0]["run"], "E90")}
    assert all(STEP.fullmatch(step) for live in seen for step in live.shots.values()), [live.shots for live in seen]
    at_work = [(live, work) for live in seen for device in live.devices for work in device.doing if device.up and device.since]
    for live, work in at_work:
        if work.take:
            _, shot, stage, attempt = work.take.split("/")
            assert work.what.startswith(f"{stage} ") and live.shots[shot] == f"{stage} {attempt}"
    assert {work.take for _, work in at_work} & {take["take"] for take in takes}
    assert {live.stages["clip"].total for live in seen} == {3} and seen[-1].stages["keyframe"].done == 3
    assert 0 < seen[-1].gpu_minutes <= sum(take["device_seconds"] for take in takes) / 60
    assert list((episode.parent / "catalog-data" / "live").iterdir()) == [] and living_now(catalog) == []


def test_only_the_runs_that_live_are_told_and_of_one_episode_where_it_is_asked_for(running):
    other = log(running.catalog, "E91")
    other.claim()
    for run in (running, other):
        file_of(run).write_bytes(FILE.dump_json(said(run.run, episode=run.plan.episode.id)))
    assert {live.run for live in living_now(running.catalog)} == {running.run, other.run}
    assert [live.run for live in living_now(running.catalog, "E91")] == [other.run]
    running.catalog.append("runs", [other.row("interrupted")])
    assert [live.run for live in living_now(running.catalog)] == [running.run]
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    running.catalog.append("runs", [running.row("alive", pid=dead.pid)])
    assert living_now(running.catalog) == [], "it was killed, and its file is still there"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file, text: file.unlink(),
        lambda file, text: file.write_text(""),
        lambda file, text: file.write_text(text[: len(text) // 2]),
        lambda file, text: file.write_bytes(b"\xff\xfe\0"),
        lambda file, text: file.write_text("[1, 2]"),
        lambda file, text: file.write_text(text.replace('"eta_seconds":12.5', '"eta_seconds":"soon"')),
        lambda file, text: file.write_text(text.replace(file.stem, "another-run")),
        lambda file, text: (file.unlink(), file.mkdir()),
    ],
    ids=["missing", "empty", "half", "no text", "no object", "no number", "of another run", "a folder"],
)
def test_a_strange_file_says_nothing_and_breaks_nothing(running, spoil: Callable[[Path, str], object]):
    file = file_of(running)
    file.write_bytes(FILE.dump_json(said(running.run)))
    assert living_now(running.catalog) == [FILE.validate_json(file.read_bytes())]
    spoil(file, file.read_text())
    assert living_now(running.catalog) == []


def test_a_file_that_is_a_minute_old_says_nothing_about_now(running):
    for seconds, told in ((55, 1), (61, 0)):
        file_of(running).write_bytes(FILE.dump_json(said(running.run, at=datetime.now(UTC) - timedelta(seconds=seconds))))
        assert len(living_now(running.catalog)) == told


def shown(place: Place, run: str, meanwhile: Callable[[], bool]) -> list[str]:
    """Show a run until `meanwhile` is true. Gives what it said, version after version."""
    versions: list[str] = []

    def now() -> Live:
        versions.append(f"v{len(versions)}")
        return said(run, shots={"SH0010": versions[-1]})

    async def story() -> None:
        async with asyncio.timeout(20), shown_live(place, run, now):
            while not meanwhile():  # noqa: ASYNC110 - a condition of any kind has no event
                await asyncio.sleep(0.01)

    asyncio.run(story())
    return versions


def test_the_file_is_written_again_and_again_and_is_gone_at_the_end(running, monkeypatch):
    monkeypatch.setattr(module, "DISK_SECONDS", 0.0)
    seen: set[str] = set()

    def look() -> bool:
        seen.update(live.shots["SH0010"] for live in living_now(running.catalog))
        return len(seen) > 5

    versions = shown(running.catalog.place, running.run, look)
    assert seen <= set(versions) and not file_of(running).exists()


def test_what_killed_drivers_left_goes_and_what_others_write_now_stays(running):
    folder = file_of(running).parent
    old, unfinished, young = folder / "old.json", folder / f"{PART}abc", folder / "young.json"
    long_ago = time.time() - LEFT.total_seconds() - 60
    for file in (old, unfinished, young):
        file.write_text("{}")
    for file in (old, unfinished):
        os.utime(file, (long_ago, long_ago))
    shown(running.catalog.place, running.run, lambda: not old.exists() and not unfinished.exists())
    assert list(folder.iterdir()) == [young]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_shows_nothing_and_stops_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=False).returncode:
        pytest.skip("this machine does not allow mounting")
    try:
        filler = disk / "filler"
        with pytest.raises(OSError), filler.open("wb") as out:
            while True:
                out.write(b"x" * 4096)
                out.flush()
        with pytest.raises(OSError, match="No space left"):
            Place.of(disk).show("live/one.json", b"x" * 4096)
        asked = iter(range(100))
        shown(Place.of(disk), "one", lambda: next(asked) > 50)
        assert not list(disk.rglob("*.json"))
        filler.unlink()
        shown(Place.of(disk), "one", lambda: (disk / "live" / "one.json").is_file())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_that_cannot_be_made_stops_nothing(running):
    (running.catalog.place.folder / "live").write_text("a file where the folder would be")
    asked = iter(range(100))
    assert shown(running.catalog.place, running.run, lambda: next(asked) > 50) and living_now(running.catalog) == []
