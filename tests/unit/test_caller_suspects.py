"""A narrative that is decided without a call is no longer waited for by the breaker."""

from __future__ import annotations

import hashlib
import random
import time
from dataclasses import replace
from typing import Any

import anyio
import pytest

from narrun_async.caller import Caller, CallSpec, Flight
from narrun_async.limits import EndpointLimits, LimitSettings
from narrun_async.limits.culprits import CRASHES_THAT_CONVICT
from narrun_async.models import Failure, NarrativeId, WorkItem
from narrun_async.progress import Progress
from narrun_async.prompting import RequestFields, RequestTemplate
from narrun_async.retrying import CallFailure, FailureClass, RetryPolicy, timeout_failure

TEXT = "made up"
ITEM = WorkItem(
    narrative_id=NarrativeId(7),
    row_num=1,
    incident_id="7",
    narrative_type="cme",
    narrative_text=TEXT,
    text_sha256=hashlib.sha256(TEXT.encode()).hexdigest(),
    manual_flag_ind=None,
    manual_flag=None,
)


@pytest.mark.parametrize("why", ["endpoint_crash", "source_changed"])
async def test_a_suspect_that_is_decided_without_a_call_does_not_keep_the_breaker_in_recovery(why: str) -> None:
    unwell: list[CallFailure | None] = [timeout_failure(1.0), None] * 20

    async def probe() -> CallFailure | None:
        return unwell.pop(0)

    async def nothing(_: Any) -> None:
        return None

    limits = EndpointLimits(
        LimitSettings(concurrency=1, max_wait_s=60),
        probe=probe,
        clock=time.monotonic,
        sleep=nothing,
        rng=random.Random(1),
    )
    spec = CallSpec(
        template=RequestTemplate.build(RequestFields(model="m", user_template="<<TEXT>>", temperature=0.0)),
        retry=RetryPolicy(attempts=5, base_s=0.0, cap_s=0.0),
        attempt_deadline_s=1.0,
    )
    caller = Caller(
        spec,
        None,  # type: ignore[arg-type]  # nothing is called
        limits,
        Progress(n_done_before=0, n_remaining=1, clock=time.monotonic),
        record=nothing,
        sleep=anyio.sleep,
        rng=random.Random(1),
    )
    failed = replace(timeout_failure(1.0), failure_class=FailureClass.TRANSIENT)
    flight = Flight(item=ITEM, is_last_pass=False)
    while not flight.is_suspect:
        _, flight.is_suspect = await limits.charge(
            failed, call_started=0.0, in_flight=2, n_overloads=0, narrative_id=ITEM.narrative_id
        )
    assert limits.breaker.is_recovering

    if why == "endpoint_crash":
        for _ in range(CRASHES_THAT_CONVICT):
            limits.breaker.culprits.record_crash(ITEM.narrative_id)
        limits.breaker.culprits.record_answer()
    else:
        flight.item = replace(ITEM, narrative_text="another")
    outcome = await caller.attempt(flight)

    assert isinstance(outcome.verdict, Failure)
    assert outcome.verdict.category == why
    limits.breaker.record_success()
    assert not limits.breaker.is_recovering
