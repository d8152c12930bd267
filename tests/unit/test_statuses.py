"""Promises of the status machine: a run's end is told truthfully, and every status can be run again."""

from __future__ import annotations

import pytest

from narrun_async.errors import ExitCode
from narrun_async.models import ExperimentStatus, ResultCounts
from narrun_async.statuses import TRANSITIONS, judge_run, shown_status

RUNNING, INTERRUPTED = ExperimentStatus.RUNNING, ExperimentStatus.INTERRUPTED
FAILED, COMPLETED = ExperimentStatus.FAILED, ExperimentStatus.COMPLETED

DONE = ResultCounts(n_total=10, n_success=10, n_errors=0)
WITH_ERRORS = ResultCounts(n_total=10, n_success=8, n_errors=2)
PARTIAL = ResultCounts(n_total=10, n_success=4, n_errors=1)


@pytest.mark.parametrize(
    ("counts", "n_left", "stopped_with", "status", "exit_code"),
    [
        pytest.param(DONE, 0, None, COMPLETED, ExitCode.COMPLETED, id="all done"),
        pytest.param(WITH_ERRORS, 0, None, COMPLETED, ExitCode.COMPLETED_WITH_ERRORS, id="some rows are errors"),
        pytest.param(PARTIAL, 0, None, INTERRUPTED, ExitCode.TEMPORARY, id="rows are missing after a retry of errors"),
        pytest.param(PARTIAL, 5, ExitCode.SIGINT, INTERRUPTED, ExitCode.SIGINT, id="Ctrl-C"),
        pytest.param(PARTIAL, 5, ExitCode.SIGTERM, INTERRUPTED, ExitCode.SIGTERM, id="SIGTERM"),
        pytest.param(PARTIAL, 5, ExitCode.TEMPORARY, INTERRUPTED, ExitCode.TEMPORARY, id="waited too long"),
        pytest.param(PARTIAL, 5, ExitCode.STORAGE, FAILED, ExitCode.STORAGE, id="disk full"),
        pytest.param(PARTIAL, 5, ExitCode.CONFIGURATION, FAILED, ExitCode.CONFIGURATION, id="wrong key"),
        pytest.param(DONE, 0, ExitCode.SIGINT, COMPLETED, ExitCode.COMPLETED, id="Ctrl-C after the last row"),
        pytest.param(DONE, 0, ExitCode.STORAGE, FAILED, ExitCode.STORAGE, id="disk full after the last row"),
        pytest.param(WITH_ERRORS, 2, ExitCode.SIGINT, INTERRUPTED, ExitCode.SIGINT, id="Ctrl-C while retrying errors"),
        pytest.param(
            WITH_ERRORS, 2, ExitCode.TEMPORARY, INTERRUPTED, ExitCode.TEMPORARY, id="outage while retrying errors"
        ),
        pytest.param(
            WITH_ERRORS, 0, ExitCode.SIGTERM, COMPLETED, ExitCode.COMPLETED_WITH_ERRORS, id="SIGTERM, all retried"
        ),
    ],
)
def test_a_run_ends_as_its_rows_and_its_reason_say(
    counts: ResultCounts, n_left: int, stopped_with: ExitCode | None, status: ExperimentStatus, exit_code: ExitCode
) -> None:
    verdict = judge_run(counts, n_left=n_left, stopped_with=stopped_with, stopped_why="the made-up reason")
    assert (verdict.status, verdict.exit_code) == (status, exit_code)
    assert verdict.why
    if status is FAILED or stopped_with is exit_code:
        assert verdict.why == "the made-up reason"


@pytest.mark.parametrize("stopped_with", [None, *ExitCode])
@pytest.mark.parametrize("n_left", [0, 3])
@pytest.mark.parametrize("counts", [DONE, WITH_ERRORS, PARTIAL])
def test_completed_is_never_said_while_rows_are_missing(
    counts: ResultCounts, n_left: int, stopped_with: ExitCode | None
) -> None:
    verdict = judge_run(counts, n_left=n_left, stopped_with=stopped_with, stopped_why="x")
    assert verdict.status in TRANSITIONS[RUNNING]
    if verdict.status is COMPLETED:
        assert counts.n_missing == 0
        assert verdict.exit_code == (ExitCode.COMPLETED_WITH_ERRORS if counts.n_errors else ExitCode.COMPLETED)


def test_every_status_can_be_run_again() -> None:
    assert set(TRANSITIONS) == set(ExperimentStatus)
    assert all(RUNNING in followers for followers in TRANSITIONS.values())


def test_running_with_a_free_lock_is_shown_as_interrupted() -> None:
    assert shown_status(RUNNING, database_in_use=False) is INTERRUPTED
    assert shown_status(RUNNING, database_in_use=True) is RUNNING
    for status in (INTERRUPTED, FAILED, COMPLETED):
        assert {shown_status(status, database_in_use=in_use) for in_use in (True, False)} == {status}
