"""The simulated endpoint over real sockets, called through the real provider."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from narrun_async.models import RawReply
from narrun_async.providers.openai_compatible import OpenAICompatibleProvider
from narrun_async.retrying import CallError, CallProblem
from narrun_async.simulation.behaviour import Behaviour, LatencyModel
from narrun_async.simulation.endpoint import SimulatedEndpoint, serve


def body(text: str, **parameters: object) -> bytes:
    messages = [{"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": text}]
    return json.dumps({"model": "m", "messages": messages, **parameters}).encode()


PROBE = body("ping", max_tokens=1)


@asynccontextmanager
async def calling(url: str, key: str | None = None) -> AsyncIterator[OpenAICompatibleProvider]:
    provider = OpenAICompatibleProvider(url=url, api_key=key)
    try:
        yield provider
    finally:
        await provider.aclose()


async def ask(behaviour: Behaviour, *bodies: bytes, key: str | None = None) -> list[RawReply]:
    async with SimulatedEndpoint(behaviour) as endpoint, calling(endpoint.url, key) as provider:
        return [await provider.complete(one) for one in bodies]


def content(reply: RawReply) -> str | None:
    assert reply.status == 200
    found = json.loads(reply.body)["choices"][0]["message"]["content"]
    assert found is None or isinstance(found, str)
    return found


def error(reply: RawReply) -> dict[str, object]:
    found = json.loads(reply.body)["error"]
    assert isinstance(found, dict)
    return found


async def http(port: int, request: bytes) -> tuple[int, bytes]:
    """One answer to raw bytes, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    n_bytes = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    answer = await reader.readexactly(n_bytes)
    writer.close()
    await writer.wait_closed()
    return int(head.split(b" ")[1]), answer


