"""An endpoint that is ill makes a run wait, a wrong setting stops it, a narrative to blame becomes an error row."""

from __future__ import annotations

import time

import pytest
from conftest import StartEndpoint
from harness import Endpoint, Workplace

pytestmark = pytest.mark.crash

#: calls in flight before the first success (limits.slots.FIRST_WINDOW)
FIRST_CALLS = 4


# --- out of reach ----------------------------------------------------------------------------------------------------


def run_through_an_outage(workplace: Workplace, endpoint: Endpoint, *, narratives: int, down_for_s: float) -> None:
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(narratives))
    with workplace.start("run", config, "--concurrency", "8") as process:
        workplace.wait_for_rows(narratives // 4, process)
        endpoint.go_down()
        went_down = time.monotonic()
        time.sleep(down_for_s)
        assert process.is_running, process.read_err()
        n_during = workplace.count_rows()
        endpoint.come_up()
        finished = process.wait(at_most_s=120).expect(0)
        assert time.monotonic() - went_down < down_for_s + 60

    assert n_during < narratives
    assert workplace.count_rows() == narratives
    assert workplace.count_errors() == 0
    assert workplace.experiment()["status"] == "completed"
    charged = "SELECT COUNT(*) FROM attempts WHERE charged = 1 AND error_category = 'unreachable'"
    assert workplace.ask_one(charged) == 0
    log = next((workplace.directory / "logs").rglob("run.log")).read_text()
    assert "the breaker opens" in log
    assert "the breaker closes" in log
    assert "200 of 200" in finished.out or narratives != 200


@pytest.mark.fault("N01")
@pytest.mark.slow
def test_an_endpoint_that_is_down_for_seconds_in_mid_run_is_waited_for_without_an_error_row(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "60")
    run_through_an_outage(workplace, endpoint, narratives=200, down_for_s=2)


@pytest.mark.fault("N01")
@pytest.mark.slow
def test_an_endpoint_that_is_down_for_a_minute_in_mid_run_is_waited_for_without_an_error_row(
    workplace: Workplace, start_endpoint: StartEndpoint, is_long: bool
) -> None:
    if not is_long:
        pytest.skip("takes a minute and a half; `make test-crash` runs it")
    endpoint = start_endpoint("--latency-ms", "60")
    run_through_an_outage(workplace, endpoint, narratives=200, down_for_s=60)


def test_an_endpoint_that_does_not_come_back_ends_the_run_as_interrupted_without_an_error_row(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "60")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(100))
    with workplace.start("run", config, "--max-wait", "2") as process:
        workplace.wait_for_rows(20, process)
        endpoint.go_down()
        finished = process.wait().expect(75)

    assert "to go on:" in finished.err
    assert workplace.experiment()["status"] == "interrupted"
    assert workplace.count_errors() == 0
    endpoint.come_up()
    workplace.run("resume").expect(0)
    assert workplace.count_rows() == 100


# --- a wrong setting -------------------------------------------------------------------------------------------------


def assert_stopped_for_good(workplace: Workplace, endpoint: Endpoint, *, calls_at_most: int) -> None:
    assert workplace.count_rows() == 0
    assert workplace.experiment()["status"] == "failed"
    assert 1 <= endpoint.calls() <= calls_at_most


@pytest.mark.fault("N07")
def test_a_refused_key_stops_a_run_at_once_without_a_row(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "5", "--require-key", "synthetic-key")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(100))

    finished = workplace.run("run", config, "--concurrency", "16").expect(78)

    assert_stopped_for_good(workplace, endpoint, calls_at_most=FIRST_CALLS)
    assert "401" in finished.err

    key = {"OPENAI_API_KEY": "synthetic-key"}
    workplace.run("resume", "--concurrency", "16", environment=key).expect(0)
    assert workplace.count_rows() == 100
    assert "synthetic-key" not in "".join(workplace.read_all_files())


@pytest.mark.fault("N07")
def test_a_key_that_is_withdrawn_in_mid_run_stops_it_and_leaves_the_rows_as_they_are(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "40")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(400))
    with workplace.start("run", config, "--concurrency", "8") as process:
        workplace.wait_for_rows(50, process)
        endpoint.change(auth_key="another-key")
        process.wait().expect(78)

    rows = workplace.rows()
    assert 50 <= len(rows) < 400
    assert len(rows) == endpoint.answered()
    assert workplace.count_errors() == 0
    assert endpoint.stats()["calls_by_status"]["401"] <= 8
    endpoint.change(auth_key=None)
    workplace.run("resume").expect(0)
    assert {key: row for key, row in workplace.rows().items() if key in rows} == rows


@pytest.mark.parametrize(
    ("flags", "calls_at_most", "named"),
    [
        (("--known-model", "another-model"), FIRST_CALLS, "model"),
        (("--refuse-parameter", "temperature"), 5 + FIRST_CALLS, "temperature"),
    ],
    ids=["a model that does not exist", "a parameter that is not supported"],
)
def test_a_setting_that_the_endpoint_refuses_stops_a_run_within_a_few_calls_without_a_row(
    workplace: Workplace, start_endpoint: StartEndpoint, flags: tuple[str, ...], calls_at_most: int, named: str
) -> None:
    endpoint = start_endpoint("--latency-ms", "5", *flags)
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(100))

    finished = workplace.run("run", config, "--concurrency", "16").expect(78)

    assert_stopped_for_good(workplace, endpoint, calls_at_most=calls_at_most)
    assert named in finished.err


# --- a narrative that breaks the endpoint ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("poison", [1, 12, 24], ids=["the first one", "one in the middle", "the last one"])
def test_a_narrative_that_always_gets_500_is_the_only_error_row_and_the_run_ends(
    workplace: Workplace, start_endpoint: StartEndpoint, concurrency: int, poison: int, is_long: bool
) -> None:
    if not is_long and (concurrency, poison) != (8, 12):
        pytest.skip("the long tier has every combination; the runner's own tests have them without processes")
    endpoint = start_endpoint("--latency-ms", "10", "--always", f"case {poison} ends here=http_500")
    config = workplace.write_config(
        url=endpoint.url, narratives=workplace.write_narratives(24), run__max_attempts=3, run__max_passes=2
    )

    finished = workplace.run("run", config, "--concurrency", str(concurrency)).expect(1)

    assert_only_error(workplace, poison, total=24)
    assert endpoint.calls() == 23 + 3 * 2
    assert "completed" in finished.out


@pytest.mark.slow
@pytest.mark.long
def test_a_narrative_that_always_gets_500_when_it_is_the_last_one_left_is_the_only_error_row(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "10", "--always", "case 12 ends here=http_500")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(12))
    with workplace.start("run", config) as process:
        workplace.wait_for_rows(11, process)
        process.kill()

    with workplace.start("resume", "latest", "--concurrency", "1") as process:
        process.wait(at_most_s=110).expect(1)

    assert_only_error(workplace, 12, total=12)


def assert_only_error(workplace: Workplace, number: int, *, total: int) -> None:
    assert workplace.count_rows() == total
    (row,) = workplace.ask("SELECT * FROM narrative_results WHERE error_occurred = 1")
    assert (row["incident_id"], row["error_category"]) == (str(100000 + number), "transient_exhausted")
    assert row["detected"] is None
    experiment = workplace.experiment()
    assert (experiment["status"], experiment["n_errors"]) == ("completed", 1)
