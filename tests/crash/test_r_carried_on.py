"""A database of the R project, carried on by real processes: migrated, repaired, resumed, killed, and finished."""

from __future__ import annotations

import datetime
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import StartEndpoint
from crash_points import LEGACY_POINTS
from harness import Endpoint, Workplace, recorded_requests, running_endpoint, wait_until
from r_databases import DATA_FILE, R_COLUMNS, TEMPLATE, dump, writing_legacy
from reliability import Measured
from warm import WarmProgram, warm_program

pytestmark = pytest.mark.crash

OPEN, DONE = (f"{letter}1111111-2222-4333-8444-555555555555" for letter in "ab")
KILLED = -9
COMPLETED_WITH_ERRORS = 1
#: incidents, each with two narratives
CASES = 60
NARRATIVES = 2 * CASES
#: incidents that R had asked about before it was stopped
ASKED = 20
#: cases whose ids R wrote as numbers, in results and narratives alike
ODD = {1: "1e+05", 2: "2e+05"}
KINDS = ("cme", "le")
#: what is set aside in the end
SET_ASIDE = [("duplicate", 2), ("outside the cohort", 1)]
#: kills in the quick tier
QUICK_CASES = 3


def incident(number: int) -> str:
    return ODD.get(number, str(300000 + number))


def write_r_database(path: Path, url: str) -> None:
    """Of the first generation: an experiment that was stopped, with duplicates and odd ids, and a complete one."""
    with writing_legacy(path, "a") as file:
        for number in range(1, CASES + 1):
            for kind in KINDS:
                file.add_narrative(incident(number), kind, manual_flag_ind=number % 4 == 0)
        for experiment, status in ((OPEN, "running"), (DONE, "completed")):
            file.add_experiment(
                experiment, status=status, api_url=url, n_narratives_total=NARRATIVES, total_runtime_sec=180.0
            )
        for number in range(1, ASKED + 1):
            manual = int(number % 4 == 0)
            for kind in KINDS:
                is_error = int(number == 5)
                file.add_result(OPEN, incident(number), kind, error_occurred=is_error, manual_flag_ind=manual)
                file.add_result(DONE, incident(number), kind, manual_flag_ind=manual)
        for number in (3, 4):  # asked again, in vain
            file.add_result(OPEN, incident(number), "cme", error_occurred=1)
        file.add_result(OPEN, "3e+05", "cme")  # of a narrative that is not there


def results_of_r(database: Path) -> list[dict[str, Any]]:
    """Every result that R wrote, wherever it is now, with R's columns and the id that it had."""
    tables = dump(database)
    rows = [row for row in tables["narrative_results"] if row.get("run_id") is None]
    rows += tables.get("legacy_results", [])
    changes = tables.get("legacy_changes", [])
    old_ids = {one["row_key"]: one["old_value"] for one in changes if one["table_name"] == "narrative_results"}
    had = [row | {"incident_id": old_ids.get(str(row["result_id"]), row["incident_id"])} for row in rows]
    return sorted(({name: row[name] for name in R_COLUMNS} for row in had), key=lambda row: row["result_id"])


def verify(workplace: Workplace, program: WarmProgram | None = None) -> dict[str, Any]:
    told = (program.run(workplace, "verify", "--json") if program else workplace.run("verify", "--json")).expect(0)
    document: dict[str, Any] = json.loads(told.out)
    assert document["holds"]
    return document


