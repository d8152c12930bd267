"""Writes the results of an experiment into CSV, JSON and XLSX files, row by row and without holding them in memory.

A file takes its name only when it is whole, so a kill at any moment leaves the old one or none. Files are readable by
the owner only. Columns that hold or quote the narrative are left out unless they are asked for.
"""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import anyio

from narrun_async.errors import StorageError
from narrun_async.logs import make_private_directory
from narrun_async.models import Experiment, ExperimentId
from narrun_async.ports import ResultStore
from narrun_async.reporting.spreadsheets import XlsxFile, quote_cell

ExportFormat = Literal["csv", "json", "xlsx"]

#: in the order of the table; R scripts read these names
R_COLUMNS = (
    "result_id",
    "experiment_id",
    "incident_id",
    "narrative_type",
    "row_num",
    "narrative_text",
    "manual_flag_ind",
    "manual_flag",
    "detected",
    "confidence",
    "indicators",
    "rationale",
    "reasoning_steps",
    "raw_response",
    "response_sec",
    "processed_at",
    "error_occurred",
    "error_message",
    "prompt_tokens",
    "completion_tokens",
    "tokens_used",
    "is_true_positive",
    "is_true_negative",
    "is_false_positive",
    "is_false_negative",
)

OUR_COLUMNS = (
    "error_category",
    "attempt_count",
    "first_error_message",
    "last_attempt_at",
    "finish_reason",
    "response_model",
    "system_fingerprint",
    "parse_method",
    "cached_tokens",
    "reasoning_tokens",
    "run_id",
    "skip_reason",
    "copied_from",
)

#: hold the narrative, or quote it: models put short quotations into their indicators
TEXT_COLUMNS = frozenset({"narrative_text", "raw_response", "rationale", "reasoning_steps", "indicators"})

#: the columns of `experiments` that hold the prompts
PROMPT_COLUMNS = frozenset({"system_prompt", "user_template", "config_json"})


async def export_results(
    store: ResultStore,
    experiment: Experiment,
    directory: Path,
    *,
    formats: Sequence[ExportFormat],
    with_text: bool = False,
    excel_safe: bool = False,
) -> list[Path]:
    """Write `<experiment_id>.csv`, `.json` and `.xlsx` into a directory, which is made when missing; safe to repeat.

    All files hold the same rows, for the store is read once. Cancelled or failed, it leaves what was there before.

    CSV: RFC 4180 in UTF-8, NULL is empty, values as stored. JSON: `{"experiment": {…}, "results": […]}`, where
    `indicators` is a list. XLSX: one sheet; texts are strings and never formulas, links or numbers.

    :param excel_safe: put an apostrophe before texts of the CSV that a spreadsheet program would take for a formula
    :returns: the files, in the order of `formats`
    :raises StorageError: a file or the directory cannot be written
    """
    if not formats:
        return []
    columns = [name for name in R_COLUMNS + OUR_COLUMNS if with_text or name not in TEXT_COLUMNS]
    with _named(directory):
        _check_name(experiment.experiment_id)
        make_private_directory(directory)
        _remove_partials(directory, experiment.experiment_id)
    with ExitStack() as stack:
        files: list[_ExportFile] = []
        for wanted in dict.fromkeys(formats):
            target = directory / f"{experiment.experiment_id}.{wanted}"
            if wanted == "xlsx":
                files.append(stack.enter_context(_XlsxFile(target, columns)))
                continue
            whole = stack.enter_context(_WholeFile(target))
            files.append(
                _CsvFile(whole, columns, excel_safe=excel_safe)
                if wanted == "csv"
                else _JsonFile(whole, columns, experiment, with_text=with_text)
            )
        await _write_rows(store, experiment.experiment_id, files)
        for file in files:
            file.finish()
    return [directory / f"{experiment.experiment_id}.{wanted}" for wanted in formats]


