"""Finds the files that belong to a database and destroys them one by one; never a directory with what is in it.

A file is ours where its name is one that this program gives, in a place where this program puts it, and it is a plain
file of this user. Links are never followed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from narrun_async.errors import StorageError
from narrun_async.models import FoundFiles, LeftAlone, RemovedFile

#: beside the database, in the order in which they may go: the database itself is in between, and the lock is last
_BEFORE = ("-wal", "-shm", "-journal", ".new", ".new-wal", ".new-shm", ".new-journal")
_AFTER = (".lock.json",)
LOCK_SUFFIX = ".lock"
#: the name under which a database is destroyed: where one is found, an earlier purge was cut short
DOOMED_SUFFIX = ".purging"
#: what a run leaves in the log directory of its experiment
_LOG_NAMES = re.compile(r"journal|[\w-]{1,40}\.(log|json|jsonl|ndjson)|\.[\w-]{1,40}\.json\.\d{1,10}")
#: the directory of batch files within it, and every name of a file there, those of unfinished ones, too
BATCHES_DIRECTORY = "batches"
_BATCH_NAME = r"batch-\d{4,6}(?:\.output|\.errors)?\.jsonl"
BATCH_NAMES = re.compile(rf"{_BATCH_NAME}|\.{_BATCH_NAME}\.\d{{1,10}}")
_CHUNK_BYTES = 1 << 20


def find_files(database: Path, log_dirs: Sequence[tuple[str, str]]) -> FoundFiles:
    """What belongs to a database that was recognised as one of ours.

    :param database: no link
    :param log_dirs: experiment id, log directory as it was recorded
    """
    files: list[Path] = []
    directories: list[Path] = []
    left: list[LeftAlone] = []
    for experiment_id, log_dir in log_dirs:
        _find_logs(Path(log_dir), experiment_id, files, directories, left)
    beside = [*_BEFORE, "", DOOMED_SUFFIX, *_AFTER, LOCK_SUFFIX]
    for path in (database.with_name(database.name + suffix) for suffix in beside):
        _sort_in(path, files, left)
    return FoundFiles(files=files, directories=directories, left=left)


def _find_logs(
    directory: Path, experiment_id: str, files: list[Path], directories: list[Path], left: list[LeftAlone]
) -> None:
    if not directory.is_absolute() or directory.name != experiment_id or not experiment_id:
        left.append(LeftAlone(path=str(directory), why="not a log directory by its name"))
        return
    if directory.is_symlink():
        left.append(LeftAlone(path=str(directory), why="a link"))
        return
    if not directory.is_dir():
        return
    batches = directory / BATCHES_DIRECTORY
    if batches.is_dir() and not batches.is_symlink():
        _find_named(batches, BATCH_NAMES, files, left)
        directories.append(batches)
    _find_named(directory, _LOG_NAMES, files, left, apart_from=directories)
    directories.append(directory)


def _find_named(
    directory: Path,
    names: re.Pattern[str],
    files: list[Path],
    left: list[LeftAlone],
    *,
    apart_from: Sequence[Path] = (),
) -> None:
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        left.append(LeftAlone(path=str(directory), why=error.strerror or "it cannot be read"))
        return
    for path in entries:
        if path in apart_from:
            continue
        if names.fullmatch(path.name):
            _sort_in(path, files, left)
        else:
            left.append(LeftAlone(path=str(path), why="not a file of ours by its name"))


def _sort_in(path: Path, files: list[Path], left: list[LeftAlone]) -> None:
    try:
        found = path.lstat()
    except OSError:
        return
    if (why := _why_not(found)) is None:
        files.append(path)
    else:
        left.append(LeftAlone(path=str(path), why=why))


def _why_not(found: os.stat_result) -> str | None:
    if stat.S_ISLNK(found.st_mode):
        return "a link"
    if not stat.S_ISREG(found.st_mode):
        return "no plain file"
    return None if found.st_uid == os.geteuid() else "it belongs to another user"


def overwrite_and_remove(path: Path) -> RemovedFile:
    """Overwrite a file once with random bytes, wait until they are on the medium, and remove its name.

    A file with other names is not overwritten: what they lead to may be somebody's copy.

    :raises StorageError: it is none of ours any more, or the disk refuses
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if (why := _why_not(found)) is not None:
                raise StorageError(f"cannot be removed: {why}", path=path)
            digest = _digest(descriptor)
            is_only_name = found.st_nlink == 1
            if is_only_name:
                _overwrite(descriptor, found.st_size)
        finally:
            os.close(descriptor)
        path.unlink()
        sync_directory(path.parent)
    except OSError as error:
        raise StorageError(
            f"cannot be removed: {error.strerror}", path=path, advice="see to it, then purge again; the rest goes then"
        ) from error
    return RemovedFile(path=str(path), size_bytes=found.st_size, sha256=digest, is_overwritten=is_only_name)


def remove_if_empty(directory: Path) -> bool:
    """Whether it is gone."""
    try:
        directory.rmdir()
    except OSError:
        return False
    return True


def doom(database: Path) -> Path:
    """Rename a database to the name under which it is destroyed, so that a purge that is cut short can be repeated.

    :raises StorageError: the directory refuses
    """
    doomed = database.with_name(database.name + DOOMED_SUFFIX)
    try:
        database.rename(doomed)
    except OSError as error:
        raise StorageError(f"cannot be renamed: {error.strerror}", path=database) from error
    sync_directory(database.parent)
    return doomed


def sync_directory(directory: Path) -> None:
    """Wait until names that were changed are on the medium, where the file system can do that."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _digest(descriptor: int) -> str:
    digest = hashlib.sha256()
    while chunk := os.read(descriptor, _CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _overwrite(descriptor: int, size_bytes: int) -> None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    left = size_bytes
    while left > 0:
        # Random, because a file system that compresses would store zeros elsewhere, as a hole.
        left -= os.write(descriptor, os.urandom(min(left, _CHUNK_BYTES)))
    os.fsync(descriptor)
