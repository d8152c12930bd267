"""Killed at exactly this place: everything that was said to be saved is there, and the next start makes it whole."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from crash_points import POINTS
from harness import (
    NARRUN,
    Endpoint,
    Key,
    Row,
    Workplace,
    clean_environment,
    digest_of_results,
    running_endpoint,
    wait_until,
)
from reliability import Measured
from warm import WarmProgram, warm_program

pytestmark = pytest.mark.crash

NARRATIVES = 24
#: kills in the quick tier
QUICK_CASES = 8
#: refusals become error rows, a 500 is retried
ENDPOINT = ("--latency-ms", "3", "--seed", "5", "--fault", "refusal=0.15", "--fault", "http_500=0.1")
KILLED = -9
#: how many of each one thread of such a run makes, about; strace counts a thread at a time
SYSTEM_CALLS = {"pwrite64": 90, "fdatasync": 12, "sendto": 40, "unlink": 6, "rename": 3}
COMPLETED_WITH_ERRORS = 1

#: points that a new run does not come by
ELSEWHERE = {
    "migration: before the backup": "migrate",
    "migration: backup copied": "migrate",
    "migration: a column added": "migrate",
    "migration: a key added": "migrate",
    "experiment found again": "resume",
    "before a small file is replaced": "resume",
    "an invariant checked": "verify",
}
#: the same places in other commands, or a later time in a run: name, command, occurrence
FURTHER: tuple[tuple[str, str, int], ...] = (
    ("schema: a table made", "migrate", 2),
    ("schema: before its version is noted", "migrate", 1),
    ("before COMMIT", "migrate", 1),
    ("after COMMIT", "migrate", 1),
    ("narratives: in mid-insert", "ingest", 1),
    ("before COMMIT", "ingest", 2),
    ("after COMMIT", "ingest", 2),
    ("before BEGIN", "run", 5),
    ("after BEGIN", "run", 6),
    ("before COMMIT", "run", 5),
    ("before COMMIT", "run", 7),
    ("after COMMIT", "run", 6),
    ("rows: in mid-insert", "run", 3),
    ("request about to be sent", "run", 11),
    ("answer received", "run", 20),
    ("outcome queued", "run", 17),
    ("export: a file has its name", "run", 2),
    ("slot taken", "resume", 2),
    ("rows: in mid-insert", "retry", 1),
    ("rows: inserted", "retry", 1),
    ("before COMMIT", "retry", 2),
    ("after COMMIT", "retry", 2),
    ("after the summary", "retry", 1),
    ("export: file begun", "export", 1),
    ("export: a row written", "export", 9),
    ("export: before a file takes its name", "export", 2),
    ("export: a file has its name", "export", 1),
    ("summary counted", "show", 1),
)
CASES = [*((name, ELSEWHERE.get(name, "run"), 1) for name in POINTS), *FURTHER]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """What all cases share."""

    program: WarmProgram
    endpoint: Endpoint
    #: directories to begin in, by command; each holds a database, or nothing but the table
    prepared: dict[str, Path]
    #: the results of a run that nobody disturbed
    digest: str
    digest_without_errors: str


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    base = tmp_path_factory.mktemp("prepared")
    with running_endpoint(base / "endpoint", *ENDPOINT) as endpoint, warm_program() as program:
        empty = Workplace(directory=base / "empty")
        empty.directory.mkdir()
        table = empty.write_narratives(NARRATIVES)
        empty.write_config(url=endpoint.url, narratives=Path(table.name), run__concurrency=4, run__save_csv_json=True)

        done = Workplace(directory=base / "done")
        shutil.copytree(empty.directory, done.directory)
        program.run(done, "run", "crash.yaml").expect(COMPLETED_WITH_ERRORS)
        digest = digest_of_results(done.rows())
        shutil.rmtree(done.directory / "exports")

        half = Workplace(directory=base / "half")
        shutil.copytree(empty.directory, half.directory)
        program.run(half, "run", "crash.yaml", at="after a batch", occurrence=2).expect(KILLED)

        legacy = Workplace(directory=base / "legacy")
        shutil.copytree(done.directory, legacy.directory)
        make_legacy(legacy.database)

        retried = Workplace(directory=base / "retried")
        copy_with_logs(done.directory, retried)
        endpoint.change(fault_rates={})
        program.run(retried, "resume", done.experiment_id(), "--retry-errors-only").expect(0)
        yield Stage(
            program=program,
            endpoint=endpoint,
            prepared={
                "run": empty.directory,
                "ingest": empty.directory,
                "resume": half.directory,
                "retry": done.directory,
                "export": done.directory,
                "show": done.directory,
                "verify": done.directory,
                "migrate": legacy.directory,
            },
            digest=digest,
            digest_without_errors=digest_of_results(retried.rows()),
        )


def make_legacy(database: Path) -> None:
    """The file as the predecessor would have left it: none of our tables, columns or keys, no version."""
    with closing(sqlite3.connect(database)) as db:
        ours = {
            "narrative_results": (
                "error_category attempt_count first_error_message last_attempt_at finish_reason response_model "
                "system_fingerprint parse_method cached_tokens reasoning_tokens run_id"
            ),
            "source_narratives": "text_sha256",
        }
        indexes = db.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL").fetchall()
        for (name,) in indexes:
            db.execute(f"DROP INDEX {name}")
        for table, columns in ours.items():
            for column in columns.split():
                db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        known = {"source_narratives", "experiments", "narrative_results", "sqlite_sequence"}
        tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        for (name,) in tables:
            if name not in known:
                db.execute(f"DROP TABLE {name}")
        db.execute("PRAGMA user_version = 0")
        db.commit()
        db.execute("VACUUM")


def prepare(stage: Stage, command: str, directory: Path) -> Workplace:
    workplace = Workplace(directory=directory / "work")
    copy_with_logs(stage.prepared[command], workplace)
    stage.endpoint.change(fault_rates={} if command == "retry" else {"refusal": 0.15, "http_500": 0.1})
    return workplace


def copy_with_logs(source: Path, workplace: Workplace) -> None:
    """Logs, and the journal among them, go on in the copy."""
    shutil.copytree(source, workplace.directory)
    if workplace.database.exists():
        with closing(sqlite3.connect(workplace.database)) as db, db:
            db.execute(
                "UPDATE experiments SET log_dir = replace(log_dir, ?, ?)", (str(source), str(workplace.directory))
            )


def arguments(workplace: Workplace, command: str) -> Sequence[str]:
    if command == "run":
        known = workplace.ask("SELECT experiment_id FROM experiments") if has_tables(workplace) else []
        return ("resume", known[0]["experiment_id"], "--config", "crash.yaml") if known else ("run", "crash.yaml")
    if command == "ingest":
        return ("ingest", "narratives.csv")
    if command == "migrate":
        return ("migrate",)
    if command == "show":
        return ("show", workplace.experiment_id())
    if command == "verify":
        return ("verify",)
    if command == "export":
        return ("export", workplace.experiment_id(), "--format", "csv", "--format", "json")
    return ("resume", workplace.experiment_id(), *(["--retry-errors-only"] if command == "retry" else []))


def has_tables(workplace: Workplace) -> bool:
    return workplace.database.exists()


def logs_of(workplace: Workplace) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (workplace.directory / "logs").rglob("*.log")}


def rows_of(workplace: Workplace) -> dict[Key, Row]:
    return workplace.rows() if has_tables(workplace) else {}


def verify(stage: Stage, workplace: Workplace) -> None:
    """`narrun verify` in another process, as a person would."""
    document = json.loads(stage.program.run(workplace, "verify", "--json").expect(0).out)
    assert [one["id"] for one in document["invariants"] if not one["holds"]] == []


def assert_successes_untouched(before: dict[Key, Row], after: dict[Key, Row]) -> None:
    """I9; a migration may give a row more columns."""
    for key, row in before.items():
        if not row["error_occurred"]:
            assert key in after, "a success is gone"
            assert {name: after[key][name] for name in row} == row, "a success has changed"


def assert_exports_are_whole(workplace: Workplace) -> None:
    for path in (workplace.directory / "exports").glob("[!.]*"):
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            if path.stem.endswith(".codebook"):
                assert rows and all(row["position"] == str(place) and row["type"] for place, row in enumerate(rows, 1))
            else:
                assert len(rows) == NARRATIVES
        else:
            assert len(json.loads(path.read_text(encoding="utf-8"))["results"]) == NARRATIVES


def crash_and_recover(stage: Stage, name: str, command: str, occurrence: int, directory: Path) -> None:
    workplace = prepare(stage, command, directory)
    logs, rows = logs_of(workplace), rows_of(workplace)
    saved = workplace.directory / "saved"

    started = arguments(workplace, command)
    stage.program.run(workplace, *started, at=name, occurrence=occurrence, saved=str(saved)).expect(KILLED)

    wait_until(workplace.lock_is_free, what="the lock is free", at_most_s=1)
    rows_now, logs_now = rows_of(workplace), logs_of(workplace)
    n_added = len(rows_now) - len(rows)
    if command == "retry":
        n_added = sum(not rows_now[key]["error_occurred"] for key, row in rows.items() if row["error_occurred"])
    assert n_added >= (saved.stat().st_size if saved.exists() else 0), "a row that was reported as saved is gone"  # I12
    assert_successes_untouched(rows, rows_now)
    assert_logs_grew(logs, logs_now)
    assert_exports_are_whole(workplace)
    if has_tables(workplace) and command != "migrate":
        verify(stage, workplace)

    recover(stage, workplace, command)

    assert_successes_untouched(rows_now, rows_of(workplace))
    assert_logs_grew(logs_now, logs_of(workplace))  # I15
    assert_exports_are_whole(workplace)
    verify(stage, workplace)


def recover(stage: Stage, workplace: Workplace, command: str) -> None:
    """The same command again; then all is as if nothing had happened."""
    again = stage.program.run(workplace, *arguments(workplace, command))
    if command == "ingest":
        again.expect(0)
        assert workplace.ask_one("SELECT COUNT(*) FROM source_narratives") == NARRATIVES
        return
    if command in ("run", "resume"):  # with nothing left to do, error rows are no news
        assert again.code in (0, COMPLETED_WITH_ERRORS), again.err
        assert workplace.experiment()["status"] == "completed"
    else:
        again.expect(0)
    if command == "migrate":
        assert len(list(workplace.database.parent.glob("*.bak"))) >= 1
        assert workplace.ask_one("SELECT COUNT(*) FROM narrative_results") == NARRATIVES
        return
    expected = stage.digest_without_errors if command == "retry" else stage.digest
    assert digest_of_results(workplace.rows()) == expected  # I19


def assert_logs_grew(before: dict[Path, bytes], after: dict[Path, bytes]) -> None:
    for path, old in before.items():
        assert after[path].startswith(old), f"{path.name} was not only appended to"


@pytest.mark.fault("P02")
def test_a_kill_at_any_named_place_loses_nothing_and_the_next_start_makes_it_whole(
    stage: Stage, tmp_path: Path, is_long: bool, measured: Measured
) -> None:
    cases = CASES
    if not is_long:  # another part of them every day; each is a second of work
        day = datetime.date.today().toordinal()
        cases = random.Random(day).sample(CASES, QUICK_CASES)
        print(f"seed {day}: {', '.join(name for name, _, _ in cases)}")
    failures = []
    for number, (name, command, occurrence) in enumerate(cases):
        try:
            crash_and_recover(stage, name, command, occurrence, tmp_path / str(number))
        except AssertionError as error:
            failures.append(f"{command}, {name!r}, time {occurrence}: {str(error)[:1500]}")
        else:
            shutil.rmtree(tmp_path / str(number))
    assert not failures, "\n\n".join(failures)
    n_places = len({name for name, _, _ in cases})
    measured(f"{n_places} places, {len(cases)} kills: every invariant held, every next start ended in the same rows")


def test_every_place_is_one_that_the_program_comes_by() -> None:
    """Each is tried by the long tier; here, that it can be armed at all: a renamed function must not disarm a fuse."""
    script = "import crash_points as c; c.import_everything(); [c.arm(name, 1) for name in c.POINTS | c.LEGACY_POINTS]"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        env=clean_environment(),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert len(POINTS) >= 40


@pytest.mark.fault("P02")
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_kill_at_the_nth_system_call_loses_nothing_and_the_next_start_makes_it_whole(
    stage: Stage, tmp_path: Path, is_long: bool, measured: Measured
) -> None:
    sweep = [("pwrite64", 40), ("fdatasync", 9)]
    if is_long:
        sweep = [(call, n) for call, most in SYSTEM_CALLS.items() for n in range(1, most + 1, 1 + most // 25)]
    n_killed = 0
    for number, (call, n) in enumerate(sweep):
        workplace = prepare(stage, "run", tmp_path / str(number))
        inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
        inject += ["-e", f"inject={call}:signal=KILL:when={n}"]
        with workplace.start_command(*inject, *NARRUN, "run", "crash.yaml") as process:
            n_killed += process.wait().code in (KILLED, 128 + 9)
        wait_until(workplace.lock_is_free, what="the lock is free", at_most_s=1)
        rows, logs = rows_of(workplace), logs_of(workplace)
        if has_tables(workplace):
            verify(stage, workplace)
        recover(stage, workplace, "run")
        assert_successes_untouched(rows, rows_of(workplace))
        assert_logs_grew(logs, logs_of(workplace))
        shutil.rmtree(tmp_path / str(number))
    assert n_killed >= len(sweep) / 2, "too few runs came as far as the call"
    measured(f"{n_killed} kills at the Nth of {', '.join(sorted({call for call, _ in sweep}))}: the same")


# --- kills during ingest ---------------------------------------------------------------------------------------------


@pytest.mark.fault("P02", "W26")
def test_an_ingest_that_is_killed_has_stored_all_of_a_file_or_nothing_of_it(
    stage: Stage, tmp_path: Path, is_long: bool, measured: Measured
) -> None:
    kills, n_rows = (100, 20_000) if is_long else (5, 4_000)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    workplace = Workplace(directory=tmp_path)
    table = workplace.write_narratives(n_rows)
    began = time.monotonic()
    stage.program.run(workplace, "ingest", table, "--db", "whole.db").expect(0)
    takes_s = time.monotonic() - began
    found = {0: 0, n_rows: 0}
    n_in_time = 0
    for _ in range(kills):
        for path in workplace.database.parent.glob("*.db*"):
            path.unlink()
        process = stage.program.start(workplace, "ingest", table)
        time.sleep(rng.uniform(0.1, 1.0) * takes_s)
        n_in_time += process.kill().code == KILLED
        wait_until(workplace.lock_is_free, what="the lock is free", at_most_s=1)
        n_stored = workplace.ask_one("SELECT COUNT(*) FROM source_narratives") if has_tables(workplace) else 0
        assert n_stored in found, f"{n_stored} of {n_rows} rows: a part of a file"
        found[n_stored] += 1
        if has_tables(workplace):
            workplace.require_sound()
    assert n_in_time >= kills // 2
    stage.program.run(workplace, "ingest", table).expect(0)
    assert workplace.ask_one("SELECT COUNT(*) FROM source_narratives") == n_rows
    measured(f"{n_in_time} kills of an ingest of {n_rows}: {found[0]} times nothing stored, {found[n_rows]} times all")
