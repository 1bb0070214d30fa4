"""The desk's service for tests: in this process, or as `tower serve` runs it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from fastapi import FastAPI
from starlette.testclient import TestClient

from pipeline.api.desk import desk_folder
from pipeline.api.opened import open_app
from pipeline.render.local_jobs import LocalJobs
from pipeline.story.settings import load_settings

from .conftest import environment

TOKEN = "a-secret-of-these-tests"
HOST = "localhost:8000"
Header = tuple[str, str]


def desk_app(folder: Path, token: str = "") -> FastAPI:
    """The app as `tower serve` opens it over a catalog's folder; with a token, as it is off loopback."""
    settings = load_settings().model_copy(update={"catalog_uri": str(folder), "desk_token": token, "models_dir": folder.parent / "models"})
    return open_app(settings, lambda s, catalog: LocalJobs(desk_folder(s) / "jobs", s, catalog), loopback=not token)


@contextmanager
def asking(app: FastAPI, **headers: str) -> Iterator[TestClient]:
    """A client of the app. A bug is an answer with 500, as a person gets it."""
    with TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False, headers=headers) as client:
        yield client


@dataclass(frozen=True)
class Began:
    """The beginning of an answer."""

    status: int
    headers: Mapping[str, str]


async def began(app: FastAPI, method: str, path: str, headers: Sequence[Header] = (), query: str = "") -> Began:
    """Ask with exactly these headers, also such as no client would send, and wait until the answer begins: some never end."""
    answer: asyncio.Future[Began] = asyncio.get_running_loop().create_future()
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "", "headers": raw,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "state": {},
    }  # fmt: skip
    sent = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(sent, None) or await asyncio.Event().wait()  # type: ignore[func-returns-value]

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.set_result(Began(message["status"], {n.decode(): v.decode("latin-1") for n, v in message["headers"]}))

    asked = asyncio.ensure_future(app(scope, receive, send))  # type: ignore[arg-type]
    await asyncio.wait([asked, answer], timeout=60, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    await asyncio.wait([asked])
    return answer.result()


@dataclass(frozen=True)
class Served:
    """A running `tower serve`."""

    process: subprocess.Popen[str]
    client: httpx.Client
    log: Path

    @property
    def port(self) -> int:
        assert self.client.base_url.port
        return self.client.base_url.port

    @property
    def memory(self) -> float:
        """What the service holds in memory, in MB."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6


@contextmanager
def serving(cwd: Path, *args: str, **env: str) -> Iterator[Served]:
    """`tower serve` over the catalog in `cwd`, on any free port."""
    log = cwd / "serve.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "serve", "--port", "0", *args],
            cwd=cwd, env=environment(cwd, **env), stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        try:
            assert process.stdout
            line = process.stdout.readline()
            found = re.search(r":([0-9]+)\s*$", line)
            assert found, line + log.read_text()
            with httpx.Client(base_url=f"http://127.0.0.1:{found[1]}", timeout=120) as client:
                yield Served(process, client, log)
        finally:
            process.terminate()
            process.wait(120)
