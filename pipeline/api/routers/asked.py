"""What many routes ask for: the desk, and ids. Each id has a closed pattern, so that no path or query can be hidden in one."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from pipeline.api.desk import Desk
from pipeline.api.services.controls import Action
from pipeline.api.services.events import Hub
from pipeline.story.stages import PATTERN


async def _desk(request: Request) -> Desk:  # async: the framework calls anything else in a thread, and waits for one
    return request.app.state.desk


async def _hub(request: Request) -> Hub:
    return request.app.state.hub


OfDesk = Annotated[Desk, Depends(_desk)]
OfHub = Annotated[Hub, Depends(_hub)]
EpisodeId = Annotated[str, Path(pattern=r"^E[0-9]{2,4}$", description="id of an episode", examples=["E01"])]
ShotId = Annotated[str, Path(pattern=r"^SH[0-9]{4,6}$", description="id of a shot", examples=["SH0010"])]
StageName = Annotated[str, Path(pattern=rf"^{PATTERN}$", description="stage of a take", examples=["clip"])]
Version = Annotated[str, Path(pattern=r"^v[0-9]{3,6}$", description="attempt of a take", examples=["v001"])]
WorkflowName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="name of a workflow")]
JobId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,100}$", description="id of a job, as GET /jobs lists it")]
ActionName = Annotated[Action, Path(description="what the render is to do")]
OfEpisode = Annotated[str | None, Query(pattern=r"^E[0-9]{2,4}$", description="of this episode alone")]
TAKE = "/takes/{episode}/{shot}/{stage}/{version}"
