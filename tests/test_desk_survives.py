"""A desk that is killed in the middle of a render: the render goes on, and everybody sees it again."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import Page, expect

from catalog.place import Place
from catalog.schema import VERSION
from catalog.store import Catalog

from .browser import CHROMIUM, chromium, opened
from .conftest import EPISODE
from .service import serving

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed on this machine")

SECONDS = 300  # that a render of EPISODE may take


def test_a_killed_service_ends_no_render_and_two_browsers_see_the_same_after_it_is_started_again(tmp_path: Path) -> None:
    with chromium() as browser, serving(tmp_path) as service:
        job, port = started(service.client), service.port
        address = f"http://127.0.0.1:{port}/#/E90"
        with opened(browser, address, faults=False) as one, opened(browser, address, faults=False) as other:
            for page in (one, other):
                expect(page.locator(".card")).to_have_count(3, timeout=60_000)
            until(lambda: len(takes(tmp_path)) > 0)
            service.process.kill()
            service.process.wait()
            before = len(takes(tmp_path))
            assert psutil.pid_exists(render_of(tmp_path, job)), "the render is a process of its own"
            until(lambda: len(takes(tmp_path)) > before)
            with serving(tmp_path, "--port", str(port)) as again:
                for page in (one, other):  # neither is loaded again by hand
                    expect(page.locator(".card.ok")).to_have_count(3, timeout=SECONDS * 1000)
                until(lambda: again.client.get(f"/jobs/{job}").json()["state"] == "succeeded")
                assert seen(one) == seen(other)
    rows = takes(tmp_path)
    assert len({row["take"] for row in rows}) == len(rows)
    assert {row["run"] for row in rows} == {one_run(tmp_path)}


def started(client: httpx.Client) -> str:
    """Submit the tests' episode and render it. Gives the job's id."""
    client.post("/episodes", content=EPISODE, headers={"content-type": "application/yaml"}).raise_for_status()
    return client.post("/jobs", json={"episode": "E90"}).raise_for_status().json()["job"]


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