async def get(port: int, path: str) -> Mapping[str, object]:
    status, answer = await http(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert status == 200
    found = json.loads(answer)
    assert isinstance(found, dict)
    return found


async def post(port: int, path: str, value: object) -> int:
    sent = json.dumps(value).encode()
    status, _ = await http(port, f"POST {path} HTTP/1.1\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent)
    return status


async def problem_of(provider: OpenAICompatibleProvider, sent: bytes) -> CallProblem:
    with pytest.raises(CallError) as caught:
        await provider.complete(sent)
    return caught.value.problem


# --- answers ------------------------------------------------------------------------------------------------


async def test_the_same_seed_and_text_get_the_same_answer_from_another_endpoint() -> None:
    texts = [body(f"synthetic case {n}") for n in range(30)]
    first = [content(reply) for reply in await ask(Behaviour(seed=4), *texts)]
    again = [content(reply) for reply in await ask(Behaviour(seed=4), *reversed(texts))]
    other = [content(reply) for reply in await ask(Behaviour(seed=5), *texts)]
    assert first == again[::-1]
    assert first != other


async def test_results_are_the_same_however_many_transient_faults_came_between() -> None:
    texts = [body(f"synthetic case {n}") for n in range(40)]
    lasting = {"malformed": 0.2, "truncated": 0.2, "refusal": 0.2}
    calm = await ask(Behaviour(fault_rates=lasting), *texts)
    behaviour = Behaviour(fault_rates={**lasting, "http_500": 0.5})
    async with SimulatedEndpoint(behaviour) as endpoint, calling(endpoint.url) as provider:
        stormy = []
        for text in texts:
            replies = [await provider.complete(text) for _ in range(30)]
            assert {reply.status for reply in replies} == {200, 500}
            stormy += [next(reply for reply in replies if reply.status == 200)]
        stats = endpoint.stats()
    assert [content(reply) for reply in stormy] == [content(reply) for reply in calm]
    assert (stats.calls, stats.distinct_narratives, stats.max_calls_per_narrative) == (1200, 40, 30)
    assert sum(stats.calls_by_status.values()) == 1200


async def test_a_probe_is_answered_and_is_no_narrative() -> None:
    rates = {"http_500": 0.9, "malformed": 1.0, "http_400": 1.0}
    async with SimulatedEndpoint(Behaviour(fault_rates=rates)) as endpoint, calling(endpoint.url) as provider:
        for _ in range(20):
            assert (await provider.complete(PROBE)).status == 200
        assert (endpoint.stats().probes, endpoint.stats().calls, endpoint.stats().distinct_narratives) == (20, 0, 0)
        endpoint.change_behaviour(fault_rates={"http_503": 1.0})
        assert (await provider.complete(PROBE)).status == 503


# --- what servers refuse ------------------------------------------------------------------------------------


async def test_a_wrong_or_missing_key_gets_401_in_the_usual_shape() -> None:
    behaviour = Behaviour(auth_key="right")
    for key in (None, "wrong"):
        (reply,) = await ask(behaviour, body("synthetic"), key=key)
        assert (reply.status, error(reply)["code"]) == (401, "invalid_api_key")
    (reply,) = await ask(behaviour, body("synthetic"), key="right")
    assert reply.status == 200


async def test_a_key_is_looked_for_where_the_behaviour_says_and_a_query_parameter_too() -> None:
    behaviour = Behaviour(auth_key="right", auth_header="API-Key", required_query={"api-version": "1"})
    sent = body("synthetic")
    heads = [
        f"POST {path} HTTP/1.1\r\n{key}Content-Length: {len(sent)}\r\n\r\n"
        for path in ("/openai/v1/chat/completions", "/openai/deployments/d/chat/completions?api-version=1")
        for key in ("", "Authorization: Bearer right\r\n", "api-key: right\r\n")
    ]
    async with SimulatedEndpoint(behaviour) as endpoint:
        statuses = [(await http(endpoint.port, head.encode() + sent))[0] for head in heads]
    assert statuses == [401, 401, 404, 401, 401, 200]


QUESTION = "Reply with the word OK."
IS_PROBE = {"type": "object", "properties": {"is_probe": {"type": "boolean"}}}
VERDICT = {"type": "object", "properties": {"detected": {"type": "boolean"}}}


def in_schema(schema: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}


async def test_answers_are_bound_ignored_garbled_or_refused_as_the_behaviour_says() -> None:
    def asked(handling: str) -> Behaviour:
        return Behaviour(response_formats=dict.fromkeys(("json_schema", "json_object"), handling))

    bodies = [
        body(QUESTION, response_format=in_schema(IS_PROBE)),
        body(QUESTION, response_format={"type": "json_object"}),
        body("synthetic", response_format=in_schema(VERDICT)),
    ]
    bound = [json.loads(content(reply) or "") for reply in await ask(asked("bind"), *bodies)]
    assert bound[:2] == [{"is_probe": True}, {"reply": "OK"}]
    assert bound[2].keys() == {"detected", "confidence", "indicators", "rationale"}
    ignored = [content(reply) or "" for reply in await ask(asked("ignore"), *bodies)]
    assert ignored[:2] == ["OK", "OK"]
    garbled = [content(reply) or "" for reply in await ask(asked("garble"), *bodies)]
    for text in garbled:
        with pytest.raises(ValueError):
            json.loads(text)
    refused = await ask(asked("refuse"), *bodies)
    assert [(reply.status, error(reply)["param"]) for reply in refused] == [(400, "response_format")] * 3


async def test_a_question_counts_as_a_probe_and_meets_only_what_every_request_meets() -> None:
    behaviour = Behaviour(fault_rates={"malformed": 1.0})
    async with SimulatedEndpoint(behaviour) as endpoint, calling(endpoint.url) as provider:
        assert content(await provider.complete(body(QUESTION))) == "OK"
        assert (endpoint.stats().probes, endpoint.stats().calls) == (1, 0)


async def test_an_unknown_model_gets_404_in_the_usual_shape() -> None:
    behaviour = Behaviour(known_models=("m",))
    known, unknown = await ask(behaviour, body("synthetic"), body("synthetic", model="n"))
    assert known.status == 200
    assert (unknown.status, error(unknown)["code"], error(unknown)["param"]) == (404, "model_not_found", "model")


async def test_unsupported_parameters_long_prompts_and_broken_bodies_get_400() -> None:
    behaviour = Behaviour(unsupported_parameters=("temperature",), max_prompt_chars=100)
    sent = (body("a", temperature=0), body("a" * 100), body("a", stream=True), b"{", b"[]", b'{"messages": [1, {}]}')
    replies = await ask(behaviour, *sent)
    assert [reply.status for reply in replies] == [400] * 6
    codes = [error(reply)["code"] for reply in replies[:3]]
    assert codes == ["unsupported_parameter", "context_length_exceeded", "unsupported_parameter"]


async def test_a_rate_limit_answers_429_and_says_when_to_come_back() -> None:
    replies = await ask(Behaviour(requests_per_s=5), *(body(f"synthetic {n}") for n in range(8)))
    assert [reply.status for reply in replies] == [200] * 5 + [429] * 3
    assert replies[-1].headers["Retry-After"] == "1"


async def test_refused_calls_that_count_keep_the_endpoint_closed_until_the_client_waits() -> None:
    behaviour = Behaviour(requests_per_s=1.9, refused_calls_count=True)
    async with SimulatedEndpoint(behaviour) as endpoint, calling(endpoint.url) as provider:
        assert (await provider.complete(body("synthetic"))).status == 200
        # A bucket would let one in after 0.53 s.
        refused = await insist(provider, for_s=0.8)
        assert {(reply.status, reply.headers["Retry-After"]) for reply in refused} == {(429, "1")}
        endpoint.change_behaviour(refused_calls_count=False)
        assert (await provider.complete(body("synthetic"))).status == 200
        endpoint.change_behaviour(refused_calls_count=True)
        await asyncio.sleep(0.6)
        assert (await provider.complete(body("synthetic"))).status == 200


# --- faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status"), [("http_400", 400), ("http_429", 429), ("http_500", 500), ("http_503", 503)]
)
async def test_a_marked_narrative_always_gets_its_status(fault: str, status: int) -> None:
    behaviour = Behaviour(always={"MARK": fault}, retry_after_s=0.25)
    marked, again, other = await ask(behaviour, body("a MARK b"), body("a MARK b"), body("a"))
    assert (marked.status, again.status, other.status) == (status, status, 200)
    assert marked.headers.get("Retry-After") == ("0.25" if status in (429, 503) else None)


async def test_a_reset_comes_in_the_middle_of_the_answer() -> None:
    for latency_ms in (0, 5):
        behaviour = Behaviour(always={"MARK": "reset"}, latency_ms=latency_ms)
        async with SimulatedEndpoint(behaviour) as endpoint, calling(endpoint.url) as provider:
            assert await problem_of(provider, body("a MARK b")) is CallProblem.CONNECTION_LOST
            assert (await provider.complete(body("a"))).status == 200
            assert endpoint.stats().calls_by_status == {"200": 1, "reset": 1}
            assert endpoint.stats().in_flight == 0


async def test_a_timeout_holds_the_connection_until_the_client_leaves() -> None:
    behaviour = Behaviour(always={"MARK": "timeout"})
    async with SimulatedEndpoint(behaviour) as endpoint, calling(endpoint.url) as provider:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await provider.complete(body("a MARK b"))
        await until(lambda: endpoint.stats().open_connections == 0)
        assert endpoint.stats().in_flight == 0
        assert endpoint.stats().calls_by_status == {"timeout": 1}


@pytest.mark.parametrize(
    ("fault", "finish_reason"), [("malformed", "stop"), ("truncated", "length"), ("refusal", "stop")]
)
async def test_bad_answers_come_with_status_200(fault: str, finish_reason: str) -> None:
    (reply,) = await ask(Behaviour(fault_rates={fault: 1}), body("synthetic"))
    choice = json.loads(reply.body)["choices"][0]
    assert choice["finish_reason"] == finish_reason
    assert bool(choice["message"]["refusal"]) is (fault == "refusal")


# --- latency ------------------------------------------------------------------------------------------------


async def test_slots_serve_so_many_at_a_time_and_queue_the_rest() -> None:
    behaviour = Behaviour(latency_model=LatencyModel.SLOTS, slots=2, latency_ms=40, latency_spread=0)
    async with SimulatedEndpoint(behaviour) as endpoint, calling(endpoint.url) as provider:
        started = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for n in range(8):
                group.create_task(provider.complete(body(f"synthetic {n}")))
        assert asyncio.get_running_loop().time() - started >= 4 * 0.04 * 0.99
        assert endpoint.stats().peak_in_flight == 8


async def test_beyond_what_memory_holds_answers_take_far_longer() -> None:
    behaviour = Behaviour(
        latency_model=LatencyModel.BATCHING,
        latency_ms=60,
        latency_spread=0,
        batch_slowdown=0,
        thrash_above=2,
        thrash_slowdown=4,
    )
    async with SimulatedEndpoint(behaviour) as endpoint, calling(endpoint.url) as provider:
        clock = asyncio.get_running_loop().time

        async def timed(text: str) -> float:
            started = clock()
            assert (await provider.complete(body(text))).status == 200
            return clock() - started

        took_s = await asyncio.gather(*(timed(f"synthetic {n}") for n in range(3)))
        assert endpoint.stats().peak_in_flight == 3
        assert sorted(took_s)[2] >= 0.06 * 4 * 3 / 2 * 0.99


async def test_a_client_that_leaves_gives_its_slot_and_its_place_away() -> None:
    behaviour = Behaviour(latency_model=LatencyModel.SLOTS, slots=1, latency_ms=60_000)
    async with SimulatedEndpoint(behaviour) as endpoint, calling(endpoint.url) as provider:
        leaving = [asyncio.create_task(provider.complete(body(f"synthetic {n}"))) for n in range(3)]
        await until(lambda: endpoint.stats().in_flight == 3)
        endpoint.change_behaviour(latency_ms=1)
        staying = asyncio.create_task(provider.complete(body("synthetic 4")))
        await until(lambda: endpoint.stats().in_flight == 4)
        leaving[1].cancel()
        leaving[2].cancel()
        await until(lambda: endpoint.stats().in_flight == 2)
        assert not staying.done()
        leaving[0].cancel()
        async with asyncio.timeout(5):
            assert (await staying).status == 200
        await asyncio.wait(leaving)
        assert endpoint.stats().in_flight == 0


# --- connections --------------------------------------------------------------------------------------------


async def test_connections_are_reused_and_never_more_than_the_calls_in_flight() -> None:
    n_open: list[int] = []
    async with SimulatedEndpoint(Behaviour(latency_ms=2)) as endpoint, calling(endpoint.url) as provider:

        async def worker(name: int) -> None:
            for n in range(25):
                await provider.complete(body(f"synthetic {name}-{n}"))
                n_open.append(endpoint.stats().open_connections)

        async with asyncio.TaskGroup() as group:
            for name in range(16):
                group.create_task(worker(name))
        assert max(n_open) <= 16
        assert endpoint.stats().connections <= 16
        assert endpoint.stats().calls == 400


async def test_three_thousand_cancelled_calls_leave_no_open_connection() -> None:
    async with SimulatedEndpoint(Behaviour(latency_ms=60_000)) as endpoint, calling(endpoint.url) as provider:
        for batch in range(30):
            tasks = [asyncio.create_task(provider.complete(body(f"synthetic {batch} {n}"))) for n in range(100)]
            await asyncio.sleep(0.002 * (batch % 8))  # while connecting, sending, waiting
            for task in tasks:
                task.cancel()
            done, _ = await asyncio.wait(tasks)
            assert all(task.cancelled() for task in done)
        await until(lambda: endpoint.stats().open_connections == 0)
        assert endpoint.stats().in_flight == 0
        endpoint.change_behaviour(latency_ms=0)
        assert (await provider.complete(body("synthetic"))).status == 200


async def test_pipelined_requests_are_answered_in_order_also_when_they_come_in_pieces() -> None:
    for latency_ms in (0, 3):
        async with SimulatedEndpoint(Behaviour(latency_ms=latency_ms)) as endpoint:
            reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
            sent = b""
            for n in range(5):
                one = body(f"synthetic {n}")
                sent += b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(one), one)
            for start in range(0, len(sent), 97):
                writer.write(sent[start : start + 97])
                await asyncio.sleep(0)
            ids = []
            async with asyncio.timeout(5):
                for _ in range(5):
                    head = await reader.readuntil(b"\r\n\r\n")
                    n_bytes = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                    ids.append(json.loads(await reader.readexactly(n_bytes))["id"])
            writer.close()
            await writer.wait_closed()
            async with calling(endpoint.url) as provider:
                again = [json.loads((await provider.complete(body(f"synthetic {n}"))).body)["id"] for n in range(5)]
        assert [one.rpartition("-")[0] for one in ids] == [one.rpartition("-")[0] for one in again]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, 431),
        (b"GET /elsewhere HTTP/1.1\r\n\r\n", 404),
        (b"GET /v1/models HTTP/1.0\r\n\r\n", 200),
    ],
)
async def test_odd_requests_get_a_clear_status(request_bytes: bytes, status: int) -> None:
    async with SimulatedEndpoint(Behaviour()) as endpoint:
        assert (await http(endpoint.port, request_bytes))[0] == status


