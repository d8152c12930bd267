"""The counts of a run in progress: rate, time left, errors, tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from narrun_async.models import (
    Attempt,
    Detection,
    ErrorCategory,
    Failure,
    NarrativeId,
    Outcome,
    Usage,
    WorkItem,
)
from narrun_async.progress import Progress
from narrun_async.progress.tally import RATE_WINDOW_S

ITEM = WorkItem(
    narrative_id=NarrativeId(7),
    row_num=7,
    incident_id="A-7",
    narrative_type="cme",
    narrative_text="synthetic",
    text_sha256=None,
    manual_flag_ind=None,
    manual_flag=None,
)
DETECTION = Detection(detected=False, confidence=0.5, parse_method="json")


def call(category: ErrorCategory | None = None, *, prompt: int = 10, completion: int = 2) -> Attempt:
    return Attempt(
        narrative_id=NarrativeId(7),
        started_at=datetime(2024, 1, 1, tzinfo=UTC),
        duration_s=1.0,
        error_category=category,
        error_message=None,
        http_status=200,
        charged=True,
        usage=Usage(prompt_tokens=prompt, completion_tokens=completion),
    )


def success() -> Outcome:
    return Outcome(item=ITEM, verdict=DETECTION, attempt=call())


def error(category: ErrorCategory) -> Outcome:
    return Outcome(item=ITEM, verdict=Failure(category=category, message="no"), attempt=call(category))


class Scene:
    """A clock, a downtime and a wait that the test sets."""

    def __init__(self, *, n_done_before: int = 0, n_remaining: int = 1000) -> None:
        self.now_s = 5000.0
        self.down_s = 0.0
        self.progress = Progress(
            n_done_before=n_done_before,
            n_remaining=n_remaining,
            clock=lambda: self.now_s,
            downtime_s=lambda: self.down_s,
        )

    def work(self, seconds: int, *, per_s: int) -> None:
        for _ in range(seconds):
            self.now_s += 1
            self.progress.record_saved([success()] * per_s)

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.down_s += seconds


def test_before_the_first_row_there_is_neither_a_rate_nor_a_time_left() -> None:
    scene = Scene()
    scene.now_s += 30
    snapshot = scene.progress.snapshot()
    assert (snapshot.rate_per_s, snapshot.eta_s) == (None, None)
    assert scene.progress.mark().estimated_completion_time is None


def test_rate_and_time_left_follow_from_the_rows_saved() -> None:
    scene = Scene(n_done_before=500, n_remaining=1000)
    scene.work(50, per_s=4)
    snapshot = scene.progress.snapshot()
    assert snapshot.rate_per_s == pytest.approx(4.0)
    assert snapshot.eta_s == pytest.approx(800 / 4)
    assert (snapshot.n_done, snapshot.n_total) == (700, 1500)


def test_rows_of_earlier_runs_do_not_make_this_run_look_fast() -> None:
    scene = Scene(n_done_before=30_000, n_remaining=100)
    scene.work(10, per_s=1)
    assert scene.progress.snapshot().rate_per_s == pytest.approx(1.0)


def test_rate_forgets_what_is_older_than_its_window() -> None:
    scene = Scene(n_remaining=100_000)
    scene.work(1000, per_s=10)
    scene.work(int(RATE_WINDOW_S) + 2, per_s=2)
    assert scene.progress.snapshot().rate_per_s == pytest.approx(2.0, rel=0.1)


def test_rate_falls_when_nothing_is_saved_any_more() -> None:
    scene = Scene()
    scene.work(100, per_s=4)
    scene.now_s += 100
    assert scene.progress.snapshot().rate_per_s == pytest.approx(2.0)


@pytest.mark.parametrize("worked_before_s", [10, 300])
def test_downtime_changes_neither_rate_nor_time_left(worked_before_s: int) -> None:
    scene = Scene(n_remaining=10_000)
    scene.work(worked_before_s, per_s=4)
    before = scene.progress.snapshot()
    scene.wait(3600)
    during = scene.progress.snapshot()
    assert (during.rate_per_s, during.eta_s) == (before.rate_per_s, before.eta_s)
    scene.work(10, per_s=4)
    after = scene.progress.snapshot()
    assert after.rate_per_s == pytest.approx(4.0)
    assert after.runtime_s == worked_before_s + 3600 + 10
    assert after.downtime_s == 3600


def test_time_left_ends_at_zero() -> None:
    scene = Scene(n_remaining=8)
    scene.work(4, per_s=2)
    assert scene.progress.snapshot().eta_s == 0
    scene.work(1, per_s=2)  # more rows than were remaining must not make it negative
    assert scene.progress.snapshot().eta_s == 0


def test_completion_is_foretold_in_local_time_and_never_overflows() -> None:
    scene = Scene(n_remaining=10**12)
    scene.work(10, per_s=1)
    foretold = scene.progress.mark().estimated_completion_time
    assert foretold is not None
    assert datetime.strptime(foretold, "%Y-%m-%d %H:%M:%S") > datetime.now() + timedelta(days=365)


def test_errors_are_counted_by_category_and_failed_calls_apart_from_rows() -> None:
    scene = Scene()
    lost = call(ErrorCategory.CONNECTION_LOST)
    scene.progress.record_saved([success(), error(ErrorCategory.TIMEOUT), lost, error(ErrorCategory.TIMEOUT)])
    snapshot = scene.progress.snapshot()
    assert snapshot.errors == {"timeout": 2}
    assert (snapshot.n_saved, snapshot.n_failed_calls) == (3, 1)


def test_tokens_of_failed_calls_count_and_missing_usage_does_not() -> None:
    scene = Scene()
    no_call = Outcome(item=ITEM, verdict=Failure(category=ErrorCategory.SOURCE_CHANGED, message="no"), attempt=None)
    scene.progress.record_saved([success(), call(ErrorCategory.TIMEOUT), no_call])
    snapshot = scene.progress.snapshot()
    assert (snapshot.prompt_tokens, snapshot.completion_tokens) == (20, 4)
    assert snapshot.n_saved == 2


def test_a_snapshot_does_not_change_when_the_run_goes_on() -> None:
    scene = Scene()
    snapshot = scene.progress.snapshot()
    scene.progress.record_saved([error(ErrorCategory.EMPTY)])
    assert snapshot.errors == {}


def test_memory_does_not_grow_with_the_run() -> None:
    scene = Scene(n_remaining=10**6)
    for _ in range(20_000):
        scene.now_s += 0.05
        scene.progress.record_saved([success()])
    few = len(scene.progress._points)
    scene.work(3000, per_s=1)
    assert len(scene.progress._points) <= RATE_WINDOW_S + 3
    assert few <= RATE_WINDOW_S + 3
