"""The guard in front of all routes: who may ask, how much, how often. It answers without a look at what was asked.

A service on loopback is no island: every page in the person's browser can send requests to it. So a request must name a loopback host
(else a foreign name that resolves to 127.0.0.1 would count as the same origin). A write must come from the desk's own page, or from a
program, which sends neither Origin nor Sec-Fetch-Site. Other pages may link to the desk and do nothing else: they embed nothing of it,
and they set no work going. Off loopback, everybody must show the token.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import math
import time
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import problem

SAFE = ("GET", "HEAD", "OPTIONS")
COOKIE = "tower_token"
OPEN = ("/health", "/token", "/")  # without a token: whether it lives, the door, and the page that asks for the token
OPEN_FOLDER = "/page/"
BODY = 4_000_000  # bytes of a request's body, as many as an episode's file may have
JSON = 20_000_000  # the same of an episode as JSON: 100,000 shots
UPLOAD = 256_000_000  # the same where files come with an episode
SUBMISSIONS = ("/episodes", "/episodes/validate")
WRITES = 120  # a minute: requests that change or compute something
STARTS = 60  # a minute: submissions and renders
TRIES = 30  # a minute: tokens
A_MINUTE = 60.0
LOG = logging.getLogger("tower.desk")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; "
    "manifest-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class TooLarge(Exception):
    """The body has more bytes than it may have."""


@dataclass
class Budget:
    """Bounds how often something happens: at most `most` times in any minute, as far as one process can tell."""

    most: int
    times: list[float] = field(default_factory=list)

    def spend(self, now: float) -> float:
        """0 if there is room; else the seconds until there is."""
        self.times = [t for t in self.times if now - t < A_MINUTE]
        if len(self.times) >= self.most:
            return A_MINUTE - (now - self.times[0])
        self.times.append(now)
        return 0.0


class Guard:
    """ASGI middleware.

    Args:
        hosts: names that the Host header may have, beside those of loopback. None allows every name, which needs a token.
        token: what everybody must show; "" for nobody.
    """

    def __init__(self, app: ASGIApp, token: str = "", hosts: tuple[str, ...] | None = ()):
        self.app, self.token, self.hosts = app, token, hosts
        self.writes, starts = Budget(WRITES), Budget(STARTS)
        self.budgets = dict.fromkeys((*SUBMISSIONS, "/jobs"), starts) | {"/token": Budget(TRIES)}  # strangers spend no one else's

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # the desk has none
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, answer = Headers(scope=scope), Dressed(send)
        refusal = self._refusal(scope, headers)
        if refusal:
            await problem(*refusal)(scope, receive, answer)
            return
        most = _most(scope, headers)
        body = Limited(receive, most)

        async def sending(message: Message) -> None:
            if not body.over:  # else the route has seen half a request, and its answer is about that half
                await answer(message)

        try:
            await self.app(scope, body, sending)
        except (TooLarge, ClientDisconnect):  # whoever has gone needs no answer
            pass
        except Exception:
            if answer.begun:
                raise  # the server cuts the answer off, and logs why
            LOG.exception("%s %r", scope["method"], scope["path"])
            await problem(500, "a bug in Tower: the service's log has the traceback")(scope, receive, answer)
        if body.over and not answer.begun:
            await problem(413, _too_large(most), {"connection": "close"})(scope, receive, answer)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str, dict[str, str]] | None:
        """Status, sentence and headers of a refusal; None where the request may go on."""
        path, writes = scope["path"], scope["method"] not in SAFE
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._known(hosts[0]):
            return 421, "the Host header names another host; open the desk under the address that `tower serve` printed", {}
        if not self._trusted(path, headers):
            return 401, "a token is needed: Authorization: Bearer TOKEN", {"www-authenticate": 'Bearer realm="tower"'}
        if not self._own(scope, headers, writes):
            return 403, "a page of another origin may link to the desk, and neither embed nor change anything here", {}
        if _announced(headers) > (most := _most(scope, headers)):
            return 413, _too_large(most), {"connection": "close"}
        budget = self.budgets.get(path, self.writes)
        if writes and (wait := math.ceil(budget.spend(time.monotonic()))):
            return 429, f"more than {budget.most} such requests a minute; try again in {wait} s", {"retry-after": f"{wait}"}
        return None

    def _known(self, host: str) -> bool:
        name, colon, port = host.lower().rpartition(":")
        if not (colon and port.isascii() and port.isdecimal()):
            name = host.lower()
        return bool(name) and (self.hosts is None or is_loopback(name.removeprefix("[").removesuffix("]")) or name in self.hosts)

    def _trusted(self, path: str, headers: Headers) -> bool:
        if not self.token or path in OPEN or path.startswith(OPEN_FOLDER):
            return True
        return any(same(shown, self.token) for shown in _shown(headers))

    def _own(self, scope: Scope, headers: Headers, writes: bool) -> bool:
        """Whether a request comes from the desk's own page, from a program, or is a link that somebody follows.

        A token that is no cookie proves as much.
        """
        if self.token and same(_bearer(headers), self.token):
            return True
        sites, own = headers.getlist("sec-fetch-site"), f"{scope['scheme']}://{headers['host'].lower()}"
        if any(site != "same-origin" for site in sites):
            return not writes and (sites == ["none"] or _follows_a_link(headers))
        return not writes or all(origin.lower() == own for origin in headers.getlist("origin"))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a name or an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _follows_a_link(headers: Headers) -> bool:
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def same(shown: str, token: str) -> bool:
    """Whether two tokens are equal, in a time that tells nothing of where they differ."""
    return bool(shown) and hmac.compare_digest(_hashed(shown), _hashed(token))


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _shown(headers: Headers) -> tuple[str, str]:
    """The tokens in a request's headers. Other services of the same machine have cookies too, of any shape."""
    return _bearer(headers), cookie_parser(headers.get("cookie", "")).get(COOKIE, "")


def _bearer(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def kind_of(headers: Headers) -> str:
    """The body's media type, without parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _most(scope: Scope, headers: Headers) -> int:
    """Bytes that a request's body may have."""
    if scope["path"] not in SUBMISSIONS:
        return BODY
    return {"multipart/form-data": UPLOAD, "application/json": JSON}.get(kind_of(headers), BODY)


def _announced(headers: Headers) -> int:
    """Bytes of the body as its header has them; 0 where it says nothing, and `Limited` counts."""
    length = headers.get("content-length", "0")
    return int(length[:20]) if length.isascii() and length.isdecimal() else 0


def _too_large(most: int) -> str:
    return f"the request has more than {most / 1e6:.0f} MB"


class Limited:
    """Receives a request, as long as its bytes are not more than they may be: a length that is announced may be a lie."""

    def __init__(self, receive: Receive, most: int):
        self.receive, self.left = receive, most

    @property
    def over(self) -> bool:
        return self.left < 0

    async def __call__(self) -> Message:
        message = await self.receive()
        self.left -= len(message.get("body", b""))
        if self.over:
            raise TooLarge
        return message


class Dressed:
    """Sends an answer, with the headers that every answer has. begun: whether anything was sent."""

    def __init__(self, send: Send):
        self.send, self.begun = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-store")
        await self.send(message)
