"""Promises of `Culprits`: who is convicted of taking the endpoint down, and who never is."""

from __future__ import annotations

from narrun_async.limits.culprits import CRASHES_THAT_CONVICT, Culprits
from narrun_async.models import NarrativeId

CULPRIT, OTHER = NarrativeId(7), NarrativeId(8)


def test_enough_crashes_and_an_answer_to_another_one_convict() -> None:
    culprits = Culprits()
    for _ in range(CRASHES_THAT_CONVICT):
        assert not culprits.is_convicted(CULPRIT)
        culprits.record_crash(CULPRIT)
        culprits.record_answer()
    assert culprits.is_convicted(CULPRIT)
    assert culprits.crashes_of(CULPRIT) == CRASHES_THAT_CONVICT
    assert not culprits.is_convicted(OTHER)


def test_an_endpoint_that_answers_nobody_any_more_convicts_nobody() -> None:
    culprits = Culprits()
    culprits.record_answer()
    for narrative_id in (CULPRIT, OTHER):
        for _ in range(2 * CRASHES_THAT_CONVICT):
            culprits.record_crash(narrative_id)
            assert not culprits.is_convicted(narrative_id)
