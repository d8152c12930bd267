"""A sweep as a process: killed again and again it ends as one that nobody touched; a changed file is not mixed in."""

from __future__ import annotations

import random
import re
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import StartEndpoint
from harness import Workplace, wait_until

pytestmark = [pytest.mark.crash, pytest.mark.slow]

NARRATIVES = 30
KILLS = 10


def write_sweep(workplace: Workplace, url: str, matrix: dict[str, Any], *, name: str = "s", **changes: Any) -> Path:
    base = workplace.write_config(
        url=url, narratives=workplace.write_narratives(NARRATIVES), name="base", run__concurrency=4, **changes
    )
    path = workplace.directory / "sweep.yaml"
    path.write_text(yaml.safe_dump({"sweep": {"name": name}, "base": base.name, "matrix": matrix}), encoding="utf-8")
    return path


def statuses(workplace: Workplace) -> list[str]:
    return [row["status"] for row in workplace.ask("SELECT status FROM experiments ORDER BY sweep_position")]


def test_twelve_experiments_killed_ten_times_end_complete_with_every_row_once(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "25", "--fault", "malformed=0.05", "--seed", "3")
    for name in ("short", "long"):
        (workplace.directory / f"{name}.txt").write_text(f"A {name} prompt of tests.", encoding="utf-8")
    matrix = {
        "prompt": {"system_prompt_file": ["short.txt", "long.txt"]},
        "model": {"temperature": [0.0, 0.5, 1.0], "seed": [1, 2]},
    }
    sweep = write_sweep(workplace, endpoint.url, matrix)
    rng = random.Random(5)
    total, kills, seen = 12 * NARRATIVES, 0, {}
    for number in range(KILLS):
        wanted = total * number // KILLS + rng.randint(1, total // KILLS - 1)
        with workplace.start("sweep", sweep) as process:
            workplace.wait_for_rows(wanted, process)
            assert process.is_running, process.read_err()
            process.kill()
        kills += 1
        rows = {row["result_id"]: row for row in workplace.ask("SELECT * FROM narrative_results")}
        assert {key: rows[key] for key in seen} == seen
        seen = rows
    finished = workplace.run("sweep", sweep).expect(1)  # some answers are malformed

    assert kills == KILLS
    assert statuses(workplace) == ["completed"] * 12
    workplace.require_sound_experiments()
    per_experiment = workplace.ask(
        "SELECT COUNT(*) AS n, COUNT(DISTINCT incident_id || narrative_type) AS n_keys FROM narrative_results"
        " GROUP BY experiment_id"
    )
    assert [(row["n"], row["n_keys"]) for row in per_experiment] == [(NARRATIVES, NARRATIVES)] * 12
    # Eight open items, the queue and one batch of the writer, for each kill.
    assert endpoint.settled_calls() <= total + KILLS * (2 * 4 + 16 + 64)
    assert len(re.findall(r"^ ?\d+  ", finished.out, re.MULTILINE)) == 12
    workplace.run("verify").expect(0)

    # Each prompt is stored once, however many experiments have it.
    assert workplace.ask_one("SELECT COUNT(*) FROM prompts WHERE prompt_text LIKE 'A % prompt of tests.'") == 2
    assert workplace.ask_one("SELECT COUNT(DISTINCT system_prompt_sha256) FROM experiments") == 2

    calls = endpoint.calls()
    again = workplace.run("sweep", sweep).expect(1)
    assert endpoint.calls() == calls
    assert "nothing to do" in again.err
    assert again.out == finished.out


def test_a_changed_file_is_refused_and_changes_nothing(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "5")
    sweep = write_sweep(workplace, endpoint.url, {"run": {"seed": [1, 2]}})
    workplace.run("sweep", sweep, "--dry-run").expect(0)
    assert not workplace.database.exists()
    workplace.run("sweep", sweep).expect(0)
    rows = workplace.ask("SELECT * FROM narrative_results")

    write_sweep(workplace, endpoint.url, {"run": {"seed": [1, 2, 3]}})
    for arguments in ((), ("--dry-run",)):
        refused = workplace.run("sweep", sweep, *arguments).expect(2)
        assert "was begun on" in refused.err and "another `sweep.name`" in refused.err
    assert workplace.ask("SELECT * FROM narrative_results") == rows

    write_sweep(workplace, endpoint.url, {"run": {"seed": [1, 2, 3]}}, name="another")
    workplace.run("sweep", sweep).expect(0)
    assert statuses(workplace) == ["completed"] * 5


