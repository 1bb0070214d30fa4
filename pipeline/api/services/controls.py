"""Pause and resume, as the desk asks for them."""

from __future__ import annotations

from typing import Literal

from catalog.standing import Row
from pipeline.api.desk import Desk
from pipeline.render.controls import say
from pipeline.story.errors import InputError

from .errors import Nobody

Action = Literal["pause", "resume"]


def ask_render(desk: Desk, episode: str, action: Action) -> Row:
    """Record the request to whoever renders the episode. Raises Nobody."""
    try:
        row = say(desk.catalog, episode, action)
    except InputError as error:
        raise Nobody(str(error)) from error
    desk.tables.look()
    return row
