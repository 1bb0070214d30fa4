"""`tower serve`: the desk."""

from __future__ import annotations

import gc
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.story.errors import InputError

from .table import out

if TYPE_CHECKING:
    from pipeline.story.settings import Settings

Host = Annotated[str, typer.Option(metavar="ADDRESS", help="where it listens; off loopback it needs TOWER_DESK_TOKEN")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")]
OnRay = Annotated[bool, typer.Option("--on-ray", help="run it on the Ray cluster at RAY_ADDRESS, with renders as its jobs")]
PROTOCOL: dict[str, Any] = {"http": "h11", "ws": "none"}  # the strict parser, whatever else is installed; the desk has no web sockets
BACKLOG = 2048  # connections that wait
SWITCH_SECONDS = 0.0005  # after which a thread that computes lets the event loop go on; Python's own 5 ms are felt in each answer
CLOSING_SECONDS = 3  # for answers that are under way; event streams never end by themselves


def serve(host: Host = "127.0.0.1", port: Port = 8000, on_ray: OnRay = False) -> None:
    """The desk: a web page to submit episodes, watch them render, review takes and download the cut; and its HTTP interface."""
    from pipeline.api.guard import is_loopback
    from pipeline.api.opened import check_token
    from pipeline.story.settings import load_settings

    settings, loopback = load_settings(), is_loopback(host)
    check_token(settings, loopback)
    with suppress(KeyboardInterrupt):  # the usual end of a service
        (_on_ray if on_ray else _here)(settings, host, port, loopback)


def _here(settings: Settings, host: str, port: int, loopback: bool) -> None:
    import uvicorn

    from pipeline.api.desk import desk_folder
    from pipeline.api.opened import open_app
    from pipeline.render.local_jobs import LocalJobs

    listening = _listening(host, port)
    app = open_app(settings, lambda s, catalog: LocalJobs(desk_folder(s) / "jobs", s, catalog), loopback)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=CLOSING_SECONDS, **PROTOCOL
    )  # fmt: skip
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()  # modules stay: a collection that looks at them all stops every answer for some tens of milliseconds
    _say(host, listening.getsockname()[1])
    uvicorn.Server(config).run(sockets=[listening])


def _on_ray(settings: Settings, host: str, port: int, loopback: bool) -> None:
    from functools import partial

    from cluster.serve import served, wait_while_running
    from pipeline.api.on_ray import NAME, check, desk
    from pipeline.render.render import writable
    from pipeline.render.submission import cluster_env, shared_catalog

    if not port:
        raise InputError("--port 0 means nothing on a cluster; name the port on which its head is to listen")
    shared = shared_catalog(settings)
    for folder in shared:
        writable(folder)
    with served(NAME, desk, partial(check, loopback, shared), host, port, cluster_env(settings)):
        _say(host, port)
        wait_while_running(NAME)


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises InputError where it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)  # from here on whoever asks waits for the answer, also before the app is there
    except OSError as error:
        raise InputError(f"the desk cannot listen on {host}:{port}: {error.strerror or error}; give another --port or --host") from error
    return listening


def _say(host: str, port: int) -> None:
    name = f"[{host}]" if ":" in host else host
    out.print(f"http://{name}:{port}", highlight=False)