def test_one_unknown_model_fails_its_own_experiment_only(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "5", "--known-model", "m1", "--known-model", "m3")
    sweep = write_sweep(workplace, endpoint.url, {"model": {"name": ["m1", "m2", "m3"]}})
    finished = workplace.run("sweep", sweep, "--db", workplace.database).expect(78)
    assert statuses(workplace) == ["completed", "failed", "completed"]
    assert "does not know the model" in finished.err
    assert f"-m narrun_async sweep {sweep} --db {workplace.database}" in finished.err


def test_a_wrong_key_does_not_go_through_all_experiments(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "5", "--require-key", "the-right-key-of-tests")
    sweep = write_sweep(workplace, endpoint.url, {"run": {"seed": [1, 2, 3, 4, 5, 6]}})
    workplace.run("sweep", sweep).expect(78)
    assert statuses(workplace) == ["failed"] * 3 + ["running"] * 3
    assert workplace.count_rows() == 0
    workplace.run("sweep", sweep, environment={"OPENAI_API_KEY": "the-right-key-of-tests"}).expect(0)
    assert statuses(workplace) == ["completed"] * 6


def test_an_interrupt_stops_the_sweep_and_says_how_to_go_on(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "60")
    sweep = write_sweep(workplace, endpoint.url, {"run": {"seed": [1, 2, 3]}})
    with workplace.start("sweep", sweep) as process:
        workplace.wait_for_rows(NARRATIVES + 5, process)
        process.send(signal.SIGINT)
        finished = process.wait().expect(130)
    assert statuses(workplace) == ["completed", "interrupted", "running"]
    assert f"sweep {sweep}" in finished.err
    assert workplace.count_errors() == 0

    left = 3 * NARRATIVES - workplace.count_rows()
    foreseen = workplace.run("sweep", sweep, "--dry-run").expect(0)
    assert "1  seed=1: 0 to do" in foreseen.err
    assert f"to do      {left} narratives" in foreseen.err


def test_tokens_are_counted_over_the_whole_sweep(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "5")
    sweep = write_sweep(workplace, endpoint.url, {"run": {"seed": [1, 2, 3]}})
    workplace.run("sweep", sweep, "--max-tokens-total", "1").expect(75)
    workplace.run("sweep", sweep).expect(0)
    spent = workplace.ask_one("SELECT SUM(prompt_tokens + completion_tokens) FROM attempts")

    other = workplace.directory / "other"
    other.mkdir()
    elsewhere = Workplace(directory=other)
    stopped = elsewhere.run("sweep", write_sweep(elsewhere, endpoint.url, {"run": {"seed": [1, 2, 3]}}),
                            "--max-tokens-total", str(spent // 2)).expect(75)  # fmt: skip
    assert "the budget has no room" in stopped.err
    used = elsewhere.ask_one("SELECT SUM(prompt_tokens + completion_tokens) FROM attempts")
    assert spent // 4 < used < spent * 3 // 4


def test_a_second_sweep_beside_the_first_is_refused(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "1000")
    sweep = write_sweep(workplace, endpoint.url, {"run": {"seed": [1, 2]}})
    with workplace.start("sweep", sweep) as first:
        wait_until(lambda: workplace.count_rows() > 0, what="a first row")
        refused = workplace.run("sweep", sweep).expect(75)
        first.kill()
    assert "is in use by process" in refused.err


def test_requests_a_minute_are_those_of_the_whole_sweep(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    """A limiter of its own would let the second experiment's only call go at once."""
    endpoint = start_endpoint("--latency-ms", "5")
    sweep = write_sweep(workplace, endpoint.url, {"model": {"temperature": [0.0, 1.0]}}, run__max_narratives=1)
    workplace.run("sweep", sweep, "--rpm", "20").expect(0)
    first, second = [row["started_at"] for row in workplace.ask("SELECT started_at FROM attempts ORDER BY attempt_id")]
    assert (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds() > 2.5
