"""The pictures of docs/DESK.md: the demo episode on a real desk in a real browser.

    python -m benchmarks.screenshots [--out docs/desk]

The episode is submitted and rendered, one shot gets a retake and is rendered again, another is approved and a third is sent back; then the
pages are photographed. Needs the extra `dev` and Debian's chromium.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, sync_playwright

from pipeline import PROJECT

CHROMIUM = "/usr/bin/chromium"
QUIET = "--headless --no-sandbox --disable-gpu --no-first-run --disable-quic --disable-background-networking --disable-component-update"
STORY = PROJECT / "configs" / "episodes" / "demo.yaml"
COMPARED = "SH0060"  # gets a second take
LIMIT = 900.0  # seconds for one render
DESKTOP, PHONE = (1440, 900), (390, 844)


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tower-desk-") as folder, desk(Path(folder)) as client:
        sounds = [("files", (path.name, path.read_bytes())) for path in STORY.parent.glob("*.ogg")]
        client.post("/episodes", files=[("story", (STORY.name, STORY.read_bytes())), *sounds]).raise_for_status()
        render(client)
        say(client, f"E01/{COMPARED}/clip/v001", "retake", note="her hair flickers", first_frame=40, last_frame=47)
        render(client)
        say(client, f"E01/{COMPARED}/clip/v001", "note", note="the sun is better here", first_frame=41)
        say(client, "E01/SH0050/clip/v001", "approved", note="lovely")
        say(client, "E01/SH0080/clip/v001", "retake", note="the moon is missing")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
            picture(browser, client, "#/E01", out / "board.png", DESKTOP, "dark")
            picture(browser, client, f"#/E01/{COMPARED}", out / "shot.png", DESKTOP, "dark")
            picture(browser, client, f"#/E01/{COMPARED}", out / "phone.png", PHONE, "light")
            browser.close()


@contextmanager
def desk(folder: Path) -> Iterator[httpx.Client]:
    """A desk of its own, over a new catalog in the folder; ended with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = os.environ | {"TOWER_CATALOG_URI": str(folder / "catalog"), "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, cwd=folder, env=env) as process, httpx.Client(base_url=address, timeout=120) as client:
        try:
            until(lambda: answers(client))
            yield client
        finally:
            process.terminate()
            process.wait()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").is_success
    except httpx.TransportError:
        return False


def render(client: httpx.Client) -> None:
    """Render what is stale, to the end."""
    started = client.post("/jobs", json={"episode": "E01"})
    started.raise_for_status()
    until(lambda: client.get(f"/jobs/{started.json()['job']}").json()["state"] in ("succeeded", "failed", "stopped"))


def say(client: httpx.Client, take: str, verdict: str, **more: Any) -> None:
    client.post("/reviews", json={"take": take, "verdict": verdict, "by": "Mei", **more}).raise_for_status()


def picture(browser: Browser, client: httpx.Client, page: str, to: Path, size: tuple[int, int], scheme: Any) -> None:
    """Photograph a page once it is quiet."""
    tab = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    tab.goto(f"{client.base_url}/{page}")
    tab.wait_for_selector("main h2, main h1, main video, main img", timeout=60_000)
    tab.wait_for_timeout(6_000)
    tab.screenshot(path=to)
    tab.close()
    print(to)


def until(true: Any) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {LIMIT:.0f} s")
        time.sleep(0.5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PROJECT / "docs" / "desk")
    main(parser.parse_args().out)
