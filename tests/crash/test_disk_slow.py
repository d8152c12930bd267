"""A database that is slow, locked, read for hours or copied while a run works: the run waits, and nothing is lost."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from conftest import StartEndpoint
from disk import joined, needs_namespaces, needs_strace, small_disk, strace
from harness import NARRUN, Endpoint, Workplace, wait_until
from reliability import Measured

pytestmark = [pytest.mark.crash, pytest.mark.slow]

CONCURRENCY = 8
#: 2C open items, the outcome queue, one batch of the writer
HELD = 2 * CONCURRENCY + 16 + 64

#: the program, on an event loop that notes every 5 ms by how much it was late
WITH_LAG = """
import asyncio, json, sys
from narrun_async.cli import main

record, lags = sys.argv.pop(1), []

class Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self):
        loop = super().new_event_loop()
        def look(due):
            lags.append(loop.time() - due)
            loop.call_later(0.005, look, loop.time() + 0.005)
        loop.call_soon(look, loop.time())
        return loop

asyncio.set_event_loop_policy(Policy())
try:
    main()
finally:
    with open(record, "w") as file:
        json.dump(sorted(lags), file)
"""


def prepare(workplace: Workplace, start_endpoint: StartEndpoint, count: int, latency_ms: int) -> tuple[Endpoint, Path]:
    endpoint = start_endpoint("--latency-ms", str(latency_ms))
    narratives = workplace.write_narratives(count)
    config = workplace.write_config(url=endpoint.url, narratives=narratives, run__concurrency=CONCURRENCY)
    workplace.run("ingest", narratives).expect(0)
    return endpoint, config


def require_complete(workplace: Workplace, endpoint: Endpoint, count: int) -> None:
    workplace.require_sound()
    assert (workplace.count_rows(), workplace.count_errors(), endpoint.calls()) == (count, 0, count)


@pytest.mark.usefixtures("long_tier")
@needs_strace
@pytest.mark.fault("D06")
def test_a_slow_disk_does_not_hold_up_the_event_loop_and_holds_back_the_calls(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    count = 400
    endpoint, config = prepare(workplace, start_endpoint, count, 5)
    record = workplace.directory / "lags.json"
    delay_s = 0.2
    slow = ("-e", "trace=fdatasync", "-e", f"inject=fdatasync:delay_enter={int(delay_s * 1e6)}")
    tracer = strace(workplace.directory / "strace.txt", *slow, database=workplace.database)
    most_waiting = 0
    with workplace.start_command(
        *joined(tracer, (sys.executable, "-c", WITH_LAG, str(record), "run", str(config)))
    ) as process:
        while process.is_running:
            answered = endpoint.answered()  # before the rows, so that it is never too many
            most_waiting = max(most_waiting, answered - workplace.count_rows())
            time.sleep(0.02)
        process.wait().expect(0)
    require_complete(workplace, endpoint, count)
    lags = json.loads(record.read_text(encoding="utf-8"))
    p99_ms = 1000 * lags[int(len(lags) * 0.99)]
    assert p99_ms < 50
    assert most_waiting <= HELD
    measured(
        f"fdatasync {delay_s:g} s slower: lag of the loop p99 {p99_ms:.1f} ms over {len(lags)} looks, "
        f"{most_waiting} answers waiting at most (2C + Q + B = {HELD})"
    )


@pytest.mark.usefixtures("long_tier")
@pytest.mark.fault("D07")
def test_a_database_that_another_program_locks_is_waited_for(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    locked_s = (5.0, 60.0)
    count = 300 * len(locked_s)
    endpoint, config = prepare(workplace, start_endpoint, count, 20)
    calls_while = 0
    with workplace.start("run", config) as process:
        for number, seconds in enumerate(locked_s):
            workplace.wait_for_rows(50 + 300 * number, process)
            with closing(sqlite3.connect(workplace.database, isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                time.sleep(0.3)
                calls = endpoint.calls()
                time.sleep(seconds)
                calls_while = max(calls_while, endpoint.calls() - calls)
                other.execute("ROLLBACK")
        process.wait().expect(0)
    require_complete(workplace, endpoint, count)
    assert calls_while <= HELD
    waited = " and ".join(f"{seconds:g} s" for seconds in locked_s)
    measured(f"locked for {waited}: the run went on, 0 error rows, {calls_while} calls meanwhile, none repeated")


@pytest.mark.usefixtures("long_tier")
@pytest.mark.fault("D16")
def test_copies_taken_while_the_run_works_are_sound_and_consistent(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    n_copies, count = 100, 6000
    endpoint, config = prepare(workplace, start_endpoint, count, 10)
    taken, held = 0, 0
    with workplace.start("run", config) as process:
        workplace.wait_for_rows(1, process)
        while process.is_running and taken < n_copies:
            copy = workplace.directory / f"copy-{taken}.db"
            with closing(sqlite3.connect(f"file:{workplace.database}?mode=ro", uri=True)) as db:
                db.execute("VACUUM INTO ?", (str(copy),))
            with closing(sqlite3.connect(copy)) as db:
                assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                rows, counted = db.execute(
                    "SELECT (SELECT COUNT(*) FROM narrative_results), n_narratives_processed FROM experiments"
                ).fetchone()
            assert rows == counted >= held
            taken, held = taken + 1, rows
            copy.unlink()
        process.wait().expect(0)
    require_complete(workplace, endpoint, count)
    assert taken == n_copies
    measured(f"{taken} copies, each sound, each with the counts of its rows; the run completed without a repeated call")


@pytest.mark.usefixtures("long_tier")
@needs_namespaces
@pytest.mark.fault("D17")
def test_a_full_disk_under_the_log_files_costs_one_warning(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    count = 1200  # the journal outgrows the page that it has already
    endpoint, config = prepare(workplace, start_endpoint, count, 10)
    mount_point = workplace.directory / "logs"
    with small_disk(mount_point, size="256k") as disk:
        command = [*disk.enter(workplace.directory), *NARRUN, "run", str(config)]
        with workplace.start_command(*command) as process:
            workplace.wait_for_rows(50, process)
            journal = next((disk.seen_from_outside / "experiments").glob("*/journal"))
            wait_until(lambda: journal.stat().st_size > 0, what="the first line of the journal")
            disk.fill()
            ended = process.wait().expect(0)
        assert ended.err.count("cannot be written (No space left on device)") == 1, ended.err
    require_complete(workplace, endpoint, count)
    measured("a full tmpfs under the logs: exit 0, one warning, 0 rows lost")
