"""Who may ask the desk: each route x each kind of stranger. The routes are the app's own list, so a new one cannot be forgotten."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from pipeline.api.guard import HEADERS, STARTS, TRIES, WRITES
from pipeline.api.problems import Problem
from pipeline.api.routers.asked import _desk
from pipeline.story.errors import InputError

from .conftest import refused, tower
from .service import HOST, TOKEN, Began, Header, asking, began, desk_app, serving

IDS = {
    "episode": "E90", "shot": "SH0010", "stage": "clip", "version": "v001", "number": "0", "page": "1", "job": "x", "action": "pause",
    "name": "sd15_keyframe_demo", "name:path": "index.html",
}  # fmt: skip
OPEN = {("GET", "/"), ("GET", "/health"), ("GET", "/page/index.html"), ("POST", "/token")}  # without a token
REACHED = 418  # what a route answers here, once a request has come so far


@pytest.fixture
def catalog(seeded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(seeded, tmp_path / "catalog-data")


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Every method and path, with ids for its parameters."""
    found = []
    for route in all_routes(app.routes):
        ids = IDS | ({"version": "1"} if "/workflows/" in route.path else {})
        path = route.path
        for name, value in ids.items():
            path = path.replace(f"{{{name}}}", value)
        found += [(method, path) for method in sorted(route.methods)]
    return found


def all_routes(given: Sequence) -> Iterator:
    for route in given:
        if hasattr(route, "path"):
            yield route
        else:  # a router that was included
            yield from all_routes(route.original_router.routes)


def answers(app: FastAPI, *columns: Callable[[str], Sequence[Header]], query: str = "") -> dict[tuple[str, str], list[Began]]:
    """What each route answers to the headers that each column makes for its method. Routes that are reached do no work."""

    def reached() -> None:
        raise Problem(REACHED, "the route is reached")

    async def ask() -> dict[tuple[str, str], list[Began]]:
        async with app.router.lifespan_context(app):
            return {(m, p): [await began(app, m, p, column(m), query) for column in columns] for m, p in routes(app)}

    app.dependency_overrides[_desk] = reached
    return asyncio.run(ask())


def through(status: int) -> bool:
    return status in (REACHED, 200)


def writes(method: str) -> bool:
    return method not in ("GET", "HEAD", "OPTIONS")


def headers(*more: Header, host: str = HOST) -> Callable[[str], Sequence[Header]]:
    return lambda method: [("host", host), *more]


def bearer(token: str = TOKEN) -> Header:
    return "authorization", f"Bearer {token}"


PROGRAM: list[Header] = []
FOREIGN = ("origin", "http://evil.example")
SITE = "sec-fetch-site"
LINK = [(SITE, "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]


def test_the_table_has_every_route_of_the_desk(catalog):
    found = routes(desk_app(catalog))
    assert len(found) > 30 and len(set(found)) == len(found)
    assert {("GET", "/openapi.json"), ("GET", "/events"), ("POST", "/catalog/query"), ("POST", "/jobs/x/cancel")} <= set(found)
    assert set(found) >= OPEN


def test_on_loopback_programs_and_the_own_page_reach_every_route(catalog):
    own = [("origin", f"http://{HOST}"), (SITE, "same-origin")]
    for route, got in answers(desk_app(catalog), headers(), headers(*own)).items():
        assert all(through(one.status) for one in got), (route, got)


@pytest.mark.parametrize(
    "hosts",
    [
        ["evil.example"], ["evil.example:8000"], ["localhost.evil.example"], ["127.0.0.1.evil.example:8000"], ["localhost.:8000"], ["localhost:"],
        ["localhost:x"], ["localhost:8000:8000"], ["user@localhost"], ["10.0.0.1:8000"], ["0.0.0.0:8000"], ["[::]:8000"], ["[fe80::1]"], [""], [" "],
        ["localhost, evil.example"], [], ["localhost:8000", "localhost:8000"], ["localhost:8000", "evil.example"],
    ],
)  # fmt: skip
def test_on_loopback_a_host_that_is_not_loopback_reaches_nothing(catalog, hosts):
    """A foreign name that resolves to 127.0.0.1 (DNS rebinding) is told by its Host alone."""
    for route, (got,) in answers(desk_app(catalog), lambda _: [("host", host) for host in hosts]).items():
        assert got.status == 421, (route, got)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:65535", "127.0.0.2:8000", "[::1]", "[::1]:8000"])
def test_every_name_of_loopback_is_known(catalog, host):
    own = headers(("origin", f"http://{host.lower()}"), (SITE, "same-origin"), host=host)
    for route, (got,) in answers(desk_app(catalog), own).items():
        assert through(got.status), (route, got)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "http://localhost:8001", "http://localhost", "http://127.0.0.1:8000", "https://localhost:8000", "", "file://",
        "http://localhost:8000.evil.example", "http://localhost:8000/", "http://localhost:8000@evil.example", "http://[", "chrome-extension://abc",
    ],
)  # fmt: skip
def test_a_page_of_another_origin_writes_nothing(catalog, origin):
    """Without Sec-Fetch-Site, as older browsers ask. What they read, no page of another origin gets to see: no answer allows it."""
    for (method, path), (got,) in answers(desk_app(catalog), headers(("origin", origin))).items():
        assert got.status == 403 if writes(method) else through(got.status), (method, path, got)
        assert not any(name.startswith("access-control-") for name in got.headers)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Same-Origin", "", "anything"])
