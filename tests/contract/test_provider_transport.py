"""One attempt over a real socket, against servers that misbehave in every way that was seen."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from narrun_async.models import RawReply
from narrun_async.providers.aiohttp_transport import AiohttpTransport
from narrun_async.providers.openai_compatible import OpenAICompatibleProvider
from narrun_async.retrying import CallError, CallProblem

KEY = "key-canary"
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A raw server: keeps what it was sent and how many connections came."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[bytes] = []
        self.n_connections = 0
        self.n_closed = 0
        self.port = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                n_bytes = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                self.requests.append(head + await reader.readexactly(n_bytes))
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.n_closed += 1
            writer.close()


@asynccontextmanager
async def serving(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(answer)
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()


def writing(*parts: bytes, then_close: bool = True) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if then_close:
            raise ConnectionError

    return answer


def reply(body: bytes = b"{}", *, status: str = "200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status.encode(), len(body), headers, body)


@asynccontextmanager
async def calling(
    port: int, *, scheme: str = "http", max_body_bytes: int = 100_000
) -> AsyncIterator[OpenAICompatibleProvider]:
    url = f"{scheme}://127.0.0.1:{port}/v1"
    provider = OpenAICompatibleProvider(url=url, api_key=KEY, max_body_bytes=max_body_bytes)
    try:
        yield provider
    finally:
        await provider.aclose()


async def problem_of(answer: Answer, **limits: int) -> CallProblem:
    async with serving(answer) as server, calling(server.port, **limits) as provider:
        with pytest.raises(CallError) as caught:
            async with asyncio.timeout(5):
                await provider.complete(b'{"text": "narrative-canary"}')
    error = caught.value
    assert error.__cause__ is None and error.__context__ is None
    assert "canary" not in f"{error!s}{error!r}{error.message}{provider!r}"
    return error.problem


async def test_status_headers_and_body_come_back_as_they_were() -> None:
    sent = reply(b'{"a": 1}', status="418 Teapot", headers=b"Retry-After: 7\r\nX-Odd: \xe9\r\n")
    async with serving(writing(sent)) as server, calling(server.port) as provider:
        got = await provider.complete(b'{"b": 2}')
    assert (got.status, got.body, got.headers["retry-after"]) == (418, b'{"a": 1}', "7")


async def test_the_request_is_a_plain_post_with_the_key_and_identity_encoding() -> None:
    async with serving(writing(reply())) as server, calling(server.port) as provider:
        await provider.complete(b'{"b": 2}')
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    assert line == b"POST /v1/chat/completions HTTP/1.1"
    assert body == b'{"b": 2}'
    assert {b"Authorization: Bearer key-canary", b"Accept-Encoding: identity"} <= set(headers)
    names = [header.partition(b":")[0].lower() for header in headers]
    assert sorted(names) == sorted(set(names))
    assert {b"host", b"content-length"} <= set(names)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"HTTP/1.1 200 OK\r\nContent-Le"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"],
        [b"narrative-canary is no HTTP\r\n\r\n"],
        [b"HTTP/1.1 abc OK\r\n\r\n"],
        [CHUNKED + b"5\r\n{}"],
        [CHUNKED + b"zz\r\n{}\r\n"],
        [reply(headers=b"Content-Encoding: gzip\r\n")],
        [reply(headers=b"Content-Encoding: br\r\n")],
        [b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 200_000 + b"\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"],
    ],
    ids=[
        "nothing",
        "half-head",
        "short-body",
        "garbage",
        "bad-status",
        "short-chunk",
        "bad-chunk",
        "gzip",
        "br",
        "head",
        "two-lengths",
    ],
)
async def test_bytes_that_are_no_whole_answer_are_a_lost_connection(parts: list[bytes]) -> None:
    assert await problem_of(writing(*parts)) is CallProblem.CONNECTION_LOST


async def test_a_reset_in_the_middle_of_a_body_is_a_lost_connection() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
        await asyncio.sleep(0.05)
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        raise ConnectionError

    assert await problem_of(answer) is CallProblem.CONNECTION_LOST


async def test_a_body_that_announces_more_than_the_cap_is_given_up_before_it_comes() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        await reader.read()

    assert await problem_of(answer, max_body_bytes=50_000) is CallProblem.TOO_LARGE


async def test_a_body_without_end_is_given_up_at_the_cap_and_its_connection_closed() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:  # ends when the client closes its side
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await writer.drain()

    assert await problem_of(answer, max_body_bytes=50_000) is CallProblem.TOO_LARGE


async def test_a_body_of_exactly_the_cap_is_taken() -> None:
    async with serving(writing(reply(b"x" * 5_000))) as server, calling(server.port, max_body_bytes=5_000) as provider:
        assert len((await provider.complete(b"{}")).body) == 5_000


async def test_a_body_that_drips_ends_with_the_callers_deadline() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving(answer) as server, calling(server.port) as provider:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await provider.complete(b"{}")
        async with asyncio.timeout(2):
            while server.n_closed < 1:
                await asyncio.sleep(0.01)


async def test_a_refused_connection_is_unreachable() -> None:
    with socket.socket() as bound:  # bound and not listening: nobody else answers on this port
        bound.bind(("127.0.0.1", 0))
        async with calling(bound.getsockname()[1]) as provider:
            with pytest.raises(CallError) as caught:
                await provider.complete(b"{}")
    assert caught.value.problem is CallProblem.UNREACHABLE


async def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    provider = OpenAICompatibleProvider(url="http://no-such-host.invalid:9", api_key=None)
    with pytest.raises(CallError) as caught:
        await provider.complete(b"{}")
    await provider.aclose()
    assert caught.value.problem is CallProblem.UNREACHABLE


async def test_plain_http_behind_an_https_url_is_a_tls_problem() -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(reply(status="400 Bad Request"))
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with calling(listener.sockets[0].getsockname()[1], scheme="https") as provider:
        with pytest.raises(CallError) as caught:
            await provider.complete(b"{}")
    listener.close()
    await listener.wait_closed()
    assert caught.value.problem is CallProblem.TLS


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
async def test_a_certificate_that_nobody_vouches_for_is_a_tls_problem(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command = ["openssl", "req", "-x509", *curve, "-nodes", *subject, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    async with serving(writing(reply()), tls=tls) as server, calling(server.port, scheme="https") as provider:
        with pytest.raises(CallError) as caught:
            await provider.complete(b"{}")
    assert caught.value.problem is CallProblem.TLS
    assert "self-signed" in caught.value.message.replace("self signed", "self-signed")
    assert server.requests == []


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_an_answer_and_is_not_followed(status: str) -> None:
    async with serving(writing(reply())) as other:
        location = f"Location: http://127.0.0.1:{other.port}/v1/chat/completions\r\n".encode()
        async with serving(writing(reply(status=status, headers=location))) as server, calling(server.port) as provider:
            got = await provider.complete(b"{}")
    assert got.status == int(status[:3])
    assert other.n_connections == 0


async def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(writing(reply(b"proxy"))) as proxy, serving(writing(reply(b"endpoint"))) as server:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with calling(server.port) as provider:
            got = await provider.complete(b"{}")
    assert got.body == b"endpoint"
    assert proxy.n_connections == 0


async def test_cookies_are_not_sent_back() -> None:
    answer = writing(reply(headers=b"Set-Cookie: who=me; Path=/\r\n"), then_close=False)
    async with serving(answer) as server:
        # By name, because aiohttp keeps no cookies of bare addresses anyway.
        provider = OpenAICompatibleProvider(url=f"http://localhost:{server.port}", api_key=None)
        await provider.complete(b"{}")
        await provider.complete(b"{}")
        await provider.aclose()
    assert server.n_connections == 1
    assert not any(b"cookie" in request.lower() for request in server.requests)


async def test_a_call_is_one_attempt_also_when_a_kept_connection_was_closed() -> None:
    async with serving(writing(reply())) as server, calling(server.port) as provider:
        problems = set()
        for _ in range(20):  # the server closes after each answer, and the client may see that too late
            try:
                await provider.complete(b"{}")
            except CallError as error:
                problems.add(error.problem)
    assert len(server.requests) <= 20
    assert problems <= {CallProblem.CONNECTION_LOST}


async def test_an_answer_without_a_body_is_an_answer() -> None:
    sent = b"HTTP/1.1 204 No Content\r\n\r\n"
    async with serving(writing(sent)) as server, calling(server.port) as provider:
        got: RawReply = await provider.complete(b"{}")
    assert (got.status, got.body) == (204, b"")


async def test_the_transport_serves_an_httpx_client_too() -> None:
    async with serving(writing(reply(b"hello"))) as server:
        async with httpx.AsyncClient(transport=AiohttpTransport()) as client:
            answer = await client.post(f"http://127.0.0.1:{server.port}/x", content=b"body")
    assert (answer.status_code, answer.text) == (200, "hello")
    assert server.requests[0].endswith(b"\r\n\r\nbody")


async def test_a_closed_provider_opens_no_connection() -> None:
    async with serving(writing(reply())) as server:
        async with calling(server.port) as provider:
            pass
        with pytest.raises(RuntimeError):
            await provider.complete(b"{}")
    assert server.n_connections == 0
