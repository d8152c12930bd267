"""Owns how exported files come into being: under another name, for the owner only, until all of them are whole."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from narrun_async.errors import StorageError
from narrun_async.logs import make_private_directory

#: less is as good as nothing to a library that writes in large pieces
_LITTLE_BYTES = 1 << 20
#: column → rows whose value a format could not hold
Tally = Counter[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What a format could not hold of a column."""

    format: str
    column: str
    n_rows: int
    #: `cut at 200 bytes`
    what: str

    def __str__(self) -> str:
        rows = f"{self.n_rows:,} row{'' if self.n_rows == 1 else 's'}"
        return f"{self.format}, {self.column}: {self.what} ({rows})"


def remarks_of(format: str, counts: Mapping[str, int], what: str) -> Sequence[Remark]:
    """A remark a column of which there is something to say.

    :param counts: column → rows
    """
    return [Remark(format=format, column=name, n_rows=n, what=what) for name, n in counts.items() if n]


class RowWriter(Protocol):
    """A file that takes the results row by row."""

    def write_row(self, row: Mapping[str, object]) -> None:
        """:raises OSError: the file refuses"""

    def finish(self) -> Sequence[Remark]:
        """Write what is left and close the file, which has not its name yet.

        :raises OSError: the file refuses
        """

    def close(self) -> None:
        """Give back what is open, finished or not. Never fails."""


class Drafts:
    """A directory for the owner only, beside the targets, in which all files of an export are written.

    Whatever is left in it at the end goes; what a killed export left goes with the next one of the experiment.

    :raises StorageError: from every method
    """

    def __init__(self, directory: Path, experiment_id: str) -> None:
        self.directory = directory
        with named(directory):
            _check_name(experiment_id)
            make_private_directory(directory)
            _remove_drafts(directory, experiment_id)
            name = tempfile.mkdtemp(prefix=f".{experiment_id}.", suffix=f".{os.getpid()}.partial", dir=directory)
        self.path = Path(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def target(self, name: str) -> Path:
        """What a draft will be called."""
        return self.directory / name

    def publish(self, names: Sequence[str]) -> None:
        """Put all of them on disk, and only then each in its target's place."""
        for name in names:
            with named(self.target(name)):
                _settle(self.path / name)
        for name in names:
            self._replace_target(name)

    def _replace_target(self, name: str) -> None:
        with named(self.target(name)):
            (self.path / name).replace(self.target(name))


@contextmanager
def named(path: Path) -> Iterator[None]:
    """:raises StorageError: for an OSError, with the path that a person knows"""
    try:
        yield
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT) or (not error.errno and _is_full(path))
        why = os.strerror(errno.ENOSPC) if is_full else error.strerror or type(error).__name__
        raise StorageError(
            f"the export cannot be written: {why}",
            path=path,
            advice="choose another directory or make room, then export again; the results are in the database",
            may_pass=is_full,
        ) from error


def _is_full(path: Path) -> bool:
    """For libraries that do not pass on what the disk said."""
    try:
        return shutil.disk_usage(path if path.is_dir() else path.parent).free < _LITTLE_BYTES
    except OSError:
        return False


class TextFile:
    """A text file in UTF-8 that `csv` and others write to.

    :raises OSError: from every method but `close`
    """

    def __init__(self, path: Path, *, bom: bool = False) -> None:
        # A lone surrogate in a legacy row must not end an export of all the others.
        encoding = "utf-8-sig" if bom else "utf-8"
        self._file = path.open("w", encoding=encoding, errors="replace", newline="")

    def write(self, text: str) -> None:
        self._file.write(text)

    def finish(self) -> None:
        self._file.close()

    def close(self) -> None:
        """What is still in the buffer of a file that was given up has nowhere to go. Never fails."""
        with suppress(OSError):
            self._file.close()


def _settle(path: Path) -> None:
    """On disk, and for its owner only."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fchmod(descriptor, 0o600)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_name(experiment_id: str) -> None:
    """The id comes from a database file, and becomes part of a path."""
    if not re.fullmatch(r"[\w-][\w.-]{0,99}", experiment_id):
        raise OSError(errno.EINVAL, "the experiment's id cannot be part of a file name")


def _remove_drafts(directory: Path, experiment_id: str) -> None:
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
