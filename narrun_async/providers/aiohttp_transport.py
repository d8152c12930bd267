"""Carries httpx requests over aiohttp: one attempt, one whole body under a cap, and failures by their kind.

It never retries, follows a redirect, keeps a cookie, looks at proxy variables or decompresses. One thing only is done
again, once: a request on a kept connection that the server was closing, which it therefore has not read.
"""

from __future__ import annotations

import os
import socket
import time
from contextvars import ContextVar
from dataclasses import dataclass

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

from narrun_async.providers.egress import AddressInfo, EgressRefusedError, SocketFactory, guarded_socket_factory
from narrun_async.retrying import CallError, CallProblem

DEFAULT_MAX_BODY_BYTES = 8 * 1024 * 1024
#: local servers close idle connections after 5 s and more; ours goes first
_KEEPALIVE_S = 2.0
#: of one connection, TLS included; everything else is under the caller's deadline
_CONNECT_TIMEOUT_S = 10.0
#: a kept connection that is lost without an answer later than this was not closed because it had been idle
_STALE_WITHIN_S = 1.0
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S)


@dataclass(slots=True)
class _Sending:
    """One request on its way."""

    #: monotonic seconds
    began: float
    #: until a socket is made for it
    on_kept_connection: bool = True
    is_answered: bool = False

    def was_not_read(self, error: Exception) -> bool:
        """Whether the server closed a connection that had been idle, rather than died of this request."""
        is_stale = self.on_kept_connection and not self.is_answered
        if isinstance(error, aiohttp.ClientConnectorError):
            return False
        is_close = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
        return is_stale and is_close and time.monotonic() - self.began <= _STALE_WITHIN_S


#: the request of this task, for the socket factory, which aiohttp calls without a word on what for
_SENDING: ContextVar[_Sending] = ContextVar("_SENDING")


class AiohttpTransport(httpx.AsyncBaseTransport):
    """One connection pool, made in the loop that sends the first request.

    `handle_async_request` returns whole bodies, as `httpx.ByteStream`, and raises CallError where none comes.
    Cancelling it closes its connection.
    """

    def __init__(self, *, allow_remote: bool = False, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES) -> None:
        self._allow_remote = allow_remote
        self._max_body_bytes = max_body_bytes
        self._session: aiohttp.ClientSession | None = None
        #: never uses a connection twice
        self._fresh_session: aiohttp.ClientSession | None = None
        self._closed = False
        self._was_answered = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._session = session = self._session or self._open_session(keeps_connections=True)
        sending = _Sending(began=time.monotonic())
        try:
            return await self._exchange(session, request, sending)
        except (aiohttp.ClientError, OSError) as error:
            problem = call_error(error)
            was_not_read = sending.was_not_read(error)
        if was_not_read:
            self._fresh_session = self._fresh_session or self._open_session(keeps_connections=False)
            try:
                return await self._exchange(self._fresh_session, request, _Sending(began=time.monotonic()))
            except (aiohttp.ClientError, OSError) as error:
                again = call_error(error)
            # A server that is gone now may have died of the request after all.
            problem = problem if again.problem is CallProblem.UNREACHABLE else again
        if problem.problem is CallProblem.CONNECTION_LOST and request.url.scheme == "http" and not self._was_answered:
            # A server that wants TLS closes a plain connection without a word.
            problem.message += "; if this port speaks https, the URL must say so"
        # Outside of `except`: aiohttp's errors hold request headers and bytes of the answer, and must not be chained.
        raise problem

    async def _exchange(
        self, session: aiohttp.ClientSession, request: httpx.Request, sending: _Sending
    ) -> httpx.Response:
        _SENDING.set(sending)
        # Pairs of bytes: httpx's own view of headers guesses their encoding at every look.
        headers = CIMultiDict((name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw)
        async with session.request(
            request.method,
            URL(str(request.url), encoded=True),
            headers=headers,
            data=await request.aread(),
            allow_redirects=False,
        ) as answer:
            self._was_answered = sending.is_answered = True
            body = await self._read(answer)
        return httpx.Response(answer.status, headers=list(answer.raw_headers), stream=httpx.ByteStream(body))

    async def aclose(self) -> None:
        self._closed = True
        for session in (self._session, self._fresh_session):
            if session is not None:
                await session.close()

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        require_identity(answer)
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

    def _open_session(self, *, keeps_connections: bool) -> aiohttp.ClientSession:
        if self._closed:
            raise RuntimeError("the transport is closed")
        make_socket = _noting_new_connections(guarded_socket_factory(allow_remote=self._allow_remote))
        return open_session(make_socket, keeps_connections=keeps_connections)


def open_session(make_socket: SocketFactory, *, keeps_connections: bool) -> aiohttp.ClientSession:
    """A session without cookies, proxies, retries and decompression, in the running loop.

    :param make_socket: is asked for each connection, and may refuse its address
    """
    # TLS contexts cost 20 ms; aiohttp keeps one verifying context for the process and uses it here.
    connector = aiohttp.TCPConnector(
        limit=0,
        force_close=not keeps_connections,
        keepalive_timeout=_KEEPALIVE_S if keeps_connections else None,
        socket_factory=make_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=_TIMEOUT,
        trust_env=False,
        auto_decompress=False,
    )


def require_identity(answer: aiohttp.ClientResponse) -> None:
    """:raises CallError: the body is compressed; the connection is closed"""
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        answer.close()
        raise CallError(CallProblem.CONNECTION_LOST, "the answer is compressed, though identity was asked for")


def _noting_new_connections(make_socket: SocketFactory) -> SocketFactory:
    def make_noted_socket(address_info: AddressInfo) -> socket.socket:
        _SENDING.get().on_kept_connection = False
        return make_socket(address_info)

    return make_noted_socket


def call_error(error: aiohttp.ClientError | OSError) -> CallError:
    """What an error of aiohttp means; by its type and structured codes, never by its text."""
    match error:
        case aiohttp.ClientSSLError(os_error=cause):
            reason = getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or "handshake failed"
            return CallError(CallProblem.TLS, f"no trusted TLS connection to the endpoint: {reason}")
        case aiohttp.InvalidURL() | aiohttp.ClientConnectorError(os_error=EgressRefusedError()):
            return CallError(
                CallProblem.EGRESS,
                "the address of the endpoint is not one that may be dialled: this machine and private addresses only,"
                " unless `privacy.allow_remote` was set when the experiment was created",
            )
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