@pytest.mark.fault("D14")
def test_an_interrupted_experiment_of_r_is_carried_on_to_its_end(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    record = workplace.directory / "requests.jsonl"
    endpoint = start_endpoint("--latency-ms", "25", "--record", str(record))
    write_r_database(workplace.database, endpoint.url)
    before = dump(workplace.database)
    r_log = workplace.directory / "logs" / "experiments" / OPEN / "run.log"
    r_log.parent.mkdir(parents=True)
    r_log.write_bytes(b"[2025-01-01 10:05:00] ERROR of R, without an end of line")

    told = workplace.run("migrate", "--fix-ids").expect(0).out
    assert f"{OPEN}: 43 results, 2 moved to legacy_results (duplicate), 41 remain" in told
    assert "1e+05 becomes 100000: 2 narratives, 4 results" in told
    (backup,) = workplace.database.parent.glob("*.bak")
    assert dump(backup) == before
    verify(workplace)

    with workplace.start("resume", OPEN, "--concurrency", "4") as process:
        workplace.wait_for_rows(40 + 41 + 15, process)
        process.kill()
    banner = process.read_err()
    assert f"which left it as running, is taken up; its cohort is all {NARRATIVES} narratives of {DATA_FILE}" in banner
    assert "1 of its results belong to no narrative of that cohort" in banner
    wait_until(workplace.lock_is_free, what="the lock is free", at_most_s=1)
    verify(workplace)
    calls_of_the_killed = endpoint.settled_calls()

    finished = workplace.run("run", environment={"RESUME": "1", "EXPERIMENT_ID": "latest"})
    finished.expect(COMPLETED_WITH_ERRORS)
    assert "WARNING" not in finished.err
    assert "taken up" not in finished.err
    retried = workplace.run("resume", OPEN, "--retry-errors-only").expect(0)
    assert f"rows       {NARRATIVES} of {NARRATIVES}: {NARRATIVES} answers, 0 errors" in retried.out

    document = verify(workplace)
    assert (document["inherited"]["n_adopted"], document["inherited"]["n_untouched"]) == (1, 1)
    assert [(one["reason"], one["n_moved"]) for one in document["inherited"]["set_aside"]] == SET_ASIDE
    assert r_log.read_bytes().startswith(b"[2025-01-01 10:05:00] ERROR of R, without an end of line\n")
    asked = {request["messages"][1]["content"] for request in recorded_requests(record)}
    assert all(text.startswith(TEMPLATE.removesuffix("<<TEXT>>")) for text in asked)
    n_asked_by_r = NARRATIVES - 2 * ASKED + 2  # what was missing, and its two errors
    assert len(asked) == n_asked_by_r
    assert endpoint.calls() <= n_asked_by_r + 2 * 4 + 16 + 64
    (row,) = workplace.ask("SELECT * FROM experiments WHERE experiment_id = ?", OPEN)
    runs = workplace.ask("SELECT * FROM runs WHERE experiment_id = ? ORDER BY run_id", OPEN)
    assert [run["mode"] for run in runs] == ["r", "resume", "resume", "retry-errors"]
    assert row["total_runtime_sec"] == pytest.approx(sum(run["runtime_s"] for run in runs))
    assert row["total_runtime_sec"] > 180
    assert (row["status"], row["n_narratives_total"], row["start_time"]) == (
        *("completed", NARRATIVES, "2025-01-01 10:00:00"),
    )
    (untouched,) = workplace.ask("SELECT * FROM experiments WHERE experiment_id = ?", DONE)
    assert {name: untouched[name] for name in before["experiments"][1]} == before["experiments"][1]
    show = workplace.run("show", OPEN).expect(0).out
    assert "the work of R, which left it as running" in show
    measured(
        f"{NARRATIVES} narratives: 2 duplicates and a stranger set aside, 9 results and 4 narratives got their ids"
        f" back; {calls_of_the_killed} calls, killed, resumed to the end, errors retried; every invariant held"
    )


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What all cases share."""

    program: WarmProgram
    endpoint: Endpoint
    #: as R left it, and as `migrate --fix-ids` left that
    of_r: Path
    migrated: Path
    results: list[dict[str, Any]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    base = tmp_path_factory.mktemp("r")
    with running_endpoint(base / "endpoint", "--latency-ms", "1") as endpoint, warm_program() as program:
        of_r = Workplace(directory=base / "of_r")
        write_r_database(of_r.database, endpoint.url)
        migrated = Workplace(directory=base / "migrated")
        shutil.copytree(of_r.directory, migrated.directory)
        program.run(migrated, "migrate", "--fix-ids").expect(0)
        yield Stage(
            program=program,
            endpoint=endpoint,
            of_r=of_r.directory,
            migrated=migrated.directory,
            results=results_of_r(of_r.database),
        )


# --- not taken up ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "config", "code", "says"),
    [
        ("http://93.184.216.34/v1/chat/completions", None, 78, "privacy.allow_remote"),
        ("http://no-such-host.invalid/v1/chat/completions", None, 75, "cannot be resolved"),
        ("http://${NO_SUCH_HOST}/v1/chat/completions", None, 78, "NO_SUCH_HOST is not set"),
        ("http://me:word@127.0.0.1/v1/chat/completions", None, 78, "--api-url"),
        ("http://127.0.0.1:9/v1/chat/completions", {"model__api_key_env": "NO_SUCH_KEY"}, 78, "NO_SUCH_KEY"),
    ],
)
def test_where_its_calls_could_not_go_it_is_not_taken_up(
    stage: Stage, tmp_path: Path, url: str, config: dict[str, str] | None, code: int, says: str
) -> None:
    """What is stored then is stored for good, so it must be right."""
    workplace = Workplace(directory=tmp_path)
    write_r_database(workplace.database, url)
    stage.program.run(workplace, "migrate", "--fix-ids").expect(0)
    before = dump(workplace.database)
    named = []
    if config is not None:
        narratives = workplace.write_narratives(1)
        named = ["--config", workplace.write_config(url="http://127.0.0.1:9/v1", narratives=narratives, **config)]

    refused = stage.program.run(workplace, "resume", OPEN, *named).expect(code)

    assert says in refused.err
    assert ":word" not in refused.err
    assert dump(workplace.database) == before


# --- killed at exactly this place ------------------------------------------------------------------------------------


@pytest.mark.fault("P02", "D14")
def test_a_kill_while_it_is_carried_on_leaves_the_old_state_or_the_new_one(
    stage: Stage, tmp_path: Path, is_long: bool, measured: Measured
) -> None:
    names = list(LEGACY_POINTS)
    if not is_long:  # another few of them every day
        day = datetime.date.today().toordinal()
        names = random.Random(day).sample(names, QUICK_CASES)
        print(f"seed {day}: {', '.join(names)}")
    for number, name in enumerate(names):
        kill_and_go_on(stage, name, Workplace(directory=tmp_path / str(number)))
    measured(
        f"{len(names)} places: no result of R lost, changed or moved twice, every next start ended alike", fault="P02"
    )


def kill_and_go_on(stage: Stage, name: str, workplace: Workplace) -> None:
    takes_up = name.startswith("taking up")
    shutil.copytree(stage.migrated if takes_up else stage.of_r, workplace.directory)
    command = ("resume", OPEN) if takes_up else ("migrate", "--fix-ids")

    stage.program.run(workplace, *command, at=name).expect(KILLED)

    wait_until(workplace.lock_is_free, what="the lock is free", at_most_s=1)
    assert results_of_r(workplace.database) == stage.results, name
    stage.program.run(workplace, "migrate", "--fix-ids").expect(0)
    verify(workplace, stage.program)
    stage.program.run(workplace, "resume", OPEN).expect(COMPLETED_WITH_ERRORS)
    assert results_of_r(workplace.database) == stage.results, name
    inherited = verify(workplace, stage.program)["inherited"]
    assert [(one["reason"], one["n_moved"]) for one in inherited["set_aside"]] == SET_ASIDE
    assert inherited["n_ids_repaired"] == 4 + 8 + 1
