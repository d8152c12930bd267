"""Promises of the database lock, with real processes: one holder, named to all others, and never a stale lock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from reliability import Measured

from narrun_async.errors import ExitCode, LockHeldError, StorageError
from narrun_async.stores.locking import DatabaseLock, database_is_locked, read_holder

_HOLD = """
import sys, time
from pathlib import Path
from narrun_async.stores.locking import DatabaseLock
with DatabaseLock(Path(sys.argv[1]), purpose="run made-up"):
    print("held", flush=True)
    sys.stdin.read()
"""

Holder = subprocess.Popen[str]


@pytest.fixture
def hold() -> Iterator[Callable[[Path], Holder]]:
    """Starts a process that holds the lock until its input is closed."""
    started = list[Holder]()

    def start(path: Path) -> Holder:
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def release(process: Holder) -> None:
    process.communicate("")
    assert process.returncode == 0


def test_the_second_one_is_refused_and_told_who_holds_it(tmp_path: Path, hold: Callable[[Path], Holder]) -> None:
    path = tmp_path / "experiments.db"
    holder = hold(path)
    with pytest.raises(LockHeldError) as refused:
        DatabaseLock(path, purpose="ingest").__enter__()
    assert refused.value.exit_code is ExitCode.TEMPORARY
    assert f"process {holder.pid} " in str(refused.value)
    assert "run made-up" in str(refused.value)
    assert database_is_locked(path)
    release(holder)
    assert not database_is_locked(path)
    with DatabaseLock(path, purpose="ingest"):
        pass


def test_another_name_of_the_same_file_is_the_same_lock(tmp_path: Path, hold: Callable[[Path], Holder]) -> None:
    path, other_name = tmp_path / "experiments.db", tmp_path / "link.db"
    path.touch()
    other_name.symlink_to(path)
    holder = hold(path)
    with pytest.raises(LockHeldError, match=str(holder.pid)):
        DatabaseLock(other_name, purpose="run").__enter__()
    assert database_is_locked(other_name)


def test_other_databases_in_the_directory_are_free(tmp_path: Path, hold: Callable[[Path], Holder]) -> None:
    hold(tmp_path / "a.db")
    assert not database_is_locked(tmp_path / "b.db")
    with DatabaseLock(tmp_path / "b.db", purpose="run"):
        pass


@pytest.mark.fault("L03")
def test_the_lock_of_a_killed_process_is_free_within_a_second(
    tmp_path: Path, hold: Callable[[Path], Holder], measured: Measured
) -> None:
    path = tmp_path / "experiments.db"
    holder = hold(path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    killed_s = time.monotonic()
    with DatabaseLock(path, purpose="run"):
        free_after_s = time.monotonic() - killed_s
        assert free_after_s < 1.0
        measured(f"free {1000 * free_after_s:.0f} ms after SIGKILL")
        noted = read_holder(tmp_path / "experiments.db.lock.json")
        assert noted is not None
        assert noted.pid == os.getpid()


@pytest.mark.fault("L03")
def test_a_note_that_names_a_living_process_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "experiments.db"
    (tmp_path / "experiments.db.lock").touch()
    note = {"pid": os.getppid(), "host": "localhost", "purpose": "run", "since": "2026-01-01T00:00:00+00:00"}
    (tmp_path / "experiments.db.lock.json").write_text(json.dumps(note))
    assert not database_is_locked(path)
    with DatabaseLock(path, purpose="run"):
        pass


@pytest.mark.parametrize("note", ["", "{", "[]", '{"pid": 1}', '{"other": 1}', "\x00"])
def test_a_note_that_cannot_be_read_still_gives_a_sentence(
    tmp_path: Path, hold: Callable[[Path], Holder], note: str
) -> None:
    path = tmp_path / "experiments.db"
    hold(path)
    (tmp_path / "experiments.db.lock.json").write_text(note)
    with pytest.raises(LockHeldError, match="in use by another process"):
        DatabaseLock(path, purpose="run").__enter__()


def test_to_look_does_not_disturb_whoever_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "experiments.db"
    looking = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\nfrom pathlib import Path\nfrom narrun_async.stores.locking import database_is_locked\n"
            "print('looking', flush=True)\nwhile True: database_is_locked(Path(sys.argv[1]))",
            str(path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert looking.stdout is not None
        assert looking.stdout.readline() == "looking\n"
        for _ in range(100):
            with DatabaseLock(path, purpose="run"):
                pass
    finally:
        looking.kill()
        looking.communicate()


def test_the_note_goes_with_the_lock_and_the_files_are_private(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with DatabaseLock(tmp_path / "a.db", purpose="run") as lock:
            lock.note("resume made-up")
            noted = read_holder(tmp_path / "a.db.lock.json")
            assert noted is not None
            assert noted.purpose == "resume made-up"
            assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    finally:
        os.umask(umask)
    assert not (tmp_path / "a.db.lock.json").exists()


def test_a_directory_that_is_none_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot lock"):
        DatabaseLock(tmp_path / "file" / "a.db", purpose="run").__enter__()


def test_of_many_that_start_together_exactly_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "experiments.db"
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom narrun_async.stores.locking import DatabaseLock\n"
        "from narrun_async.errors import LockHeldError\n"
        "sys.stdin.readline()\n"
        "lock = DatabaseLock(Path(sys.argv[1]), purpose='race')\ntry:\n    lock.__enter__()\n"
        "except LockHeldError:\n    print('refused', flush=True)\n"
        "else:\n    print('won', flush=True); sys.stdin.read()\n"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    try:
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        said = [racer.stdout.readline().strip() for racer in racers if racer.stdout is not None]
        assert sorted(said) == ["refused", "refused", "refused", "won"]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
