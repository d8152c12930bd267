"""The database is not the one that the run wrote: deleted, moved, replaced, put back from a copy, without its -wal."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from conftest import StartEndpoint
from disk import acknowledged, log_lines, results_in
from harness import Endpoint, Row, Workplace
from reliability import Measured

pytestmark = [pytest.mark.crash, pytest.mark.slow]

CONCURRENCY = 4
#: C, the outcome queue, one batch of the writer
HELD = CONCURRENCY + 16 + 64
SEED = 20240613


def prepare(workplace: Workplace, start_endpoint: StartEndpoint, count: int) -> tuple[Endpoint, Path]:
    endpoint = start_endpoint("--latency-ms", "10")
    narratives = workplace.write_narratives(count)
    return endpoint, workplace.write_config(url=endpoint.url, narratives=narratives, run__concurrency=CONCURRENCY)


def contents(workplace: Workplace) -> list[list[Row]]:
    return [
        workplace.ask(f"SELECT * FROM {table}") for table in ("experiments", "runs", "narrative_results", "attempts")
    ]


def copy_to(workplace: Workplace, target: Path) -> None:
    """A consistent copy, beside whoever writes."""
    with closing(sqlite3.connect(f"file:{workplace.database}?mode=ro", uri=True)) as db:
        db.execute("VACUUM INTO ?", (str(target),))


# --- under a run -----------------------------------------------------------------------------------------------------


def _delete(workplace: Workplace) -> None:
    workplace.database.unlink()


def _move(workplace: Workplace) -> None:
    workplace.database.rename(workplace.directory / "moved.db")


def _replace(workplace: Workplace) -> None:
    copy = workplace.directory / "copy.db"
    copy_to(workplace, copy)
    copy.rename(workplace.database)


@pytest.mark.usefixtures("long_tier")
@pytest.mark.fault("D09")
@pytest.mark.parametrize("change", [_delete, _move, _replace], ids=["deleted", "moved", "replaced"])
def test_a_database_that_goes_away_under_the_run_stops_it_at_the_next_commit(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured, change: Callable[[Workplace], None]
) -> None:
    endpoint, config = prepare(workplace, start_endpoint, 2000)
    with workplace.start("run", config) as process:
        workplace.wait_for_rows(30, process)
        change(workplace)
        calls = endpoint.calls()
        promised = acknowledged(workplace.directory)
        stopped = process.wait().expect(74)
    assert "moved, deleted or replaced" in stopped.err
    calls_after = endpoint.settled_calls() - calls
    promised_after = acknowledged(workplace.directory) - promised
    assert calls_after <= HELD
    assert promised_after <= CONCURRENCY + 16  # a commit that was under way
    measured(f"{change.__name__[1:]}: exit 74, {calls_after} calls after it (C + Q + B = {HELD})")


# --- between two runs ------------------------------------------------------------------------------------------------


def run_until_killed(workplace: Workplace, rows: int, *arguments: str | Path) -> None:
    with workplace.start(*arguments) as process:
        workplace.wait_for_rows(rows, process)
        process.send(signal.SIGKILL)
        process.wait()


def refuse_to_resume(workplace: Workplace, endpoint: Endpoint, *, match: str) -> None:
    before, calls = contents(workplace), endpoint.settled_calls()
    for command in (("resume",), ("resume", "--dry-run"), ("resume", "--retry-errors")):
        refused = workplace.run(*command).expect(74)
        assert match in refused.err
        assert "--accept-restored" in refused.err
    assert contents(workplace) == before
    assert endpoint.calls() == calls


@pytest.mark.fault("D10")
def test_a_resume_without_the_wal_file_is_refused_until_a_person_accepts_it(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured, is_long: bool
) -> None:
    endpoint, config = prepare(workplace, start_endpoint, 3000)
    rng = random.Random(SEED)
    n_kills = 20 if is_long else 1
    run_until_killed(workplace, rng.randint(5, 60), "run", config)
    detected, without_loss = 0, 0
    for _ in range(n_kills):
        promised, rows = acknowledged_since_restore(workplace), workplace.count_rows()
        assert rows >= promised > 0
        workplace.database.with_name("experiments.db-wal").unlink()
        workplace.database.with_name("experiments.db-shm").unlink(missing_ok=True)
        if workplace.count_rows() >= promised:
            without_loss += 1
        else:
            refuse_to_resume(workplace, endpoint, match=f"knows of {promised}")
            detected += 1
        held = workplace.count_rows()
        run_until_killed(workplace, held + rng.randint(5, 60), "resume", "--accept-restored")
        workplace.require_sound()
    assert detected
    assert len([line for line in log_lines(workplace.directory, "journal") if " restored: " in line]) == detected
    assert any("fewer results than there were before" in line for line in log_lines(workplace.directory, "run.log"))
    run_until_killed(workplace, workplace.count_rows() + 5, "resume")  # what was accepted is accepted for good
    print(f"seed {SEED}: {n_kills} kills, {without_loss} without anything in the -wal")
    measured(f"-wal removed after {n_kills} kills: {detected} of {n_kills - without_loss} losses refused")


def acknowledged_since_restore(workplace: Workplace) -> int:
    return results_in(log_lines(workplace.directory, "journal")[-1])


@pytest.mark.usefixtures("long_tier")
@pytest.mark.fault("D10")
def test_an_older_copy_is_refused_by_id_by_latest_and_when_it_is_older_than_the_experiment(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    endpoint, config = prepare(workplace, start_endpoint, 2000)
    workplace.run("ingest", workplace.directory / "narratives.csv").expect(0)
    oldest, older = workplace.directory / "oldest.db", workplace.directory / "older.db"
    shutil.copy(workplace.database, oldest)
    with workplace.start("run", config) as process:
        workplace.wait_for_rows(10, process)
        copy_to(workplace, older)
        workplace.wait_for_rows(60, process)
        process.kill()
    experiment_id = workplace.experiment_id()
    for side_file in workplace.database.parent.glob("experiments.db-*"):
        side_file.unlink()

    shutil.copy(older, workplace.database)
    held = workplace.count_rows()
    refuse_to_resume(workplace, endpoint, match=f"holds {held} results of this experiment")
    shutil.copy(oldest, workplace.database)
    for word in (experiment_id, experiment_id[:8]):
        refused = workplace.run("resume", word).expect(74)
        assert f"does not hold experiment {experiment_id}" in refused.err
    measured("an older copy, and one from before the experiment: refused")


@pytest.mark.usefixtures("long_tier")
@pytest.mark.fault("D10")
def test_a_journal_that_is_missing_or_unreadable_costs_a_note_and_blocks_nothing(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    _, config = prepare(workplace, start_endpoint, 150)
    run_until_killed(workplace, 10, "run", config)
    (journal,) = workplace.directory.glob("logs/experiments/*/journal")
    journal.unlink()
    journal.mkdir()
    ended = workplace.run("resume").expect(0)
    assert ended.err.count("journal cannot be used (Is a directory)") == 1
    assert ended.err.count("warning:") == 1
    workplace.require_sound()
    assert workplace.count_rows() == 150
    measured("a journal that is a directory: one note, the run completes")
