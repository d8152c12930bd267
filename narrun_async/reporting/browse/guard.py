"""Lets in who has the link, and nobody else: other users of the machine, and web sites that are open beside it.

A port of 127.0.0.1 is open to everybody on the machine, and a web site can make a browser ask it. Hence a secret in the
link, which becomes a cookie; a look at the name by which the browser calls; and headers that let a page load nothing
from elsewhere and a browser keep nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

from anyio import to_thread

from narrun_async.errors import NarrunError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: the parameter of the link
SECRET = "secret"  # noqa: S105 - the name of it

_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Guard:
    """Stands before an application.

    :param secret: of the link
    :param port: that the application is served at
    :param freshen: called before a page is made; blocks
    """

    def __init__(self, site: Application, *, secret: str, port: int, freshen: Callable[[], None]) -> None:
        self._site = site
        self._secret = secret
        self._port = port
        self._freshen = freshen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return None
        if scope["method"] not in ("GET", "HEAD"):
            return await _refuse(send, HTTPStatus.METHOD_NOT_ALLOWED, "pages can be read, and nothing else")
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get(b"host") not in (f"127.0.0.1:{self._port}", f"localhost:{self._port}"):
            return await _refuse(send, HTTPStatus.MISDIRECTED_REQUEST, "this machine's own address has another name")
        given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if any(name == SECRET and self._is_secret(value) for name, value in given):
            return await self._welcome(scope, send, [(name, value) for name, value in given if name != SECRET])
        if not self._is_secret(self._cookie(headers.get(b"cookie", ""))):
            return await _refuse(send, HTTPStatus.FORBIDDEN, "open the link that `narrun browse` printed")
        try:
            await to_thread.run_sync(self._freshen)
        except NarrunError as error:
            return await _refuse(send, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        return await self._site(scope, receive, _with_headers(send))

    def _is_secret(self, value: str) -> bool:
        return secrets.compare_digest(value.encode(), self._secret.encode())

    @property
    def _cookie_name(self) -> str:
        """Cookies are shared by all ports of an address."""
        return f"narrun_browse_{self._port}"

    def _cookie(self, header: str) -> str:
        try:
            cookie = SimpleCookie(header).get(self._cookie_name)
        except CookieError:
            return ""
        return cookie.value if cookie else ""

    async def _welcome(self, scope: Scope, send: Send, parameters: list[tuple[str, str]]) -> None:
        """The secret goes into a cookie, and out of the address."""
        place = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
        if parameters:
            place += f"?{urlencode(parameters)}"
        cookie = f"{self._cookie_name}={self._secret}; HttpOnly; SameSite=Lax; Path=/"
        headers = [(b"location", place.encode("latin-1")), (b"set-cookie", cookie.encode())]
        await _answer(send, HTTPStatus.SEE_OTHER, "", headers)


def _with_headers(send: Send) -> Send:
    ours = {name for name, _ in _HEADERS}

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in ours]
            message = {**message, "headers": [*kept, *_HEADERS]}
        await send(message)

    return send_with_headers


async def _refuse(send: Send, status: HTTPStatus, sentence: str) -> None:
    await _answer(send, status, f"{sentence}\n", [])


async def _answer(send: Send, status: HTTPStatus, text: str, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *headers, *_HEADERS]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
