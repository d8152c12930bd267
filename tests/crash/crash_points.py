"""Runs the program with one exact place in it at which it is killed; the program itself knows nothing of such places.

    python crash_points.py --at "before COMMIT" --occurrence 5 -- run config.yaml
    python crash_points.py --serve            one such command a line of JSON, each in a fork of one warm process

A place is the boundary of a function, or of a statement that goes to SQLite. The process that reaches it for the N-th
time sends itself SIGKILL: no handler, no `finally`, no flush. Importing this module imports nothing of the program.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import json
import os
import pkgutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Side = Literal["before", "after"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashPoint:
    """One boundary."""

    #: `module:qualified.name`; relative to the package where it begins with a dot
    target: str = ""
    side: Side = "after"
    #: instead of a target: the words with which a statement begins
    statement: str = ""
    #: of a statement for many rows: before this one of them
    row: int | None = None


def _before(target: str) -> CrashPoint:
    return CrashPoint(target=target, side="before")


def _after(target: str) -> CrashPoint:
    return CrashPoint(target=target, side="after")


def _sql(statement: str, side: Side = "after", row: int | None = None) -> CrashPoint:
    return CrashPoint(statement=statement, side=side, row=row)


_EXPERIMENTS = ".stores.sqlite.experiments:ExperimentsPart"
_RESULTS = ".stores.sqlite.results:ResultsPart"
_SOURCES = ".stores.sqlite.sources:SourcesPart"
_CSV_FILE = ".reporting.exports.plain_text:CsvFile"
_DRAFTS = ".reporting.exports.files:Drafts"

#: every place by its name, in the order in which a run comes by
POINTS: dict[str, CrashPoint] = {
    # opening
    "before the lock": _before(".stores.locking:DatabaseLock.__enter__"),
    "lock taken": _after(".stores.locking:DatabaseLock.__enter__"),
    "new database: file made": _after(".stores.sqlite.connection:create_private_file"),
    "new database: before the schema": _before(".stores.sqlite.migrations:migrate"),
    "schema: a table made": _sql("CREATE TABLE"),
    "schema: before its version is noted": _sql("PRAGMA user_version =", "before"),
    "new database: before it takes its name": _before("pathlib:Path.rename"),
    "new database: it has its name": _after("pathlib:Path.rename"),
    "looked for damage": _after(".stores.sqlite.store:_refuse_damage"),
    "writer open": _after(".stores.sqlite.connection:connect_writer"),
    "migration: before the backup": _before(".stores.sqlite.migrations:back_up"),
    "migration: backup copied": _after(".stores.sqlite.migrations:back_up"),
    "migration: a column added": _sql("ALTER TABLE"),
    "migration: a key added": _sql("CREATE UNIQUE INDEX"),
    # ingest
    "file hashed": _after(".sources.files:file_checksum"),
    "before the narratives": _before(f"{_SOURCES}.add_source"),
    "narratives: in mid-insert": _sql("INSERT INTO source_narratives", row=5),
    "narratives: inserted": _sql("INSERT INTO source_narratives"),
    "narratives: judged": _after(f"{_SOURCES}._judge_incoming"),
    "after the narratives": _after(f"{_SOURCES}.add_source"),
    # the experiment and its run
    "cohort counted": _after(f"{_SOURCES}.load_cohort"),
    "before the experiment": _before(f"{_EXPERIMENTS}.create_experiment"),
    "after the experiment": _after(f"{_EXPERIMENTS}.create_experiment"),
    "experiment found again": _after(".operations.experiments:find_experiment"),
    "endpoint opened": _after(".providers.openai_compatible:OpenAICompatibleProvider.__init__"),
    "logs opened": _after(".logs:ExperimentLogs.__enter__"),
    "before the run record": _before(f"{_EXPERIMENTS}.begin_run"),
    "run record: inserted": _sql("INSERT INTO runs"),
    "after the run record": _after(f"{_EXPERIMENTS}.begin_run"),
    "before a log line": _before(".logs:_PrivateFile._write"),
    "after a log line": _after(".logs:_PrivateFile._write"),
    # a narrative on its way
    "before a page": _before(f"{_RESULTS}.load_page"),
    "page read": _after(f"{_RESULTS}.load_page"),
    "slot taken": _after(".limits.slots:Lane.__aenter__"),
    "turn taken": _after(".limits.endpoint:EndpointLimits.wait_turn"),
    "request about to be sent": _before(".providers.openai_compatible:OpenAICompatibleProvider.complete"),
    "answer received": _after(".providers.openai_compatible:OpenAICompatibleProvider.complete"),
    "envelope parsed": _after(".parsing.envelope:parse_envelope"),
    "answer parsed": _after(".parsing.answer:parse_answer"),
    "outcome admitted": _after(".limits.error_guard:ErrorGuard.admit"),
    "outcome queued": _after(".dispatcher:Dispatcher._deliver"),
    "batch gathered": _after(".writer:Writer._gather"),
    # a batch
    "before a batch": _before(f"{_RESULTS}.write_batch"),
    "before BEGIN": _sql("BEGIN", "before"),
    "after BEGIN": _sql("BEGIN"),
    "attempts: inserted": _sql("INSERT INTO attempts"),
    "rows: in mid-insert": _sql("INSERT INTO narrative_results", row=2),
    "rows: inserted": _sql("INSERT INTO narrative_results"),
    "experiment counted up": _sql("UPDATE experiments SET n_narratives_processed = COALESCE"),
    "run counted up": _sql("UPDATE runs SET last_saved_at"),
    "before COMMIT": _sql("COMMIT", "before"),
    "after COMMIT": _sql("COMMIT"),
    "after a batch": _after(f"{_RESULTS}.write_batch"),
    "told as saved": _after(".progress.tally:Progress.record_saved"),
    # the end
    "verdict found": _after(".statuses:judge_run"),
    "before the summary": _before(".finalizer:finalize"),
    "after the summary": _after(".finalizer:finalize"),
    "before the end of the run": _before(f"{_EXPERIMENTS}.end_run"),
    "run ended, experiment not": _sql("UPDATE runs SET ended_at"),
    "after the end of the run": _after(f"{_EXPERIMENTS}.end_run"),
    "before a small file is replaced": _before(".logs:replace_private_file"),
    "export: file begun": _after(f"{_CSV_FILE}.__init__"),
    "export: a row written": _after(f"{_CSV_FILE}.write_row"),
    "export: before a file takes its name": _before(f"{_DRAFTS}._replace_target"),
    "export: a file has its name": _after(f"{_DRAFTS}._replace_target"),
    "export: files noted": _after(f"{_EXPERIMENTS}.update_experiment"),
    "before the database is closed": _before(".stores.sqlite.database:Database.aclose"),
    "after the database is closed": _after(".stores.sqlite.database:Database.aclose"),
    "lock given back": _after(".stores.locking:DatabaseLock.__exit__"),
    # readers
    "an invariant checked": _after(".stores.sqlite.verification:VerificationPart._check"),
    "summary counted": _after(".reporting.summary:load_summary"),
}

_BATCHES = ".stores.sqlite.batches:BatchesPart"
_PROVIDER = ".providers.openai_batches:OpenAIBatchProvider"
_WHOLE_BATCH = ".stores.batch_files:WholeFile"

#: likewise, of a batch from its export to its rows
BATCH_POINTS: dict[str, CrashPoint] = {
    # export
    "batch file: begun": _after(f"{_WHOLE_BATCH}.__init__"),
    "batch file: a piece written": _after(f"{_WHOLE_BATCH}.write"),
    "batch file: before it takes its name": _before(f"{_WHOLE_BATCH}.publish"),
    "batch file: it has its name": _after(f"{_WHOLE_BATCH}.publish"),
    "batch: before it is recorded": _before(f"{_BATCHES}.add_batch"),
    "batch: its row inserted": _sql("INSERT INTO batches"),
    "batch: its narratives in mid-insert": _sql("INSERT INTO batch_items", row=2),
    "batch: recorded": _after(f"{_BATCHES}.add_batch"),
    # submit, and whatever changes a batch
    "batch: before a step": _before(f"{_BATCHES}.advance_batch"),
    "batch: a step in its transaction": _sql("UPDATE batches SET"),
    "batch: after a step": _after(f"{_BATCHES}.advance_batch"),
    "batch: looked for": _after(f"{_PROVIDER}.find_batch"),
    "batch file: looked for": _after(f"{_PROVIDER}.find_file"),
    "batch file: about to be uploaded": _before(f"{_PROVIDER}.upload_file"),
    "batch file: uploaded": _after(f"{_PROVIDER}.upload_file"),
    "batch: about to be created": _before(f"{_PROVIDER}.create_batch"),
    "batch: created": _after(f"{_PROVIDER}.create_batch"),
    # poll and collect
    "batch: asked about": _after(f"{_PROVIDER}.load_batch"),
    "answers: about to be fetched": _before(f"{_PROVIDER}.download_file"),
    "answers: fetched": _after(f"{_PROVIDER}.download_file"),
    "answers: looked through": _after(".operations.batches.answers:survey"),
    "answers: one judged": _after(".operations.batches.answers:judge_line"),
    "batch: before it is closed": _before(".operations.batches.collecting:_close"),
    "batch: closed": _after(".operations.batches.collecting:_close"),
    "batch files: one removed": _after(".stores.removal:overwrite_and_remove"),
    # cancel
    "batch: about to be cancelled": _before(f"{_PROVIDER}.cancel_batch"),
    "batch: cancelled": _after(f"{_PROVIDER}.cancel_batch"),
}

_LEGACY = ".stores.sqlite.legacy:LegacyPart"

#: places that only a database of the predecessor comes by: `migrate --fix-ids`, then a resume that takes up
LEGACY_POINTS: dict[str, CrashPoint] = {
    "duplicates: before they are chosen": _before(".stores.sqlite.inheritance:set_duplicates_aside"),
    "duplicates: chosen": _sql("CREATE TEMP TABLE chosen"),
    "duplicates: counted": _sql("INSERT INTO legacy_reports"),
    "duplicates: copied": _sql("INSERT INTO legacy_results"),
    "duplicates: deleted": _sql("DELETE FROM narrative_results"),
    "duplicates: the key made": _sql("CREATE UNIQUE INDEX narrative_results_key"),
    "sources identified": _after(".stores.sqlite.inheritance:identify_sources"),
    "ids: before the repair": _before(f"{_LEGACY}.repair_ids"),
    "ids: one repaired": _sql("UPDATE narrative_results SET incident_id"),
    "ids: one noted": _sql("INSERT INTO legacy_changes"),
    "ids: repaired": _after(f"{_LEGACY}.repair_ids"),
    "taking up: planned": _after(".operations.adopting:plan_adoption"),
    "taking up: strangers set aside": _after(".stores.sqlite.inheritance:set_outside_aside"),
    "taking up: past work recorded": _sql("INSERT INTO runs"),
    "taking up: before COMMIT": _sql("UPDATE experiments SET n_narratives_processed = :"),
    "taking up: done": _after(f"{_LEGACY}.adopt_experiment"),
}

# --- arming ----------------------------------------------------------------------------------------------------------


class Fuse:
    """Kills the process when it is touched for the N-th time."""

    def __init__(self, occurrence: int) -> None:
        self._left = occurrence

    def touch(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()  # the kernel may take a moment; nothing more may be done


def arm(name: str, occurrence: int) -> None:
    """Put a fuse at a point; the program has been imported."""
    point, fuse = (POINTS | BATCH_POINTS | LEGACY_POINTS)[name], Fuse(occurrence)
    if point.statement:
        _arm_statement(point, fuse)
        return
    module_name, _, qualified = point.target.partition(":")
    owner: Any = importlib.import_module(f"narrun_async{module_name}" if module_name[0] == "." else module_name)
    *path, attribute = qualified.split(".")
    for part in path:
        owner = getattr(owner, part)
    _replace(owner, attribute, _fused(getattr(owner, attribute), point.side, fuse))


def tell_saved(file: Path) -> None:
    """From now on the file grows by one byte for every row that the run reports as saved."""
    from narrun_async.models import Outcome
    from narrun_async.progress.tally import Progress

    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    original = Progress.record_saved

    def record_saved(self: Progress, messages: Sequence[Any]) -> None:
        original(self, messages)
        os.write(descriptor, b"." * sum(isinstance(message, Outcome) for message in messages))

    Progress.record_saved = record_saved  # type: ignore[method-assign]  # so that what was reported is known outside


def _fused(function: Callable[..., Any], side: Side, fuse: Fuse) -> Callable[..., Any]:
    if asyncio.iscoroutinefunction(function):

        @functools.wraps(function)
        async def fused_async(*args: Any, **kwargs: Any) -> Any:
            if side == "before":
                fuse.touch()
            result = await function(*args, **kwargs)
            if side == "after":
                fuse.touch()
            return result

        return fused_async

    @functools.wraps(function)
    def fused(*args: Any, **kwargs: Any) -> Any:
        if side == "before":
            fuse.touch()
        result = function(*args, **kwargs)
        if side == "after":
            fuse.touch()
        return result

    return fused


def _replace(owner: Any, attribute: str, fused: Callable[..., Any]) -> None:
    """Under every name by which the program knows the function."""
    original = getattr(owner, attribute)
    setattr(owner, attribute, fused)
    for name, module in list(sys.modules.items()):
        if name.startswith("narrun_async"):
            for key, value in list(vars(module).items()):
                if value is original:
                    setattr(module, key, fused)


def _arm_statement(point: CrashPoint, fuse: Fuse) -> None:
    """Every statement goes through aiosqlite, those of a batch through the connection that `_transact` is given."""
    import aiosqlite

    from narrun_async.stores.sqlite import connection as ours

    original, transact = aiosqlite.Connection._execute, ours._transact

    async def execute(self: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        is_meant, args = _touch_before(point, fuse, args)
        result = await original(self, function, *args, **kwargs)
        _touch_after(point, fuse, is_meant)
        return result

    def transact_slowly(connection: Any, write: Callable[[Any], None]) -> None:
        transact(_Watched(connection, point, fuse), write)  # type: ignore[arg-type]  # it acts like one

    aiosqlite.Connection._execute = execute  # type: ignore[method-assign]  # the places that this file is about
    ours._transact = transact_slowly


class _Watched:
    """A `sqlite3` connection, statement by statement."""

    def __init__(self, connection: Any, point: CrashPoint, fuse: Fuse) -> None:
        self._connection, self._point, self._fuse = connection, point, fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, *args: Any) -> Any:
        return self._run(self._connection.execute, args)

    def executemany(self, *args: Any) -> Any:
        return self._run(self._connection.executemany, args)

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        is_meant, args = _touch_before(self._point, self._fuse, args)
        result = function(*args)
        _touch_after(self._point, self._fuse, is_meant)
        return result


def _touch_before(point: CrashPoint, fuse: Fuse, args: tuple[Any, ...]) -> tuple[bool, tuple[Any, ...]]:
    """Whether this is the statement that is meant, and its arguments, its rows with the fuse among them."""
    is_meant = bool(args) and isinstance(args[0], str) and " ".join(args[0].split()).startswith(point.statement)
    if is_meant and point.row is not None:
        args = (args[0], _until(args[1], point.row, fuse), *args[2:])
    elif is_meant and point.side == "before":
        fuse.touch()
    return is_meant, args


def _touch_after(point: CrashPoint, fuse: Fuse, is_meant: bool) -> None:
    if is_meant and point.row is None and point.side == "after":
        fuse.touch()


def _until(rows: Sequence[Any], row: int, fuse: Fuse) -> Iterator[Any]:
    """Rows for one statement; SQLite has taken the first ones when the fuse is touched."""
    for number, one in enumerate(rows):
        if number == min(row, len(rows) - 1):
            fuse.touch()
        yield one


# --- starting --------------------------------------------------------------------------------------------------------


def import_everything() -> None:
    import narrun_async

    for module in pkgutil.walk_packages(narrun_async.__path__, "narrun_async."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def run(arguments: Sequence[str], *, at: str | None, occurrence: int, saved: str | None) -> None:
    from narrun_async.cli import main

    if saved:
        tell_saved(Path(saved))
    if at:
        arm(at, occurrence)
    sys.argv = ["narrun", *arguments]
    main()


def serve() -> dict[str, Any] | None:
    """Fork for every line that asks for it; returns in the forks, with what is to be run there.

    Answers each line with `{"pid": …}` at once and `{"code": …}` at the end, negative for a signal.
    """
    asking, telling = os.fdopen(os.dup(0), "r"), os.dup(1)
    while line := asking.readline():
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            asking.close()
            os.close(telling)
            _enter(order)
            return order
        os.write(telling, json.dumps({"pid": pid}).encode() + b"\n")
        _, status = os.waitpid(pid, 0)
        os.write(telling, json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")
    return None


def _enter(order: dict[str, Any]) -> None:
    """Become what a new process would be: directory, environment, streams."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, order["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, order["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--at", choices=POINTS | BATCH_POINTS)
    parser.add_argument("--occurrence", type=int, default=1)
    parser.add_argument("--saved", help="a file that grows by one byte for every row reported as saved")
    parser.add_argument("arguments", nargs="*")
    given = parser.parse_args()
    import_everything()
    if not given.serve:
        run(given.arguments, at=given.at, occurrence=given.occurrence, saved=given.saved)
        return
    order = serve()
    if order is not None:
        run(order["arguments"], at=order.get("at"), occurrence=order.get("occurrence", 1), saved=order.get("saved"))


if __name__ == "__main__":
    main()
