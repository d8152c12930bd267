"""One attempt over a real socket, against servers that misbehave in every way that was seen."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from raw_server import Answer, Server, reply, serving, writing

from narrun_async.models import RawReply
from narrun_async.providers.aiohttp_transport import AiohttpTransport
from narrun_async.providers.openai_compatible import OpenAICompatibleProvider
from narrun_async.retrying import CallError, CallProblem

KEY = "key-canary"
Measured = Callable[[str], None]


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


@pytest.mark.fault("N05")
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


@pytest.mark.fault("N01")
async def test_a_refused_connection_is_unreachable(measured: Measured) -> None:
    with socket.socket() as bound:  # bound and not listening: nobody else answers on this port
        bound.bind(("127.0.0.1", 0))
        async with calling(bound.getsockname()[1]) as provider:
            with pytest.raises(CallError) as caught:
                await provider.complete(b"{}")
    assert caught.value.problem is CallProblem.UNREACHABLE
    measured(f"refused: {caught.value.message}")


@pytest.mark.fault("N01")
async def test_a_name_that_does_not_resolve_is_unreachable(measured: Measured) -> None:
    provider = OpenAICompatibleProvider(url="http://no-such-host.invalid:9", api_key=None)
    with pytest.raises(CallError) as caught:
        await provider.complete(b"{}")
    await provider.aclose()
    assert caught.value.problem is CallProblem.UNREACHABLE
    measured(f"no such name: {caught.value.message}")


@pytest.mark.fault("N10")
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_an_answer_and_is_not_followed(status: str, measured: Measured) -> None:
    async with serving(writing(reply())) as other:
        location = f"Location: http://127.0.0.1:{other.port}/v1/chat/completions\r\n".encode()
        async with serving(writing(reply(status=status, headers=location))) as server, calling(server.port) as provider:
            got = await provider.complete(b"{}")
    assert got.status == int(status[:3])
    assert other.n_connections == 0
    measured("0 connections to the second server")


@pytest.mark.fault("N11")
async def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch, measured: Measured) -> None:
    async with serving(writing(reply(b"proxy"))) as proxy, serving(writing(reply(b"endpoint"))) as server:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with calling(server.port) as provider:
            got = await provider.complete(b"{}")
    assert got.body == b"endpoint"
    assert proxy.n_connections == 0
    measured("0 connections to the proxy")


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


@pytest.mark.fault("N12")
async def test_a_kept_connection_that_is_closed_under_the_next_request_costs_no_attempt(measured: Measured) -> None:
    async with serving(writing(reply())) as server, calling(server.port) as provider:
        for _ in range(50):  # the server closes after each answer, and the client may see that too late
            await provider.complete(b"{}")
    assert len(server.requests) == 50
    measured("closed after each of 50 answers, the next request under way: 50 answers, each request read once")


async def closing_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers the first request of a connection and closes it when the second one is read."""
    if hasattr(writer, "was_used"):
        raise ConnectionError
    writer.was_used = True  # type: ignore[attr-defined]
    writer.write(reply())
    await writer.drain()


@pytest.mark.fault("N12")
async def test_a_request_on_a_kept_connection_is_sent_again_once_and_never_more() -> None:
    async with serving(closing_second) as server, calling(server.port) as provider:
        await provider.complete(b"{}")
        await provider.complete(b"{}")
        assert len(server.requests) == 3
    answers = iter([writing(reply(), then_close=False), writing(b""), writing(b"")])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next(answers)(reader, writer)

    async with serving(answer) as server, calling(server.port) as provider:
        await provider.complete(b"{}")
        with pytest.raises(CallError) as caught:
            await provider.complete(b"{}")
        assert len(server.requests) == 3
    assert caught.value.problem is CallProblem.CONNECTION_LOST


@pytest.mark.parametrize(
    ("begun", "after_s"), [(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", 0.0), (b"", 1.1)], ids=["begun", "late"]
)
async def test_a_request_that_was_worked_on_is_not_sent_again(begun: bytes, after_s: float) -> None:
    async def breaking_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(after_s)
        await writing(begun)(_, writer)

    answers = iter([writing(reply(), then_close=False), breaking_off])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next(answers)(reader, writer)

    async with serving(answer) as server, calling(server.port) as provider:
        await provider.complete(b"{}")
        with pytest.raises(CallError) as caught:
            await provider.complete(b"{}")
        assert len(server.requests) == 2
    assert caught.value.problem is CallProblem.CONNECTION_LOST


async def test_a_server_that_is_gone_after_a_request_was_sent_lost_it() -> None:
    """So that it is known which narratives were in flight when it died."""
    answers = iter([writing(reply(), then_close=False)])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await next(answers)(reader, writer)
        except StopIteration:
            listener.close()
            raise ConnectionError from None

    server = Server(answer)
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    async with calling(listener.sockets[0].getsockname()[1]) as provider:
        await provider.complete(b"{}")
        with pytest.raises(CallError) as caught:
            await provider.complete(b"{}")
    assert caught.value.problem is CallProblem.CONNECTION_LOST
    assert len(server.requests) == 2


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
