"""Owns the journal of commits: how many results the database is known to hold, told by a file that lies apart from it.

A database whose `-wal` file was removed, or that was put back from an older copy, is sound and knows nothing of what it
lacks. The journal, in the experiment's log directory, does. A line is written after a COMMIT has returned, so it never
says more than was on disk; one that is missing (kill, full disk) only makes it say less.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from narrun_async.errors import StorageError
from narrun_async.logs import COMMIT_JOURNAL
from narrun_async.models import Copy, Detection, Outcome, ResultCounts, RunId, Skip, WriterMessage

FILE_NAME = "journal"

#: after the moment and the level that every line begins with
_LINE = re.compile(
    r"\S+ INFO (?P<what>committed|restored): run (?P<run>\d{1,18}), "
    r"(?P<results>\d{1,18}) results, (?P<successes>\d{1,18}) successes"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What the database has held of an experiment. Neither number ever falls: a success is never taken back."""

    n_results: int
    n_successes: int

    def exceeds(self, counts: ResultCounts) -> bool:
        """Whether the database holds fewer."""
        return self.n_results > counts.n_rows or self.n_successes > counts.n_success


class CommitJournal:
    """Counts up from what the database held when the run began, and notes it batch by batch."""

    def __init__(self, run_id: RunId, counts: ResultCounts) -> None:
        self._run_id = run_id
        self._n_results = counts.n_rows
        self._n_successes = counts.n_success

    def note_restored(self) -> None:
        """From here on the journal starts at what the database holds now, which a person has accepted."""
        self._write("restored")

    def note(self, batch: Sequence[WriterMessage]) -> None:
        """The COMMIT of this batch has returned. Never fails."""
        rows = [row for message in batch if (row := _row_of(message)) is not None]
        if not rows:
            return
        self._n_results += sum(is_new for is_new, _ in rows)
        self._n_successes += sum(is_success for _, is_success in rows)
        self._write("committed")

    def _write(self, what: str) -> None:
        COMMIT_JOURNAL.info(
            "%s: run %d, %d results, %d successes", what, self._run_id, self._n_results, self._n_successes
        )


def _row_of(message: WriterMessage) -> tuple[bool, bool] | None:
    """Whether the row that a message makes is a new one, and a success; None where it makes none."""
    match message:
        case Outcome() if not message.item.is_canary:
            return not message.item.replaces_error, isinstance(message.verdict, Detection)
        case Skip():
            return True, False
        case Copy():
            return not message.replaces_error, message.error_category is None
        case _:
            return None


def read_journal(path: Path) -> Committed | None:
    """The most that the journal has seen since the last accepted restore; None where it has seen nothing.

    Lines that are torn or foreign are passed over.

    :raises OSError: it is missing, or cannot be read
    """
    found: Committed | None = None
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            match = _LINE.fullmatch(line.rstrip("\n"))
            if match is None:
                continue
            seen = Committed(n_results=int(match["results"]), n_successes=int(match["successes"]))
            if found is None or match["what"] == "restored":
                found = seen
            else:
                found = Committed(
                    n_results=max(found.n_results, seen.n_results),
                    n_successes=max(found.n_successes, seen.n_successes),
                )
    return found


def require_all_committed(committed: Committed, counts: ResultCounts, *, database: Path, journal: Path) -> None:
    """:raises StorageError: the database holds less than was once committed to it"""
    if not committed.exceeds(counts):
        return
    raise StorageError(
        f"holds {counts.n_rows} results of this experiment ({counts.n_success} successes), and "
        f"{journal} knows of {committed.n_results} ({committed.n_successes}): its -wal file was removed, or it is an "
        "older copy",
        path=database,
        advice="put the right file back, with its -wal beside it; if this copy is meant, add --accept-restored, and "
        "what is missing is asked for again",
    )
