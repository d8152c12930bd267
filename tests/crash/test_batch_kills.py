"""Killed at every step from export to rows: no batch is created twice, every narrative has one row."""

from __future__ import annotations

import dataclasses
import datetime
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from crash_points import BATCH_POINTS
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
#: two batches of an experiment
SHARD = ("--max-requests", "14")
#: kills in the quick tier
QUICK_CASES = 5
#: refusals and prose become error rows; answers of a batch come shuffled, and it is in the list a little late
ENDPOINT = ("--latency-ms", "0", "--seed", "5", "--fault", "refusal=0.15", "--fault", "malformed=0.1")
BATCHES = ("--batch", "shuffled=1", "--batch", "listed_after_ms=100")
#: long enough for that list
SETTLE = ("--settle", "0.5")
KILLED = -9
COMPLETED_WITH_ERRORS = 1

#: point → the commands that come by it, and how often it is worth trying in each
WHERE: dict[str, dict[str, int]] = {
    "batch file: begun": {"export": 2, "collect": 2},
    "batch file: a piece written": {"export": 1, "collect": 1},
    "batch file: before it takes its name": {"export": 2, "collect": 1},
    "batch file: it has its name": {"export": 2, "collect": 2},
    "batch: before it is recorded": {"export": 2},
    "batch: its row inserted": {"export": 2},
    "batch: its narratives in mid-insert": {"export": 2},
    "batch: recorded": {"export": 2},
    # uploading, uploaded, creating, submitted, and the same of the second batch
    "batch: before a step": {"submit": 8, "poll": 2, "collect": 2, "cancel": 2},
    "batch: a step in its transaction": {"submit": 8, "poll": 2, "collect": 2, "cancel": 2},
    "batch: after a step": {"submit": 8, "poll": 2, "collect": 2, "cancel": 2},
    "batch: looked for": {"submit": 2},
    "batch file: looked for": {"submit": 2},
    "batch file: about to be uploaded": {"submit": 2},
    "batch file: uploaded": {"submit": 2},
    "batch: about to be created": {"submit": 2},
    "batch: created": {"submit": 2},
    "batch: asked about": {"poll": 2, "collect": 2},
    "answers: about to be fetched": {"collect": 2},
    "answers: fetched": {"collect": 2},
    "answers: looked through": {"collect": 1},
    "answers: one judged": {"collect": 2},
    "batch: before it is closed": {"collect": 1},
    "batch: closed": {"collect": 1},
    "batch files: one removed": {"collect": 2, "cancel": 1},
    "batch: about to be cancelled": {"cancel": 2},
    "batch: cancelled": {"cancel": 2},
    # what every run has, met while collecting
    "after the run record": {"collect": 1},
    "batch gathered": {"collect": 1},
    "before COMMIT": {"export": 4, "collect": 4},
    "after COMMIT": {"export": 4, "collect": 4},
    "rows: in mid-insert": {"collect": 1},
    "after a batch": {"collect": 1},
    "told as saved": {"collect": 1},
    "after the summary": {"collect": 1},
    "run ended, experiment not": {"collect": 1},
    "after the end of the run": {"collect": 1},
    "lock given back": {"export": 1, "submit": 1, "collect": 1},
}
#: what is done before a command is killed there, where it is not simply all that comes before it: up to this command
BEFORE = {("collect", "batch: asked about"): "poll", ("cancel", "batch files: one removed"): "submit"}
CASES = [
    (command, name, occurrence)
    for name, commands in WHERE.items()
    for command, most in commands.items()
    for occurrence in range(1, most + 1)
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """What all cases share."""

    program: WarmProgram
    endpoint: Endpoint
    #: the results of a run, which made calls and no batches
    digest: str


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    base = tmp_path_factory.mktemp("batches")
    with running_endpoint(base / "endpoint", *ENDPOINT, *BATCHES) as endpoint, warm_program() as program:
        called = new_workplace(base / "called", endpoint)
        program.run(called, "run", "crash.yaml").expect(COMPLETED_WITH_ERRORS)
        yield Stage(program=program, endpoint=endpoint, digest=digest_of_results(called.rows()))


def new_workplace(directory: Path, endpoint: Endpoint) -> Workplace:
    workplace = Workplace(directory=directory)
    directory.mkdir(parents=True)
    table = workplace.write_narratives(NARRATIVES)
    # a batch has no second try
    changes = {"run__concurrency": 4, "model__second_try": False}
    workplace.write_config(url=endpoint.url, narratives=Path(table.name), **changes)
    return workplace


def arguments(workplace: Workplace, command: str) -> Sequence[str]:
    experiments = workplace.ask("SELECT experiment_id FROM experiments") if workplace.database.exists() else []
    if command == "export" and not experiments:
        return ("batch", "export", "--new", "crash.yaml", *SHARD)
    which = ("batch", command, experiments[0]["experiment_id"])
    return (*which, *{"export": SHARD, "submit": SETTLE, "cancel": SETTLE}.get(command, ()))


def states_of(workplace: Workplace) -> list[str]:
    if not workplace.database.exists():
        return []
    return [row["state"] for row in workplace.ask("SELECT state FROM batches ORDER BY batch_id")]


def rows_of(workplace: Workplace) -> dict[Key, Row]:
    return workplace.rows() if workplace.database.exists() else {}


def next_command(workplace: Workplace) -> str | None:
    """What a person would type now; None when all is done."""
    states = states_of(workplace)
    if set(states) & {"exported", "uploading", "uploaded", "creating"}:
        return "submit"
    if "submitted" in states:
        return "poll"
    if "ended" in states:
        return "collect"
    is_complete = states and len(rows_of(workplace)) == NARRATIVES
    return None if is_complete else "export"


def go_on(stage: Stage, workplace: Workplace, *, until: str | None = None) -> None:
    """Type what comes next until it is the command that is wanted, or all is done."""
    for _ in range(20):
        command = next_command(workplace)
        if command == until:
            return
        assert command is not None
        done = stage.program.run(workplace, *arguments(workplace, command))
        assert done.code in (0, COMPLETED_WITH_ERRORS, 75), f"{command}: {done.code}\n{done.out}\n{done.err}"
    raise AssertionError(f"it does not come to its end: {states_of(workplace)}")


def crash_and_recover(stage: Stage, command: str, name: str, occurrence: int, directory: Path) -> None:
    workplace = new_workplace(directory, stage.endpoint)
    before = stage.endpoint.batch_stats()
    if command == "cancel":  # which is for batches that go on
        stage.endpoint.change_batches(latency_ms=1e6)
    go_on(stage, workplace, until=BEFORE.get((command, name), "poll" if command == "cancel" else command))
    rows = rows_of(workplace)

    stage.program.run(workplace, *arguments(workplace, command), at=name, occurrence=occurrence).expect(KILLED)

    wait_until(workplace.lock_is_free, what="the lock is free", at_most_s=1)
    assert_rows_stay(rows, rows_of(workplace))
    if workplace.database.exists():
        verify(stage, workplace)
    again = stage.program.run(workplace, *arguments(workplace, command))
    assert again.code in (0, COMPLETED_WITH_ERRORS, 75), f"{again.code}\n{again.out}\n{again.err}"
    stage.endpoint.change_batches(latency_ms=0)
    rows = rows_of(workplace)
    go_on(stage, workplace)

    assert_rows_stay(rows, rows_of(workplace))
    assert digest_of_results(workplace.rows()) == stage.digest
    verify(stage, workplace)
    assert set(states_of(workplace)) == {"closed"}
    assert not list((workplace.directory / "logs").rglob("batch-*")), "files that hold narratives were left behind"
    assert_paid_once(workplace, before, stage.endpoint.batch_stats(), command)


def assert_rows_stay(before: dict[Key, Row], after: dict[Key, Row]) -> None:
    assert {key: after.get(key) for key in before} == before, "a saved row is gone, or has changed"


def assert_paid_once(workplace: Workplace, before: dict[str, Any], after: dict[str, Any], command: str) -> None:
    """As the provider counts it."""
    assert max(after["batches_by_token"].values()) == 1, "a batch was created twice"
    assert after["max_per_request"] == 1, "a request was in two batches"
    tokens = {row["token"] for row in workplace.ask("SELECT token FROM batches")}
    created = after["batches_by_token"].keys() - before["batches_by_token"].keys()
    assert created <= tokens, "a batch was created that the database does not know"
    if command != "cancel":  # which gives unanswered requests back, to be asked once more
        assert after["requests"] - before["requests"] == NARRATIVES, "a narrative was asked for twice"
    calls = workplace.ask_one("SELECT COUNT(*) FROM attempts")
    assert calls == NARRATIVES, f"{calls} calls in the ledger for {NARRATIVES} narratives"


def verify(stage: Stage, workplace: Workplace) -> None:
    done = stage.program.run(workplace, "verify")
    assert done.code == 0, done.out


@pytest.mark.fault("B01")
def test_a_kill_at_any_step_of_a_batch_neither_loses_nor_resubmits_it(
    stage: Stage, tmp_path: Path, is_long: bool, measured: Measured
) -> None:
    cases = CASES
    if not is_long:  # another part of them every day; each is two seconds of work
        day = datetime.date.today().toordinal()
        cases = random.Random(day).sample(CASES, QUICK_CASES)
        print(f"seed {day}: {', '.join(f'{command} at {name!r}' for command, name, _ in cases)}")
    failures = []
    for number, (command, name, occurrence) in enumerate(cases):
        try:
            crash_and_recover(stage, command, name, occurrence, tmp_path / str(number))
        except AssertionError as error:
            failures.append(f"{command}, {name!r}, time {occurrence}: {str(error)[:1500]}")
        else:
            shutil.rmtree(tmp_path / str(number))
        stage.endpoint.change_batches(latency_ms=0)
    assert not failures, "\n\n".join(failures)
    measured(f"{len(cases)} kills at {len({name for _, name, _ in cases})} steps of a batch: none created twice")


def test_every_step_is_one_that_the_program_comes_by() -> None:
    """Each is tried by the long tier; here, that it can be armed at all: a renamed function must not disarm a fuse."""
    script = "import crash_points as c; c.import_everything(); [c.arm(name, 1) for name in c.BATCH_POINTS]"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        env=clean_environment(),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert BATCH_POINTS.keys() <= WHERE.keys()


# --- kills that no name was given to ---------------------------------------------------------------------------------


@pytest.mark.fault("B02")
def test_a_batch_that_is_killed_again_and_again_comes_to_its_rows_and_is_paid_for_once(
    stage: Stage, tmp_path: Path, is_long: bool, measured: Measured
) -> None:
    """Whatever a person would type next is typed, and killed at a random moment, until all is done."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    n_kills, rounds = 0, 20 if is_long else 1
    for number in range(rounds):
        workplace = new_workplace(tmp_path / str(number), stage.endpoint)
        before = stage.endpoint.batch_stats()
        stage.endpoint.change_batches(lost_creations=rng.choice((0, 1)), lost_uploads=rng.choice((0, 1)))
        kills_left = 12 if is_long else 7
        while (command := next_command(workplace)) is not None:
            rows = rows_of(workplace)
            process = stage.program.start(workplace, *arguments(workplace, command))
            if kills_left:
                kills_left -= 1
                time.sleep(rng.uniform(0.01, 0.35))
                n_kills += process.kill().code == KILLED
            else:
                process.wait()
            wait_until(workplace.lock_is_free, what="the lock is free", at_most_s=1)
            assert_rows_stay(rows, rows_of(workplace))
        assert digest_of_results(workplace.rows()) == stage.digest
        verify(stage, workplace)
        assert_paid_once(workplace, before, stage.endpoint.batch_stats(), "all of them")
    measured(f"{n_kills} kills at random moments of {rounds} times two batches: none created twice, no row lost")
    assert n_kills >= 3 * rounds


@pytest.mark.fault("B02")
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_submission_that_is_killed_at_the_nth_system_call_is_paid_for_once(
    stage: Stage, tmp_path: Path, is_long: bool, measured: Measured
) -> None:
    # sendto: requests to the provider leave the process; pwrite64 and fdatasync: intents and handles come to the disk
    sweep = [("sendto", 9)]
    if is_long:
        sweep = [
            (call, n)
            for call, most in {"sendto": 26, "pwrite64": 60, "fdatasync": 20}.items()
            for n in range(1, most + 1, 1 + most // 26)
        ]
    n_killed = 0
    for number, (call, n) in enumerate(sweep):
        workplace = new_workplace(tmp_path / str(number), stage.endpoint)
        before = stage.endpoint.batch_stats()
        go_on(stage, workplace, until="submit")
        inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
        inject += ["-e", f"inject={call}:signal=KILL:when={n}"]
        with workplace.start_command(*inject, *NARRUN, *arguments(workplace, "submit")) as process:
            n_killed += process.wait().code in (KILLED, 128 + signal.SIGKILL)
        wait_until(workplace.lock_is_free, what="the lock is free", at_most_s=1)
        verify(stage, workplace)
        go_on(stage, workplace)
        assert digest_of_results(workplace.rows()) == stage.digest
        assert_paid_once(workplace, before, stage.endpoint.batch_stats(), "submit")
        shutil.rmtree(tmp_path / str(number))
    assert n_killed >= len(sweep) / 2, "too few came as far as the call"
    measured(f"{n_killed} submissions killed at the Nth of {', '.join(sorted({one for one, _ in sweep}))}: paid once")
