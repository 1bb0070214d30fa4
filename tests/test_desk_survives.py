"""A desk that is killed in the middle of a render: the render goes on, and everybody sees it again."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import Page, expect

from catalog.place import Place
from catalog.schema import VERSION
from catalog.store import Catalog

from .browser import CHROMIUM, Service, chromium, opened, served
from .conftest import EPISODE

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed on this machine")

SECONDS = 300  # that a render of EPISODE may take


def test_a_killed_service_ends_no_render_and_two_browsers_see_the_same_after_it_is_started_again(tmp_path: Path) -> None:
    with served(tmp_path) as service, chromium() as browser:
        job = started(service)
        with opened(browser, f"{service.url}/#/E90", faults=False) as one, opened(browser, f"{service.url}/#/E90", faults=False) as other:
            for page in (one, other):
                expect(page.locator(".card")).to_have_count(3, timeout=60_000)
            until(lambda: len(takes(tmp_path)) > 0)
            assert service.process
            service.process.send_signal(signal.SIGKILL)
            service.process.wait()
            before = len(takes(tmp_path))
            assert psutil.pid_exists(render_of(tmp_path, job)), "the render is a process of its own"
            until(lambda: len(takes(tmp_path)) > before)
            service.start()
            for page in (one, other):  # neither is loaded again by hand
                expect(page.locator(".card.ok")).to_have_count(3, timeout=SECONDS * 1000)
            until(lambda: service.get(f"/jobs/{job}")["state"] == "succeeded")
            assert seen(one) == seen(other)
    rows = takes(tmp_path)
    assert len({row["take"] for row in rows}) == len(rows)
    assert {row["run"] for row in rows} == {one_run(tmp_path)}


def started(service: Service) -> str:
    """Submit the tests' episode and render it. Gives the job's id."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        client.post("/episodes", content=EPISODE, headers={"content-type": "application/yaml"}).raise_for_status()
        answer = client.post("/jobs", json={"episode": "E90"})
        answer.raise_for_status()
        return answer.json()["job"]


def render_of(cwd: Path, job: str) -> int:
    return json.loads((cwd / "catalog-data" / "desk" / "jobs" / job / "job.json").read_text())["pid"]


def takes(cwd: Path) -> list[dict]:
    return Catalog(Place.of(cwd / "catalog-data"), VERSION).rows("takes", "E90", ["take", "run", "at"])


def one_run(cwd: Path) -> str:
    (run,) = {row["run"] for row in Catalog(Place.of(cwd / "catalog-data"), VERSION).rows("runs", "E90")}
    return run


def seen(page: Page) -> list[str]:
    """Each card's shot, state and words."""
    return page.locator(".card").all_inner_texts()


def until(true) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.5)
