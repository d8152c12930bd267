"""Promises about `response_format: auto`: an answer decides, not a status, and no endpoint that is unwell."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from deciding_server import deciding
from raw_server import reply

from narrun_async.answer_format import probe_format, response_format
from narrun_async.caller import FormatChoice
from narrun_async.control import RunControl, StopSignal
from narrun_async.errors import ExitCode
from narrun_async.models import AnswerFormat, RawReply
from narrun_async.ports import ChatProvider
from narrun_async.progress import Progress
from narrun_async.prompting import PROBE_TEXT, RequestFields, RequestTemplate, bound_probe_bodies

OpenRig = Callable[..., AbstractAsyncContextManager[Any]]
SCHEMA, OBJECT, OFF = AnswerFormat.JSON_SCHEMA, AnswerFormat.JSON_OBJECT, AnswerFormat.OFF

FIELDS = RequestFields(model="model-of-tests", user_template="Read this account: <<TEXT>>", temperature=0.2)
CHOICE = FormatChoice(
    templates={
        one: RequestTemplate.build(replace(FIELDS, response_format=response_format(one))) for one in AnswerFormat
    },
    probes={one: bound_probe_bodies(FIELDS, probe_format(one)) for one in AnswerFormat},
)


class Recorded:
    """A provider that keeps what it is given to send."""

    def __init__(self, provider: ChatProvider) -> None:
        self._provider = provider
        self.requests: list[dict[str, Any]] = []

    async def complete(self, body: bytes) -> RawReply:
        self.requests.append(json.loads(body))
        return await self._provider.complete(body)

    async def aclose(self) -> None:
        await self._provider.aclose()

    @property
    def questions(self) -> list[str]:
        """The types that were asked for without a narrative, in order; health checks left out."""
        return [
            request.get("response_format", {}).get("type", "plain")
            for request in self.requests
            if is_question(request) and request.get("max_tokens") != 1
        ]

    @property
    def narratives(self) -> list[dict[str, Any]]:
        return [request for request in self.requests if not is_question(request)]


def is_question(request: Mapping[str, Any]) -> bool:
    return str(request["messages"][-1]["content"]).startswith(PROBE_TEXT)


async def verdict(rig: Any) -> AnswerFormat | None:
    found = (await rig.reload()).answer_format
    assert found is None or isinstance(found, AnswerFormat)
    return found


@pytest.mark.parametrize(
    ("formats", "found", "questions"),
    [
        ({"json_schema": "bind", "json_object": "bind"}, SCHEMA, ["json_schema"]),
        ({"json_schema": "ignore", "json_object": "bind"}, OBJECT, ["json_schema", "json_object"]),
        # no limit of the answer is configured, so a refusal may be one of its name
        ({"json_schema": "refuse", "json_object": "bind"}, OBJECT, ["json_schema"] * 2 + ["json_object"]),
        ({"json_schema": "bind", "json_object": "refuse"}, SCHEMA, ["json_schema"]),
        ({"json_schema": "garble", "json_object": "refuse"}, OFF, ["json_schema"] + ["json_object"] * 2),
        ({"json_schema": "ignore", "json_object": "ignore"}, OFF, ["json_schema", "json_object"]),
        (
            {"json_schema": "refuse", "json_object": "refuse"},
            OFF,
            ["json_schema"] * 2 + ["json_object"] * 2 + ["plain"],
        ),
    ],
    ids=["binds", "objects only", "no schemas", "LM Studio", "LM Studio with gpt-oss", "ignores", "refuses"],
)
async def test_the_strictest_form_that_is_obeyed_is_stored_and_asked_for(
    open_rig: OpenRig, formats: dict[str, str], found: AnswerFormat, questions: list[str]
) -> None:
    async with open_rig(20, response_formats=formats, latency_ms=1) as rig:
        provider = Recorded(rig.provider)
        result = await rig.run(choice=CHOICE, provider=provider)

        assert (result.verdict.exit_code, result.answer_format) == (ExitCode.COMPLETED, found)
        assert await verdict(rig) is found
        assert provider.questions == questions
        assert len(provider.narratives) == 20
        expected = response_format(found)
        assert [request.get("response_format") for request in provider.narratives] == [expected] * 20
        narratives = {request["messages"][-1]["content"] for request in provider.narratives}
        texts = {request["messages"][-1]["content"] for request in provider.requests} - narratives
        assert all(text.startswith(PROBE_TEXT) for text in texts)
        await rig.assert_invariants()


async def test_a_narrative_in_our_schema_is_answered_in_it(open_rig: OpenRig) -> None:
    async with open_rig(40, response_formats={"json_schema": "bind"}) as rig:
        await rig.run(choice=CHOICE)
        contents = [json.loads(row["raw_response"])["choices"][0]["message"]["content"] for row in await rig.rows()]
        keys = ["detected", "confidence", "indicators", "rationale"]
        assert [list(json.loads(content)) for content in contents] == [keys] * 40


@pytest.mark.parametrize("faults", [{"http_503": 1.0}, {"http_500": 1.0}, {"http_429": 1.0}, {"reset": 1.0}])
async def test_an_endpoint_that_is_not_well_decides_nothing_and_is_asked_again_when_it_is(
    open_rig: OpenRig, faults: dict[str, float]
) -> None:
    formats = {"json_schema": "bind"}
    async with open_rig(10, response_formats=formats, fault_rates=faults, retry_after_s=0.01) as rig:
        provider = Recorded(rig.provider)

        async def mend(progress: Progress, control: RunControl) -> None:
            while len(provider.requests) < 4:
                await control.sleep(0.001)
            assert await verdict(rig) is None
            assert progress.notice == "asking whether answers can be bound to JSON"
            rig.endpoint.change_behaviour(fault_rates={})

        result = await rig.run(choice=CHOICE, provider=provider, watch=mend)
        assert (result.verdict.exit_code, await verdict(rig)) == (ExitCode.COMPLETED, SCHEMA)
        assert set(provider.questions) == {"json_schema"}
        await rig.assert_invariants()


async def test_an_endpoint_that_stays_down_ends_the_run_as_any_other_and_a_later_run_decides(open_rig: OpenRig) -> None:
    async with open_rig(10, response_formats={"json_schema": "bind"}) as rig:
        await rig.endpoint.go_down()
        result = await rig.run(choice=CHOICE, max_wait_s=0.2)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.TEMPORARY, "interrupted")
        assert (await verdict(rig), await rig.rows()) == (None, [])

        await rig.endpoint.come_up()
        result = await rig.run(choice=CHOICE)
        assert (result.verdict.exit_code, await verdict(rig)) == (ExitCode.COMPLETED, SCHEMA)
        assert [row[0] for row in rig.query("SELECT exit_code FROM runs ORDER BY run_id")] == [75, 0]
        await rig.assert_invariants()


async def test_a_refused_key_stops_the_run_and_decides_nothing(open_rig: OpenRig) -> None:
    async with open_rig(10, auth_key="another key") as rig:
        result = await rig.run(choice=CHOICE)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.CONFIGURATION, "failed")
        assert (await verdict(rig), await rig.rows(), rig.endpoint.stats().calls) == (None, [], 1)


async def test_options_that_are_refused_in_any_form_stop_the_run_before_the_first_narrative(open_rig: OpenRig) -> None:
    async with open_rig(10, unsupported_parameters=("temperature",)) as rig:
        provider = Recorded(rig.provider)
        result = await rig.run(choice=CHOICE, provider=provider)
        assert result.verdict.exit_code is ExitCode.CONFIGURATION
        assert "refuses even a plain question" in result.verdict.why
        assert "param temperature" in result.verdict.why
        assert (await verdict(rig), await rig.rows(), provider.narratives) == (None, [], [])


async def test_a_limit_of_the_answer_that_the_server_calls_otherwise_says_nothing_about_its_forms(
    open_rig: OpenRig,
) -> None:
    async with open_rig(10, response_formats={"json_schema": "bind"}, unsupported_parameters=("max_tokens",)) as rig:
        result = await rig.run(choice=CHOICE)
        assert (result.verdict.exit_code, await verdict(rig)) == (ExitCode.COMPLETED, SCHEMA)


async def test_a_signal_ends_the_question_at_once_and_the_run_resumable(open_rig: OpenRig) -> None:
    async with open_rig(10, response_formats={"json_schema": "bind"}, latency_ms=20_000) as rig:

        async def interrupt(progress: Progress, control: RunControl) -> None:
            while not rig.endpoint.stats().in_flight:
                await control.sleep(0.001)
            control.stop(StopSignal(number=signal.SIGINT))

        result = await rig.run(choice=CHOICE, watch=interrupt)
        assert (result.verdict.exit_code, await verdict(rig)) == (ExitCode.SIGINT, None)
        rig.endpoint.change_behaviour(latency_ms=0)
        assert (await rig.run(choice=CHOICE)).verdict.exit_code is ExitCode.COMPLETED
        assert await verdict(rig) is SCHEMA


# --- a server that is well, and fails at one form only ----------------------------------------------------------------


def completion(content: str) -> bytes:
    message = {"role": "assistant", "content": content}
    return reply(json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}).encode())


ANSWER = completion('{"detected": false, "confidence": 0.5, "indicators": [], "rationale": "r"}')
PROBE_ANSWER = completion('{"is_probe": true}')


@asynccontextmanager
async def failing_at_schemas(failure: bytes, *, times: int) -> AsyncIterator[tuple[ChatProvider, list[str]]]:
    """A server that answers health checks and narratives well, and a question in a schema badly so many times."""
    asked: list[str] = []

    class Telling:
        """A provider that tells the server's function what is asked for; it sees the text only."""

        def __init__(self, provider: ChatProvider) -> None:
            self._provider = provider

        async def complete(self, body: bytes) -> RawReply:
            request = json.loads(body)
            if is_question(request) and request.get("max_tokens") != 1:
                asked.append(request.get("response_format", {}).get("type", "plain"))
            return await self._provider.complete(body)

        async def aclose(self) -> None:
            await self._provider.aclose()

    def decide(_: int, text: str, __: int) -> bytes:
        if not text.startswith(PROBE_TEXT):
            return ANSWER
        if asked[-1] == "json_schema":
            return failure if asked.count("json_schema") <= times else PROBE_ANSWER
        return completion('{"reply": "OK"}') if asked[-1] == "json_object" else completion("OK")

    async with deciding(decide) as (_, provider):
        yield Telling(provider), asked


