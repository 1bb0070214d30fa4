"""Server-sent events."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse

from pipeline.api.problems import Problem

from .asked import OfEpisode, OfHub

router = APIRouter(tags=["events"])
MOST = 2000  # open streams
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "events, for ever"}
}


@router.get("/events", response_class=StreamingResponse, responses=EVENTS)
async def events(
    hub: OfHub,
    episode: OfEpisode = None,
    last_event_id: Annotated[str, Header(max_length=200, description="the last id that was seen; browsers send it by themselves")] = "",
) -> StreamingResponse:
    """What happens, as it happens: `take`, `review`, `run`, `story`, `live`, `change` (of another table), `reset` (read all anew)."""
    if hub.listeners >= MOST:
        raise Problem(503, f"{MOST} streams are open already", {"retry-after": "10"})
    return StreamingResponse(hub.listen(last_event_id, episode), media_type="text/event-stream", headers={"x-accel-buffering": "no"})
