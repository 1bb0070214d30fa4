"""Errors as problem details (RFC 9457): `detail` is the sentence that the command line would print."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from catalog.media import MediaDamaged
from catalog.store import CatalogError
from cluster.code import CodeError
from cluster.jobs import NoSuchJob
from cluster.start import ClusterError
from gates.still import Undecodable
from pipeline.story.errors import InputError, NoSuch, NotProven, StorageError

from .services.errors import Busy, Nobody

LINE = re.compile(r"^[^\s:]+:([0-9]+): ")
SHOT = re.compile(r"\bshot (SH[0-9]{4,6})\b")
MEDIA_TYPE = "application/problem+json"
LONGEST = 2000  # letters of a sentence: some name what a request brought
FRAMEWORKS = {404: "there is nothing at this address", 405: "this address does not take this method", 400: "the body cannot be read"}
STATUS: Mapping[type[Exception], int] = {  # the first that fits
    NoSuch: 404,
    NoSuchJob: 404,
    Nobody: 409,
    Busy: 503,
    InputError: 422,
    MediaDamaged: 410,
    Undecodable: 410,
    StorageError: 507,
    CatalogError: 503,
    ClusterError: 503,
    CodeError: 500,
}
CONTENT = {
    MEDIA_TYPE: {
        "schema": {
            "type": "object",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "line": {"type": "integer", "description": "of the episode's file"},
                "shot": {"type": "string", "description": "the shot that the sentence is about"},
                "needs": {"type": "string", "description": "the member of the request that would allow it"},
            },
        }
    }
}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "What is wrong with the request, as problem details (RFC 9457); `detail` is one sentence",
        "content": CONTENT,
    },
    "5XX": {"description": "What the service cannot do now, told in the same way", "content": CONTENT},
}


class Problem(Exception):
    """An answer that is an error. detail: one sentence."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any):
        super().__init__(detail)
        self.status, self.detail, self.headers, self.more = status, detail, headers, more


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> JSONResponse:
    """Problem details as an answer; `more` adds members. What is no letter in UTF-8, such as half of a pair, is written as an escape."""
    told = detail[:LONGEST].encode(errors="backslashreplace").decode()
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": told} | more
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def sentence(error: Exception) -> JSONResponse:
    """The answer for an error of the rooms below, with the line and the shot that its sentence names."""
    detail = str(error)
    places: dict[str, Any] = {}
    if line := LINE.match(detail):
        places["line"] = int(line[1])
    if shot := SHOT.search(detail):
        places["shot"] = shot[1]
    if isinstance(error, NotProven):
        places["needs"] = "allow_experimental"
    status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
    return problem(status, detail, {"retry-after": "2"} if isinstance(error, Busy) else None, **places)


def install(app: FastAPI) -> None:
    """Answer every error that is foreseen with problem details. Any other is a bug, which the guard answers."""

    @app.exception_handler(Problem)
    async def told(_: Request, error: Problem) -> JSONResponse:
        return problem(error.status, error.detail, error.headers, **error.more)

    @app.exception_handler(HTTPException)
    async def of_the_framework(_: Request, error: HTTPException) -> JSONResponse:
        said = str(error.detail)
        if said in (HTTPStatus(error.status_code).phrase, "There was an error parsing the body"):
            said = FRAMEWORKS.get(error.status_code, said)
        return problem(error.status_code, said, error.headers)

    @app.exception_handler(RequestValidationError)
    async def misfit(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return problem(422, f"the body is not valid JSON: {first['ctx']['error']}")
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header"))
        return problem(422, f"{where or 'the request'}: {first['msg'][:1].lower()}{first['msg'][1:]}")

    async def known(_: Request, error: Exception) -> JSONResponse:
        return sentence(error)

    for kind in STATUS:
        app.add_exception_handler(kind, known)
