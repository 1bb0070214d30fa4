"""Open event streams of the desk, all in one process.

    python -m benchmarks.desk_streams ADDRESS STREAMS       prints `open`, then when each heard of a take (time.monotonic)
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

from .desk_readers import head

AT_ONCE = 50  # connections that are being opened


async def heard(host: str, opening: asyncio.Semaphore, opened: asyncio.Barrier) -> float:
    name, _, port = host.partition(":")
    async with opening:
        reader, writer = await asyncio.open_connection(name, int(port))
        writer.write(f"GET /events HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n".encode())
        status, _ = await head(reader)
        assert status == 200, status
        await reader.readuntil(b"id: ")
    await opened.wait()
    await reader.readuntil(b"event: take")
    return time.monotonic()


async def open_all(host: str, streams: int) -> list[float]:
    opening, opened = asyncio.Semaphore(AT_ONCE), asyncio.Barrier(streams + 1)
    listening = asyncio.gather(*(heard(host, opening, opened) for _ in range(streams)))
    await opened.wait()
    print("open", flush=True)
    return await listening


if __name__ == "__main__":
    address, many = sys.argv[1:]
    print(json.dumps(asyncio.run(open_all(urlsplit(address).netloc, int(many)))), flush=True)