# --- down and up --------------------------------------------------------------------------------------------


async def test_down_is_really_down_and_up_is_on_the_same_port() -> None:
    async with SimulatedEndpoint(Behaviour(latency_ms=1)) as endpoint, calling(endpoint.url) as provider:
        endpoint.change_behaviour(latency_ms=60_000)
        waiting = asyncio.create_task(problem_of(provider, body("synthetic")))
        await until(lambda: endpoint.stats().in_flight == 1)
        await endpoint.go_down()
        await endpoint.go_down()
        assert await waiting is CallProblem.CONNECTION_LOST
        for _ in range(3):
            assert await problem_of(provider, body("synthetic")) is CallProblem.UNREACHABLE
        assert endpoint.stats().open_connections == endpoint.stats().in_flight == 0
        endpoint.change_behaviour(latency_ms=1)
        await endpoint.come_up()
        await endpoint.come_up()
        assert (await provider.complete(body("synthetic"))).status == 200


async def test_leaving_a_downed_endpoint_frees_its_port() -> None:
    async with SimulatedEndpoint(Behaviour()) as endpoint:
        await endpoint.go_down()
    async with SimulatedEndpoint(Behaviour(), port=endpoint.port) as second, calling(second.url) as provider:
        assert (await provider.complete(body("synthetic"))).status == 200


