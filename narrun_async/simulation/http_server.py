"""Speaks just enough HTTP/1.1 for the simulated endpoint; what to answer is not its business."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol, cast

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 32 * 1024 * 1024

_NO_LINGER = struct.pack("ii", 1, 0)
_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode("ascii") for s in HTTPStatus}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, read to its end."""

    method: str
    #: without the query
    path: str
    #: as it was sent; empty where there is none
    query: str = ""
    #: names in lower case
    headers: dict[bytes, bytes] = field(repr=False)
    body: bytes = field(repr=False)


class Application(Protocol):
    """Who answers: calls `Connection.reply`, `reset` or neither, now or later."""

    def connection_opened(self, connection: Connection) -> None: ...

    def connection_closed(self, connection: Connection) -> None: ...

    def request_arrived(self, connection: Connection, request: Request) -> None: ...


class BadRequestError(Exception):
    """Bytes that are no request this server takes; the connection is answered and closed."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class Connection(asyncio.Protocol):
    """One client connection: keep-alive, one request at a time, pipelined ones wait for their turn."""

    __slots__ = ("_application", "_buffer", "_keep_alive", "_transport", "on_lost")

    def __init__(self, application: Application) -> None:
        self._application = application
        self._buffer = b""
        # True until a request says otherwise
        self._keep_alive = True
        self._transport: asyncio.Transport | None = None
        #: called once when the client goes away before its answer; the application sets it for an answer that
        #: comes later, and while it is set no further request is read
        self.on_lost: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._application.connection_opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()
        self._application.connection_closed(self)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if self.on_lost is None:
            self._read_requests()
        elif len(self._buffer) > MAX_BODY_BYTES:
            self.reset()

    def reply(self, status: int, body: bytes, *, headers: bytes = b"") -> None:
        """Answer the request that arrived last.

        :param headers: further header lines, each ended with CRLF
        """
        came_later, self.on_lost = self.on_lost is not None, None
        self._write(self._answer_bytes(status, body, headers))
        if came_later and self._buffer:
            self._read_requests()

    def reset(self, *, status: int = 200, body: bytes = b"") -> None:
        """Send half an answer, if there is one, then RST."""
        transport = self._transport
        if transport is None:
            return
        if body:
            answer = self._answer_bytes(status, body, b"")
            transport.write(answer[: len(answer) - len(body) // 2])
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()

    def _read_requests(self) -> None:
        # A reply within request_arrived leaves on_lost unset and the next pipelined request to this loop.
        while self._buffer and self._transport is not None:
            try:
                request = self._next_request()
            except BadRequestError as error:
                self._keep_alive = False
                self._write(self._answer_bytes(error.status, b"", b""))
                return
            if request is None:
                return
            self._application.request_arrived(self, request)
            if self.on_lost is not None:
                return

    def _next_request(self) -> Request | None:
        """The first whole request in the buffer, or None while it is not whole."""
        buffer = self._buffer
        head_end = buffer.find(b"\r\n\r\n")
        if head_end < 0:
            if len(buffer) > MAX_HEAD_BYTES:
                raise BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return None
        first, *lines = buffer[:head_end].split(b"\r\n")
        try:
            method, target, version = first.decode("ascii").split(" ")
            headers = {name.strip().lower(): value.strip() for name, _, value in (s.partition(b":") for s in lines)}
            body_bytes = int(headers.get(b"content-length", b"0"))
        except ValueError:
            raise BadRequestError(HTTPStatus.BAD_REQUEST) from None
        if b"transfer-encoding" in headers:
            raise BadRequestError(HTTPStatus.LENGTH_REQUIRED)
        if not 0 <= body_bytes <= MAX_BODY_BYTES:
            raise BadRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        end = head_end + 4 + body_bytes
        if len(buffer) < end:
            if headers.get(b"expect", b"").lower() == b"100-continue" and len(buffer) == head_end + 4:
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        self._buffer = buffer[end:]
        closing = headers.get(b"connection", b"").lower() == b"close"
        self._keep_alive = version == "HTTP/1.1" and not closing
        path, _, query = target.partition("?")
        return Request(method=method, path=path, query=query, headers=headers, body=buffer[head_end + 4 : end])

    def _answer_bytes(self, status: int, body: bytes, headers: bytes) -> bytes:
        return b"%bContent-Type: application/json\r\nContent-Length: %d\r\n%b%b\r\n%b" % (
            _STATUS_LINES[status],
            len(body),
            headers,
            b"" if self._keep_alive else b"Connection: close\r\n",
            body,
        )

    def _write(self, answer: bytes) -> None:
        if self._transport is None:
            return
        self._transport.write(answer)
        if not self._keep_alive:
            self._buffer = b""
            self._transport.close()