def test_a_page_of_another_site_neither_embeds_nor_writes(catalog, site):
    for route, got in answers(desk_app(catalog), headers((SITE, site)), headers((SITE, site), ("origin", f"http://{HOST}"))).items():
        assert [one.status for one in got] == [403, 403], (route, got)


def test_a_link_from_elsewhere_and_an_address_that_was_typed_open_what_they_name_and_write_nothing(catalog):
    for (method, path), got in answers(desk_app(catalog), headers(*LINK), headers((SITE, "none"))).items():
        assert all(one.status == 403 if writes(method) else through(one.status) for one in got), (method, path, got)


def test_doubled_headers_do_not_hide_a_foreign_one(catalog):
    twice = headers((SITE, "cross-site"), (SITE, "same-origin"), FOREIGN, ("origin", f"http://{HOST}"))
    turned = headers((SITE, "same-origin"), (SITE, "cross-site"), ("origin", f"http://{HOST}"), FOREIGN)
    for (method, path), (first, second) in answers(desk_app(catalog), twice, turned).items():
        assert first.status == 403 and (second.status == 403 or not writes(method)), (method, path, first, second)


@pytest.mark.parametrize(
    "shown",
    [
        [], [bearer("wrong")], [bearer(TOKEN[:-1])], [bearer(TOKEN + "x")], [bearer("")], [("authorization", TOKEN)], [("authorization", f"Basic {TOKEN}")],
        [bearer("wrong"), bearer()], [("cookie", "tower_token=wrong")], [("cookie", f"other={TOKEN}")], [("cookie", TOKEN)], [("x-token", TOKEN)],
        [("authorization", "Bearer \xff")],
    ],
)  # fmt: skip
def test_with_a_token_nobody_without_it_reaches_more_than_the_door(catalog, shown):
    for route, got in answers(desk_app(catalog, TOKEN), headers(*shown), headers(*shown, host="desk.example"), query=f"token={TOKEN}").items():
        for one in got:
            assert through(one.status) if route in OPEN else one.status == 401, (route, one)
            assert route in OPEN or one.headers["www-authenticate"].startswith("Bearer")


def test_with_the_token_everybody_reaches_everything_under_any_name(catalog):
    """A page of another origin cannot send the header: that would need CORS."""
    columns = [headers(bearer(), host="desk.example"), headers(bearer(), FOREIGN, (SITE, "cross-site")), headers(("authorization", f"bearer  {TOKEN} "))]
    for route, got in answers(desk_app(catalog, TOKEN), *columns).items():
        assert all(through(one.status) for one in got), (route, got)


def test_the_cookie_reads_and_writes_for_the_own_page_alone(catalog):
    cookie = ("cookie", f'odd={{"a": "b"}}; ü; tower_token={TOKEN}; x')
    columns = [headers(cookie), headers(cookie, (SITE, "same-origin")), headers(cookie, FOREIGN), headers(cookie, (SITE, "cross-site"))]
    for (method, path), (program, own, foreign, embedded) in answers(desk_app(catalog, TOKEN), *columns).items():
        assert through(program.status) and through(own.status) and embedded.status == 403, (method, path)
        assert foreign.status == 403 if writes(method) else through(foreign.status), (method, path)


