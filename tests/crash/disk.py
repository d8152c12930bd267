"""Brings about faults of a disk for real: a small file system of its own, system calls that fail, what a run wrote.

Everything needs Linux; a machine that does not allow user namespaces, or has no strace, says so and the tests skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest


@cache
def has_strace() -> bool:
    """Whether strace is there and may trace."""
    return shutil.which("strace") is not None and _succeeds("strace", "-o", os.devnull, "true")


@cache
def has_namespaces() -> bool:
    """Whether this user may make a mount namespace of their own."""
    return shutil.which("nsenter") is not None and _succeeds("unshare", "-Urm", "true")


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False


needs_strace = pytest.mark.skipif(not has_strace(), reason="no strace, or it may not trace")
needs_namespaces = pytest.mark.skipif(not has_namespaces(), reason="no user namespaces for this user")


# --- system calls that fail ------------------------------------------------------------------------------------------


def strace(record: Path, *options: str, database: Path | None = None) -> tuple[str, ...]:
    """What to put before a command, so that its calls on the database and its -wal are recorded and tampered with."""
    paths: list[str] = []
    for path in () if database is None else (database, database.with_name(database.name + "-wal")):
        paths += ["-P", str(path)]
    return ("strace", "-f", "-qq", "--seccomp-bpf", "-o", str(record), *paths, *options)


# --- a small disk ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallDisk:
    """A tmpfs that only processes in its mount namespace see at `mount_point`; the tests reach it through /proc."""

    pid: int
    mount_point: Path

    @property
    def seen_from_outside(self) -> Path:
        return Path(f"/proc/{self.pid}/root{self.mount_point}")

    @property
    def ballast(self) -> Path:
        return self.seen_from_outside / "ballast"

    def enter(self, directory: Path) -> tuple[str, ...]:
        """What to put before a command that is to see the disk.

        :param directory: where it works; entering the namespace forgets that
        """
        change = ("sh", "-c", 'cd "$0" && exec "$@"', str(directory))
        return ("nsenter", "--preserve-credentials", "-U", "-m", "-t", str(self.pid), *change)

    def fill(self) -> None:
        """Until not one more page fits."""
        with self.ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def free(self) -> None:
        self.ballast.unlink()


@contextmanager
def small_disk(mount_point: Path, *, size: str) -> Iterator[SmallDisk]:
    mount_point.mkdir(parents=True, exist_ok=True)
    script = f'mount -t tmpfs -o size={size},mode=0700 tests "{mount_point}" && echo ready && exec sleep 600'
    keeper = subprocess.Popen(["unshare", "-Urm", "sh", "-c", script], stdout=subprocess.PIPE)
    try:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"ready\n"
        yield SmallDisk(pid=keeper.pid, mount_point=mount_point)
    finally:
        keeper.kill()
        keeper.wait()
        assert keeper.stdout is not None
        keeper.stdout.close()


# --- what a run says -------------------------------------------------------------------------------------------------


def log_lines(directory: Path, name: str) -> list[str]:
    """The lines of a log file of the only experiment below a working directory; none while there is no file."""
    lines: list[str] = []
    for path in (directory / "logs").glob(f"experiments/*/{name}"):
        lines += path.read_text(encoding="utf-8").splitlines()
    return lines


def acknowledged(directory: Path) -> int:
    """How many results the journal of the only experiment calls committed."""
    return max((results_in(line) for line in log_lines(directory, "journal")), default=0)


def results_in(line: str) -> int:
    words = line.replace(",", "").split()
    return int(words[words.index("results") - 1])


def joined(*parts: Sequence[str]) -> list[str]:
    return [word for part in parts for word in part]


# --- rights ----------------------------------------------------------------------------------------------------------


def without_rights() -> tuple[str, ...]:
    """What to put before a command that file modes are to bind, also where root runs the tests."""
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


@cache
def can_drop_rights() -> bool:
    return os.geteuid() != 0 or _succeeds(*without_rights(), "true")
