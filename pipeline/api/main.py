"""`build_app`: the one app of the desk, for uvicorn on one machine and for Ray Serve in a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi import FastAPI

from catalog.migrate import tower_version

from . import problems
from .desk import Desk
from .guard import Guard
from .routers import catalog, episodes, events, health, jobs, page, reviews, takes, workflows
from .services.episodes import prepare
from .services.events import Hub

ROUTERS = (page, health, episodes, takes, reviews, jobs, workflows, catalog, events)


def build_app(desk: Desk, hosts: tuple[str, ...] | None = ()) -> FastAPI:
    """The app.

    Args:
        desk: what its routes share.
        hosts: names under which the desk is known, beside those of loopback. None: any, which needs a token.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.desk, app.state.hub = desk, Hub(desk.catalog, desk.tables)
        desk.tables.prepare = partial(prepare, desk)
        watching = asyncio.create_task(app.state.hub.watch())
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    app = FastAPI(
        title="Tower's desk",
        version=tower_version(),
        description="Submit an episode, watch it render, look at takes side by side, approve or ask for a retake, download the cut.",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts of others
        redoc_url=None,
        redirect_slashes=False,  # an address has one form
        responses=problems.DOCUMENTED,
    )
    app.add_middleware(Guard, token=desk.token, hosts=hosts)
    problems.install(app)
    for part in ROUTERS:
        app.include_router(part.router)
    return app