SERVER_ERROR = reply(b'{"error": {"message": "no such grammar", "type": "server_error"}}', status="500 Server Error")
TOO_BUSY = reply(b'{"error": {"message": "busy"}}', status="503 Busy", headers=b"Retry-After: 0\r\n")


@pytest.mark.parametrize(
    ("failure", "times", "found"),
    [
        (SERVER_ERROR, 1, SCHEMA),
        (SERVER_ERROR, 99, OBJECT),
        (b"reset", 1, SCHEMA),
        (b"reset", 99, OBJECT),
        (TOO_BUSY, 3, SCHEMA),
        (reply(b"no completion"), 99, OBJECT),
    ],
    ids=[
        "one 500",
        "always 500",
        "one reset",
        "always reset",
        "busy for a while",
        "always no completion",
    ],
)
async def test_where_a_health_check_is_answered_a_form_that_keeps_failing_is_not_taken(
    open_rig: OpenRig, failure: bytes, times: int, found: AnswerFormat
) -> None:
    async with open_rig(5) as rig, failing_at_schemas(failure, times=times) as (provider, asked):
        result = await rig.run(choice=CHOICE, provider=provider)
        assert (result.verdict.exit_code, await verdict(rig)) == (ExitCode.COMPLETED, found)
        assert asked.count("json_schema") <= 8
        await rig.assert_invariants()


