"""Reviews: what people say of takes, and what it changes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from pipeline.api.services.episodes import checked_out, episode_of
from pipeline.evidence.review import Said, reviews, say
from pipeline.story.stages import PATTERN

from .asked import OfDesk

router = APIRouter(tags=["reviews"])
Point = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)]


class Review(BaseModel):
    """A person's word on a take. With `retake`, seed, prompt and parameters take the place of the shot's from then on."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"take": "E01/SH0010/clip/v001", "verdict": "retake", "note": "hair flickers", "first_frame": 41}]},
    )

    take: Annotated[str, Field(pattern=rf"^E[0-9]{{2,4}}/SH[0-9]{{4,6}}/{PATTERN}/v[0-9]{{3,6}}$")]
    verdict: Literal["approved", "picked", "retake", "note"]
    note: Annotated[str, Field(max_length=2000)] = ""
    by: Annotated[str, Field(max_length=100, description="who says so; the service's user, if not given")] = ""
    first_frame: Annotated[int | None, Field(ge=0, le=100_000, description="of what the note is about, from 0")] = None
    last_frame: Annotated[int | None, Field(ge=0, le=100_000)] = None
    drawing: Annotated[list[list[Point]] | None, Field(max_length=500, description="lines over first_frame, in shares of its size")] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**32)] = None
    prompt: Annotated[str | None, Field(max_length=100_000)] = None
    parameters: Annotated[dict[str, float], Field(max_length=50)] = Field(default_factory=dict)


@router.post("/reviews", status_code=201)
def add(review: Review, desk: OfDesk) -> dict[str, Any]:
    """Approve a take (it stands, whatever comes), pick another accepted one, ask for a retake, or leave a note."""
    episode = review.take.split("/")[0]
    row = say(desk.catalog, desk.settings, Said(**review.model_dump()), episode_of(desk, episode), checked_out(desk, episode))
    desk.tables.look()
    return next(found for found in reviews(desk.catalog, episode) if found["at"] == row["at"])


@router.get("/reviews")
def listing(
    desk: OfDesk,
    episode: Annotated[str, Query(pattern=r"^E[0-9]{2,4}$", description="id of an episode")],
    shot: Annotated[str | None, Query(pattern=r"^SH[0-9]{4,6}$", description="of this shot alone")] = None,
) -> list[dict[str, Any]]:
    """What was said of an episode or of one shot, the newest first."""
    return reviews(desk.catalog, episode, shot)