# --- over HTTP ----------------------------------------------------------------------------------------------


async def test_models_stats_and_behaviour_are_reached_over_http() -> None:
    async with SimulatedEndpoint(Behaviour(model_name="tiny")) as endpoint, calling(endpoint.url) as provider:
        models = await get(endpoint.port, "/v1/models")
        assert models["data"] == [{"id": "tiny", "object": "model", "created": 0, "owned_by": "simulation"}]
        await provider.complete(body("synthetic"))
        assert await post(endpoint.port, "/simulation/behaviour", {"fault_rates": {"http_500": 1.0}}) == 200
        assert (await provider.complete(body("synthetic"))).status == 500
        for wrong in ({"fault_rates": {"http_500": 7}}, {"speed": 1}, [1], {"down_for_s": "long"}):
            assert await post(endpoint.port, "/simulation/behaviour", wrong) == 400
        stats = await get(endpoint.port, "/simulation/stats?x=1")
        assert stats["calls_by_status"] == {"200": 1, "500": 1}
        assert (stats["calls"], stats["distinct_narratives"], stats["max_calls_per_narrative"]) == (2, 1, 2)
        assert stats["open_connections"] == 1


async def test_it_can_be_sent_down_for_a_while_over_http() -> None:
    async with SimulatedEndpoint(Behaviour()) as endpoint, calling(endpoint.url) as provider:
        assert await post(endpoint.port, "/simulation/behaviour", {"down": True, "down_for_s": 0.1}) == 200
        await asyncio.sleep(0.05)
        assert await problem_of(provider, body("synthetic")) is CallProblem.UNREACHABLE
        await asyncio.sleep(0.15)
        assert (await provider.complete(body("synthetic"))).status == 200


