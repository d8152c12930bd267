"""What `narrun doctor` makes of a database: where it lies, who may read it, and what each fact means."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from narrun_async.errors import ExitCode
from narrun_async.models import Envelope, ErrorCategory
from narrun_async.operations.diagnosing import SCARCE_BYTES, TOO_SCARCE_BYTES, judge_database, judge_probe
from narrun_async.reporting.diagnosis import Severity, diagnosis_lines, fine, notice, overall_exit_code, wrong
from narrun_async.retrying import CallFailure, FailureClass, timeout_failure
from narrun_async.stores import DatabaseLock, open_sqlite_writer
from narrun_async.stores.mounts import file_system_of, is_network_type
from narrun_async.stores.sqlite.condition import DatabaseCondition, examine_database
from narrun_async.stores.sqlite.migrations import SCHEMA_VERSION

MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
90 27 0:50 / /srv/shared rw,relatime shared:7 master:2 - nfs4 server:/export rw,vers=4.2
91 90 0:51 / /srv/shared/scratch rw - tmpfs tmpfs rw
92 27 0:52 / /media/my\040disk rw - fuse.sshfs host: rw
93 27 0:53 / /over rw - ext4 /dev/sdb rw
94 27 0:54 / /over rw - cifs //server/share rw
a line that means nothing
"""

HEALTHY = DatabaseCondition(
    path=Path("/data/experiments.db"),
    exists=True,
    size_bytes=1_000_000,
    schema_version=1,
    known_schema_version=1,
    open_files={},
    directory_mode=0o700,
    is_writable=True,
    file_system="ext4",
    is_on_network=False,
    sqlite_version=(3, 51, 3),
    holder=None,
    free_bytes=10**12,
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/me/experiments.db", "ext4"),
        ("/srv/shared/experiments.db", "nfs4"),
        ("/srv/sharedness/experiments.db", "ext4"),
        ("/srv/shared/scratch/experiments.db", "tmpfs"),
        ("/media/my disk/experiments.db", "fuse.sshfs"),
        ("/over/experiments.db", "cifs"),
    ],
)
def test_the_deepest_and_topmost_mount_is_the_one_that_counts(path: str, expected: str) -> None:
    assert file_system_of(Path(path), table=MOUNTS) == expected


