"""One attempt over a real socket, against servers that break off, fall silent, drip, pour, or are somebody else."""

from __future__ import annotations

import asyncio
import datetime
import functools
import gzip
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
import trustme
from raw_server import (
    COMPLETION,
    Answer,
    forget_peak_memory,
    open_sockets,
    peak_memory_bytes,
    reply,
    reset_connection,
    serving,
    watching_lag,
    writing,
)

from narrun_async.models import RawReply
from narrun_async.providers.aiohttp_transport import DEFAULT_MAX_BODY_BYTES
from narrun_async.providers.openai_compatible import OpenAICompatibleProvider
from narrun_async.retrying import CallError, CallProblem

Measured = Callable[..., None]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MIB = 1024 * 1024


@asynccontextmanager
async def calling(
    port: int, *, scheme: str = "http", max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
) -> AsyncIterator[OpenAICompatibleProvider]:
    url = f"{scheme}://127.0.0.1:{port}/v1"
    provider = OpenAICompatibleProvider(url=url, api_key="key-canary", max_body_bytes=max_body_bytes)
    try:
        yield provider
    finally:
        await provider.aclose()


async def attempt(provider: OpenAICompatibleProvider, *, deadline_s: float = 20.0) -> RawReply | CallProblem | None:
    """What one attempt brings: an answer, a problem, or None where the deadline ended it."""
    try:
        async with asyncio.timeout(deadline_s):
            return await provider.complete(b'{"text": "narrative-canary"}')
    except TimeoutError:
        return None
    except CallError as error:
        problem, shown = error.problem, f"{error!s}{error!r}{error.message}{error.__cause__!r}{error.__context__!r}"
    assert "canary" not in shown
    assert shown.endswith("NoneNone")  # aiohttp's own error would carry the request along
    return problem


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


# --- broken off ------------------------------------------------------------------------------------------------------


@pytest.mark.fault("N02")
@pytest.mark.parametrize("sent", [b"", HEAD[:20], HEAD + b'{"choices"'], ids=["after the request", "head", "body"])
async def test_a_reset_is_a_lost_connection_wherever_it_comes(sent: bytes, measured: Measured) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        await reset_connection(writer)

    async with serving(answer) as server, calling(server.port) as provider:
        assert await attempt(provider) is CallProblem.CONNECTION_LOST
        assert len(server.requests) == 1
    measured(f"reset after {len(sent)} bytes of an answer: connection_lost, 1 request")


@pytest.mark.fault("N12")
async def test_a_kept_connection_that_was_closed_while_idle_costs_no_attempt(measured: Measured) -> None:
    """The close is seen before the next request, so that one goes over another connection."""
    n_calls = 20
    async with serving(writing(reply(COMPLETION))) as server, calling(server.port) as provider:
        for number in range(n_calls):
            got = await attempt(provider)
            assert isinstance(got, RawReply) and got.body == COMPLETION
            await until(lambda closed=number + 1: server.n_closed == closed)  # type: ignore[misc]  # bound at once
            await asyncio.sleep(0.01)
        assert len(server.requests) == server.n_connections == n_calls
    measured(f"closed after each of {n_calls} answers: {n_calls} requests, {n_calls} answers")


# --- silent, late, dripping ------------------------------------------------------------------------------------------


async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


def dripping(start: bytes, drop: bytes) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:  # ends when the client closes its side
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.05)  # in 5 s fewer heads than the client would take

    return answer


