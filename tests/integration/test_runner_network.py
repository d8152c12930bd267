"""Promises of a run over a network that breaks: nothing is lost, nobody is blamed, no other address is called."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trustme
from deciding_server import CLOSE, RESET, SILENCE, SOUND, deciding, share
from raw_server import COMPLETION, reply, watching_lag

from narrun_async.errors import ExitCode, WaitedTooLongError
from narrun_async.providers.openai_compatible import OpenAICompatibleProvider

OpenRig = Callable[..., AbstractAsyncContextManager[Any]]
Measured = Callable[..., None]

# --- out of reach ----------------------------------------------------------------------------------------------------


@pytest.mark.fault("N01")
@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"], ids=["refused", "no such name"])
async def test_an_endpoint_out_of_reach_is_waited_for_and_leaves_no_row(
    open_rig: OpenRig, measured: Measured, host: str
) -> None:
    with socket.socket() as bound:  # bound and not listening: nobody else answers on this port
        bound.bind(("127.0.0.1", 0))
        provider = OpenAICompatibleProvider(url=f"http://{host}:{bound.getsockname()[1]}/v1", api_key=None)
        async with open_rig(20) as rig:
            result = await rig.run(provider=provider, max_wait_s=0.7)
            assert isinstance(result.problem, WaitedTooLongError)
            assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.TEMPORARY, "interrupted")
            assert await rig.rows() == []
            await rig.assert_invariants()
        await provider.aclose()
    measured(f"{result.problem.last_problem}: 0 rows, exit 75 after --max-wait")


# --- passing trouble -------------------------------------------------------------------------------------------------

NO_HEADER = b""
#: of 429s; what cannot be read is as if nothing was asked for, and costs a second or more
WISHES = [
    b"Retry-After: 0\r\n",
    b"Retry-After: nan\r\n",
    b"retry-after-ms: 40\r\n",
    b"Retry-After: -1\r\n",
    b"Retry-After: inf\r\n",
    b"Retry-After: soon\r\n",
    b"Retry-After: \r\n",
    b"Retry-After: 0.05\r\n",
    b"Retry-After: Wed, 01 May 2024 12:00:30 GMT\r\nDate: Wed, 01 May 2024 12:00:30 GMT\r\n",
    b"Retry-After: Wed, 99 May 2024 12:00:30 GMT\r\n",
    b"retry-after-ms: nan\r\nRetry-After: 0.02\r\n",
    b"Retry-After: 1\r\nRetry-After: 0\r\n",
    NO_HEADER,
]


@pytest.mark.fault("N06")
async def test_a_refusal_in_any_form_is_waited_out_and_never_an_error_row(
    open_rig: OpenRig, measured: Measured, is_long: bool
) -> None:
    if not is_long:
        pytest.skip("takes twenty seconds; `make test-crash` runs it")
    wishes = iter(WISHES)
    n_narratives = 3 * len(WISHES)

    def decide(number: int, text: str, attempt: int) -> bytes:
        wish = next(wishes, None) if number and number % 2 == 0 else None
        return SOUND if wish is None else reply(b"{}", status="429 Too Many", headers=wish)

    async with open_rig(n_narratives) as rig, deciding(decide) as (decider, provider), watching_lag() as lag:
        result = await rig.run(provider=provider)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        charged = rig.query("SELECT COUNT(*), SUM(charged) FROM attempts WHERE http_status = 429")
        assert charged == [(len(WISHES), 0)]
        assert decider.n_calls == n_narratives + len(WISHES)
        assert lag.p99_ms() <= 100
        await rig.assert_invariants()
    measured(f"{len(WISHES)} forms of Retry-After: 0 error rows, each refused call made once more, none charged")


@pytest.mark.fault("N06")
@pytest.mark.parametrize("wish", ["1e9", "999999999999", "Fri, 01 May 2054 12:00:00 GMT"])
async def test_an_absurd_wish_ends_the_run_as_resumable(open_rig: OpenRig, measured: Measured, wish: str) -> None:
    refusal = reply(b"{}", status="429 No", headers=f"Retry-After: {wish}\r\nDate: {DATE}\r\n".encode())

    def decide(number: int, text: str, attempt: int) -> bytes:
        return refusal if number == 20 else SOUND

    async with open_rig(60) as rig, deciding(decide) as (_, provider):
        result = await rig.run(provider=provider)
        assert isinstance(result.problem, WaitedTooLongError)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.TEMPORARY, "interrupted")
        assert await rig.error_rows() == {}
        assert (await rig.run(provider=provider)).verdict.exit_code is ExitCode.COMPLETED
        await rig.assert_invariants()
    measured(f"Retry-After {wish}: the run ends with 75 at once, 0 error rows; a resume completes")


DATE = "Wed, 01 May 2024 12:00:00 GMT"


@pytest.mark.fault("N08")
@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
async def test_one_server_error_in_ten_leaves_no_error_row(
    open_rig: OpenRig, measured: Measured, is_long: bool, status: int
) -> None:
    if status in (503, 529) and not is_long:
        pytest.skip("takes four seconds; `make test-crash` runs it")
    failure = reply(b"<html>no</html>", status=f"{status} No", headers=b"Retry-After: 0.01\r\n")

    def decide(number: int, text: str, attempt: int) -> bytes:
        return failure if number and share(text, attempt) < 0.1 else SOUND

    async with open_rig(300) as rig, deciding(decide) as (decider, provider):
        result = await rig.run(provider=provider)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        assert 300 < decider.n_calls <= 1.2 * 300
        await rig.assert_invariants()
    measured(f"{status}: 0 error rows of 300, {decider.n_calls / 300:.2f} calls a narrative")


@pytest.mark.fault("N02")
@pytest.mark.parametrize(
    "sent", [b"", SOUND[:20], SOUND[:-30]], ids=["after the request", "in the head", "in the body"]
)
async def test_one_reset_in_ten_leaves_no_error_row(open_rig: OpenRig, measured: Measured, sent: bytes) -> None:
    def decide(number: int, text: str, attempt: int) -> bytes:
        return sent + RESET if number and share(text, attempt) < 0.1 else SOUND

    async with open_rig(200) as rig, deciding(decide) as (decider, provider), watching_lag() as lag:
        result = await rig.run(provider=provider)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        assert 200 < decider.n_calls <= 1.3 * 200
        assert lag.p99_ms() <= 100
        await rig.assert_invariants()
    measured(
        f"a tenth reset: {decider.n_calls / 200:.2f} calls a narrative, 0 error rows, lag p99 {lag.p99_ms():.0f} ms"
    )


@pytest.mark.fault("N12")
async def test_a_server_that_closes_after_every_answer_costs_no_attempt(open_rig: OpenRig, measured: Measured) -> None:
    """Without saying so, and with the next request on the wire already."""
    async with open_rig(300) as rig, deciding(lambda *_: SOUND + CLOSE) as (decider, provider):
        result = await rig.run(provider=provider)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        assert await rig.error_rows() == {}
        assert rig.query("SELECT COUNT(*), COUNT(error_category) FROM attempts") == [(300, 0)]
        assert decider.n_calls == 300
        await rig.assert_invariants()
    measured("closed after each of 300 answers: 300 attempts, none lost, 0 error rows")


@pytest.mark.fault("N13", "N03")
async def test_silence_and_late_answers_cost_one_more_call_and_leave_one_row(
    open_rig: OpenRig, measured: Measured
) -> None:
    def decide(number: int, text: str, attempt: int) -> bytes:
        return SILENCE if number and attempt == 1 and share(text, attempt) < 0.1 else SOUND

    async with open_rig(150) as rig, deciding(decide) as (decider, provider), watching_lag() as lag:
        result = await rig.run(provider=provider, attempt_deadline_s=0.3)
        assert result.verdict.exit_code is ExitCode.COMPLETED
        n_silent = rig.query("SELECT COUNT(*) FROM attempts WHERE error_category = 'timeout'")[0][0]
        assert decider.n_calls == 150 + n_silent > 150
        assert len(await rig.rows()) == 150
        assert lag.p99_ms() <= 100
        await rig.assert_invariants()
    figure = f"{n_silent} of 150 calls without an answer in time: one call more each, 150 rows, 0 errors"
    measured(figure, fault="N03")
    measured(figure, fault="N13")


PAGE = b"<!DOCTYPE html><html><body>502</body></html>"
BAD_ENVELOPES = {
    "HTML": reply(PAGE),
    "SSE": reply(b'data: {"choices": [{"delta": {"content": "{"}}]}\n\ndata: [DONE]\n\n'),
    "an error object": reply(b'{"error": {"message": "made up", "code": "model_crashed", "type": "server_error"}}'),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "206": reply(COMPLETION, status="206 Partial Content"),
    "no body": reply(b""),
    "HTTP/1.0, broken": b"HTTP/1.0 200 OK\r\nContent-Length: 40\r\n\r\n" + COMPLETION[:40],
}


@pytest.mark.fault("N15")
@pytest.mark.parametrize("how", BAD_ENVELOPES)
async def test_what_is_no_chat_completion_is_tried_again(open_rig: OpenRig, measured: Measured, how: str) -> None:
    """The first time; the poison gets it always."""

    def decide(number: int, text: str, attempt: int) -> bytes:
        is_bad = number and ((attempt == 1 and share(text, 0) < 0.2) or "case-00007" in text)
        return BAD_ENVELOPES[how] if is_bad else SOUND

    async with open_rig(40) as rig, deciding(decide) as (decider, provider):
        result = await rig.run(provider=provider)
        assert result.verdict.exit_code is ExitCode.COMPLETED_WITH_ERRORS
        assert await rig.error_rows() == {8: "transient_exhausted"}
        assert rig.query("SELECT DISTINCT error_category FROM attempts WHERE error_category IS NOT NULL") == [
            ("bad_envelope",)
        ]
        assert decider.n_calls <= 40 + 10 + 15
        await rig.assert_invariants()
    measured(f"{how}: bad_envelope, tried again, 0 error rows but for the narrative that always gets it")


# --- wrong settings --------------------------------------------------------------------------------------------------


def error_of(code: str) -> bytes:
    return json.dumps({"error": {"message": "made up", "code": code, "type": code, "param": None}}).encode()


FATAL = {
    "401": reply(error_of("invalid_api_key"), status="401 No"),
    "402": reply(b"{}", status="402 Pay"),
    "403": reply(b"{}", status="403 No"),
    "404 model": reply(error_of("model_not_found"), status="404 No"),
    "429 quota": reply(error_of("insufficient_quota"), status="429 No", headers=b"Retry-After: 1\r\n"),
}


@pytest.mark.fault("N07")
@pytest.mark.parametrize("begins_at", [1, 40], ids=["from the first call", "in mid-run"])
@pytest.mark.parametrize("what", FATAL)
async def test_a_refusal_for_good_stops_the_run_at_once(
    open_rig: OpenRig, measured: Measured, what: str, begins_at: int
) -> None:
    def decide(number: int, text: str, attempt: int) -> bytes:
        return FATAL[what] if not number or number >= begins_at else SOUND

    concurrency = 8
    async with open_rig(200) as rig, deciding(decide) as (decider, provider):
        result = await rig.run(provider=provider, concurrency=concurrency)
        assert (result.verdict.exit_code, result.verdict.status) == (ExitCode.CONFIGURATION, "failed")
        assert "\n" not in str(result.problem)
        assert what[:3] in str(result.problem)
        assert decider.n_calls < begins_at + concurrency
        assert await rig.error_rows() == {}
        assert len(await rig.rows()) == begins_at - 1
        await rig.assert_invariants()
    measured(f"{what}: at most {decider.n_calls - begins_at} calls after the first, 0 error rows")


@pytest.mark.fault("N10")
async def test_a_redirect_stops_the_run_and_the_other_server_hears_nothing(
    open_rig: OpenRig, measured: Measured
) -> None:
    async with deciding(lambda *_: SOUND) as (other, _):
        location = f"Location: {other.url}\r\n".encode()

        def decide(number: int, text: str, attempt: int) -> bytes:
            return reply(status="307 Elsewhere", headers=location)

        async with open_rig(20) as rig, deciding(decide) as (_, provider):
            result = await rig.run(provider=provider)
            assert result.verdict.exit_code is ExitCode.CONFIGURATION
            assert "redirect" in str(result.problem)
            assert await rig.rows() == []
    assert other.n_calls == other.n_probes == 0
    measured("the run stops with 78; 0 bytes to the second server")


@pytest.mark.fault("N09")
async def test_a_certificate_that_nobody_vouches_for_stops_the_run_with_the_cause(
    open_rig: OpenRig, measured: Measured
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    async with open_rig(20) as rig, deciding(lambda *_: SOUND, tls=tls) as (decider, provider):
        result = await rig.run(provider=provider)
        assert result.verdict.exit_code is ExitCode.CONFIGURATION
        assert "certificate" in str(result.problem)
        assert await rig.rows() == []
    assert decider.n_calls == decider.n_probes == 0
    measured(f"the run stops with 78: {result.problem}")