def test_a_table_that_says_nothing_is_no_answer() -> None:
    assert file_system_of(Path("/data"), table="") is None
    assert file_system_of(Path("/data"), table="1 2 - -\n\n - ext4") is None


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse", "ceph"])
def test_file_systems_of_other_machines_are_known(kind: str) -> None:
    assert is_network_type(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", "apfs"])
def test_local_file_systems_are_not_taken_for_those_of_other_machines(kind: str) -> None:
    assert not is_network_type(kind)


def test_of_a_healthy_database_nothing_is_wrong_and_nothing_notable() -> None:
    assert {one.severity for one in judge_database(HEALTHY)} == {Severity.OK}


@pytest.mark.parametrize(
    ("change", "severity", "words"),
    [
        ({"exists": False, "schema_version": None}, Severity.NOTICE, "does not exist yet"),
        ({"schema_version": None}, Severity.NOTICE, "no tables"),
        ({"schema_version": 0}, Severity.NOTICE, "schema 0 of 1"),
        ({"damage": ("made-up damage",)}, Severity.WRONG, "made-up damage"),
        ({"open_files": {Path("/data/experiments.db-wal"): 0o640}}, Severity.WRONG, "experiments.db-wal has mode 0640"),
        ({"directory_mode": 0o755}, Severity.NOTICE, "mode 0755"),
        ({"is_writable": False}, Severity.WRONG, "cannot be written"),
        ({"file_system": "nfs4", "is_on_network": True}, Severity.WRONG, "network file system (nfs4)"),
        ({"sqlite_version": (3, 51, 2)}, Severity.NOTICE, "SQLite 3.51.2"),
        ({"holder": "process 7"}, Severity.NOTICE, "in use by process 7"),
        ({"free_bytes": SCARCE_BYTES - 1}, Severity.NOTICE, "GB free"),
        ({"free_bytes": TOO_SCARCE_BYTES - 1}, Severity.WRONG, "GB free"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, Mapping) else None,
)
def test_each_fact_has_its_weight_and_its_advice(change: dict[str, object], severity: Severity, words: str) -> None:
    diagnoses = judge_database(replace(HEALTHY, **change))  # type: ignore[arg-type]  # the names are fields

    (found,) = [one for one in diagnoses if one.severity is not Severity.OK]
    assert found.severity is severity
    assert words in found.sentence
    assert found.advice
    assert overall_exit_code(diagnoses) is (ExitCode.STORAGE if severity is Severity.WRONG else ExitCode.COMPLETED)


async def test_a_real_database_is_examined_without_a_change(tmp_path: Path) -> None:
    path = tmp_path / "experiments.db"
    await (await open_sqlite_writer(path)).aclose()
    before = path.read_bytes()

    table = f"27 1 254:0 / / rw - ext4 /dev/root rw\n90 27 0:50 / {tmp_path} rw - nfs server:/export rw\n"
    found = await examine_database(path, mount_table=table)

    assert (found.exists, found.problem, found.damage, found.schema_version) == (True, None, (), SCHEMA_VERSION)
    assert (found.open_files, found.is_writable, found.holder) == ({}, True, None)
    assert (found.file_system, found.is_on_network) == ("nfs", True)
    assert found.free_bytes
    assert path.read_bytes() == before


async def test_the_holder_of_the_lock_is_named(tmp_path: Path) -> None:
    path = tmp_path / "experiments.db"
    with DatabaseLock(path, purpose="a made-up purpose"):
        found = await examine_database(path)

    assert found.holder is not None
    assert "a made-up purpose" in found.holder


async def test_a_newer_a_foreign_an_empty_and_no_database_are_told_apart(tmp_path: Path) -> None:
    problems = {}
    for name, statement in (("newer", "PRAGMA user_version = 99"), ("foreign", "CREATE TABLE other (x)")):
        with closing(sqlite3.connect(tmp_path / name)) as db, db:
            db.execute(statement)
        problems[name] = (await examine_database(tmp_path / name)).problem
    (tmp_path / "empty").touch()
    (tmp_path / "directory").mkdir()
    for name in ("empty", "directory", "missing"):
        problems[name] = (await examine_database(tmp_path / name)).problem

    words = {"newer": "newer narrun", "foreign": "another program", "empty": "empty", "directory": "no file"}
    for name, expected in words.items():
        assert expected in str(problems[name])
    assert problems["missing"] is None
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("failure_class", "http_status", "code"),
    [
        (FailureClass.FATAL, 401, ExitCode.CONFIGURATION),
        (FailureClass.FATAL, None, ExitCode.CONFIGURATION),
        (FailureClass.UNREACHABLE, None, ExitCode.TEMPORARY),
        (FailureClass.OVERLOAD, 503, ExitCode.TEMPORARY),
        (FailureClass.TRANSIENT, 500, ExitCode.TEMPORARY),
        (FailureClass.ANSWER, 200, ExitCode.TEMPORARY),
        (FailureClass.PERMANENT, 400, ExitCode.COMPLETED),
    ],
)
def test_each_kind_of_failed_probe_has_its_exit_code_and_its_advice(
    failure_class: FailureClass, http_status: int | None, code: ExitCode
) -> None:
    failure = CallFailure(
        failure_class=failure_class, category=ErrorCategory.FATAL, message="made up", http_status=http_status
    )
    (found,) = judge_probe(failure, model="m", latency_s=1.0)

    assert found.severity is not Severity.OK
    assert found.exit_code is code
    assert "made up" in found.sentence
    assert found.advice


def test_an_endpoint_that_does_not_answer_in_time_does_not_work() -> None:
    (found,) = judge_probe(timeout_failure(30), model="m", latency_s=30.0)
    assert "no answer within 30 s" in found.sentence


def test_an_answer_by_another_model_is_worth_a_notice() -> None:
    assert len(judge_probe(Envelope(model="m"), model="m", latency_s=0.2)) == 1
    _, found = judge_probe(Envelope(model="other"), model="m", latency_s=0.2)
    assert (found.severity, "other" in found.sentence) == (Severity.NOTICE, True)


def test_the_first_thing_that_is_wrong_gives_the_exit_code_and_every_advice_is_shown() -> None:
    diagnoses = [
        fine("database", "good"),
        notice("database", "odd", "look"),
        wrong("configuration", "bad", "mend it", exit_code=ExitCode.CONFIGURATION),
        wrong("endpoint", "down", exit_code=ExitCode.TEMPORARY),
    ]

    assert overall_exit_code(diagnoses) is ExitCode.CONFIGURATION
    assert diagnosis_lines(diagnoses) == [
        "database       ok      good",
        "database       notice  odd",
        "                       → look",
        "configuration  WRONG   bad",
        "                       → mend it",
        "endpoint       WRONG   down",
        "",
        "2 things are wrong; 1 notice",
    ]
    assert diagnosis_lines(diagnoses[:1])[-1] == "nothing is wrong; 0 notices"
