"""Sends requests one at a time, each over a connection of its own; files stream from and to disk.

For calls whose repetition would cost money, and for bodies that are not to be held in memory. A POST is never sent
twice; what only reads or deletes aiohttp itself sends a second time where the server closes the connection without a
word. Like `AiohttpTransport` it never follows a redirect, keeps a cookie, looks at proxy variables or decompresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

from narrun_async.models import RawReply
from narrun_async.providers.aiohttp_transport import call_error, open_session, require_identity
from narrun_async.providers.egress import guarded_socket_factory
from narrun_async.retrying import CallError, CallProblem

#: of answers that are read into memory: a hundred batches or ten thousand files, listed
MAX_ANSWER_BYTES = 16 * 1024 * 1024

#: takes a piece of a file; may raise anything but an OSError, which would be taken for one of the network
Write = Callable[[bytes], None]


class OneShotTransport:
    """No pool; one session, made in the loop that sends the first request. Cancelling a call closes its connection."""

    def __init__(self, *, allow_remote: bool = False) -> None:
        self._allow_remote = allow_remote
        self._session: aiohttp.ClientSession | None = None

    async def exchange(self, request: httpx.Request, *, deadline_s: float) -> RawReply:
        """Send a request, its body streamed from wherever it comes, and read a short answer.

        :raises CallError: none came, or none in time
        """
        return await _within(deadline_s, self._exchange(request))

    async def download(
        self, request: httpx.Request, write: Write, *, max_bytes: int, stall_s: float, deadline_s: float
    ) -> RawReply:
        """Send a request and hand the body of a success on, piece by piece; the reply has none then.

        :param stall_s: longest time without a single byte
        :raises CallError: the body did not come whole, or not in time, or is larger than `max_bytes`
        """
        return await _within(deadline_s, self._download(request, write, max_bytes=max_bytes, stall_s=stall_s))

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _exchange(self, request: httpx.Request) -> RawReply:
        async with self._send(request) as answer:
            return await _reply(answer)

    async def _download(self, request: httpx.Request, write: Write, *, max_bytes: int, stall_s: float) -> RawReply:
        async with self._send(request) as answer:
            if answer.status != 200:
                return await _reply(answer)
            require_identity(answer)
            n_bytes = 0
            while max(n_bytes, answer.content_length or 0) <= max_bytes:
                chunk = await _next_chunk(answer, stall_s)
                if not chunk:
                    return RawReply(status=answer.status, headers=_headers(answer), body=b"")
                n_bytes += len(chunk)
                write(chunk)
            answer.close()
            raise CallError(CallProblem.TOO_LARGE, f"the file is larger than {max_bytes} bytes")

    def _send(self, request: httpx.Request) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._session is None:
            make_socket = guarded_socket_factory(allow_remote=self._allow_remote)
            self._session = open_session(make_socket, keeps_connections=False)
        return self._session.request(
            request.method,
            URL(str(request.url), encoded=True),
            headers=CIMultiDict((name.decode("ascii"), value.decode("ascii")) for name, value in request.headers.raw),
            data=request.stream if request.method == "POST" else None,
            allow_redirects=False,
        )


async def _within(deadline_s: float, call: Coroutine[None, None, RawReply]) -> RawReply:
    try:
        async with asyncio.timeout(deadline_s):
            return await call
    except (aiohttp.ClientError, OSError) as error:
        # A TimeoutError is an OSError; those of aiohttp say more.
        is_late = isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError)
        late = CallError(CallProblem.CONNECTION_LOST, f"no whole answer within {deadline_s:g} s")
        problem = late if is_late else call_error(error)
    # Outside of `except`: aiohttp's errors hold request headers and bytes of the answer, and must not be chained.
    raise problem


async def _reply(answer: aiohttp.ClientResponse) -> RawReply:
    require_identity(answer)
    chunks: list[bytes] = []
    n_bytes = 0
    while max(n_bytes, answer.content_length or 0) <= MAX_ANSWER_BYTES:
        chunk = await answer.content.readany()
        if not chunk:
            return RawReply(status=answer.status, headers=_headers(answer), body=b"".join(chunks))
        chunks.append(chunk)
        n_bytes += len(chunk)
    answer.close()
    raise CallError(CallProblem.TOO_LARGE, f"the answer is larger than {MAX_ANSWER_BYTES} bytes")


async def _next_chunk(answer: aiohttp.ClientResponse, stall_s: float) -> bytes:
    try:
        async with asyncio.timeout(stall_s):
            return await answer.content.readany()
    except TimeoutError:
        answer.close()
    raise CallError(CallProblem.CONNECTION_LOST, f"nothing came for {stall_s:g} s")


def _headers(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}