async def test_a_form_for_which_an_idle_server_is_always_too_busy_is_not_taken(
    open_rig: OpenRig, is_long: bool
) -> None:
    if not is_long:
        pytest.skip("takes four seconds; `make test-crash` runs it")
    async with open_rig(5) as rig, failing_at_schemas(TOO_BUSY, times=99) as (provider, asked):
        result = await rig.run(choice=CHOICE, provider=provider)
        assert (result.verdict.exit_code, await verdict(rig)) == (ExitCode.COMPLETED, OBJECT)
        assert asked.count("json_schema") <= 8


async def test_a_form_whose_answer_never_ends_is_not_taken(open_rig: OpenRig) -> None:
    async with open_rig(5) as rig, failing_at_schemas(b"silence", times=99) as (provider, asked):
        result = await rig.run(choice=CHOICE, provider=provider, attempt_deadline_s=0.2)
        assert (result.verdict.exit_code, await verdict(rig)) == (ExitCode.COMPLETED, OBJECT)
        assert asked == ["json_schema"] * 2 + ["json_object"]


async def test_where_nothing_is_left_to_a_probe_nothing_is_asked_and_there_is_no_verdict(open_rig: OpenRig) -> None:
    async with open_rig(5, response_formats={"json_schema": "bind"}) as rig:
        provider = Recorded(rig.provider)
        result = await rig.run(provider=provider)
        assert (result.answer_format, await verdict(rig), provider.questions) == (None, None, [])


async def test_where_nothing_remains_nothing_is_asked_even_if_nothing_is_decided(open_rig: OpenRig) -> None:
    async with open_rig(5) as rig:
        await rig.run()
        await rig.endpoint.go_down()
        result = await rig.run(choice=CHOICE, max_wait_s=0.1)
        assert (result.verdict.exit_code, await verdict(rig)) == (ExitCode.COMPLETED, None)
