"""Two runs on one database at the same moment: one works, the other says who does, and nothing is paid twice."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import StartEndpoint
from harness import Endpoint, Process, Workplace, wait_until
from reliability import Measured

pytestmark = [pytest.mark.crash, pytest.mark.slow]

CONCURRENCY = 2

#: a run that has imported everything already and then spins until the moment given, so that both are after the lock at
#: the very same time
RACER = """
import sys, time
import narrun_async.app.running
from narrun_async.cli import main
moment = float(sys.argv.pop(1))
while time.time() < moment:
    pass
main()
"""


@pytest.fixture
def races(is_long: bool) -> int:
    """Of each kind; one takes a second and a half."""
    return 100 if is_long else 2


def race(workplace: Workplace, *arguments: str) -> None:
    """Start the same command twice; one is refused, naming the pid of the other, which is then stopped."""
    moment = str(time.time() + 0.9)
    command = (sys.executable, "-c", RACER, moment, *arguments)
    with workplace.start_command(*command) as one, workplace.start_command(*command) as other:
        wait_until(lambda: not (one.is_running and other.is_running), what="one of two runs is refused", at_most_s=20)
        winner, loser = (one, other) if one.is_running else (other, one)
        refused = loser.wait().expect(75)
        assert winner.is_running, "both runs ended"
        assert named_pid(refused.err) == winner.pid
        assert refused.out == ""
        stop(winner, workplace)


def named_pid(message: str) -> int:
    found = re.search(r"in use by process (\d+) on ", message)
    assert found, f"the holder is not named: {message}"
    return int(found[1])


def stop(winner: Process, workplace: Workplace) -> None:
    began = {row["pid"] for row in workplace.ask("SELECT pid FROM runs")} if workplace.database.exists() else set()
    if winner.pid not in began:
        wait_until(
            lambda: workplace.ask_one("SELECT COUNT(*) FROM runs WHERE pid = ? AND ended_at IS NULL", winner.pid) > 0,
            what="the winner begins to work",
            at_most_s=20,
        )
    time.sleep(0.05)  # its signals are watched by now
    winner.send(signal.SIGTERM)
    winner.wait(at_most_s=20).expect(143)


def prepare(workplace: Workplace, start_endpoint: StartEndpoint) -> tuple[Endpoint, str]:
    """A database that knows the narratives, an endpoint that keeps a run busy for minutes."""
    endpoint = start_endpoint("--latency-ms", "120")
    narratives = workplace.write_narratives(2000)
    config = workplace.write_config(url=endpoint.url, narratives=narratives, run__concurrency=CONCURRENCY)
    workplace.run("ingest", narratives).expect(0)
    return endpoint, str(config)


def assert_paid_once(workplace: Workplace, endpoint: Endpoint) -> None:
    """Every run was stopped with a drain, so each answer has its row, and no narrative was asked for by two runs."""
    workplace.require_sound_experiments()
    assert endpoint.settled_calls() == endpoint.answered() == workplace.count_rows()


@pytest.mark.fault("L01")
def test_of_two_new_runs_exactly_one_wins_each_time(
    workplace: Workplace, start_endpoint: StartEndpoint, races: int, measured: Measured
) -> None:
    endpoint, config = prepare(workplace, start_endpoint)
    for _ in range(races):
        race(workplace, "run", config)

    assert workplace.ask_one("SELECT COUNT(*) FROM experiments") == races
    assert workplace.ask_one("SELECT COUNT(*) FROM runs") == races
    assert_paid_once(workplace, endpoint)
    measured(f"{races} races of new runs: one winner each time, 0 calls paid twice")


@pytest.mark.fault("L01")
def test_of_two_resumes_exactly_one_wins_each_time(
    workplace: Workplace, start_endpoint: StartEndpoint, races: int, measured: Measured
) -> None:
    endpoint, config = prepare(workplace, start_endpoint)
    race(workplace, "run", config)
    experiment_id = workplace.experiment_id()
    for _ in range(races - 1):
        race(workplace, "resume", experiment_id)

    assert workplace.ask_one("SELECT COUNT(*) FROM runs") == races
    assert_paid_once(workplace, endpoint)
    measured(f"{races} races of resumes: one winner each time, 0 calls paid twice")


@pytest.mark.fault("L02", "L03")
def test_a_run_is_refused_while_another_works_whatever_it_wants_and_readers_are_not(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    _, config = prepare(workplace, start_endpoint)
    alias = workplace.directory / "alias.db"
    alias.symlink_to(workplace.database)
    with workplace.start("run", config) as holder:
        workplace.wait_for_rows(1, holder)
        for command in (
            ("run", config),
            ("resume", "latest"),
            ("run", config, "--db", str(alias)),
            ("ingest", "narratives.csv"),
            ("migrate",),
        ):
            assert named_pid(workplace.run(*command).expect(75).err) == holder.pid
            assert count_writers(holder, workplace) == 1
        for command in (("list",), ("show", "latest"), ("status",), ("export", "latest")):
            workplace.run(*command).expect(0)
        assert "running" in workplace.run("list").out
        holder.kill()
        measured("5 ways to write refused with 75 and the pid, 4 ways to read not", fault="L02")

    forge_note(workplace)
    assert "interrupted" in workplace.run("list").expect(0).out  # nobody runs it any more, and it is shown so
    with workplace.start("resume") as successor:  # and nothing has to be removed by hand
        n_rows = workplace.count_rows()
        workplace.wait_for_rows(n_rows + 1, successor)
        assert successor.is_running
        os.kill(successor.pid, signal.SIGTERM)
        successor.wait().expect(143)
    measured("resumed beside the note of a living, foreign process; nothing was removed by hand", fault="L03")


def count_writers(holder: Process, workplace: Workplace) -> int:
    """Descriptors of the process that may write to the database file itself."""
    found = 0
    for descriptor in Path(f"/proc/{holder.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if descriptor.readlink() == workplace.database.resolve():
                flags = Path(f"/proc/{holder.pid}/fdinfo/{descriptor.name}").read_text()
                found += bool(int(re.findall(r"flags:\s+(\d+)", flags)[0], 8) & (os.O_WRONLY | os.O_RDWR))
    return found


def forge_note(workplace: Workplace) -> None:
    """As if the pid of the dead holder belonged to somebody else by now."""
    note = workplace.database.with_name("experiments.db.lock.json")
    forged = json.loads(note.read_text()) | {"pid": os.getpid()}
    note.write_text(json.dumps(forged))
