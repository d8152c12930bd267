"""What a person may do to a run that is going, from another process: look, change its calls, pause it, and estimate."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import StartEndpoint
from harness import Endpoint, Process, Workplace, wait_until

pytestmark = pytest.mark.crash

#: a command looks, a run looks twice a second, and a busy machine takes its time
SOON_S = 10.0
#: senseless limits of the quick tier
ONE_OF_EACH = (("--concurrency", "lots"), ("--rpm", "nan"), ("--max-cost", "5"))


@contextmanager
def a_run(workplace: Workplace, endpoint: Endpoint, *flags: str, narratives: int = 3000) -> Iterator[Process]:
    """A run that would take a minute or more, some rows into its work."""
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(narratives))
    before = workplace.count_rows()
    with workplace.start("run", config, *flags) as process:
        workplace.wait_for_rows(before + 5, process)
        yield process


def live_file(workplace: Workplace, name: str = "live.json") -> Path:
    return Path(str(workplace.experiment()["log_dir"])) / name


def live(workplace: Workplace) -> dict[str, Any] | None:
    document = json.loads(workplace.run("status", "--json").expect(0).out)
    found: dict[str, Any] | None = document.get("live")
    return found


def stop(process: Process) -> None:
    process.send(signal.SIGINT)
    process.wait().expect(130)


def holds(condition: Callable[[], bool], *, for_s: float) -> bool:
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        if not condition():
            return False
        time.sleep(0.01)
    return True


def listing(directory: Path) -> dict[str, tuple[int, int]]:
    """Every file below, with its size and the time of its last change.

    Left out is what the harness writes, and the index of the log that SQLite makes beside a database that is only read.
    """
    found = sorted(
        path
        for path in directory.rglob("*")
        if not path.name.startswith(("out-", "err-")) and not path.name.endswith(("-shm", "-wal"))
    )
    return {
        str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in found
        if path.is_file()
    }


# --- set, pause, unpause, status -------------------------------------------------------------------------------------


def test_the_number_of_calls_is_changed_up_down_and_to_auto_while_the_run_goes_on(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "300", "--latency-spread", "0.1")
    with a_run(workplace, endpoint, "--concurrency", "4") as process:
        assert int(endpoint.stats()["peak_in_flight"]) == 4
        for number in ("24", "2", "40"):
            told = workplace.run("set", "concurrency", number).expect(0)
            assert str(process.pid) in told.out
            wanted = int(number)
            wait_until(lambda n=wanted: endpoint.stats()["in_flight"] == n, what=f"{number} calls", at_most_s=SOON_S)
            assert holds(lambda n=wanted: endpoint.stats()["in_flight"] <= n, for_s=0.5)
        workplace.run("set", "concurrency", "auto").expect(0)
        wait_until(lambda: (live(workplace) or {})["limits"]["is_auto"], what="auto", at_most_s=SOON_S)
        wait_until(lambda: endpoint.stats()["in_flight"] <= 16, what="auto begins low", at_most_s=SOON_S)
        assert process.is_running
        stop(process)
    assert workplace.count_errors() == 0
    assert endpoint.calls() == endpoint.answered() == workplace.count_rows()


def test_a_paused_run_sends_nothing_keeps_its_database_and_goes_on_when_it_is_told_to(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "60")
    with a_run(workplace, endpoint, "--concurrency", "8") as process:
        workplace.run("pause").expect(0)
        wait_until(lambda: endpoint.stats()["in_flight"] == 0, what="nothing is in flight", at_most_s=SOON_S)
        calls = endpoint.calls()
        assert holds(lambda: endpoint.calls() == calls, for_s=1.5)
        view = live(workplace)
        assert view is not None
        assert (view["limits"]["is_paused"], view["in_flight"], view["pid"]) == (True, 0, process.pid)
        shown = workplace.run("status").expect(0)
        assert "paused" in shown.out
        assert not workplace.lock_is_free()

        workplace.run("set", "concurrency", "3").expect(0)
        assert holds(lambda: endpoint.calls() == calls, for_s=1.0)

        workplace.run("unpause").expect(0)
        wait_until(lambda: endpoint.calls() > calls + 20, what="it goes on", at_most_s=SOON_S)
        assert endpoint.stats()["in_flight"] <= 3
        stop(process)
    assert endpoint.calls() == endpoint.answered() == workplace.count_rows()


def test_a_paused_run_stops_at_a_signal_at_once_and_its_resume_is_not_paused(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "60")
    with a_run(workplace, endpoint, "--concurrency", "8", narratives=600) as process:
        workplace.run("pause").expect(0)
        wait_until(lambda: endpoint.stats()["in_flight"] == 0, what="nothing is in flight", at_most_s=SOON_S)
        calls = endpoint.calls()
        stop(process)
    assert endpoint.calls() == calls == workplace.count_rows()
    workplace.run("resume", "--concurrency", "64").expect(0)
    assert (endpoint.calls(), workplace.count_rows()) == (600, 600)


def test_status_shows_what_only_the_run_knows_and_the_files_go_with_the_run(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "100")
    with a_run(workplace, endpoint, "--concurrency", "6") as process:
        wait_until(lambda: (live(workplace) or {}).get("latency_p50_s") is not None, what="latencies", at_most_s=SOON_S)
        view = live(workplace)
        assert view is not None
        assert view["experiment_id"] == workplace.experiment_id()
        assert view["limits"]["limit"] == 6
        assert 0.05 <= view["latency_p50_s"] <= view["latency_p95_s"] < 5
        assert view["rate_per_s"] > 1
        assert view["n_total"] == 3000
        shown = workplace.run("status").expect(0).out
        for part in ("in flight", "latency", "p95", "6 in flight (set)"):
            assert part in shown
        assert live_file(workplace).stat().st_mode & 0o777 == 0o600
        with workplace.start("status", "--watch") as watching:
            time.sleep(3.0)
            assert watching.is_running
            stop(process)
            watching.wait(at_most_s=SOON_S).expect(0)
    assert not live_file(workplace).exists()
    assert not live_file(workplace, "control.json").exists()
    assert live(workplace) is None


@pytest.mark.parametrize("command", [("set", "concurrency", "8"), ("pause",), ("unpause",)], ids=" ".join)
def test_without_a_run_there_is_nothing_to_change(
    workplace: Workplace, start_endpoint: StartEndpoint, command: tuple[str, ...]
) -> None:
    refused = workplace.run(*command).expect(2)
    assert refused.err.count("\n") <= 2
    endpoint = start_endpoint("--latency-ms", "0")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(10))
    workplace.run("run", config).expect(0)
    before = listing(workplace.directory)
    refused = workplace.run(*command).expect(2)
    assert "no run is working" in refused.err
    assert listing(workplace.directory) == before


@pytest.mark.parametrize("wrong", ["0", "-1", "4097", "many", "3.5", "1e3", "", "AUTO", "٣"])
def test_a_concurrency_that_makes_no_sense_is_refused_with_a_sentence(
    workplace: Workplace, wrong: str, is_long: bool
) -> None:
    if not is_long and wrong not in ("0", "many"):
        pytest.skip("the long tier has every word")
    refused = workplace.run("set", "concurrency", "--", wrong).expect(2)
    assert "a concurrency is a number" in refused.err
    assert "Traceback" not in refused.err


def test_what_a_killed_run_leaves_behind_is_neither_believed_nor_obeyed(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "60")
    with a_run(workplace, endpoint, "--concurrency", "8", narratives=2000) as process:
        workplace.run("pause").expect(0)
        wait_until(lambda: endpoint.stats()["in_flight"] == 0, what="nothing is in flight", at_most_s=SOON_S)
        process.kill()
    left = {name: live_file(workplace, name).read_bytes() for name in ("live.json", "control.json")}
    assert live(workplace) is None
    workplace.run("unpause").expect(2)

    first = workplace.experiment_id()
    with workplace.start("resume", first, "--concurrency", "5") as process:
        workplace.wait_for_rows(workplace.count_rows() + 20, process)
        view = live(workplace)
        assert view is not None
        assert (view["pid"], view["limits"]["is_paused"], view["limits"]["limit"]) == (process.pid, False, 5)
        # what the killed process was told, while another one is at work
        live_file(workplace, "control.json").write_bytes(left["control.json"])
        calls = endpoint.calls()
        wait_until(lambda: endpoint.calls() > calls + 100, what="it goes on", at_most_s=SOON_S)
        workplace.run("pause").expect(0)
        wait_until(lambda: endpoint.stats()["in_flight"] == 0, what="nothing is in flight", at_most_s=SOON_S)
        process.kill()

    # a newer experiment in the same database is killed, too, and its process id is by chance that of somebody alive
    with a_run(workplace, endpoint, "--concurrency", "7", narratives=2000) as process:
        view = live(workplace)
        assert view is not None
        assert (view["pid"], view["limits"]["limit"]) == (process.pid, 7)
        assert view["experiment_id"] != first
        process.kill()
    newer = workplace.ask("SELECT log_dir FROM experiments WHERE experiment_id <> ?", first)[0]["log_dir"]
    Path(newer, "live.json").write_text(json.dumps(view | {"pid": os.getpid()}))
    with workplace.start("resume", first, "--concurrency", "5") as process:
        workplace.wait_for_rows(workplace.count_rows() + 20, process)
        told = workplace.run("set", "concurrency", "2").expect(0)
        assert f"process {process.pid} (experiment {first})" in told.out
        wait_until(lambda: endpoint.stats()["in_flight"] == 2, what="two calls", at_most_s=SOON_S)
        process.kill()


# --- estimate --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [False, True], ids=["unknown-file", "known-file"])
def test_an_estimate_sends_a_few_and_writes_nothing(
    workplace: Workplace, start_endpoint: StartEndpoint, known: bool
) -> None:
    endpoint = start_endpoint("--latency-ms", "30")
    narratives = workplace.write_narratives(400)
    prices = {"prompt_per_million": 1.0, "completion_per_million": 2.0}
    config = workplace.write_config(url=endpoint.url, narratives=narratives, run__prices=prices)
    if known:
        workplace.run("ingest", narratives).expect(0)
    before = listing(workplace.directory)

    told = workplace.run("estimate", config, "-k", "5", "--concurrency", "10").expect(0)

    assert endpoint.calls() == 5
    assert listing(workplace.directory) == before
    for part in ("sample", "400 narratives", "duration", "10 calls in flight", "prompt", "completion", "cost"):
        assert part in told.out


def test_an_estimate_that_is_kept_is_the_beginning_of_an_experiment(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "10")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(60))

    told = workplace.run("estimate", config, "--keep").expect(75)

    assert "52 narratives" in told.out
    assert (endpoint.calls(), workplace.count_rows(), workplace.experiment()["status"]) == (8, 8, "interrupted")
    workplace.require_sound()
    assert len(workplace.ask("SELECT 1 FROM servings")) == 1
    kept = workplace.rows()
    assert "journal" not in workplace.run("resume").expect(0).err
    assert endpoint.calls() == 60
    assert {key: row for key, row in workplace.rows().items() if key in kept} == kept
    assert workplace.experiment()["status"] == "completed"


def test_an_estimate_of_fewer_narratives_than_its_sample_sends_each_once(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "0")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(3))
    workplace.run("estimate", config, "-k", "50").expect(0)
    assert endpoint.calls() == 3
    workplace.run("estimate", config, "-k", "50", "--keep").expect(0)
    assert (endpoint.calls(), workplace.count_rows(), workplace.experiment()["status"]) == (6, 3, "completed")


@pytest.mark.long
def test_an_estimate_keeps_to_a_gate(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "20", "--fault", "http_429=1")
    endpoint.change(retry_after_s=2.0)
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(40))
    with workplace.start("estimate", config) as process:
        wait_until(lambda: endpoint.calls() > 0, what="the first calls")
        time.sleep(0.7)
        assert endpoint.calls() <= 4
        endpoint.change(fault_rates={})
        process.wait().expect(0)
    assert endpoint.calls() <= 12


def test_a_wrong_key_ends_an_estimate_with_a_sentence(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--require-key", "the-right-one")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(20))
    before = listing(workplace.directory)
    refused = workplace.run("estimate", config).expect(78)
    assert refused.err.startswith("narrun: ")
    assert "Traceback" not in refused.err
    assert listing(workplace.directory) == before


# --- flags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [("--concurrency", "auto"), ()], ids=["auto", "default"])
def test_auto_climbs_in_a_real_run(workplace: Workplace, start_endpoint: StartEndpoint, flags: tuple[str, ...]) -> None:
    endpoint = start_endpoint("--latency-ms", "80")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(600))
    workplace.run("run", config, *flags, "--max-concurrency", "24").expect(0)
    assert 8 <= int(endpoint.stats()["peak_in_flight"]) <= 24
    assert (endpoint.calls(), workplace.count_rows(), workplace.count_errors()) == (600, 600, 0)
    (run,) = workplace.ask("SELECT concurrency FROM runs")
    assert run["concurrency"] == "auto"


@pytest.mark.parametrize(
    "flags",
    [
        ("--concurrency", "0"),
        ("--concurrency", "-3"),
        ("--concurrency", "lots"),
        ("--concurrency", "99999"),
        ("--max-concurrency", "0"),
        ("--max-concurrency", "5000"),
        ("--rpm", "0"),
        ("--rpm", "-1"),
        ("--rpm", "nan"),
        ("--rpm", "inf"),
        ("--rpm", "fast"),
        ("--tpm", "0"),
        ("--tpm", "inf"),
        ("--max-tokens-total", "0"),
        ("--max-cost", "0"),
        ("--max-cost", "nan"),
        ("--max-cost", "5"),  # without prices
    ],
    ids=" ".join,
)
def test_a_limit_that_makes_no_sense_is_refused_before_anything_is_written_or_sent(
    workplace: Workplace, flags: tuple[str, ...], is_long: bool
) -> None:
    if not is_long and flags not in ONE_OF_EACH:
        pytest.skip("the long tier has every flag")
    config = workplace.write_config(url="http://127.0.0.1:9", narratives=workplace.write_narratives(5))
    before = listing(workplace.directory)
    with workplace.start("run", config, *flags) as process:
        refused = process.wait()
    assert refused.code in (2, 78), refused.err
    assert "Traceback" not in refused.err
    assert refused.err.strip()
    assert listing(workplace.directory) == before


def test_a_budget_stops_a_real_run_resumably_and_counts_what_earlier_runs_spent(
    workplace: Workplace, start_endpoint: StartEndpoint
) -> None:
    endpoint = start_endpoint("--latency-ms", "5")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(200))
    first = workplace.run("run", config, "--max-tokens-total", "3000").expect(75)
    assert "the budget has no room" in first.err
    used = workplace.ask_one("SELECT SUM(prompt_tokens) + SUM(completion_tokens) FROM attempts")
    assert 2500 <= used <= 3100
    assert 0 < workplace.count_rows() < 200
    calls = endpoint.calls()
    workplace.run("resume", "--max-tokens-total", "3000").expect(75)
    assert endpoint.calls() <= calls + 4
    workplace.run("resume").expect(0)
    assert (workplace.count_rows(), workplace.count_errors()) == (200, 0)