async def test_the_record_holds_what_was_sent_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    record = tmp_path / "requests.jsonl"
    async with SimulatedEndpoint(Behaviour(), record_path=record) as endpoint, calling(endpoint.url) as provider:
        await provider.complete(body("synthetic ünicode\nline", temperature=0.2))
        await provider.complete(body("second"))
        lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert lines == [json.loads(body("synthetic ünicode\nline", temperature=0.2)), json.loads(body("second"))]
    assert stat.S_IMODE(record.stat().st_mode) == 0o600


async def test_the_record_of_heads_leaves_the_key_out(tmp_path: Path) -> None:
    record = tmp_path / "heads.jsonl"
    async with SimulatedEndpoint(Behaviour(), heads_path=record) as endpoint:
        async with calling(f"{endpoint.url}?region=north", "key-of-tests") as provider:
            await provider.complete(body("synthetic"))
        (line,) = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert (line["path"], line["query"]) == ("/v1/chat/completions", "region=north")
    assert line["headers"]["authorization"] == "[key]"
    assert line["headers"]["content-type"] == "application/json"
    assert "key-of-tests" not in record.read_text(encoding="utf-8")


async def test_a_process_of_its_own_obeys_its_signals() -> None:
    script = (
        "import asyncio; from narrun_async.simulation.behaviour import Behaviour; "
        "from narrun_async.simulation.endpoint import serve; "
        "asyncio.run(serve(Behaviour(), on_ready=lambda url: print(url, flush=True)))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        url = (await process.stdout.readline()).decode().strip()
        async with calling(url) as provider:
            assert (await provider.complete(body("synthetic"))).status == 200
            process.send_signal(signal.SIGUSR1)
            problem = None
            while problem is not CallProblem.UNREACHABLE:
                try:
                    await provider.complete(body("synthetic"))
                except CallError as failure:
                    problem = failure.problem
            process.send_signal(signal.SIGUSR2)
            reply = None
            while reply is None:
                try:
                    reply = await provider.complete(body("synthetic"))
                except CallError:
                    await asyncio.sleep(0.01)
            assert reply.status == 200
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_the_command_line_sets_memory_that_thrashes_and_refusals_that_count() -> None:
    words = "simulate --latency-ms 20 --latency-spread 0 --latency-model batching --batch-slowdown 0.5"
    words += " --thrash-above 1 --thrash-slowdown 4 --rate 2.5 --refused-calls-count"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "narrun_async", *words.split(), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            url = (await process.stdout.readline()).decode().strip()
            async with calling(url) as provider:
                started = asyncio.get_running_loop().time()
                replies = await asyncio.gather(*(provider.complete(body(f"synthetic {n}")) for n in range(2)))
                assert asyncio.get_running_loop().time() - started >= 0.02 * 4 * 2 * 0.99
                assert [reply.status for reply in replies] == [200, 200]
                assert {reply.status for reply in await insist(provider, for_s=1.0)} == {429}
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_a_taken_port_is_an_os_error() -> None:
    async with SimulatedEndpoint(Behaviour()) as endpoint:
        with pytest.raises(OSError):
            await serve(Behaviour(), on_ready=lambda url: None, port=endpoint.port)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def insist(provider: OpenAICompatibleProvider, *, for_s: float) -> list[RawReply]:
    """The answers to calls one right after the other."""
    end = asyncio.get_running_loop().time() + for_s
    replies = []
    while asyncio.get_running_loop().time() < end:
        replies.append(await provider.complete(body("synthetic")))
        await asyncio.sleep(0.02)
    return replies
