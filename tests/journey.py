"""The whole way through the page, wherever the desk runs."""

from __future__ import annotations

from pathlib import Path

import av
from playwright.sync_api import Page, expect

from .browser import assert_accessible
from .conftest import EPISODE_FRAMES
from .service import Served

RENDERED = 300_000  # ms that a render of EPISODE may take


def from_file_to_movie(page: Page, service: Served, file: Path) -> None:
    """Submit EPISODE, watch it render, pause, ask for a retake, render again, approve, download.

    Args:
        page: of a desk that has no episode yet. file: EPISODE.
    """
    expect(page.get_by_role("heading", name="No episode yet")).to_be_visible()
    page.get_by_role("button", name="Submit an episode").click()
    page.locator("dialog input[type=file]").set_input_files(file)
    page.get_by_role("button", name="Submit E90").click()

    page.get_by_role("button", name="Render 3 stale shots").click()
    page.locator("dialog .btn.main").click()
    expect(page.locator(".card.run").first).to_be_visible(timeout=RENDERED)  # it is live
    expect(page.locator(".now .device").first).to_be_visible()
    page.keyboard.press("p")
    expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=30_000)
    page.keyboard.press("p")
    expect(page.get_by_role("button", name="Pause")).to_be_visible(timeout=30_000)
    expect(page.locator(".card.ok")).to_have_count(3, timeout=RENDERED)
    expect(page.get_by_role("button", name="Nothing is stale")).to_be_visible(timeout=RENDERED)

    page.locator(".card", has_text="SH0030").click()
    expect(page.locator(".stage")).to_be_visible()
    page.keyboard.press("r")
    page.get_by_label("What should be different").fill("she blinks too often")
    page.get_by_label("Your name").fill("Mika")
    page.get_by_role("button", name="Ask for the retake").click()
    expect(page.locator(".title .state")).to_have_text("retake asked")
    page.keyboard.press("Escape")
    expect(page.locator(".card", has_text="SH0030")).to_contain_text("she blinks too often")

    page.get_by_role("button", name="Render 1 stale shot").click()
    page.locator("dialog .btn.main").click()
    expect(page.locator(".card.ok")).to_have_count(3, timeout=RENDERED)
    assert [take["attempt"] for take in service.client.get("/episodes/E90/shots/SH0030").json()["takes"] if take["stage"] == "clip"] == [1, 2]

    page.locator(".card").first.click()
    for shot in ("SH0010", "SH0020", "SH0030"):
        expect(page.get_by_role("heading", level=1)).to_have_text(shot)
        expect(page.locator(".stage")).to_be_visible()
        page.keyboard.press("a")
        expect(page.locator(".title .state")).to_have_text("approved")
        page.keyboard.press("Alt+ArrowRight")
    page.keyboard.press("Escape")
    expect(page.locator(".card.lamp")).to_have_count(3)
    expect(page.get_by_role("button", name="Contact sheet")).to_be_visible()
    page.keyboard.press("c")
    expect(page.locator("dialog h2")).to_have_text("Contact sheet")
    assert_accessible(page)
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the movie").click()
    with av.open(str(download.value.path())) as movie:
        assert sum(1 for _ in movie.decode(video=0)) == EPISODE_FRAMES