SLOW = {
    "silent": say_nothing,
    "a body that drips": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
    "chunks that drip": dripping(CHUNKED, b"1\r\nx\r\n"),
    "a head that drips": dripping(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "heads that drip": dripping(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
    "100-continue for ever": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.fault("N03", "N04")
@pytest.mark.parametrize("how", SLOW)
async def test_the_total_deadline_ends_a_call_however_much_still_comes(
    how: str, measured: Measured, is_long: bool
) -> None:
    deadline_s = 5.0 if is_long else 0.5
    async with serving(SLOW[how]) as server, calling(server.port) as provider:
        began = time.monotonic()
        assert await attempt(provider, deadline_s=deadline_s) is None
        took_s = time.monotonic() - began
        assert deadline_s - 0.05 <= took_s <= deadline_s + 1
        await until(lambda: server.n_open == 0)
    figure = f"{how}: given up after {took_s:.2f} s of {deadline_s:g} s, its connection closed"
    measured(figure, fault="N03" if how == "silent" else "N04")


@pytest.mark.fault("N13")
async def test_an_answer_after_the_deadline_is_never_taken_for_that_of_another_call(measured: Measured) -> None:
    n_calls = 50

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(server.requests)
        if number % 2:
            await asyncio.sleep(0.06)
        writer.write(reply(b"%d" % number))
        await writer.drain()

    async with serving(answer) as server, calling(server.port) as provider:
        for number in range(1, n_calls + 1):
            got = await attempt(provider, deadline_s=0.03 if number % 2 else 5.0)
            if number % 2:
                assert got is None
            else:
                assert isinstance(got, RawReply) and got.body == b"%d" % number
        await until(lambda: server.n_open <= 1)
    measured(f"{n_calls // 2} answers after the deadline, none taken for that of the {n_calls // 2} calls after them")


@pytest.mark.fault("N04")
async def test_thousands_of_aggressive_timeouts_leave_nothing_behind(measured: Measured, is_long: bool) -> None:
    n_calls, at_once = 10_000 if is_long else 500, 50
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    print(f"seed {seed}")
    sound = writing(reply(COMPLETION, headers=b"Connection: close\r\n"))
    ways = [*SLOW.values(), sound, writing(b""), writing(HEAD + b"{")]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await rng.choice(ways)(reader, writer)

    deadlines_s = [rng.choice((0.0, 0.001, 0.01, 0.05, 0.2)) for _ in range(n_calls)]
    came = Counter[str]()

    async def call_again_and_again(provider: OpenAICompatibleProvider) -> None:
        while deadlines_s:
            got = await attempt(provider, deadline_s=deadlines_s.pop())
            came["timeouts" if got is None else "answers" if isinstance(got, RawReply) else "lost"] += 1

    sockets_before, tasks_before = open_sockets(), len(asyncio.all_tasks())
    async with serving(answer) as server, watching_lag() as lag:
        async with calling(server.port) as provider:
            async with asyncio.TaskGroup() as callers:
                for _ in range(at_once):
                    callers.create_task(call_again_and_again(provider))
            assert sum(came.values()) == n_calls
            assert came["timeouts"] > n_calls / 2
            await until(lambda: server.n_open == 0)
            await until(lambda: open_sockets() <= sockets_before + 1)  # the listener
            ways[:] = [sound]
            assert isinstance(await attempt(provider), RawReply)  # the pool still gives connections
    await until(lambda: len(asyncio.all_tasks()) <= tasks_before)
    assert open_sockets() <= sockets_before
    assert lag.p99_ms() <= 100
    measured(
        f"{n_calls} calls, {came['timeouts']} timeouts: 0 connections, 0 tasks, 0 descriptors left;"
        f" loop lag p99 {lag.p99_ms():.0f} ms"
    )


# --- too much, or in another code ------------------------------------------------------------------------------------


def pouring(start: bytes, part: bytes, *, times: int | None = None) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        sent = 0
        while times is None or sent < times:  # or until the client closes its side
            writer.write(part)
            await writer.drain()
            sent += 1

    return answer


@functools.cache
def bomb() -> bytes:
    """A gzip stream of 1 MB that unpacks to 200 MB."""
    return gzip.compress(b"0" * (200 * MIB), compresslevel=1)


_BLOCK = b"x" * 65_536
TOO_MUCH: dict[str, tuple[Callable[[], Answer], CallProblem]] = {
    "chunks without end": (
        lambda: pouring(CHUNKED, b"%x\r\n%b\r\n" % (len(_BLOCK), _BLOCK)),
        CallProblem.TOO_LARGE,
    ),
    "tiny chunks without end": (lambda: pouring(CHUNKED, b"1\r\nx\r\n" * 10_000), CallProblem.TOO_LARGE),
    "a body without length and end": (lambda: pouring(b"HTTP/1.1 200 OK\r\n\r\n", _BLOCK), CallProblem.TOO_LARGE),
    "100 MB": (
        lambda: pouring(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n", _BLOCK, times=1600),
        CallProblem.TOO_LARGE,
    ),
    "100 MB in chunks": (
        lambda: pouring(CHUNKED, b"%x\r\n%b\r\n" % (len(_BLOCK), _BLOCK), times=1600),
        CallProblem.TOO_LARGE,
    ),
    "a head without end": (lambda: pouring(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 1_000), CallProblem.CONNECTION_LOST),
    "a header line without end": (lambda: pouring(b"HTTP/1.1 200 OK\r\nX: ", _BLOCK), CallProblem.CONNECTION_LOST),
    "a gzip bomb": (
        lambda: writing(reply(bomb(), headers=b"Content-Encoding: gzip\r\n")),
        CallProblem.CONNECTION_LOST,
    ),
    "a gzip bomb in an error": (
        lambda: writing(reply(bomb(), status="500 No", headers=b"Content-Encoding: gzip\r\n")),
        CallProblem.CONNECTION_LOST,
    ),
}
_MALFORMED_CODES = ["gzip", "deflate", "br", "zstd", "no-such-code", "gzip, gzip", "IDENTITY, gzip", "\u00e9"]


@pytest.mark.fault("N05")
@pytest.mark.parametrize("what", TOO_MUCH)
async def test_too_much_is_given_up_early_in_little_memory_without_holding_up_the_loop(
    what: str, measured: Measured
) -> None:
    build_answer, problem = TOO_MUCH[what]
    answer = build_answer()
    # A million chunks take seconds at both ends, the test's included; a part of the cap shows the same.
    max_body_bytes = MIB // 4 if what.startswith("tiny") else DEFAULT_MAX_BODY_BYTES
    async with serving(answer) as server, calling(server.port, max_body_bytes=max_body_bytes) as provider:
        before = forget_peak_memory()
        async with watching_lag() as lag:
            began = time.monotonic()
            assert await attempt(provider) is problem
            took_s = time.monotonic() - began
        grown_mib = (peak_memory_bytes() - before) / MIB
        await until(lambda: server.n_open == 0)
    assert grown_mib <= 100
    assert lag.worst_ms() <= 100
    measured(f"{what}: {problem.value} after {took_s:.1f} s, +{grown_mib:.0f} MB, lag {lag.worst_ms():.0f} ms")


@pytest.mark.fault("N05")
@pytest.mark.parametrize("code", _MALFORMED_CODES)
async def test_an_answer_in_a_code_that_was_not_asked_for_is_not_read(code: str, measured: Measured) -> None:
    sent = reply(COMPLETION, headers=b"Content-Encoding: %b\r\n" % code.encode("latin-1"))
    async with serving(writing(sent)) as server, calling(server.port) as provider:
        assert await attempt(provider) is CallProblem.CONNECTION_LOST
    measured("wrong or unknown encoding: connection_lost, nothing unpacked")


@pytest.mark.fault("N05")
@pytest.mark.parametrize("code", ["identity", "Identity"])
async def test_identity_is_no_code(code: str) -> None:
    sent = reply(COMPLETION, headers=b"Content-Encoding: %b\r\n" % code.encode())
    async with serving(writing(sent)) as server, calling(server.port) as provider:
        got = await attempt(provider)
    assert isinstance(got, RawReply) and got.body == COMPLETION


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trusted_authority() -> trustme.CA:
    """A made-up authority that this process trusts from now on, as if the machine did."""
    authority = trustme.CA()
    # aiohttp reads the machine's authorities once, when it is imported; its key dies with this process.
    authority.configure_trust(aiohttp.connector._SSL_CONTEXT_VERIFIED)
    return authority


def tls_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def ago(days: int) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)


STRANGERS: dict[str, tuple[bool, Callable[[trustme.CA], trustme.LeafCert], str]] = {
    "nobody vouches for it": (False, lambda ca: ca.issue_cert("127.0.0.1"), "unable to get local issuer certificate"),
    "expired": (
        True,
        lambda ca: ca.issue_cert("127.0.0.1", not_before=ago(30), not_after=ago(1)),
        "certificate has expired",
    ),
    "not valid yet": (
        True,
        lambda ca: ca.issue_cert("127.0.0.1", not_before=ago(-1), not_after=ago(-30)),
        "certificate is not yet valid",
    ),
    "another host": (True, lambda ca: ca.issue_cert("somewhere.else.example"), "IP address mismatch"),
}


@pytest.mark.fault("N09")
@pytest.mark.parametrize("who", STRANGERS)
async def test_a_server_that_is_not_who_it_claims_gets_no_request(
    who: str, trusted_authority: trustme.CA, measured: Measured
) -> None:
    is_trusted, issue, cause = STRANGERS[who]
    tls = tls_of(issue(trusted_authority if is_trusted else trustme.CA()))
    async with serving(writing(reply(COMPLETION)), tls=tls) as server, calling(server.port, scheme="https") as provider:
        for _ in range(3):  # the second attempt is as strict as the first
            with pytest.raises(CallError) as caught:
                await provider.complete(b'{"text": "narrative-canary"}')
            assert caught.value.problem is CallProblem.TLS
            assert cause in caught.value.message
    assert server.requests == []
    measured(f"{who}: {caught.value.message}; 0 requests")


@pytest.mark.fault("N09")
async def test_a_server_that_is_who_it_claims_gets_the_request(trusted_authority: trustme.CA) -> None:
    tls = tls_of(trusted_authority.issue_cert("127.0.0.1"))
    async with serving(writing(reply(COMPLETION)), tls=tls) as server, calling(server.port, scheme="https") as provider:
        assert isinstance(await attempt(provider), RawReply)
    assert len(server.requests) == 1


@pytest.mark.fault("N09")
async def test_tls_to_a_port_that_speaks_plain_http_is_a_tls_problem_and_never_a_plain_request(
    measured: Measured,
) -> None:
    heard = bytearray()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(4096))
        writer.write(reply(status="400 Bad Request"))
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with calling(listener.sockets[0].getsockname()[1], scheme="https") as provider:
        assert await attempt(provider) is CallProblem.TLS
    listener.close()
    await listener.wait_closed()
    assert b"canary" not in heard and b"POST" not in heard
    measured("https to a plain port: tls, no plain request")


@pytest.mark.fault("N09")
async def test_plain_http_to_a_port_that_speaks_tls_says_what_may_be_wrong(
    trusted_authority: trustme.CA, measured: Measured
) -> None:
    """Such a server closes the connection without a word, so nothing tells it from one that is ill."""
    tls = tls_of(trusted_authority.issue_cert("127.0.0.1"))
    async with serving(writing(reply(COMPLETION)), tls=tls) as server, calling(server.port) as provider:
        with pytest.raises(CallError) as caught:
            await provider.complete(b"{}")
    assert caught.value.problem is CallProblem.CONNECTION_LOST
    assert "https" in caught.value.message
    assert server.requests == []
    measured(f"http to a TLS port: {caught.value.message}")


@pytest.mark.fault("N09")
async def test_a_connection_that_is_lost_after_an_answer_says_nothing_of_https() -> None:
    answers = iter((writing(reply(COMPLETION), then_close=False), writing(b"")))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next(answers)(reader, writer)

    async with serving(answer) as server, calling(server.port) as provider:
        await provider.complete(b"{}")
        with pytest.raises(CallError) as caught:
            await provider.complete(b"{}")
    assert "https" not in caught.value.message


# --- other ways to speak HTTP ----------------------------------------------------------------------------------------

STRANGE_ANSWERS = {
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n" + COMPLETION, 200, COMPLETION),
    "HTTP/1.0, length": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}"),
    "100-continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + reply(COMPLETION), 200, COMPLETION),
    "103 before it": (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + reply(COMPLETION), 200, COMPLETION),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "206": (reply(COMPLETION[:20], status="206 Partial Content"), 206, COMPLETION[:20]),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}"),
    "until it closes": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + COMPLETION, 200, COMPLETION),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\nX-After: a\r\n\r\n", 200, b"{}"),
}


@pytest.mark.fault("N15")
@pytest.mark.parametrize("how", STRANGE_ANSWERS)
async def test_whatever_http_allows_is_read(how: str, measured: Measured) -> None:
    sent, status, body = STRANGE_ANSWERS[how]
    async with serving(writing(sent)) as server, calling(server.port) as provider:
        got = await attempt(provider)
    assert isinstance(got, RawReply)
    assert (got.status, got.body) == (status, body)
    measured(f"{how}: read, status {status}")
