"""`narrun verify` and `narrun doctor` as a person calls them: beside a run, before one, and against a sick endpoint."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from conftest import StartEndpoint
from harness import Workplace, recorded_requests

pytestmark = pytest.mark.crash


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def change(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)


@pytest.fixture
def finished(workplace: Workplace) -> Path:
    """The configuration of a run that has ended, against an endpoint of its own."""
    narratives = workplace.write_narratives(20)
    config = workplace.write_config(url=None, narratives=narratives, simulation__latency_ms=1)
    workplace.run("run", config, "--concurrency", "8").expect(0)
    return config


def test_verify_finds_nothing_beside_a_run_however_often_it_looks(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "40", "--fault", "http_500=0.1", "--fault", "malformed=0.05")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(800))

    looks = 0
    with workplace.start("run", config, "--concurrency", "8") as run:
        workplace.wait_for_rows(20, run)
        while run.is_running and looks < 6:
            workplace.run("verify").expect(0)
            looks += run.is_running
        run.wait().expect(1)  # some answers are malformed

    assert looks >= 2, "the run ended before it was looked at"
    assert workplace.run("verify", "latest").expect(0).out.rstrip().endswith("invariants hold")


def test_verify_holds_after_a_kill(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "20")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(200))
    with workplace.start("run", config, "--concurrency", "8") as run:
        workplace.wait_for_rows(60, run)
        run.kill()

    workplace.run("verify").expect(0)


def test_verify_names_what_is_broken_with_65_and_shows_no_narrative(workplace: Workplace, finished: Path) -> None:
    change(workplace.database, "UPDATE source_narratives SET narrative_text = narrative_text || '!' WHERE rowid = 3")

    told = workplace.run("verify").expect(65)
    document = json.loads(workplace.run("verify", "latest", "--json").expect(65).out)

    assert told.out.splitlines()[-1].endswith(" invariants do not hold: I11")
    assert [one["id"] for one in document["invariants"] if not one["holds"]] == ["I11"]
    assert document["experiment_id"] == workplace.experiment_id()
    for text in (told.out, told.err, json.dumps(document)):
        assert "ends here" not in text
    workplace.run("verify", "deadbeef").expect(2)
    workplace.run("verify", "--db", workplace.directory / "nothing.db").expect(74)


def test_neither_command_changes_the_database(workplace: Workplace, finished: Path) -> None:
    before = digest(workplace.database)

    workplace.run("verify").expect(0)
    workplace.run("doctor", finished).expect(0)

    assert digest(workplace.database) == before


def test_doctor_finds_nothing_wrong_before_the_first_run_and_makes_no_file(workplace: Workplace) -> None:
    narratives = workplace.write_narratives(5)
    config = workplace.write_config(url=None, narratives=narratives)

    told = workplace.run("doctor", config).expect(0)

    assert "does not exist yet" in told.out
    assert "nothing is wrong" in told.out
    assert not workplace.database.parent.exists()


@pytest.mark.parametrize(
    ("flags", "environment", "code", "words"),
    [
        ((), {}, 0, "answered a request for one token"),
        (("--require-key", "made-up-key"), {"OPENAI_API_KEY": "made-up-key"}, 0, "a key is set"),
        (("--require-key", "made-up-key"), {"OPENAI_API_KEY": "wrong-key-of-tests"}, 78, "set the right key"),
        (("--require-key", "made-up-key"), {}, 78, "no key is set"),
        (("--known-model", "another"), {}, 78, "does not know the model"),
        (("--fault", "http_429=1"), {}, 75, "overloaded"),
        (("--fault", "http_500=1"), {}, 75, "it is there and does not work"),
        (("--fault", "reset=1"), {}, 75, "the connection was lost"),
        (("--refuse-parameter", "max_tokens"), {}, 0, "refuses the request for one token"),
    ],
    ids=["well", "key", "wrong key", "no key", "unknown model", "overloaded", "failing", "resetting", "refusing"],
)
def test_doctor_says_how_the_endpoint_is(
    flags: Sequence[str],
    environment: dict[str, str],
    code: int,
    words: str,
    workplace: Workplace,
    start_endpoint: StartEndpoint,
) -> None:
    record = workplace.directory / "record.jsonl"
    endpoint = start_endpoint("--latency-ms", "5", "--record", str(record), *flags)
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(5))

    told = workplace.run("doctor", config, environment=environment).expect(code)

    assert words in told.out
    for key in ("made-up-key", "wrong-key-of-tests"):
        assert key not in told.out + told.err
    requests = recorded_requests(record)
    assert len(requests) <= 3  # the endpoint does not record what it turns away
    assert requests or code or flags
    for number, body in enumerate(requests):
        assert (body["max_tokens"], len(body["messages"])) == (64 if number else 1, 1)
        assert "ends here" not in json.dumps(body)


def test_doctor_says_that_the_endpoint_is_down_and_that_it_is_back(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "5")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(5))

    endpoint.go_down()
    told = workplace.run("doctor", config).expect(75)
    endpoint.come_up()

    assert "cannot be reached" in told.out
    assert "start the server" in told.out
    workplace.run("doctor", config).expect(0)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"model__api_url": "http://192.0.2.1/v1"}, 78, "calls may go to this machine and private addresses only"),
        ({"model__api_url": "http://${NO_SUCH_HOST}/v1"}, 78, "NO_SUCH_HOST"),
        ({"model__api_key_env": "NO_SUCH_KEY"}, 78, "NO_SUCH_KEY"),
        ({"prompt__user_template": "no place for it"}, 78, "<<TEXT>>"),
        ({"data__file": "gone.csv"}, 65, "gone.csv: there is no such file"),
    ],
    ids=["remote", "unset variable", "unset key", "no placeholder", "no data"],
)
def test_doctor_says_what_is_wrong_with_a_configuration(
    changes: dict[str, str], code: int, words: str, workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "5")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(5), **changes)

    told = workplace.run("doctor", config).expect(code)

    assert words in told.out
    assert ("not called" in told.out or "endpoint" not in told.out) == (code == 78)


def test_doctor_knows_that_the_database_holds_a_workbook_that_is_gone(workplace: Workplace, finished: Path) -> None:
    (workplace.directory / "narratives.csv").unlink()

    assert "gone and not needed" in workplace.run("doctor", finished).expect(0).out


def test_doctor_names_a_database_that_others_may_read(workplace: Workplace, finished: Path) -> None:
    workplace.database.chmod(0o644)

    told = workplace.run("doctor", finished).expect(74)

    assert f"chmod 600 '{workplace.database}'" in told.out


def test_doctor_names_a_database_that_is_none_and_a_damaged_one(workplace: Workplace, finished: Path) -> None:
    foreign = workplace.directory / "foreign.db"
    foreign.write_bytes(b"made up " * 1000)
    foreign.chmod(0o600)
    assert "not a SQLite database" in workplace.run("doctor", finished, "--db", foreign).expect(74).out

    with closing(sqlite3.connect(workplace.database)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'attempts'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with workplace.database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    assert "is damaged" in workplace.run("doctor", finished).expect(74).out


def test_doctor_beside_a_run_names_the_process_that_works(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "100")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(200))
    with workplace.start("run", config, "--concurrency", "4") as run:
        workplace.wait_for_rows(1, run)
        told = workplace.run("doctor", config).expect(0)
        assert f"in use by process {run.pid} on {os.uname().nodename}" in told.out


def test_doctor_without_a_configuration_looks_at_the_database(workplace: Workplace, finished: Path) -> None:
    told = workplace.run("doctor").expect(0)

    assert "integrity_check ok" in told.out
    assert "none was named" in told.out
