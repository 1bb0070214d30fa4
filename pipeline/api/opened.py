"""Opens the desk that the settings name, for one machine or for Ray Serve."""

from __future__ import annotations

import re
from collections.abc import Callable

from fastapi import FastAPI

from catalog.store import Catalog
from pipeline.registry.open_catalog import open_catalog
from pipeline.render.job import Jobs
from pipeline.render.render import writable
from pipeline.story.errors import InputError
from pipeline.story.settings import Settings

from .desk import Desk, desk_folder
from .main import build_app

SHORTEST = 16  # letters of a token
TOKEN = r"[!#-+\--:<-\[\]-~]*"  # what headers and cookies hold as it is: ASCII without spaces, quotes, comma, semicolon and backslash


def open_app(settings: Settings, jobs: Callable[[Settings, Catalog], Jobs], loopback: bool) -> FastAPI:
    """The app over the catalog that the settings name; a new catalog is created.

    Args:
        jobs: what starts renders. loopback: whether only this machine can reach the app. Else every name in Host is taken, and the
            settings must hold a token.

    Raises:
        InputError: the token is missing or too short, or a folder cannot be written.
        CatalogError: the catalog cannot be opened.
    """
    check_token(settings, loopback)
    if settings.place.is_local:
        writable(settings.place.folder)
    catalog = open_catalog(settings)
    folder = writable(desk_folder(settings))
    desk = Desk(settings, catalog, folder, jobs(settings, catalog), settings.desk_token)
    return build_app(desk, () if loopback else None)


def check_token(settings: Settings, loopback: bool) -> None:
    """Raises InputError where strangers could reach a desk without a token."""
    if not settings.desk_token and not loopback:
        raise InputError(f"off loopback the desk needs a token: set TOWER_DESK_TOKEN to a secret of at least {SHORTEST} letters")
    if settings.desk_token and len(settings.desk_token) < SHORTEST:
        raise InputError(f"TOWER_DESK_TOKEN has {len(settings.desk_token)} letters; a secret of at least {SHORTEST} is wanted")
    if not re.fullmatch(TOKEN, settings.desk_token):
        raise InputError("TOWER_DESK_TOKEN holds a letter that no header can carry; letters of ASCII without spaces and quotes are wanted")
