"""The desk is what its OpenAPI document says, and no request that fits it, or nearly, is answered with a bug.

TOWER_FUZZ_REQUESTS says how many requests are made, round after round over all operations; 5,000 take some minutes. Left out are the event stream, which never ends, and POST
/jobs, which would start as many renders; both have tests of their own.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from pipeline.api import guard

from .service import HOST, asking, desk_app

REQUESTS = int(os.environ.get("TOWER_FUZZ_REQUESTS", "600"))
LEFT_OUT = {("GET", "/events"), ("POST", "/jobs")}
SLOW = {("GET", "/doctor"), ("GET", "/models"), ("POST", "/catalog/query"), ("GET", "/episodes/{episode}/report.html")}  # seconds each
ROUND, SLOW_ROUND = 25, 5  # requests of an operation in a round
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
REAL = {"episode": "E90", "shot": "SH0010", "stage": "clip", "version": "v001", "number": 0, "name": "sd15_keyframe_demo", "page": 1}


@pytest.fixture
def app(copied: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FastAPI]:
    """The desk over a finished render, for so many requests as nobody may make in a minute."""
    for bound in ("WRITES", "STARTS", "TRIES"):
        monkeypatch.setattr(guard, bound, 10**9)
    app = desk_app(copied / "catalog-data")
    with asking(app):
        yield app


def test_no_request_is_answered_with_a_bug_and_each_answer_is_as_documented(app):
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"host": HOST})
    operations = [result.ok() for result in schema.get_all_operations()]
    operations = [one for one in operations if (one.method.upper(), one.path) not in LEFT_OUT]
    asked: Counter[tuple[str, int]] = Counter()  # (operation, status)
    while asked.total() < REQUESTS:
        for operation in operations:
            fuzz(operation, SLOW_ROUND if (operation.method.upper(), operation.path) in SLOW else ROUND, asked)
    for status in (200, 422):  # both sides of the door were seen
        assert sum(times for (_, got), times in asked.items() if got == status) > REQUESTS / 20, asked


def fuzz(operation: Any, requests: int, asked: Counter[tuple[str, int]]) -> None:
    """Ask so many requests of an operation: half of them with ids that exist."""

    @settings(max_examples=requests, deadline=None, database=None, derandomize=REQUESTS == 600, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(), real=st.booleans())
    def ask(case: Any, real: bool) -> None:
        if real:
            for name in case.path_parameters or {}:
                case.path_parameters[name] = 1 if name == "version" and "workflows" in case.path else REAL.get(name, case.path_parameters[name])
        got = case.call(base_url=f"http://{HOST}")
        asked[operation.label, got.status_code] += 1
        case.validate_response(got, checks=CHECKS)

    ask()


def test_every_route_says_what_it_is_for_and_how_it_fails(app):
    document = app.openapi()
    operations = {(method, path): one for path, methods in document["paths"].items() for method, one in methods.items()}
    assert len(operations) > 30
    for route, one in operations.items():
        assert one["summary"] and one["description"] and one["tags"], route
        assert {"4XX", "5XX"} <= set(one["responses"]), route
        assert "application/problem+json" in one["responses"]["4XX"]["content"], route
        for parameter in one.get("parameters", ()):
            assert parameter.get("description") or parameter["schema"].get("type") == "boolean", (route, parameter["name"])
    names = [one["operationId"] for one in operations.values()]
    assert len(set(names)) == len(names)


def test_the_examples_of_the_document_are_right(app):
    """A person who tries them gets no refusal of the form."""
    document = app.openapi()
    bodies = [one["requestBody"]["content"] for methods in document["paths"].values() for one in methods.values() if "requestBody" in one]
    (story,) = {content["application/yaml"]["example"] for content in bodies if "application/yaml" in content}
    schemas = document["components"]["schemas"]
    with asking(app) as client:
        assert client.post("/episodes/validate", content=story, headers={"content-type": "application/yaml"}).status_code == 200
        assert client.post("/catalog/query", json={"sql": schemas["Question"]["properties"]["sql"]["examples"][0]}).status_code == 200
        review = schemas["Review"]["examples"][0]
        assert client.post("/reviews", json=review | {"take": review["take"].replace("E01", "E90")}).status_code == 201
        assert client.post("/jobs", json=schemas["Render"]["examples"][0]).status_code == 404  # it fits; there is no such episode here


def test_a_render_that_cannot_be_is_told_and_not_started(app):
    with asking(app) as client:
        for body in ({}, {"episode": "E90", "only": ["SH9999"]}, {"episode": "../E90"}, {"episode": "E90", "only": ["x"] * 20_000}, {"episode": "E90", "file": "/etc/passwd"}):
            assert client.post("/jobs", json=body).status_code == 422, body
        assert client.post("/jobs", json={"episode": "E99"}).status_code == 404
        assert client.get("/jobs").json() == []
