"""The guard in front of all routes: who may ask, how much, how often. It answers without a look at what was asked.

A service on loopback is no island: every page in the person's browser can send requests to it. So a request must name a loopback host
(else a foreign name that resolves to 127.0.0.1 would count as the same origin), and a write must come from the desk's own page, or from
a program, which sends neither Origin nor Sec-Fetch-Site. Off loopback, everybody must show the token.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import problem

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
SAFE = ("GET", "HEAD", "OPTIONS")
COOKIE = "tower_token"
OPEN = ("/health", "/token", "/")  # without a token: whether it lives, the door, and the page that asks for the token
OPEN_FOLDER = "/page/"
BODY = 4_000_000  # bytes of a request's body, as many as an episode's file may have
UPLOAD = 256_000_000  # the same where files come with an episode
A_MINUTE = 60.0
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
        writes: requests a minute that may change or compute something.
    """

    def __init__(self, app: ASGIApp, token: str = "", hosts: tuple[str, ...] | None = (), writes: int = 120):
        self.app, self.token, self.hosts, self.budget = app, token, hosts, Budget(writes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the desk has no web sockets
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal:
            status, why, more = refusal
            await problem(status, why, more)(scope, receive, _dressed(send))
            return
        body = Limited(receive, _most(scope))
        answer = _dressed(send)

        async def sending(message: Message) -> None:
            if not body.over:  # else the route has seen half a request, and its answer is about that half
                await answer(message)

        with suppress(TooLarge):
            await self.app(scope, body, sending)
        if body.over:
            await problem(413, _too_large(scope), {"connection": "close"})(scope, receive, answer)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str, dict[str, str]] | None:
        """Status, sentence and headers of a refusal; None where the request may go on."""
        path, writes = scope["path"], scope["method"] not in SAFE
        host = headers.get("host", "")
        if not self._known(host):
            return 421, "the Host header names another host; open the desk under the address that `tower serve` printed", {}
        if not self._trusted(path, headers):
            return 401, "a token is needed: Authorization: Bearer TOKEN", {"www-authenticate": 'Bearer realm="tower"'}
        if writes and not self._own(scope, headers, host):
            return 403, "a page of another origin may not change anything here", {}
        if _announced(headers) > _most(scope):
            return 413, _too_large(scope), {"connection": "close"}
        if writes and (wait := self.budget.spend(time.monotonic())):
            return 429, f"more than {self.budget.most} writes a minute; try again in {wait:.0f} s", {"retry-after": f"{wait:.0f}"}
        return None

    def _known(self, host: str) -> bool:
        name = host.lower().rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host.lower()
        return bool(name) and (self.hosts is None or name in LOOPBACK or name in self.hosts)

    def _trusted(self, path: str, headers: Headers) -> bool:
        if not self.token or path in OPEN or path.startswith(OPEN_FOLDER):
            return True
        return any(same(shown, self.token) for shown in _shown(headers))

    def _own(self, scope: Scope, headers: Headers, host: str) -> bool:
        """Whether a write comes from the desk's own page, or from a program. A token that is no cookie proves as much."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if self.token and same(_bearer(headers), self.token):
            return True
        if site not in (None, "same-origin"):
            return False
        return origin is None or (urlsplit(origin).netloc.lower() == host.lower() and urlsplit(origin).scheme in ("http", "https"))


def same(shown: str, token: str) -> bool:
    """Whether two tokens are equal, in a time that tells nothing of where they differ."""
    return bool(shown) and hmac.compare_digest(hashlib.sha256(shown.encode()).digest(), hashlib.sha256(token.encode()).digest())


def _shown(headers: Headers) -> tuple[str, str]:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        cookie = None
    return _bearer(headers), cookie.value if cookie else ""


def _bearer(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _most(scope: Scope) -> int:
    return UPLOAD if scope["path"] in ("/episodes", "/episodes/validate") else BODY


def _announced(headers: Headers) -> int:
    """Bytes of the body as its header has them; 0 where it says nothing, and `_limited` counts."""
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() and len(length) < 20 else 0


def _too_large(scope: Scope) -> str:
    return f"the request has more than {_most(scope) / 1e6:.0f} MB"


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


def _dressed(send: Send) -> Send:
    """Sends the same messages, with the headers that every answer has."""

    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return dressed