def test_every_answer_has_the_headers_and_every_error_is_a_problem(catalog):
    with asking(desk_app(catalog)) as client:
        asked = [
            client.get("/"), client.get("/health"), client.get("/nothing"), client.get("/episodes/E99"), client.get("/episodes/"), client.put("/episodes"),
            client.get("/health", headers={"host": "evil.example"}), client.post("/reviews", json={}), client.post("/reviews", content=b"x" * 5_000_000),
            client.post("/token", json={"token": "x"}), client.post("/token", headers={"origin": "null"}), client.head("/episodes"),
            client.options("/reviews", headers={"origin": "http://evil.example", "access-control-request-method": "POST"}),
        ]  # fmt: skip
    assert [one.status_code for one in asked] == [200, 200, 404, 404, 404, 405, 421, 422, 413, 401, 403, 405, 405]
    for one in asked:
        assert {name: one.headers[name] for name in HEADERS} == HEADERS and "cache-control" in one.headers, one.request
        assert "server" not in one.headers and not any(name.startswith("access-control") for name in one.headers)
        if one.status_code >= 400 and one.request.method != "HEAD":
            assert one.headers["content-type"] == "application/problem+json"
            assert one.json()["status"] == one.status_code and one.json()["title"] and len(one.json()["detail"]) > 10


def test_a_bug_is_an_answer_with_all_headers_and_its_traceback_is_in_the_log_alone(catalog, caplog):
    app = desk_app(catalog)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("planted")

    with asking(app) as client:
        got = client.get("/broken?secret=1")
    assert got.status_code == 500 and "planted" not in got.text and got.headers["content-type"] == "application/problem+json"
    assert {name: got.headers[name] for name in HEADERS} == HEADERS
    assert "RuntimeError: planted" in caplog.text and "secret" not in caplog.text


def test_the_policy_lets_no_script_of_others_run_and_nobody_frame_the_page(catalog):
    with asking(desk_app(catalog)) as client:
        policy = dict(part.strip().split(" ", 1) for part in client.get("/").headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
    assert policy["base-uri"] == "'none'" and policy["form-action"] == "'none'" and policy["connect-src"] == "'self'"
    assert not re.search(r"unsafe|\*|http|data:", policy["script-src"] + policy["style-src"])


def test_the_page_has_no_svg_that_a_browser_would_run():
    from pipeline.api.routers.page import FILES, KINDS
    from pipeline.api.routers.takes import KINDS as OF_TAKES

    assert not any("svg" in kind or "xml" in kind for kind in (*KINDS.values(), *OF_TAKES.values()))
    assert not any(name.endswith(".svg") for name in FILES)


def test_a_token_becomes_a_cookie_that_no_script_reads_and_no_other_site_sends(catalog):
    with asking(desk_app(catalog, TOKEN)) as client:
        wrong, right = client.post("/token", json={"token": "wrong"}), client.post("/token", json={"token": TOKEN})
        assert wrong.status_code == 401 and "set-cookie" not in wrong.headers
        assert right.status_code == 204 and not right.content
        cookie = right.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Domain" not in cookie
        assert client.get("/episodes").status_code == 200  # the client keeps it


def test_a_token_is_in_no_answer_and_in_no_log(catalog, tmp_path):
    with serving(tmp_path, TOWER_DESK_TOKEN=TOKEN) as served:
        told = []
        for path in ("/", "/health", "/doctor", "/openapi.json", "/workflows", f"/nothing?token={TOKEN}", "/episodes/E99"):
            got = served.client.get(path, headers={"authorization": f"Bearer {TOKEN}"})
            told.append(f"{got.text} {got.headers}")
        asked = {"sql": "SELECT * FROM duckdb_settings()"}
        told.append(served.client.post("/catalog/query", json=asked, headers={"authorization": f"Bearer {TOKEN}"}).text)
        told.append(served.client.post("/token", json={"token": TOKEN + "x"}).text)
    assert len(told) == 9 and not any(TOKEN in one for one in told)
    assert TOKEN not in served.log.read_text()


def test_tokens_may_be_tried_a_few_times_a_minute_and_that_keeps_nobody_from_writing(catalog):
    with asking(desk_app(catalog, TOKEN)) as client:
        tried = [client.post("/token", json={"token": f"wrong {n}"}) for n in range(TRIES + 1)]
        assert [one.status_code for one in tried] == [401] * TRIES + [429]
        assert 1 <= int(tried[-1].headers["retry-after"]) <= 60
        assert client.post("/reviews", json={}, headers=dict([bearer()])).status_code == 422


def test_writes_and_submissions_are_bounded_and_go_on_after_a_while(catalog, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("pipeline.api.guard.time.monotonic", lambda: now[0])
    with asking(desk_app(catalog)) as client:
        for path, most in (("/jobs", STARTS), ("/reviews", WRITES)):
            assert {client.post(path, json={}).status_code for _ in range(most)} == {422}
            over = client.post(path, json={})
            assert (over.status_code, over.headers["retry-after"]) == (429, "60") and "60 s" in over.json()["detail"]
        assert client.post("/episodes/validate", content=b"x").status_code == 429  # one budget for what starts work
        assert client.get("/episodes").status_code == 200
        now[0] += 60
        assert client.post("/jobs", json={}).status_code == client.post("/reviews", json={}).status_code == 422


def test_a_request_that_is_refused_spends_nothing(catalog):
    with asking(desk_app(catalog)) as client:
        assert {client.post("/reviews", json={}, headers={"origin": "null"}).status_code for _ in range(WRITES + 5)} == {403}
        assert client.post("/reviews", json={}).status_code == 422


def test_there_are_no_web_sockets(catalog):
    client = TestClient(desk_app(catalog), base_url=f"http://{HOST}")
    with client, pytest.raises(WebSocketDisconnect) as told, client.websocket_connect("/events"):
        pass
    assert told.value.code == 1008


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "desk.example"])
def test_off_loopback_the_desk_does_not_start_without_a_token(here, host):
    refused(here("serve", "--host", host, "--port", "0"), "TOWER_DESK_TOKEN", "16")


