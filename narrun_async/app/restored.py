"""Notices a database that holds less than it once did, by the journal of commits that lies apart from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from narrun_async.errors import StorageError, UnknownExperimentError
from narrun_async.models import Experiment, ResultCounts, RunMode, RunRecord
from narrun_async.progress.commits import FILE_NAME as JOURNAL
from narrun_async.progress.commits import read_journal, require_all_committed


def refuse_older_copy(error: UnknownExperimentError, database: Path, log_root: Path) -> None:
    """:raises StorageError: results of an experiment were committed that the database does not know any more"""
    if error.candidates:
        return
    for journal in sorted((log_root / "experiments").glob(f"{error.wanted}*/{JOURNAL}")):
        if _holds_something(journal):
            raise StorageError(
                f"does not hold experiment {journal.parent.name}, and {journal} knows of its results: its -wal file "
                "was removed, it is an older copy, or the experiment is in another database",
                path=database,
                advice="put the right file back, with its -wal beside it, or name the other one with --db",
            ) from error


def compare_with_journal(
    experiment: Experiment, counts: ResultCounts, runs: Sequence[RunRecord], database: Path, *, accept: bool
) -> tuple[bool, Sequence[str]]:
    """Whether less is there than was committed and that is accepted, and what people should know.

    :raises StorageError: less is there than was committed
    """
    if experiment.log_dir is None:
        return False, ()
    path = Path(experiment.log_dir) / JOURNAL
    try:
        committed = read_journal(path)
    except OSError as error:
        committed, why = None, f"({error.strerror})"
    else:
        why = "and has no line that can be read"
    if committed is None:
        # An experiment that was killed before its first commit has none, nor has what the predecessor did.
        has_saved = any(run.n_saved for run in runs if run.mode != RunMode.LEGACY)
        if _holds_something(path) or has_saved:
            return False, [f"{path} cannot be used {why}: results that are missing would not be noticed"]
        return False, ()
    if accept and committed.exceeds(counts):
        return True, [f"{database} is taken as it is; what is missing is asked for again"]
    require_all_committed(committed, counts, database=database, journal=path)
    return False, ()


def _holds_something(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
