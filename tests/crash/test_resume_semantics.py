"""What a resume is: the stored configuration on the frozen cohort, counted on, and nothing that was not asked for."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from conftest import StartEndpoint
from harness import Endpoint, Workplace, recorded_requests
from reliability import Measured

pytestmark = pytest.mark.crash


def interrupt_at(workplace: Workplace, rows: int, config: Path, *flags: str) -> None:
    """Start an experiment and kill it once so many rows are in."""
    with workplace.start("run", config, *flags) as process:
        workplace.wait_for_rows(rows, process)
        assert process.is_running
        process.kill()


def read_logs(workplace: Workplace) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (workplace.directory / "logs").rglob("*.log")}


# --- the stored configuration ----------------------------------------------------------------------------------------


@pytest.mark.fault("R02")
def test_a_resume_with_an_edited_file_sends_the_stored_prompt_and_shows_each_difference(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    record = workplace.directory / "requests.jsonl"
    endpoint = start_endpoint("--latency-ms", "30", "--record", str(record))
    narratives = workplace.write_narratives(60)
    config = workplace.write_config(url=endpoint.url, narratives=narratives)
    interrupt_at(workplace, 10, config, "--concurrency", "2")
    edited = {
        "prompt__system_prompt": "Answer in verse.",
        "prompt__user_template": "Sing of <<TEXT>>",
        "model__name": "edited-model",
        "model__temperature": 1.5,
        "run__concurrency": 3,
    }
    config = workplace.write_config(url="http://127.0.0.1:9/v1/chat/completions", narratives=narratives, **edited)
    sent_before = len(recorded_requests(record))

    finished = workplace.run("resume", "latest", "--config", config).expect(0)

    requests = recorded_requests(record)
    assert len(requests) > sent_before
    for request in requests:
        assert request["model"] == "test-model"
        assert request["temperature"] == 0.2
        system, user = request["messages"]
        assert system["content"] == "Answer in JSON."
        assert user["content"].startswith("Text: ")
    warning = finished.err[finished.err.index("WARNING") :]
    for key in ("model.name", "model.temperature", "model.api_url", "prompt.system_prompt", "prompt.user_template"):
        assert key in warning
    assert "run.concurrency" not in warning  # may change from run to run
    assert ", 3 calls at a time" in finished.err
    assert workplace.count_rows() == 60
    assert workplace.experiment()["system_prompt"] == "Answer in JSON."
    workplace.run("verify").expect(0)  # I8
    measured(f"5 edited settings named, {len(requests)} requests as stored, exit 0")


def test_without_naming_a_file_the_one_that_the_experiment_came_from_is_compared(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "30")
    narratives = workplace.write_narratives(40)
    interrupt_at(workplace, 5, workplace.write_config(url=endpoint.url, narratives=narratives))
    workplace.write_config(url=endpoint.url, narratives=narratives, model__temperature=0.9)

    finished = workplace.run("resume").expect(0)

    assert "WARNING" in finished.err
    assert "model.temperature" in finished.err


@pytest.mark.fault("W22")
def test_a_resume_needs_neither_the_workbook_nor_the_configuration_file(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "30")
    workbook = workplace.directory / "narratives.xlsx"
    workplace.run("synth", workbook, "--cases", "30").expect(0)
    config = workplace.write_config(url=endpoint.url, narratives=workbook)
    interrupt_at(workplace, 5, config)
    workbook.unlink()
    config.unlink()

    workplace.run("run", environment={"RESUME": "1", "EXPERIMENT_ID": workplace.experiment_id()}).expect(0)

    assert workplace.count_rows() == workplace.ask_one("SELECT COUNT(*) FROM source_narratives")


def test_a_pilot_that_is_resumed_stays_a_pilot(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "30")
    narratives = workplace.write_narratives(100)
    interrupt_at(workplace, 8, workplace.write_config(url=endpoint.url, narratives=narratives, run__max_narratives=30))
    workplace.write_config(url=endpoint.url, narratives=narratives, run__max_narratives=100)

    finished = workplace.run("resume").expect(0)

    assert "run.max_narratives" in finished.err
    rows = workplace.rows()
    assert {int(incident_id) for incident_id, _ in rows} == set(range(100001, 100031))
    experiment = workplace.experiment()
    assert (experiment["status"], experiment["n_narratives_total"]) == ("completed", 30)
    workplace.run("resume", workplace.experiment_id(), "--dry-run").expect(0)
    assert endpoint.calls() - 30 <= 2 * 8 + 16  # what the kill cost, and nothing beyond the pilot


# --- counting on -----------------------------------------------------------------------------------------------------


@pytest.mark.fault("R04")
def test_totals_runtime_row_numbers_and_logs_go_on_over_many_lives(
    workplace: Workplace, start_endpoint: StartEndpoint, is_long: bool, measured: Measured
) -> None:
    endpoint = start_endpoint("--latency-ms", "25")
    lives, total = (20, 500) if is_long else (4, 160)
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(total))
    interrupt_at(workplace, 20, config, "--concurrency", "4")
    log_dir = workplace.experiment()["log_dir"]
    for life in range(1, lives):
        target = 20 + life * (total - 60) // lives
        number = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)[life % 3]
        logs, runtime_s = read_logs(workplace), runtimes(workplace)
        with workplace.start("resume", "latest", "--concurrency", "4") as process:
            workplace.wait_for_rows(target, process)
            process.send(number)
            process.wait()
        assert_logs_grew(logs, read_logs(workplace))
        assert runtimes(workplace)[: len(runtime_s)] == runtime_s  # an earlier life does not change
        experiment = workplace.experiment()
        assert experiment["n_narratives_total"] == total
        assert experiment["n_narratives_processed"] == workplace.count_rows()
        assert experiment["n_narratives_completed"] == workplace.count_rows()
        if number is not signal.SIGKILL:
            assert experiment["total_runtime_sec"] == pytest.approx(sum(runtimes(workplace)))
    logs = read_logs(workplace)

    workplace.run("resume").expect(0)

    assert_logs_grew(logs, read_logs(workplace))
    experiment = workplace.experiment()
    assert experiment["log_dir"] == log_dir
    assert len(runtimes(workplace)) == lives + 1
    assert all(seconds > 0 for seconds in runtimes(workplace))
    assert experiment["total_runtime_sec"] == pytest.approx(sum(runtimes(workplace)))
    assert experiment["n_narratives_total"] == experiment["n_narratives_completed"] == total
    # the rank in the cohort, whichever came first
    assert {int(incident_id) - 100000: row["row_num"] for (incident_id, _), row in workplace.rows().items()} == {
        number: number for number in range(1, total + 1)
    }
    saved = workplace.ask("SELECT r.run_id, r.n_saved FROM runs AS r ORDER BY r.run_id")
    by_run = workplace.ask("SELECT run_id, COUNT(*) AS n_saved FROM narrative_results GROUP BY run_id ORDER BY run_id")
    assert saved == by_run
    workplace.run("verify").expect(0)  # I13
    measured(f"{lives + 1} lives: total and ranks as in one, runtime the sum of all, every log a prefix of the next")


def runtimes(workplace: Workplace) -> list[float]:
    return [row["runtime_s"] for row in workplace.ask("SELECT runtime_s FROM runs ORDER BY run_id")]


def assert_logs_grew(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    assert before.keys() <= after.keys()
    for name, old in before.items():
        assert after[name].startswith(old), f"{name} was not only appended to"
    assert len(after["run.log"]) > len(before["run.log"])


# --- error rows ------------------------------------------------------------------------------------------------------


def run_with_refusals(workplace: Workplace, endpoint: Endpoint, *, total: int) -> int:
    """An experiment that ends completed with some error rows; how many."""
    endpoint.change(fault_rates={"refusal": 0.2})
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(total))
    workplace.run("run", config).expect(1)
    n_errors = workplace.count_errors()
    assert 2 <= n_errors < total / 2
    assert workplace.experiment()["status"] == "completed"
    assert workplace.experiment()["n_errors"] == n_errors
    return n_errors


@pytest.mark.fault("R01")
def test_retrying_errors_calls_for_exactly_the_error_rows_and_leaves_every_success_alone(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    endpoint = start_endpoint("--latency-ms", "5")
    n_errors = run_with_refusals(workplace, endpoint, total=60)
    before = workplace.rows()
    calls_before = endpoint.calls()
    environment = {
        "RESUME": "1",
        "RETRY_ERRORS_ONLY": "1",
        "EXPERIMENT_ID": workplace.experiment_id(),
    }

    # they fail once more
    workplace.run("run", environment=environment).expect(1)

    assert endpoint.calls() - calls_before == n_errors
    failed_twice = workplace.rows()
    assert workplace.count_errors() == n_errors
    assert workplace.experiment()["status"] == "completed"

    # now they succeed
    endpoint.change(fault_rates={})
    workplace.run("run", environment=environment).expect(0)

    assert endpoint.calls() - calls_before == 2 * n_errors
    after = workplace.rows()
    assert (workplace.count_errors(), len(after)) == (0, 60)
    experiment = workplace.experiment()
    assert (experiment["status"], experiment["n_errors"]) == ("completed", 0)
    for key, row in before.items():
        if not row["error_occurred"]:
            assert after[key] == row
            continue
        assert (row["attempt_count"], failed_twice[key]["attempt_count"], after[key]["attempt_count"]) == (1, 2, 3)
        assert after[key]["first_error_message"] == row["error_message"] is not None
        assert (after[key]["error_occurred"], after[key]["error_category"]) == (0, None)
        assert after[key]["row_num"] == row["row_num"]
        assert after[key]["detected"] in (0, 1)

    # and there is nothing left to retry
    assert "nothing to do" in workplace.run("run", environment=environment).expect(0).err
    assert endpoint.calls() - calls_before == 2 * n_errors
    measured(f"{n_errors} error rows retried twice: {2 * n_errors} calls, {60 - n_errors} successes untouched")


@pytest.mark.fault("R01")
def test_retrying_errors_that_is_killed_again_and_again_never_harms_a_row_and_comes_to_an_end(
    workplace: Workplace, start_endpoint: StartEndpoint, is_long: bool, measured: Measured
) -> None:
    endpoint = start_endpoint("--latency-ms", "5")
    kills_left = n_kills = 100 if is_long else 2
    run_with_refusals(workplace, endpoint, total=60)
    endpoint.change(fault_rates={}, latency_ms=150)
    successes = {key: row for key, row in workplace.rows().items() if not row["error_occurred"]}
    while (n_errors := workplace.count_errors()) > 4 and kills_left:
        kills_left -= 1
        with workplace.start("resume", workplace.experiment_id(), "--retry-errors-only", "-c", "2") as process:
            while workplace.count_errors() == n_errors and process.is_running:
                pass
            process.kill()
        workplace.require_sound()
        rows = workplace.rows()
        assert len(rows) == 60
        assert {key: rows[key] for key in successes} == successes
        successes = {key: row for key, row in rows.items() if not row["error_occurred"]}

    workplace.run("resume", "latest", "--retry-errors-only").expect(0)

    assert workplace.count_errors() == 0
    assert workplace.experiment()["status"] == "completed"
    measured(f"{n_kills - kills_left} kills while errors are retried: 0 successes changed, 0 rows lost")


@pytest.mark.fault("R03")
def test_a_plain_resume_leaves_error_rows_alone(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "5")
    run_with_refusals(workplace, endpoint, total=40)
    before, calls = workplace.rows(), endpoint.calls()

    finished = workplace.run("resume", workplace.experiment_id()).expect(0)

    assert "nothing to do" in finished.err
    assert "RETRY_ERRORS_ONLY=1" in finished.err
    assert (workplace.rows(), endpoint.calls()) == (before, calls)


def test_latest_is_the_newest_experiment_with_errors_where_errors_are_to_be_retried(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "5")
    endpoint.change(fault_rates={"refusal": 0.2})
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(40))
    told = workplace.run("run", config).expect(1).err
    n_errors, calls = workplace.count_errors(), endpoint.calls()
    wanted = f"RETRY_ERRORS_ONLY=1 RESUME=1 EXPERIMENT_ID={workplace.experiment_id()} make resume"
    assert any(line.startswith("to retry:") and line.endswith(wanted) for line in told.splitlines())
    endpoint.change(fault_rates={})

    workplace.run("resume", "latest", "--retry-errors-only").expect(0)

    assert endpoint.calls() - calls == n_errors > 0
    assert workplace.count_errors() == 0
    assert "no experiment with error rows" in workplace.run("resume", "latest", "--retry-errors-only").expect(2).err


def test_retrying_errors_of_an_unfinished_experiment_leaves_what_is_missing_missing(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "30")
    endpoint.change(fault_rates={"refusal": 0.2})
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(100))
    interrupt_at(workplace, 40, config, "--concurrency", "2")
    n_rows, n_errors = workplace.count_rows(), workplace.count_errors()
    endpoint.settled_calls()
    calls = endpoint.calls()
    endpoint.change(fault_rates={})

    workplace.run("resume", "latest", "--retry-errors-only").expect(75)

    assert n_errors > 0
    assert endpoint.calls() - calls == n_errors
    assert (workplace.count_rows(), workplace.count_errors()) == (n_rows, 0)
    assert workplace.experiment()["status"] == "interrupted"
    workplace.run("resume").expect(0)
    assert workplace.count_rows() == 100


# --- which experiment ------------------------------------------------------------------------------------------------


@pytest.mark.fault("R03")
@pytest.mark.parametrize(
    "status", ["running", "interrupted", "failed", "completed", "", None], ids=lambda status: str(status) or "blank"
)
def test_an_experiment_of_any_status_is_completed_by_a_resume(
    workplace: Workplace, start_endpoint: StartEndpoint, status: str | None, is_long: bool, measured: Measured
) -> None:
    if not is_long and status not in ("failed", None):
        pytest.skip("the long tier has every status")
    endpoint = start_endpoint("--latency-ms", "30")
    interrupt_at(workplace, 8, workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(40)))
    with closing(sqlite3.connect(workplace.database)) as connection, connection:
        connection.execute("UPDATE experiments SET status = ?", (status,))

    workplace.run("resume", workplace.experiment_id()).expect(0)

    assert (workplace.experiment()["status"], workplace.count_rows()) == ("completed", 40)
    measured(f"status {status!r} with rows missing: completed, exit 0")


@pytest.mark.fault("R03")
def test_a_completed_experiment_is_resumed_with_exit_code_zero_a_sentence_and_no_call(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    endpoint = start_endpoint("--latency-ms", "5")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(10))
    workplace.run("run", config).expect(0)
    stats, experiment, runs = endpoint.stats(), workplace.experiment(), workplace.ask("SELECT * FROM runs")

    finished = workplace.run("resume", workplace.experiment_id()).expect(0)

    assert "nothing to do" in finished.err
    assert (endpoint.calls(), endpoint.stats()["probes"]) == (stats["calls"], stats["probes"])
    assert (workplace.experiment(), workplace.ask("SELECT * FROM runs")) == (experiment, runs)
    measured("completed: exit 0, `nothing to do`, 0 calls, 0 probes, nothing written")


@pytest.mark.fault("Y15")
def test_an_experiment_is_named_by_its_id_by_the_beginning_of_it_or_as_the_latest(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "40")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(60))
    names = []
    for rows in (3, 6):
        interrupt_at(workplace, rows, config, "-c", "2")
        names.append(workplace.ask_one("SELECT experiment_id FROM experiments ORDER BY rowid DESC LIMIT 1"))
    older, newer = names

    listed = workplace.run("run", environment={"RESUME": "1"}).expect(2).err
    assert older in listed
    assert newer in listed
    workplace.run("run", environment={"RESUME": "1", "EXPERIMENT_ID": "latest"}).expect(0)
    assert status_of(workplace, newer) == "completed"
    assert status_of(workplace, older) == "running"
    # now the older one is the latest that is incomplete
    workplace.run("resume", older[:8]).expect(0)
    assert status_of(workplace, older) == "completed"
    assert "no incomplete experiment" in workplace.run("resume", "latest").expect(2).err
    workplace.run("resume", "ffffffff-0000").expect(2)
    workplace.run("resume", "../../etc").expect(2)
    workplace.run("resume", "%").expect(2)


def status_of(workplace: Workplace, experiment_id: str) -> str:
    return str(workplace.ask_one("SELECT status FROM experiments WHERE experiment_id = ?", experiment_id))


@pytest.mark.fault("Y14")
@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"RETRY_ERRORS_ONLY": "1"}, "RESUME=1"),
        ({"RESUME": "maybe"}, "RESUME"),
        ({"NARRUN_CONCURENCY": "4"}, "NARRUN_CONCURENCY"),
        ({"RESUME": "1"}, "no database"),
    ],
    ids=["retry without resume", "a switch that is neither yes nor no", "an unknown variable", "resume of nothing"],
)
def test_an_environment_that_makes_no_sense_is_refused_before_anything_is_called(
    workplace: Workplace, start_endpoint: StartEndpoint, environment: dict[str, str], named: str
) -> None:
    endpoint = start_endpoint()
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(5))

    finished = workplace.run("run", config, environment=environment).expect(2)

    assert named in finished.err
    assert endpoint.calls() == 0
    assert not workplace.database.exists()
