"""Errors as problem details (RFC 9457): `detail` is the sentence that the command line would print."""

from __future__ import annotations

import logging
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
from pipeline.story.errors import InputError, NoSuch, StorageError

LINE = re.compile(r"^[^\s:]+:([0-9]+): ")
SHOT = re.compile(r"\bshot (SH[0-9]{4,6})\b")
MEDIA_TYPE = "application/problem+json"
STATUS: Mapping[type[Exception], int] = {  # the first that fits
    NoSuch: 404,
    NoSuchJob: 404,
    InputError: 422,
    MediaDamaged: 410,
    Undecodable: 410,
    StorageError: 507,
    CatalogError: 503,
    ClusterError: 503,
    CodeError: 500,
}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "What is wrong with the request, as problem details (RFC 9457); `detail` is one sentence",
        "content": {
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
                    },
                }
            }
        },
    }
}


class Problem(Exception):
    """An answer that is an error. detail: one sentence."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any):
        super().__init__(detail)
        self.status, self.detail, self.headers, self.more = status, detail, headers, more


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> JSONResponse:
    """Problem details as an answer; `more` adds members."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail} | more
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def sentence(error: Exception) -> JSONResponse:
    """The answer for an error of the rooms below, with the line and the shot that its sentence names."""
    detail = str(error)
    places: dict[str, Any] = {}
    if line := LINE.match(detail):
        places["line"] = int(line[1])
    if shot := SHOT.search(detail):
        places["shot"] = shot[1]
    status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
    return problem(status, detail, **places)


def install(app: FastAPI) -> None:
    """Answer every error with problem details."""

    @app.exception_handler(Problem)
    async def told(_: Request, error: Problem) -> JSONResponse:
        return problem(error.status, error.detail, error.headers, **error.more)

    @app.exception_handler(HTTPException)
    async def of_the_framework(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def misfit(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header"))
        return problem(422, f"{where or 'the request'}: {first['msg'][:1].lower()}{first['msg'][1:]}")

    async def known(_: Request, error: Exception) -> JSONResponse:
        return sentence(error)

    for kind in STATUS:
        app.add_exception_handler(kind, known)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        logging.getLogger("tower.desk").error("%s %s", request.method, request.url.path, exc_info=error)
        return problem(500, "a bug in Tower: the service's log has the traceback")
