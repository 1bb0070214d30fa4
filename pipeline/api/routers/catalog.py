"""The catalog: SQL that reads."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from pipeline.api.services.query import ROWS, query

from .asked import OfDesk

router = APIRouter(tags=["catalog"])


class Question(BaseModel):
    sql: Annotated[
        str,
        Field(
            min_length=1,
            max_length=20_000,
            description='one SELECT over the tables (docs/TABLES.md) and views; the column "at" in double quotes',
            examples=["SELECT outcome, count(*) AS takes FROM verdicts GROUP BY outcome"],
        ),
    ]
    rows: Annotated[int, Field(ge=1, le=ROWS, description="at most so many rows")] = 1000


class Answer(BaseModel):
    columns: list[str]
    rows: list[list[Any]]
    truncated: bool = Field(description="whether there are more rows")


@router.post("/catalog/query")
def ask(question: Question, desk: OfDesk) -> Answer:
    """Ask the live tables and views anything. DuckDB reads; nothing can be written, and no file or network can be reached."""
    found = query(desk.catalog, question.sql, question.rows)
    return Answer(columns=found.columns, rows=found.rows, truncated=found.truncated)
