"""Readers of the desk, all in one process: each asks for what the page in a browser asks for.

Browsers are on other machines, so this process does as little beside as it can: it takes an answer apart only where it has to know what to
ask for next, and a shot's only once.

    python -m benchmarks.desk_readers ADDRESS EPISODE READERS SECONDS THINK      prints a JSON list of [route, seconds, status]
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

THUMBNAILS = 3  # that a shot's page asks for


@dataclass
class Browser:
    """One connection that stays open. asked: (route, seconds, status) of each request."""

    host: str
    asked: list[tuple[str, float, int]]
    tags: dict[str, str] = field(default_factory=dict)
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def get(self, route: str, path: str) -> bytes:
        """The body; empty where nothing has changed since the last time."""
        if self.writer is None:
            name, _, port = self.host.partition(":")
            self.reader, self.writer = await asyncio.open_connection(name, int(port), limit=2**22)
        tag = f"If-None-Match: {self.tags[path]}\r\n" if path in self.tags else ""
        began = time.perf_counter()
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n{tag}\r\n".encode())
        assert self.reader
        status, headers = await head(self.reader)
        body = await self.reader.readexactly(int(headers.get("content-length", 0))) if status != 304 else b""
        self.asked.append((f"{route}, unchanged" if status == 304 else route, time.perf_counter() - began, status))
        if "etag" in headers:
            self.tags[path] = headers["etag"]
        return body


async def head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value for name, _, value in pairs}


Known = dict[str, list[str]]  # shot to the takes that have a file


async def read(browser: Browser, episode: str, known: Known, until: float, think: float, chance: random.Random) -> None:
    """Look at the list, then at the board and at one shot after the other."""
    await asyncio.sleep(chance.random() * think)
    await browser.get("list of episodes", "/episodes")
    while time.monotonic() < until:
        board = await browser.get("board", f"/episodes/{episode}")
        if not known:
            known |= {card["shot"]: [] for sequence in json.loads(board)["sequences"] for card in sequence["shots"]}
        await asyncio.sleep(think * chance.uniform(0.5, 1.5))
        shot = chance.choice([*known])
        page = await browser.get("shot", f"/episodes/{episode}/shots/{shot}")
        known[shot] = known[shot] or [take["take"] for take in json.loads(page)["takes"] if take["media"]]
        shown = chance.sample(known[shot], min(THUMBNAILS, len(known[shot])))
        for take in shown:
            await browser.get("thumbnail", f"/takes/{take}/frames/0.jpg?width=320")
        await browser.get("take", f"/takes/{shown[0]}")
        await asyncio.sleep(think * chance.uniform(0.5, 1.5))


async def read_all(host: str, episode: str, readers: int, seconds: float, think: float) -> list[tuple[str, float, int]]:
    asked: list[tuple[str, float, int]] = []
    until = time.monotonic() + seconds
    known: Known = {}
    await asyncio.gather(*(read(Browser(host, asked), episode, known, until, think, random.Random(n)) for n in range(readers)))
    return asked


if __name__ == "__main__":
    address, of, many, how_long, pause = sys.argv[1:]
    json.dump(asyncio.run(read_all(urlsplit(address).netloc, of, int(many), float(how_long), float(pause))), sys.stdout)
