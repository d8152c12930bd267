"""Two runs on one database at the same moment: one works, the other says who does, and nothing is paid twice."""

from __future__ import annotations

import os
import re
import signal
import sys
import time

import pytest
from conftest import StartEndpoint
from harness import Endpoint, Process, Workplace, wait_until

pytestmark = [pytest.mark.crash, pytest.mark.slow]

RACES_OF_EACH_KIND = 25
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


def test_of_two_new_runs_exactly_one_wins_each_time(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint, config = prepare(workplace, start_endpoint)
    for _ in range(RACES_OF_EACH_KIND):
        race(workplace, "run", config)

    assert workplace.ask_one("SELECT COUNT(*) FROM experiments") == RACES_OF_EACH_KIND
    assert workplace.ask_one("SELECT COUNT(*) FROM runs") == RACES_OF_EACH_KIND
    assert_paid_once(workplace, endpoint)


def test_of_two_resumes_exactly_one_wins_each_time(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint, config = prepare(workplace, start_endpoint)
    race(workplace, "run", config)
    experiment_id = workplace.experiment_id()
    for _ in range(RACES_OF_EACH_KIND - 1):
        race(workplace, "resume", experiment_id)

    assert workplace.ask_one("SELECT COUNT(*) FROM runs") == RACES_OF_EACH_KIND
    assert_paid_once(workplace, endpoint)


def test_a_run_is_refused_while_another_works_whatever_it_wants_and_readers_are_not(
    workplace: Workplace, start_endpoint: StartEndpoint
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
        for command in (("list",), ("show", "latest"), ("status",), ("export", "latest")):
            workplace.run(*command).expect(0)
        assert "running" in workplace.run("list").out
        holder.kill()

    assert "interrupted" in workplace.run("list").expect(0).out  # nobody runs it any more, and it is shown so
    with workplace.start("resume") as successor:  # and nothing has to be removed by hand
        n_rows = workplace.count_rows()
        workplace.wait_for_rows(n_rows + 1, successor)
        assert successor.is_running
        os.kill(successor.pid, signal.SIGTERM)
        successor.wait().expect(143)
