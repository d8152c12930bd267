"""Promises about waiting for a disk: pauses that double up to half a minute and end when they should."""

from __future__ import annotations

import pytest

from narrun_async.writer import LONGEST_STORAGE_PAUSE_S, BatchPolicy, storage_pauses


@pytest.mark.parametrize("total_s", [0.5, 1.5, 30.0, 300.0, 86_400.0])
def test_the_pauses_last_together_as_long_as_was_asked_for(total_s: float) -> None:
    pauses = storage_pauses(total_s)
    assert sum(pauses) == pytest.approx(total_s)
    assert max(pauses) <= LONGEST_STORAGE_PAUSE_S
    assert all(pause > 0 for pause in pauses)


def test_they_begin_with_a_second_and_double() -> None:
    assert storage_pauses(300.0)[:7] == (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)
    assert storage_pauses(0) == ()


def test_a_run_waits_five_minutes_unless_told_otherwise() -> None:
    assert sum(BatchPolicy().storage_pauses_s) == pytest.approx(300)