@pytest.mark.parametrize(("token", "word"), [("short", "5 letters"), ("x" * 15, "15 letters"), ("a token with spaces", "spaces"), ("ümläute-und-mehr-davon", "ASCII"), ("a;semicolon,comma\\x", "ASCII")])
def test_a_token_that_protects_nobody_or_that_no_header_carries_is_refused(here, monkeypatch, token, word):
    monkeypatch.setenv("TOWER_DESK_TOKEN", token)
    for host in ("127.0.0.1", "0.0.0.0"):
        done = here("serve", "--host", host, "--port", "0")
        refused(done, word)
        assert token not in done.err


def raw(port: int, request: bytes) -> bytes:
    """Send these bytes, and give all that comes back until the server closes or has answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        link.sendall(request)
        link.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: link.recv(65536), b""))


def test_requests_that_no_browser_sends_are_refused_by_the_server_or_by_the_guard(catalog, tmp_path):
    host = b"Host: localhost\r\n"
    with serving(tmp_path) as served:
        good = raw(served.port, b"GET /health HTTP/1.1\r\n" + host + b"\r\n")
        assert good.startswith(b"HTTP/1.1 200") and b"nosniff" in good
        for expected, request in [
            (b"421", b"GET /health HTTP/1.0\r\n\r\n"),
            (b"400", b"GET /health HTTP/1.1\r\n\r\n"),
            (b"400", b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"),
            (b"421", b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
            (b"404", b"GET http://evil.example/health HTTP/1.1\r\n" + host + b"\r\n"),
            (b"404", b"GET /page/../health HTTP/1.1\r\n" + host + b"\r\n"),
            (b"404", b"GET //health HTTP/1.1\r\n" + host + b"\r\n"),
            (b"405", b"BREW /health HTTP/1.1\r\n" + host + b"\r\n"),
            (b"400", b"POST /reviews HTTP/1.1\r\n" + host + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
            (b"400", b"POST /reviews HTTP/1.1\r\n" + host + b"Content-Length: -5\r\n\r\nhello"),
            (b"200", b"GET /health HTTP/1.1\r\n" + host + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n"),
            (b"400", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ]:  # fmt: skip
            got = raw(served.port, request)
            assert got.split(b" ")[1] == expected, (request[:80], got[:300])
        assert served.client.get("/health").status_code == 200


def test_a_port_that_is_taken_is_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(tower("serve", "--port", str(taken.getsockname()[1]), cwd=tmp_path), "cannot listen")


def test_nobody_without_a_token_is_served_off_loopback_even_by_the_app_itself(catalog):
    from pipeline.api.opened import check_token
    from pipeline.story.settings import load_settings

    with pytest.raises(InputError, match="off loopback"):
        check_token(load_settings().model_copy(update={"desk_token": ""}), loopback=False)
