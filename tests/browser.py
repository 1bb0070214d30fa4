"""A browser in front of the desk, for the tests of the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from pipeline.registry.open_catalog import open_catalog
from pipeline.story.settings import load_settings

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SEEN = 30_000  # ms until anything but a render must be there, also on a machine that is busy
AXE = Path(__file__).parent / "vendor" / "axe.min.js"


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, faults: bool = True, **context: Any) -> Iterator[Page]:
    """A page of a new profile. What it writes to the console as an error, the policy's refusals included, fails the test.

    Args:
        faults: False where the service's refusals are part of the test, as browsers write those to the console too.
    """
    found: list[str] = []
    with browser.new_context(**({"viewport": {"width": 1440, "height": 900}} | context)) as profile:
        page = profile.new_page()
        page.on("pageerror", lambda error: found.append(str(error)))
        page.on("console", lambda message: message.type == "error" and found.append(message.text))
        page.goto(url)
        yield page
        refused = "Failed to load resource"
        assert [text for text in found if faults or not text.startswith(refused)] == []


def with_many_takes(cwd: Path) -> None:
    """Give SH0010 of E90 eight clips: v001 accepted, v002 to v007 rejected for flicker, v008 accepted, which stands.

    The pictures are those of v001 and of SH0030; only the rows are new.
    """
    catalog = open_catalog(load_settings().model_copy(update={"catalog_uri": str(cwd / "catalog-data")}))
    rows = {row["take"]: row for row in catalog.rows("takes", "E90")}
    first, other = rows["E90/SH0010/clip/v001"], rows["E90/SH0030/clip/v001"]
    fault = {"label": "flicker", "measure": "flicker", "value": 1.2, "threshold": 0.9, "outcome": "fail", "frames": [38, 47], "text": ""}
    picture = {name: other[name] for name in ("media", "media_path", "media_bytes")}
    for attempt in range(2, 9):
        rejected = {"outcome": "rejected", "labels": ["flicker"], "findings": json.dumps([fault])} if attempt < 8 else {}
        new = {"take": f"E90/SH0010/clip/v{attempt:03d}", "attempt": attempt, "at": first["at"] + timedelta(seconds=attempt)}
        catalog.append_later("takes", [first | new | rejected | (picture if attempt < 8 else {})])


def assert_accessible(page: Page) -> None:
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    assert [(v["id"], v["nodes"][0]["html"], v["nodes"][0]["failureSummary"]) for v in found] == []
