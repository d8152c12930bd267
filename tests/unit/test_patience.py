"""Promises of `--max-wait`: trouble without progress ends the run in time, and progress starts the count again."""

from __future__ import annotations

import pytest

from narrun_async.errors import ExitCode, WaitedTooLongError
from narrun_async.limits.patience import Patience


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_trouble_is_borne_up_to_the_limit_and_no_longer() -> None:
    clock = Clock()
    patience = Patience(60, clock=clock)
    patience.spend("refused")
    clock.now_s += 50
    patience.spend("refused", coming_wait_s=10)
    with pytest.raises(WaitedTooLongError) as ended:
        patience.spend("refused again", coming_wait_s=10.1)
    assert ended.value.exit_code is ExitCode.TEMPORARY
    assert (ended.value.max_wait_s, ended.value.last_problem) == (60, "refused again")
    assert ended.value.waited_s == pytest.approx(60.1)


def test_a_wait_that_is_too_long_is_not_begun() -> None:
    with pytest.raises(WaitedTooLongError):
        Patience(60, clock=Clock()).spend("come back tomorrow", coming_wait_s=86_400)


def test_a_narrative_that_comes_to_its_end_restores_it() -> None:
    clock = Clock()
    patience = Patience(60, clock=clock)
    for _ in range(10):
        patience.spend("refused")
        clock.now_s += 59
        patience.spend("refused")
        patience.restore()
        clock.now_s += 1000


def test_downtime_is_the_time_in_trouble_the_present_one_included() -> None:
    clock = Clock()
    patience = Patience(600, clock=clock)
    assert patience.downtime_s == 0
    patience.restore()
    clock.now_s += 100
    patience.spend("refused")
    clock.now_s += 30
    assert patience.downtime_s == 30
    patience.restore()
    clock.now_s += 100
    assert patience.downtime_s == 30
    patience.spend("refused")
    clock.now_s += 5
    patience.spend("refused")
    clock.now_s += 5
    assert patience.downtime_s == 40
