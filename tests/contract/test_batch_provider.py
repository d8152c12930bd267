"""What a Batch API behind the BatchProvider seam promises, over real sockets: a well-behaved one, and every other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from raw_server import Answer, forget_peak_memory, peak_memory_bytes, reply, reset_connection, serving, writing

from narrun_async.errors import ConfigurationError, StorageError
from narrun_async.models import RemoteBatch, RemoteFile
from narrun_async.providers import one_shot
from narrun_async.providers.openai_batches import MAX_PAGES, OpenAIBatchProvider, batch_base_url
from narrun_async.retrying import CallFailure, FailureClass, may_have_acted
from narrun_async.simulation.batch_behaviour import BatchBehaviour
from narrun_async.simulation.behaviour import Behaviour
from narrun_async.simulation.endpoint import SimulatedEndpoint

KEY = "key-canary-0123456789"
MIB = 1 << 20
Call = Callable[[OpenAIBatchProvider], Awaitable[Any]]


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[OpenAIBatchProvider]:
    provider = OpenAIBatchProvider(url=url, api_key=KEY, **options)
    try:
        yield provider
    finally:
        await provider.aclose()


@asynccontextmanager
async def simulated(**knobs: Any) -> AsyncIterator[tuple[SimulatedEndpoint, OpenAIBatchProvider]]:
    async with SimulatedEndpoint(Behaviour(auth_key=KEY)) as endpoint, opened(endpoint.url) as provider:
        endpoint.batches.knobs = BatchBehaviour(**knobs)
        yield endpoint, provider


def request_file(tmp_path: Path, n_requests: int = 3) -> Path:
    path = tmp_path / "requests.jsonl"
    body = {"model": "m", "messages": [{"role": "user", "content": "Synthetic account: struck his wife."}]}
    lines = [
        {"custom_id": f"c-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number in range(n_requests)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


async def uploaded(provider: OpenAIBatchProvider, path: Path, name: str = "narrun-t.jsonl") -> RemoteFile:
    file = await provider.upload_file(path, name=name)
    assert isinstance(file, RemoteFile)
    return file


async def created(provider: OpenAIBatchProvider, file: RemoteFile, token: str = "t") -> RemoteBatch:
    batch = await provider.create_batch(file.file_id, endpoint="/v1/chat/completions", metadata={"narrun_token": token})
    assert isinstance(batch, RemoteBatch)
    return batch


async def fetched(provider: OpenAIBatchProvider, file_id: str, *, max_bytes: int = 10 * MIB) -> bytes:
    pieces: list[bytes] = []
    assert await provider.download_file(file_id, pieces.append, max_bytes=max_bytes) is None
    return b"".join(pieces)


# --- a well-behaved one ----------------------------------------------------------------------------------------------


async def test_a_file_comes_to_a_batch_and_its_answers_come_back(tmp_path: Path) -> None:
    async with simulated() as (_, provider):
        path = request_file(tmp_path)
        file = await uploaded(provider, path)
        assert (file.name, file.n_bytes) == ("narrun-t.jsonl", path.stat().st_size)
        batch = await created(provider, file)
        assert (batch.input_file_id, batch.metadata) == (file.file_id, {"narrun_token": "t"})
        ended = await provider.load_batch(batch.remote_batch_id)
        assert isinstance(ended, RemoteBatch)
        assert (ended.status, ended.n_completed, ended.n_failed) == ("completed", 3, 0)
        assert ended.output_file_id is not None and ended.error_file_id is None
        lines = (await fetched(provider, ended.output_file_id)).splitlines()
        assert [json.loads(line)["custom_id"] for line in lines] == ["c-0", "c-1", "c-2"]


async def test_what_was_uploaded_is_byte_for_byte_what_was_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b'{"a": 1}\r\n--boundary\r\n\r\n\xff\x00')
    async with simulated() as (_, provider):
        file = await uploaded(provider, path)
        assert await fetched(provider, file.file_id) == path.read_bytes()


async def test_files_and_batches_are_found_on_whatever_page_they_are(tmp_path: Path) -> None:
    path = request_file(tmp_path)
    async with simulated(page_size=2) as (_, provider):
        files = [await uploaded(provider, path, f"file-{number}.jsonl") for number in range(7)]
        batches = [await created(provider, file, f"token-{number}") for number, file in enumerate(files)]
        for number in range(7):
            found_file = await provider.find_file(f"file-{number}.jsonl")
            assert isinstance(found_file, RemoteFile)
            assert found_file.file_id == files[number].file_id
            found = await provider.find_batch(token=f"token-{number}", input_file_id=None)
            assert isinstance(found, RemoteBatch)
            assert found.remote_batch_id == batches[number].remote_batch_id
        assert await provider.find_file("file-7.jsonl") is None
        assert await provider.find_batch(token="token-7", input_file_id="file-made-up") is None


async def test_a_batch_is_found_by_its_file_where_the_provider_keeps_no_metadata(tmp_path: Path) -> None:
    async with simulated(forgets_metadata=1) as (_, provider):
        file = await uploaded(provider, request_file(tmp_path))
        batch = await created(provider, file)
        assert batch.metadata == {}
        assert await provider.find_batch(token="t", input_file_id=None) is None
        found = await provider.find_batch(token="t", input_file_id=file.file_id)
        assert isinstance(found, RemoteBatch)
        assert found.remote_batch_id == batch.remote_batch_id


async def test_of_several_batches_the_one_that_has_or_will_have_answers_is_taken(tmp_path: Path) -> None:
    async with simulated() as (endpoint, provider):
        file = await uploaded(provider, request_file(tmp_path))
        endpoint.batches.change(latency_ms=1e6)
        good = await created(provider, file)
        endpoint.batches.change(invalid=1)
        assert (await created(provider, file)).status == "failed"
        found = await provider.find_batch(token="t", input_file_id=file.file_id)
        assert isinstance(found, RemoteBatch)
        assert found.remote_batch_id == good.remote_batch_id


async def test_a_batch_is_cancelled_and_a_file_deleted(tmp_path: Path) -> None:
    async with simulated(latency_ms=1e6) as (_, provider):
        file = await uploaded(provider, request_file(tmp_path))
        batch = await created(provider, file)
        cancelled = await provider.cancel_batch(batch.remote_batch_id)
        assert isinstance(cancelled, RemoteBatch)
        assert cancelled.status == "cancelling"
        assert await provider.delete_file(file.file_id) is None
        gone = await provider.load_file(file.file_id)
        assert isinstance(gone, CallFailure)
        assert gone.http_status == 404


async def test_ids_that_are_no_plain_words_stay_one_segment_of_the_path() -> None:
    async with serving(writing(reply(b'{"id": "x", "status": "completed"}'))) as server:
        async with opened(f"http://127.0.0.1:{server.port}/v1") as provider:
            await provider.load_batch("../../admin?x=1#y %41")
    line = server.requests[0].partition(b"\r\n")[0]
    assert line == b"GET /v1/batches/..%2F..%2Fadmin%3Fx%3D1%23y%20%2541 HTTP/1.1"


# --- where things are ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "files_url"),
    [
        ("http://localhost:1234", "http://localhost:1234/v1/files"),
        ("http://localhost:1234/v1/chat/completions", "http://localhost:1234/v1/files"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1/files"),
        ("https://h/proxy/v2/chat/completions?team=a", "https://h/proxy/v2/files?team=a"),
        (
            "https://x.openai.azure.com/openai/deployments/d-1/chat/completions?api-version=2024-10-21",
            "https://x.openai.azure.com/openai/files?api-version=2024-10-21",
        ),
        ("https://x.openai.azure.com/openai/v1/chat/completions", "https://x.openai.azure.com/openai/v1/files"),
    ],
)
async def test_files_lie_beside_the_chat_completions_of_the_endpoint(url: str, files_url: str) -> None:
    async with opened(url, allow_remote=True) as provider:
        assert str(provider._url("/files")) == files_url
        with_query = provider._url("/batches", limit="100", after="b 1")
        assert with_query.params["limit"] == "100" and with_query.params["after"] == "b 1"
        assert str(batch_base_url(url)).partition("?")[0] == files_url.partition("?")[0].removesuffix("/files")


async def test_a_url_with_credentials_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        OpenAIBatchProvider(url="http://user:pass@localhost/v1", api_key=None)


async def test_an_address_that_is_not_allowed_is_never_dialled() -> None:
    async with opened("http://203.0.113.7/v1") as provider:
        failure = await provider.load_batch("b")
    assert isinstance(failure, CallFailure)
    assert failure.failure_class is FailureClass.FATAL
    assert not may_have_acted(failure)


# --- sent once -------------------------------------------------------------------------------------------------------

COSTLY = ("create", "cancel")
CALLS: dict[str, Call] = {
    "create": lambda one: one.create_batch("file-1", endpoint="/v1/chat/completions", metadata={}),
    "load": lambda one: one.load_batch("b"),
    "cancel": lambda one: one.cancel_batch("b"),
    "find": lambda one: one.find_batch(token="t", input_file_id=None),
    "find file": lambda one: one.find_file("name"),
    "load file": lambda one: one.load_file("f"),
    "delete file": lambda one: one.delete_file("f"),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("how", ["reset", "closed", "half an answer"])
async def test_a_request_whose_answer_is_lost_is_not_sent_again_and_said_to_have_acted_perhaps(
    name: str, how: str
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if how == "reset":
            await reset_connection(writer)
        if how == "half an answer":
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"id": "batch')
            await writer.drain()
        raise ConnectionError

    async with serving(answer) as server, opened(f"http://127.0.0.1:{server.port}/v1") as provider:
        for _ in range(2):  # the second one would find a kept connection, if there were any
            failure = await CALLS[name](provider)
            assert isinstance(failure, CallFailure)
            assert may_have_acted(failure)
    # aiohttp asks a second time what costs nothing: it reads, or deletes what is gone.
    assert len(server.requests) == 2 if name in COSTLY else len(server.requests) <= 4


async def test_an_upload_whose_answer_is_lost_is_not_sent_again(tmp_path: Path) -> None:
    async with serving(writing()) as server, opened(f"http://127.0.0.1:{server.port}/v1") as provider:
        failure = await provider.upload_file(request_file(tmp_path), name="n")
    assert isinstance(failure, CallFailure)
    assert may_have_acted(failure)
    assert len(server.requests) == 1


async def test_every_request_has_a_connection_of_its_own() -> None:
    async with serving(writing(reply(b'{"id": "x", "status": "s"}'), then_close=False)) as server:
        async with opened(f"http://127.0.0.1:{server.port}/v1") as provider:
            for _ in range(3):
                assert isinstance(await provider.load_batch("b"), RemoteBatch)
    assert server.n_connections == 3


@pytest.mark.parametrize(
    ("status", "acted", "failure_class"),
    [
        ("400 Bad Request", False, FailureClass.PERMANENT),
        ("401 Unauthorized", False, FailureClass.FATAL),
        ("403 Forbidden", False, FailureClass.FATAL),
        ("404 Not Found", False, FailureClass.FATAL),
        ("405 Method Not Allowed", False, FailureClass.FATAL),
        ("429 Too Many Requests", False, FailureClass.OVERLOAD),
        ("301 Moved", False, FailureClass.FATAL),
        ("408 Timeout", True, FailureClass.TRANSIENT),
        ("409 Conflict", True, FailureClass.TRANSIENT),
        ("500 Oops", True, FailureClass.TRANSIENT),
        ("503 Busy", True, FailureClass.OVERLOAD),
        ("200 OK", True, FailureClass.TRANSIENT),
    ],
)
async def test_an_answer_says_whether_the_provider_may_have_acted(
    status: str, acted: bool, failure_class: FailureClass
) -> None:
    sent = reply(b'{"error": {"message": "made up"}}', status=status)
    async with serving(writing(sent)) as server, opened(f"http://127.0.0.1:{server.port}/v1") as provider:
        failure = await CALLS["create"](provider)
    assert isinstance(failure, CallFailure)
    assert (failure.failure_class, may_have_acted(failure)) == (failure_class, acted)


async def test_a_provider_that_is_not_there_has_not_acted() -> None:
    async with serving(writing()) as server:
        port = server.port
    async with opened(f"http://127.0.0.1:{port}/v1") as provider:
        failure = await CALLS["create"](provider)
    assert isinstance(failure, CallFailure)
    assert failure.failure_class is FailureClass.UNREACHABLE
    assert not may_have_acted(failure)


async def test_a_redirect_is_refused_and_nobody_is_sent_anything() -> None:
    async with serving(writing(reply())) as other:
        where = f"Location: http://127.0.0.1:{other.port}/v1/files\r\n".encode()
        for status in ("301 Moved", "302 Found", "307 Temporary", "308 Permanent"):
            async with serving(writing(reply(status=status, headers=where))) as server:
                async with opened(f"http://127.0.0.1:{server.port}/v1") as provider:
                    assert isinstance(await CALLS["create"](provider), CallFailure)
    assert other.n_connections == 0


async def test_silence_ends_at_the_deadline() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(answer) as server, opened(f"http://127.0.0.1:{server.port}/v1", deadline_s=0.1) as provider:
        failure = await CALLS["create"](provider)
    assert isinstance(failure, CallFailure)
    assert may_have_acted(failure)


# --- lists -----------------------------------------------------------------------------------------------------------


def pages(*bodies: Any) -> Answer:
    """One body a request, the last one for ever."""
    left = list(bodies)

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = left.pop(0) if len(left) > 1 else left[0]
        writer.write(reply(json.dumps(body).encode()))
        await writer.drain()

    return answer


async def find_in(*bodies: Any) -> tuple[RemoteBatch | CallFailure | None, int]:
    async with serving(pages(*bodies)) as server, opened(f"http://127.0.0.1:{server.port}/v1") as provider:
        async with asyncio.timeout(20):
            return await provider.find_batch(token="t", input_file_id=None), len(server.requests)


def entry(number: int, token: str = "other") -> dict[str, Any]:
    return {"id": f"batch_{number}", "status": "in_progress", "metadata": {"narrun_token": token}}


async def test_a_provider_that_gives_the_same_page_again_is_not_asked_for_ever() -> None:
    found, n_requests = await find_in({"data": [entry(1)], "has_more": True, "last_id": "batch_1"})
    assert (found, n_requests) == (None, 2)


@pytest.mark.parametrize("oddity", [{"status": "in progress, roughly"}, {"status": None}, {"id": ""}])
async def test_a_batch_of_ours_that_cannot_be_read_is_a_failure_and_not_an_absence(oddity: dict[str, Any]) -> None:
    ours = entry(2, token="t") | oddity
    found, _ = await find_in({"data": [entry(1), ours], "has_more": False})
    assert isinstance(found, CallFailure)
    found, _ = await find_in({"data": [ours, entry(3, token="t")], "has_more": False})
    assert isinstance(found, RemoteBatch)


async def test_a_list_that_has_no_end_is_a_failure_and_not_an_answer() -> None:
    endless = [{"data": [entry(n)], "has_more": True, "last_id": f"batch_{n}"} for n in range(MAX_PAGES + 5)]
    found, n_requests = await find_in(*endless)
    assert isinstance(found, CallFailure)
    assert n_requests == MAX_PAGES


async def test_a_page_that_cannot_be_read_is_a_failure_and_never_taken_for_an_empty_one() -> None:
    for broken in ([], {}, {"data": 5}, "text"):
        found, _ = await find_in({"data": [entry(1)], "has_more": True, "last_id": "batch_1"}, broken)
        assert isinstance(found, CallFailure)


async def test_a_match_on_a_later_page_is_found_where_the_provider_does_not_count_pages() -> None:
    full = {"data": [entry(n) for n in range(100)]}
    found, n_requests = await find_in(full, {"data": [entry(100, "t")]})
    assert isinstance(found, RemoteBatch)
    assert (found.remote_batch_id, n_requests) == ("batch_100", 2)


# --- files -----------------------------------------------------------------------------------------------------------


async def test_a_large_upload_is_streamed_and_never_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        for _ in range(96):
            file.write(b"x" * MIB)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while left:
            left -= len(await reader.read(MIB))
        writer.write(reply(b'{"id": "file-1", "bytes": 100663296}'))
        writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    before = forget_peak_memory()
    async with opened(f"http://127.0.0.1:{port}/v1") as provider:
        assert (await uploaded(provider, path)).file_id == "file-1"
    assert peak_memory_bytes() - before < 40 * MIB
    listener.close()


async def test_a_large_download_is_streamed_up_to_the_cap_and_not_a_piece_further() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:  # ends when the client closes its side
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()

    taken = 0

    def write(piece: bytes) -> None:
        nonlocal taken
        taken += len(piece)

    async with serving(answer) as server, opened(f"http://127.0.0.1:{server.port}/v1") as provider:
        before = forget_peak_memory()
        failure = await provider.download_file("f", write, max_bytes=64 * MIB)
    assert isinstance(failure, CallFailure)
    assert "larger than" in failure.message
    assert 63 * MIB < taken < 66 * MIB
    assert peak_memory_bytes() - before < 32 * MIB


@pytest.mark.parametrize(
    "answer",
    [
        writing(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}"),
        writing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}"),
        writing(reply(b"xx", headers=b"Content-Encoding: gzip\r\n")),
        writing(reply(b"gone", status="404 Not Found")),
        writing(reply(b"oops", status="500 Oops")),
    ],
    ids=["cut short", "chunk cut short", "compressed", "404", "500"],
)
async def test_a_file_that_does_not_come_whole_is_a_failure(answer: Answer) -> None:
    async with serving(answer) as server, opened(f"http://127.0.0.1:{server.port}/v1") as provider:
        assert isinstance(await provider.download_file("f", lambda _: None, max_bytes=MIB), CallFailure)


async def test_a_download_that_stalls_is_given_up() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nbeginning")
        await writer.drain()
        await reader.read()

    async with serving(answer) as server, opened(f"http://127.0.0.1:{server.port}/v1", stall_s=0.1) as provider:
        failure = await provider.download_file("f", lambda _: None, max_bytes=MIB)
    assert isinstance(failure, CallFailure)
    assert "nothing came" in failure.message


async def test_a_disk_that_refuses_is_not_taken_for_the_network(tmp_path: Path) -> None:
    def write(piece: bytes) -> None:
        raise StorageError("cannot be written", path=tmp_path)

    async with serving(writing(reply(b"content"))) as server, opened(f"http://127.0.0.1:{server.port}/v1") as provider:
        with pytest.raises(StorageError):
            await provider.download_file("f", write, max_bytes=MIB)
        with pytest.raises(StorageError, match="cannot be read"):
            await provider.upload_file(tmp_path / "nowhere", name="n")


# --- secrets ---------------------------------------------------------------------------------------------------------


async def test_the_key_is_sent_with_every_request_and_comes_back_with_no_file() -> None:
    content = f'{{"echo": "Bearer {KEY}"}}\n'.encode()
    async with serving(writing(reply(content))) as server, opened(f"http://127.0.0.1:{server.port}/v1") as provider:
        assert await fetched(provider, "f") == b'{"echo": "Bearer [key]"}\n'
        for call in CALLS.values():
            await call(provider)
    assert all(f"Bearer {KEY}".encode() in request for request in server.requests)
    assert "canary" not in repr(provider)


async def test_what_a_provider_says_of_a_file_with_narratives_is_not_repeated_and_of_other_requests_it_is(
    tmp_path: Path,
) -> None:
    said = reply(b'{"error": {"message": "narrative-canary", "code": "c"}}', status="400 Bad Request")
    async with serving(writing(said)) as server, opened(f"http://127.0.0.1:{server.port}/v1") as provider:
        refused = await provider.upload_file(request_file(tmp_path), name="n")
        assert isinstance(refused, CallFailure)
        assert (refused.quoted, "canary" in refused.message) == ("", False)
        other = await CALLS["create"](provider)
        assert isinstance(other, CallFailure)
        assert other.quoted == "narrative-canary"
        assert "canary" not in repr(other)


async def test_a_message_about_the_key_is_never_repeated() -> None:
    said = reply(f'{{"error": {{"message": "bad key {KEY}"}}}}'.encode(), status="401 Unauthorized")
    async with serving(writing(said)) as server, opened(f"http://127.0.0.1:{server.port}/v1") as provider:
        failure = await CALLS["create"](provider)
    assert isinstance(failure, CallFailure)
    assert KEY not in f"{failure.quoted}{failure.message}"


async def test_an_answer_is_read_up_to_a_cap() -> None:
    too_long = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (one_shot.MAX_ANSWER_BYTES + 1)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(too_long)
        await reader.read()

    async with serving(answer) as server, opened(f"http://127.0.0.1:{server.port}/v1") as provider:
        failure = await CALLS["load"](provider)
    assert isinstance(failure, CallFailure)
    assert "larger than" in failure.message
