"""Promises of the journal of commits: what it notes, what it reads back, and what makes a database an older one."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from narrun_async.errors import ExitCode, StorageError
from narrun_async.logs import open_experiment_logs
from narrun_async.models import (
    Copy,
    Detection,
    ErrorCategory,
    Failure,
    NarrativeId,
    Outcome,
    ResultCounts,
    RunId,
    Skip,
    SkipReason,
    WorkItem,
)
from narrun_async.progress.commits import (
    FILE_NAME,
    CommitJournal,
    Committed,
    read_journal,
    require_all_committed,
)

DETECTION = Detection(detected=True, confidence=0.9, parse_method="json")
FAILURE = Failure(category=ErrorCategory.REFUSAL, message="refused")


def item(*, replaces_error: bool = False) -> WorkItem:
    return WorkItem(
        narrative_id=NarrativeId(1),
        row_num=1,
        incident_id="1",
        narrative_type="cme",
        narrative_text="made up",
        text_sha256="0" * 64,
        manual_flag_ind=None,
        manual_flag=None,
        replaces_error=replaces_error,
    )


def counts(n_success: int, n_errors: int = 0) -> ResultCounts:
    return ResultCounts(n_total=100, n_success=n_success, n_errors=n_errors)


def outcome(verdict: object, *, replaces_error: bool = False) -> Outcome:
    return Outcome(item=item(replaces_error=replaces_error), verdict=verdict, attempt=None)  # type: ignore[arg-type]


def test_what_is_noted_is_read_back_at_any_log_level_and_only_the_owner_may(tmp_path: Path) -> None:
    with open_experiment_logs(tmp_path, level="error"):
        journal = CommitJournal(RunId(3), counts(10, 2))
        journal.note([outcome(DETECTION), outcome(FAILURE)])
        journal.note([outcome(DETECTION, replaces_error=True), outcome(FAILURE, replaces_error=True)])
        journal.note([])
    path = tmp_path / FILE_NAME
    assert [line.split(" ", 2)[2] for line in path.read_text().splitlines()] == [
        "committed: run 3, 14 results, 11 successes",
        "committed: run 3, 14 results, 12 successes",
    ]
    assert read_journal(path) == Committed(n_results=14, n_successes=12)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_most_that_was_seen_counts_torn_and_foreign_lines_do_not(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(
        b"2026-01-01T00:00:00.000+00:00 INFO committed: run 1, 40 results, 30 successes\n"
        b"2026-01-01T00:00:00.000+00:00 INFO committed: run 2, 12 results, 31 successes\n"
        b"\xff\x00 INFO committed: run 2, 99999 results\n"
        b"2026-01-01T00:00:00.000+00:00 INFO committed: run 3, 50 res\n"
        b"2026-01-01T00:00:00.000+00:00 INFO committed: run 3, "
    )
    assert read_journal(path) == Committed(n_results=40, n_successes=31)


def test_an_accepted_restore_begins_anew(tmp_path: Path) -> None:
    with open_experiment_logs(tmp_path, level="info"):
        CommitJournal(RunId(1), counts(80)).note([outcome(DETECTION)])
        journal = CommitJournal(RunId(2), counts(20))
        journal.note_restored()
        journal.note([outcome(DETECTION)])
    assert read_journal(tmp_path / FILE_NAME) == Committed(n_results=21, n_successes=21)


def test_a_journal_without_lines_knows_nothing_and_a_missing_one_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert read_journal(tmp_path / "empty") is None
    with pytest.raises(FileNotFoundError):
        read_journal(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        read_journal(tmp_path)


@pytest.mark.parametrize(("found", "is_older"), [((9, 0), True), ((8, 2), True), ((9, 1), False), ((20, 0), False)])
def test_fewer_results_or_fewer_successes_make_it_an_older_database(found: tuple[int, int], is_older: bool) -> None:
    committed = Committed(n_results=10, n_successes=9)
    assert committed.exceeds(counts(*found)) is is_older
    if not is_older:
        require_all_committed(committed, counts(*found), database=Path("a.db"), journal=Path("journal"))
        return
    with pytest.raises(StorageError, match=r"a\.db: holds .* journal knows of 10 \(9\).*--accept-restored") as refused:
        require_all_committed(committed, counts(*found), database=Path("a.db"), journal=Path("journal"))
    assert refused.value.exit_code is ExitCode.STORAGE


def test_skips_and_copies_are_results_and_a_copied_answer_is_a_success(tmp_path: Path) -> None:
    with open_experiment_logs(tmp_path, level="info"):
        journal = CommitJournal(RunId(1), ResultCounts(n_total=100, n_success=3, n_errors=1, n_skipped=2, n_copied=1))
        skip = Skip(narrative_id=NarrativeId(1), row_num=1, reason=SkipReason.PLACEHOLDER)
        copies = [copy_of(None), copy_of("refusal"), copy_of(None, replaces_error=True)]
        journal.note([skip, *copies, outcome(DETECTION)])
    assert read_journal(tmp_path / FILE_NAME) == Committed(n_results=6 + 4, n_successes=3 + 3)


def copy_of(error_category: str | None, *, replaces_error: bool = False) -> Copy:
    return Copy(
        narrative_id=NarrativeId(2),
        row_num=2,
        original_id=NarrativeId(1),
        error_category=error_category,
        replaces_error=replaces_error,
    )


def test_a_row_that_was_skipped_is_a_result_that_may_not_be_lost() -> None:
    committed = Committed(n_results=10, n_successes=6)
    whole = ResultCounts(n_total=20, n_success=6, n_errors=1, n_skipped=3)
    assert not committed.exceeds(whole)
    assert committed.exceeds(ResultCounts(n_total=20, n_success=6, n_errors=1, n_skipped=2))
