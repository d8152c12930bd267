"""Owns the life of an experiment: its statuses, what may follow what, and how a run's end is told. Pure.

(created) ──► running ──► completed      nothing missing; error rows are counted in n_errors
               │  ▲  │
               │  │  ├──► interrupted    signal, waited too long, budget spent, rows still missing (130 143 75)
               │  │  └──► failed         storage or configuration (74 78)
               │  └────── a new run: resume from any of them, retrying errors also from completed
               └──► (SIGKILL) stays running; a free lock shows that nobody runs it: interrupted
"""

from __future__ import annotations

from dataclasses import dataclass

from narrun_async.errors import ExitCode
from narrun_async.models import ExperimentStatus, ResultCounts

RUNNING, INTERRUPTED = ExperimentStatus.RUNNING, ExperimentStatus.INTERRUPTED
FAILED, COMPLETED = ExperimentStatus.FAILED, ExperimentStatus.COMPLETED

#: status → what it may become; a run that begins makes every status `running`
TRANSITIONS: dict[ExperimentStatus, frozenset[ExperimentStatus]] = {
    RUNNING: frozenset({RUNNING, INTERRUPTED, FAILED, COMPLETED}),
    INTERRUPTED: frozenset({RUNNING}),
    FAILED: frozenset({RUNNING}),
    COMPLETED: frozenset({RUNNING}),
}

#: exit codes that leave the experiment `failed`: somebody has to change something before it can go on
_FAILING = frozenset({ExitCode.STORAGE, ExitCode.CONFIGURATION, ExitCode.BAD_DATA})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunVerdict:
    """How a run ended."""

    status: ExperimentStatus
    exit_code: ExitCode
    #: one sentence
    why: str


def judge_run(counts: ResultCounts, *, n_left: int, stopped_with: ExitCode | None, stopped_why: str) -> RunVerdict:
    """The status and the exit code that the rows and the reason for stopping lead to.

    A run that was stopped after its last row was saved is complete all the same.

    :param n_left: narratives that the run set out to work on and did not bring to an end, error rows to retry included
    :param stopped_with: the exit code of the reason; None when the run came to its own end
    """
    was_cut_short = stopped_with is not None and (n_left > 0 or stopped_with in _FAILING)
    if counts.n_missing == 0 and not was_cut_short:
        if counts.n_errors:
            why = f"completed; {counts.n_errors} of {counts.n_total} rows are errors"
            return RunVerdict(status=COMPLETED, exit_code=ExitCode.COMPLETED_WITH_ERRORS, why=why)
        return RunVerdict(status=COMPLETED, exit_code=ExitCode.COMPLETED, why="completed")
    if stopped_with is None:
        why = f"{counts.n_missing} narratives still have no row"
        return RunVerdict(status=INTERRUPTED, exit_code=ExitCode.TEMPORARY, why=why)
    status = FAILED if stopped_with in _FAILING else INTERRUPTED
    return RunVerdict(status=status, exit_code=stopped_with, why=stopped_why)


def shown_status(stored: ExperimentStatus, *, database_in_use: bool) -> ExperimentStatus:
    """What to tell people: `running` with a free lock is what a killed process leaves behind."""
    return INTERRUPTED if stored is RUNNING and not database_in_use else stored
