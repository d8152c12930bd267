"""The kernel lock that every read-write open of a database takes, and the note that names its holder.

The lock is an advisory `flock` on a file beside the database: the kernel drops it when the holder dies, however it
dies, so there is never a stale lock to remove and no pid to guess about. The note is only for people.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from narrun_async.errors import LockHeldError, StorageError

#: how long taking the lock may wait: `database_is_locked` holds it for an instant, which must not fail a run
LOOK_ALLOWANCE_S = 0.2
#: how often, 20 ms apart, the note of a holder is looked for
LOOKS_FOR_NAME = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """Who holds a database, as noted beside it."""

    pid: int
    host: str
    purpose: str
    #: local time, ISO 8601
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.purpose}, since {self.since})"


class DatabaseLock:
    """Exclusive ownership of one database file, identified by its resolved path.

    :param path: the database; it need not exist yet
    :param purpose: what the holder does, for the note (`run 3f2a…`, `ingest`)
    """

    def __init__(self, path: Path, *, purpose: str) -> None:
        self._path = path
        self._purpose = purpose
        self._note = _beside(path, ".lock.json")
        self._lock = FileLock(_beside(path, ".lock"), mode=0o600)

    def __enter__(self) -> Self:
        """Take the lock now or not at all.

        :raises LockHeldError: another process has it
        :raises StorageError: the directory does not let us create the lock file
        """
        try:
            self._lock.acquire(timeout=LOOK_ALLOWANCE_S, poll_interval=0.02)
        except Timeout:
            raise LockHeldError(self._path, holder=self._wait_for_name()) from None
        except OSError as error:
            raise StorageError(
                f"cannot lock the database: {error.strerror}",
                path=self._path,
                advice="make the database and its directory writable for this user",
            ) from error
        self.note(self._purpose)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._note.unlink(missing_ok=True)
        self._lock.release()

    def _wait_for_name(self) -> str:
        """Who holds it; one that has just taken the lock may not have said so yet (1 of 100 races)."""
        for _ in range(LOOKS_FOR_NAME):
            if read_holder(self._note) is not None:
                break
            time.sleep(0.02)
        return describe_holder(self._path)

    def note(self, purpose: str) -> None:
        """Say what the holder does now; a note that cannot be written is only a poorer message for others."""
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "purpose": purpose,
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        with suppress(OSError):
            descriptor = os.open(self._note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(holder, file)


def read_holder(note: Path) -> LockHolder | None:
    """The note beside a database, or None when there is none or it is being written."""
    try:
        return LockHolder(**json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def find_holder(path: Path) -> LockHolder | None:
    """Whom the note beside a database names; it may be the last holder, killed, where the database is not locked."""
    return read_holder(_beside(path, ".lock.json"))


def describe_holder(path: Path) -> str:
    """The holder of a database in words; never empty."""
    holder = find_holder(path)
    return str(holder) if holder else "another process"


def database_is_locked(path: Path) -> bool:
    """Whether some process works on the database right now. Tries the lock for an instant, writes nothing else."""
    lock_file = _beside(path, ".lock")
    if not lock_file.exists():
        return False
    lock = FileLock(lock_file, mode=0o600)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _beside(path: Path, suffix: str) -> Path:
    """A companion of the database itself, whatever link it was named by."""
    resolved = path.resolve()
    return resolved.with_name(resolved.name + suffix)
