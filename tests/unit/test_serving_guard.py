"""Promises of the guard against a changed server."""

from __future__ import annotations

from typing import Any

import pytest

from narrun_async.errors import ServingChangedError
from narrun_async.limits import ServingGuard
from narrun_async.limits.serving_guard import MAX_TOLD
from narrun_async.models import Detection, Envelope, NarrativeId, Outcome, Serving, WorkItem


def answer(model: str | None, fingerprint: str | None = None, server: str | None = None) -> Outcome:
    item = WorkItem(
        narrative_id=NarrativeId(1),
        row_num=1,
        incident_id="1",
        narrative_type="cme",
        narrative_text="made up",
        text_sha256=None,
        manual_flag_ind=None,
        manual_flag=None,
    )
    return Outcome(
        item=item,
        verdict=Detection(detected=True, confidence=None, parse_method="json"),
        attempt=None,
        envelope=Envelope(model=model, system_fingerprint=fingerprint),
        server=server,
    )


def guard(*known: Serving, stops: bool = False, told: list[str] | None = None) -> ServingGuard:
    said = [] if told is None else told
    return ServingGuard(known, stops=stops, tell=said.append)


def test_the_first_one_is_no_change_and_is_met_once() -> None:
    one = guard(stops=True)
    assert one.meet(answer("m", "f", "s")) == Serving(model="m", system_fingerprint="f", server="s")
    assert one.meet(answer("m", "f", "s")) is None


@pytest.mark.parametrize("changed", [("other", "f", "s"), ("m", "other", "s"), ("m", "f", "other"), ("m", None, "s")])
def test_whatever_changes_is_told_or_stops(changed: Any) -> None:
    known = Serving(model="m", system_fingerprint="f", server="s")
    told: list[str] = []
    assert guard(known, told=told).meet(answer(*changed)) is not None
    assert len(told) == 1
    with pytest.raises(ServingChangedError):
        guard(known, stops=True).meet(answer(*changed))


def test_a_server_that_was_not_noted_may_say_its_name() -> None:
    one = guard(Serving(model="m", system_fingerprint="f", server=None), stops=True)
    assert one.meet(answer("m", "f", "uvicorn")) == Serving(model="m", system_fingerprint="f", server="uvicorn")
    with pytest.raises(ServingChangedError):
        one.meet(answer("n", "f", "uvicorn"))


def test_an_answer_that_does_not_say_whose_it_is_says_nothing() -> None:
    assert guard(Serving(model="m", system_fingerprint="f"), stops=True).meet(answer(None, None, "s")) is None


def test_many_changes_are_told_one_by_one_and_then_once() -> None:
    told: list[str] = []
    one = guard(told=told)
    for number in range(20):
        one.meet(answer("m", f"f{number}"))
    assert len(told) == MAX_TOLD + 1
    assert "goes on changing" in told[-1]
