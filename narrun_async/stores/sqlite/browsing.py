"""Owns the copy of a database that is shown when browsing: in memory, without the texts, renewed when the file changes.

What is not in the copy cannot be asked out of it, whoever asks. And nobody who browses keeps a snapshot of the file
open, so the -wal file of a run beside it does not grow.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from narrun_async.codebook import BROWSED_COLUMNS, PROMPT_COLUMNS
from narrun_async.models import ExperimentId
from narrun_async.statuses import INTERRUPTED, RUNNING
from narrun_async.stores.locking import database_is_locked
from narrun_async.stores.sqlite import schema
from narrun_async.stores.sqlite.connection import BUSY_TIMEOUT_S, wrap_sqlite_errors
from narrun_async.stores.sqlite.scrubbing import REFUSED, TEXT_COLUMNS

T = TypeVar("T")

_SCHEMA: Mapping[str, Mapping[str, str]] = {
    "experiments": schema.EXPERIMENTS,
    "runs": schema.RUNS,
    "narrative_results": {**schema.NARRATIVE_RESULTS, "agreement": "TEXT"},
    "attempts": schema.ATTEMPTS,
    "servings": schema.SERVINGS,
    "canary_answers": schema.CANARY_ANSWERS,
}
_OF_THE_EXPERIMENT = {"experiment_id": "TEXT REFERENCES experiments(experiment_id)"}
#: the case of a narrative, for tables that know its number only
_OF_THE_NARRATIVE = {"incident_id": "s.incident_id", "narrative_type": "s.narrative_type"}
_NARRATIVE = "LEFT JOIN source.source_narratives AS s ON s.narrative_id = t.narrative_id"

_AGREEMENT = """
CASE WHEN t.is_true_positive = 1 THEN 'true positive' WHEN t.is_true_negative = 1 THEN 'true negative'
     WHEN t.is_false_positive = 1 THEN 'false positive' WHEN t.is_false_negative = 1 THEN 'false negative' END
"""
#: a run that nobody is at any more was killed
_STATUS = f"CASE WHEN t.status = '{RUNNING}' AND NOT :in_use THEN '{INTERRUPTED}' ELSE t.status END"
#: the sentence may repeat the endpoint's words
_ENDED_WHY = f"CASE WHEN t.exit_code = {REFUSED} THEN 'the configuration was refused' ELSE t.ended_why END"


def withheld_columns(table: str) -> frozenset[str]:
    """Those that scrubbing would empty, because they hold or may quote a narrative, and the prompts."""
    return frozenset(TEXT_COLUMNS.get(table, ())) | (PROMPT_COLUMNS if table == "experiments" else frozenset())


def browsed_columns(*, with_text: bool) -> Mapping[str, Mapping[str, str]]:
    """Table → column → its meaning: all that a copy holds."""
    return {
        table: {name: meaning for name, meaning in columns.items() if with_text or name not in withheld_columns(table)}
        for table, columns in BROWSED_COLUMNS.items()
    }


class BrowsingCopy:
    """One database, copied. Its methods may be called from any thread; they take turns.

    :param experiment_id: copy this experiment only; None: all of them
    :param with_text: with the narratives, what quotes them, and the prompts
    :param rest_s: seconds that copying took → seconds until it is worth while again
    """

    def __init__(
        self,
        path: Path,
        *,
        experiment_id: ExperimentId | None,
        with_text: bool,
        rest_s: Callable[[float], float] = lambda took_s: max(5.0, 10 * took_s),
    ) -> None:
        self._path = path
        self._experiment_id = experiment_id
        self._with_text = with_text
        self._rest_s = rest_s
        self._turn = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._seen: object = None
        self._due_at = 0.0

    def freshen(self) -> None:
        """Copy anew if the file has changed and the copy is not quite young.

        :raises StorageError: the file cannot be read; the copy stays what it was
        :raises LockHeldError: a foreign process keeps it locked
        """
        with self._turn:
            if self._connection is not None and (time.monotonic() < self._due_at or self._state() == self._seen):
                return
            began = time.monotonic()
            connection, seen = self._copy()
            if self._connection is not None:
                self._connection.close()
            self._connection, self._seen = connection, seen
            ended = time.monotonic()
            self._due_at = ended + self._rest_s(ended - began)

    def read(self, use: Callable[[sqlite3.Connection], T]) -> T:
        """Hand the connection to a function, which keeps nothing of it. `freshen` comes first."""
        with self._turn:
            assert self._connection is not None
            return use(self._connection)

    def close(self) -> None:
        with self._turn:
            if self._connection is not None:
                self._connection.close()

    def _state(self) -> object:
        """Changes whenever anything is committed."""
        return tuple(_stamp(path) for path in (self._path, self._path.with_name(f"{self._path.name}-wal")))

    def _copy(self) -> tuple[sqlite3.Connection, object]:
        copy = sqlite3.connect(":memory:", uri=True, isolation_level=None, check_same_thread=False)
        try:
            with wrap_sqlite_errors(self._path):
                # A sort that does not fit must not go into a file.
                copy.execute("PRAGMA temp_store = MEMORY")
                copy.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}")
                copy.execute("ATTACH ? AS source", (f"file:{quote(str(self._path.resolve()))}?mode=ro",))
                copy.execute("BEGIN")
                copy.execute("SELECT COUNT(*) FROM source.sqlite_schema").fetchone()
                seen = self._state()
                self._copy_tables(copy)
                copy.execute("COMMIT")
                copy.execute("DETACH source")
                copy.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
                copy.execute("PRAGMA query_only = ON")
        except BaseException:
            copy.close()
            raise
        return copy, seen

    def _copy_tables(self, copy: sqlite3.Connection) -> None:
        parameters = {"in_use": database_is_locked(self._path), "experiment_id": self._experiment_id}
        for table, columns in browsed_columns(with_text=self._with_text).items():
            schema = {**dict.fromkeys(_OF_THE_NARRATIVE, "TEXT"), **_SCHEMA[table]}
            if table != "experiments":
                schema |= _OF_THE_EXPERIMENT
            body = ", ".join(f"{name} {schema[name].replace(' AUTOINCREMENT', '')}" for name in columns)
            copy.execute(f"CREATE TABLE main.{table} ({body})")
            values = ", ".join(self._expression(table, name) for name in columns)
            join = _NARRATIVE if "narrative_id" in _SCHEMA[table] else ""
            copy.execute(
                f"INSERT INTO main.{table} SELECT {values} FROM source.{table} AS t {join}"
                " WHERE :experiment_id IS NULL OR t.experiment_id = :experiment_id",
                parameters,
            )
            if table != "experiments":
                copy.execute(f"CREATE INDEX main.{table}_experiment ON {table}(experiment_id)")

    def _expression(self, table: str, name: str) -> str:
        if (table, name) == ("narrative_results", "agreement"):
            return _AGREEMENT
        if (table, name) == ("experiments", "status"):
            return _STATUS
        if (table, name) == ("runs", "ended_why") and not self._with_text:
            return _ENDED_WHY
        if name in _OF_THE_NARRATIVE and "narrative_id" in _SCHEMA[table]:
            return _OF_THE_NARRATIVE[name]
        return f"t.{name}"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