async def _write_rows(store: ResultStore, experiment_id: ExperimentId, files: Sequence[_ExportFile]) -> None:
    rows = store.iter_results(experiment_id)
    try:
        async for row in rows:
            for file in files:
                file.write_row(row)
    finally:
        # A generator that is left to the garbage collector would keep its cursor open until then.
        if isinstance(rows, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await rows.aclose()


class _ExportFile(Protocol):
    def write_row(self, row: Mapping[str, object]) -> None: ...

    def finish(self) -> None: ...


class _WholeFile:
    """A text file under a temporary name beside its target, removed unless `publish` was reached.

    :raises StorageError: from every method
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        with _named(target):
            descriptor, name = tempfile.mkstemp(
                prefix=f".{target.name}.", suffix=f".{os.getpid()}.partial", dir=target.parent
            )
            self._path = Path(name)
            # A lone surrogate in a legacy row must not end an export of all the others.
            self._file = os.fdopen(descriptor, "w", encoding="utf-8", errors="replace", newline="")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def write(self, text: str) -> None:
        try:
            self._file.write(text)
        except OSError as error:
            raise _storage_error(self._target, error) from error

    def publish(self) -> None:
        """Put the file on disk, then in its target's place."""
        with _named(self._target):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.replace(self._target)


class _CsvFile:
    """Rows as RFC 4180."""

    def __init__(self, file: _WholeFile, columns: Sequence[str], *, excel_safe: bool) -> None:
        self._file = file
        self._columns = columns
        self._cell: Callable[[object], object] = (lambda value: quote_cell(_plain(value))) if excel_safe else _plain
        self._writer = csv.writer(file, lineterminator="\r\n")
        self._writer.writerow(columns)

    def write_row(self, row: Mapping[str, object]) -> None:
        self._writer.writerow([self._cell(row.get(name)) for name in self._columns])

    def finish(self) -> None:
        self._file.publish()


class _XlsxFile:
    """`XlsxFile`, with its errors turned into ours."""

    def __init__(self, target: Path, columns: Sequence[str]) -> None:
        self._target = target
        with _named(target):
            self._file = XlsxFile(target, columns)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def write_row(self, row: Mapping[str, object]) -> None:
        with _named(self._target):
            self._file.write_row(row)

    def finish(self) -> None:
        with _named(self._target):
            self._file.finish()


class _JsonFile:
    """One object; a result a line, so that line tools can read it, too."""

    def __init__(self, file: _WholeFile, columns: Sequence[str], experiment: Experiment, *, with_text: bool) -> None:
        self._file = file
        self._columns = columns
        self._lead = "\n"
        settings = {
            name: _json_value(value)
            for name, value in experiment.columns.items()
            if with_text or name not in PROMPT_COLUMNS
        }
        file.write(f'{{"experiment": {_dumps(settings)},\n"results": [')

    def write_row(self, row: Mapping[str, object]) -> None:
        values = {name: _json_value(row.get(name)) for name in self._columns}
        if "indicators" in values:
            values["indicators"] = indicator_list(values["indicators"])
        self._file.write(f"{self._lead}{_dumps(values)}")
        self._lead = ",\n"

    def finish(self) -> None:
        self._file.write("\n]}\n")
        self._file.publish()


def indicator_list(stored: object) -> list[object] | None:
    """The stored JSON array as a list; text that is no array, as in some legacy rows, is a list of one."""
    if stored is None or stored == "":
        return None
    try:
        value = json.loads(str(stored))
        _dumps(value)  # refuses NaN and infinities, which no JSON reader would take back
    except (ValueError, RecursionError):
        return [stored]
    if isinstance(value, list):
        return value
    return [value] if value else []


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _json_value(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _plain(value)


def _plain(value: object) -> object:
    """SQLite columns hold whatever was put into them; bytes have no form of their own in CSV or JSON."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _check_name(experiment_id: str) -> None:
    """The id comes from a database file, and becomes part of a path."""
    if not re.fullmatch(r"[\w-][\w.-]{0,99}", experiment_id):
        raise OSError(errno.EINVAL, "the experiment's id cannot be part of a file name")


def _remove_partials(directory: Path, experiment_id: str) -> None:
    """What exports that were killed left behind. One that is being written by a living process stays."""
    for path in directory.glob(f".{experiment_id}.*.partial"):
        pid = path.name.split(".")[-2]
        if pid.isdecimal() and not _is_alive(int(pid)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _storage_error(path, error) from error


def _storage_error(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"the export cannot be written: {error.strerror or type(error).__name__}",
        path=path,
        advice="choose another directory or make room, then export again; the results are in the database",
        may_pass=error.errno in (errno.ENOSPC, errno.EDQUOT),
    )
