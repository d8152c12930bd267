"""Carries httpx requests over aiohttp: one attempt, one whole body under a cap, and failures by their kind.

It never retries, follows a redirect, keeps a cookie, looks at proxy variables or decompresses.
"""

from __future__ import annotations

import os

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

from narrun_async.providers.egress import EgressRefusedError, guarded_socket_factory
from narrun_async.retrying import CallError, CallProblem

DEFAULT_MAX_BODY_BYTES = 8 * 1024 * 1024
#: local servers close idle connections after 5 s and more; ours goes first
_KEEPALIVE_S = 2.0
#: of one connection, TLS included; everything else is under the caller's deadline
_CONNECT_TIMEOUT_S = 10.0
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """One connection pool, made in the loop that sends the first request.

    `handle_async_request` returns whole bodies, as `httpx.ByteStream`, and raises CallError where none comes.
    Cancelling it closes its connection.
    """

    def __init__(self, *, allow_remote: bool = False, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES) -> None:
        self._allow_remote = allow_remote
        self._max_body_bytes = max_body_bytes
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        session = self._session or self._open_session()
        # Pairs of bytes: httpx's own view of headers guesses their encoding at every look.
        headers = CIMultiDict((name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw)
        content = await request.aread()
        problem: CallError
        try:
            async with session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=headers,
                data=content,
                allow_redirects=False,
            ) as answer:
                body = await self._read(answer)
            return httpx.Response(answer.status, headers=list(answer.raw_headers), stream=httpx.ByteStream(body))
        except (aiohttp.ClientError, OSError) as error:
            problem = call_error(error)
        # Outside of `except`: aiohttp's errors hold request headers and bytes of the answer, and must not be chained.
        raise problem

    async def aclose(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            answer.close()
            raise CallError(CallProblem.CONNECTION_LOST, "the answer is compressed, though identity was asked for")
        if (answer.content_length or 0) <= self._max_body_bytes:
            chunks: list[bytes] = []
            n_bytes = 0
            while n_bytes <= self._max_body_bytes:
                chunk = await answer.content.readany()
                if not chunk:
                    return b"".join(chunks)
                chunks.append(chunk)
                n_bytes += len(chunk)
        answer.close()
        raise CallError(CallProblem.TOO_LARGE, f"the answer is larger than {self._max_body_bytes} bytes")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise RuntimeError("the transport is closed")
        # TLS contexts cost 20 ms; aiohttp keeps one verifying context for the process and uses it here.
        connector = aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=_KEEPALIVE_S,
            socket_factory=guarded_socket_factory(allow_remote=self._allow_remote),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_TIMEOUT,
            trust_env=False,
            auto_decompress=False,
        )
        return self._session


def call_error(error: aiohttp.ClientError | OSError) -> CallError:
    """What an error of aiohttp means; by its type and structured codes, never by its text."""
    match error:
        case aiohttp.ClientSSLError(os_error=cause):
            reason = getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or "handshake failed"
            return CallError(CallProblem.TLS, f"no trusted TLS connection to the endpoint: {reason}")
        case aiohttp.InvalidURL() | aiohttp.ClientConnectorError(os_error=EgressRefusedError()):
            return CallError(CallProblem.EGRESS, "the address of the endpoint is not one that may be dialled")
        case aiohttp.ClientConnectorDNSError():
            return CallError(CallProblem.UNREACHABLE, "the name of the endpoint cannot be resolved")
        case aiohttp.ClientConnectorError(os_error=cause):
            number = cause.errno or 0  # negative for an address that cannot be resolved
            reason = os.strerror(number) if number > 0 else type(cause).__name__
            return CallError(CallProblem.UNREACHABLE, f"the endpoint cannot be reached: {reason}")
        case aiohttp.ConnectionTimeoutError():
            return CallError(CallProblem.UNREACHABLE, f"no connection to the endpoint in {_CONNECT_TIMEOUT_S:g} s")
        case _:
            return CallError(CallProblem.CONNECTION_LOST, f"the connection was lost ({type(error).__name__})")
