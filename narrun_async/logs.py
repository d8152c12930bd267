"""Log files of an experiment: opened for appending, readable by the owner only, without any narrative text.

`run.log` (logger `narrun.run`): what happened to the run: plan, waiting and going on, drain, end.
`errors.log` (`narrun.errors`): every failed call and every error row: narrative_id, category, one sentence.
`performance.log` (`narrun.performance`): a line of progress every ten seconds.
`journal` (`narrun.journal`): a line a commit, at every level: how many results the database holds (`progress.commits`).

A line is `<UTC, ISO 8601> <LEVEL> <message>` and is written by one system call, so a kill leaves whole lines. Where no
logs are open, the loggers are silent. Logging never fails its caller: a file that cannot be written costs one warning
on stderr, and the run goes on; later lines are tried again, for a full disk may be freed.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

RUN_LOG = logging.getLogger("narrun.run")
ERROR_LOG = logging.getLogger("narrun.errors")
PERFORMANCE_LOG = logging.getLogger("narrun.performance")
COMMIT_JOURNAL = logging.getLogger("narrun.journal")

_FILES = {
    "run.log": RUN_LOG,
    "errors.log": ERROR_LOG,
    "performance.log": PERFORMANCE_LOG,
    "journal": COMMIT_JOURNAL,
}

for _logger in _FILES.values():
    _logger.propagate = False
    # Without a handler, `logging` prints warnings on stderr, in the middle of the progress line.
    _logger.addHandler(logging.NullHandler())

# At DEBUG it logs every statement with its parameters, narratives among them, into whatever log a host program opens.
logging.getLogger("aiosqlite").setLevel(logging.WARNING)


def open_experiment_logs(log_dir: Path, *, level: str) -> ExperimentLogs:
    """Logs that are open inside `with`; what the files hold already stays.

    :param level: least severe level that is written: debug, info, warning, error
    :raises ValueError: no such level
    """
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise ValueError(f"no log level is called {level!r}")
    return ExperimentLogs(log_dir, level=levels[level.upper()])


class ExperimentLogs:
    """The files of one experiment, attached to their loggers while the context lasts."""

    def __init__(self, log_dir: Path, *, level: int) -> None:
        self._log_dir = log_dir
        self._level = level
        self._handlers: list[tuple[logging.Logger, _PrivateFile]] = []
        self._has_warned = False

    def __enter__(self) -> Self:
        for name, logger in _FILES.items():
            path = self._log_dir / name
            try:
                make_private_directory(self._log_dir)
                handler = _PrivateFile(path, self._warn)
            except OSError as error:
                self._warn(path, error)
                continue
            logger.addHandler(handler)
            # The journal is no matter of taste: a resume reads it.
            logger.setLevel(logging.INFO if logger is COMMIT_JOURNAL else self._level)
            self._handlers.append((logger, handler))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handlers:
            logger, handler = self._handlers.pop()
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
            handler.close()

    def _warn(self, path: Path, error: BaseException) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        why = error.strerror if isinstance(error, OSError) else type(error).__name__
        # The terminal may be gone, too; there is nobody left to tell then.
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"warning: {path} cannot be written ({why}); the run goes on, its rows are not affected\n")
            sys.stderr.flush()


def make_private_directory(path: Path) -> None:
    """A directory for its owner only, and likewise every missing one above it; one that exists stays as it is.

    :raises OSError: it cannot be made, or is no directory
    """
    missing = [path, *path.parents]
    missing = missing[: next((depth for depth, directory in enumerate(missing) if directory.is_dir()), len(missing))]
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)


def can_hold_files(directory: Path) -> bool:
    """Whether files can be written there: it is a directory of ours to write in, or can be made."""
    nearest = next(above for above in (directory, *directory.parents) if os.path.lexists(above))
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def require_regular_file(path: Path) -> None:
    """A file may take the place of a file, never of a directory or a device.

    :raises OSError: it would, or nobody can tell
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "this is no regular file")


def replace_private_file(path: Path, text: str) -> None:
    """Put a whole file, readable by its owner only, in the place of another; a kill leaves the old one or the new one.

    :raises OSError: it cannot be written; the old one stays
    """
    require_regular_file(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


class _PrivateFile(logging.Handler):
    """Appends lines to one file without a buffer, so that nothing is held back when the disk is full or we are killed.

    :raises OSError: the file cannot be opened
    """

    def __init__(self, path: Path, warn: Callable[[Path, BaseException], None]) -> None:
        super().__init__()
        self._path = path
        self._warn = warn
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        found = os.fstat(self._descriptor)
        self._ends_in_mid_line = False
        if stat.S_ISREG(found.st_mode):
            with suppress(PermissionError):
                os.fchmod(self._descriptor, 0o600)
            self._ends_in_mid_line = found.st_size > 0 and os.pread(self._descriptor, 1, found.st_size - 1) != b"\n"

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(f"{_format(record)}\n".encode())
        except Exception:  # the convention of `logging`: whatever is wrong with a line must not reach whoever logs
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is that of `logging`
        error = sys.exc_info()[1]
        if error is not None:
            self._warn(self._path, error)

    def close(self) -> None:
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
        super().close()

    def _write(self, line: bytes) -> None:
        if self._ends_in_mid_line:
            line = b"\n" + line
        written = os.write(self._descriptor, line)
        self._ends_in_mid_line = written < len(line)
        if self._ends_in_mid_line:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _format(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    message = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        message += f" [{_place(error)}]"
    # One event, one line: a message can neither forge a second line nor write on the terminal of whoever reads it.
    message = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in message)
    return f"{moment} {record.levelname} {message}"


def _place(error: BaseException) -> str:
    """What was raised and where. Its sentence is left out: other people's exceptions may quote their input."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " > ".join([*places[-8:], type(error).__name__])
