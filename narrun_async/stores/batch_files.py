"""Owns the files of batches: where they lie, written whole and for their owner only, read line by line.

They hold narratives, prompts and answers. Their directory is beside the log files of the experiment, and every name in
it is one of those that are given here, so that `purge` knows them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from narrun_async.errors import StorageError
from narrun_async.logs import make_private_directory
from narrun_async.stores.removal import BATCH_NAMES, sync_directory

_REQUESTS = re.compile(r"\.?batch-(?P<number>\d{4,6})\.jsonl(?:\.\d{1,10})?")
_CHUNK_BYTES = 1 << 20
_ADVICE = "make room, or make the directory writable, and run the same command again"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFiles:
    """The files of one batch within a directory."""

    directory: Path
    number: int

    @property
    def requests(self) -> Path:
        return self.directory / f"batch-{self.number:04}.jsonl"

    @property
    def output(self) -> Path:
        return self.directory / f"batch-{self.number:04}.output.jsonl"

    @property
    def errors(self) -> Path:
        return self.directory / f"batch-{self.number:04}.errors.jsonl"


class WholeFile:
    """A new file under a temporary name, which it loses when it is whole; removed unless `publish` was reached.

    :raises StorageError: from every method
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._digest = hashlib.sha256()
        self.n_bytes = 0
        self._path = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            make_private_directory(target.parent)
            self._file = os.fdopen(
                os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb", _CHUNK_BYTES
            )
        except OSError as error:
            raise self._problem(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is not published. Safe to repeat."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        """Of what was written so far, as hex."""
        return self._digest.hexdigest()

    def write(self, content: bytes) -> None:
        try:
            self._file.write(content)
        except OSError as error:
            raise self._problem(error) from error
        self._digest.update(content)
        self.n_bytes += len(content)

    def publish(self) -> None:
        """Wait until the file is on disk, then put it in its target's place."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.replace(self._target)
        except OSError as error:
            raise self._problem(error) from error
        sync_directory(self._target.parent)

    def _problem(self, error: OSError) -> StorageError:
        return StorageError(f"cannot be written: {error.strerror}", path=self._target, advice=_ADVICE)


def require_unchanged(path: Path, *, sha256: str) -> None:
    """:raises StorageError: the file is gone, or is not the one that was exported"""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise StorageError(
            f"the batch file cannot be read: {error.strerror}",
            path=path,
            advice="put it back; or cancel the batch (`narrun batch cancel`) and export again",
        ) from error
    if digest.hexdigest() != sha256:
        raise StorageError(
            "the batch file is not what was exported",
            path=path,
            advice="put the right one back; or cancel the batch (`narrun batch cancel`) and export again",
        )


def iter_lines(path: Path, *, max_bytes: int) -> Iterator[bytes | None]:
    """Every line that is not blank, without its end; None in the place of one that is longer than allowed.

    :raises StorageError: the file cannot be read
    """
    try:
        with path.open("rb", _CHUNK_BYTES) as file:
            while line := file.readline(max_bytes + 1):
                if len(line) > max_bytes and not line.endswith(b"\n"):
                    while (rest := file.readline(_CHUNK_BYTES)) and not rest.endswith(b"\n"):
                        pass
                    yield None
                elif stripped := line.strip():
                    yield stripped
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror}", path=path, advice="name a file that can") from error


def remove_leftovers(directory: Path, *, known_numbers: Collection[int]) -> None:
    """Remove requests that an export which was killed has left behind: no batch knows of them.

    To be called under the lock: nobody else writes such files then. Answers are left alone; they may be paid for.
    """
    for path in directory.iterdir() if directory.is_dir() else ():
        found = _REQUESTS.fullmatch(path.name)
        if found is not None and (path.name.startswith(".") or int(found["number"]) not in known_numbers):
            with suppress(OSError):
                path.unlink()


def find_batch_files(directory: Path, number: int) -> list[Path]:
    """Every file of a batch that is there, unfinished ones included."""
    prefix = f"batch-{number:04}."
    found = directory.iterdir() if directory.is_dir() else ()
    return sorted(
        path for path in found if BATCH_NAMES.fullmatch(path.name) and path.name.lstrip(".").startswith(prefix)
    )
