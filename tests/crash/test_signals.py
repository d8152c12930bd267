"""What a run does when it is asked to stop, when it is asked twice, and when nobody looks at it any more."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import termios
import time

import pytest
from conftest import StartEndpoint
from harness import Finished, Workplace, wait_until
from reliability import Measured

pytestmark = pytest.mark.crash

#: of the promise "leaves within a second", and what a busy machine may add
AT_ONCE_S = 1.0
#: of the ways in which an output can be gone, those of the quick tier
ONE_OF_EACH = (">&- 2>&-", ">/dev/full 2>/dev/full", "2>&1 | head -1")


@pytest.mark.fault("P05")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_one_signal_drains_so_that_every_answer_is_stored_and_no_call_is_paid_twice(
    workplace: Workplace, start_endpoint: StartEndpoint, number: signal.Signals, code: int, measured: Measured
) -> None:
    endpoint = start_endpoint("--latency-ms", "150", "--latency-spread", "0.5")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(120))
    with workplace.start("run", config, "--concurrency", "16") as process:
        workplace.wait_for_rows(30, process)
        process.send(number)
        finished = process.wait(at_most_s=10).expect(code)

    experiment = workplace.experiment()
    rows = workplace.rows()
    assert experiment["status"] == "interrupted"
    assert 30 <= len(rows) < 120
    assert endpoint.calls() == endpoint.answered() == len(rows)
    assert "status     interrupted" in finished.out
    command = f"EXPERIMENT_ID={experiment['experiment_id']} make resume"
    assert command in finished.err
    (run,) = workplace.ask("SELECT * FROM runs")
    assert (run["exit_code"], run["ended_why"]) == (code, f"stopped by {number.name}")

    workplace.run("resume", experiment["experiment_id"]).expect(0)

    assert endpoint.calls() == 120  # none of them twice
    assert {key: row for key, row in workplace.rows().items() if key in rows} == rows
    measured(f"{number.name}: exit {code}, {len(rows)} answers and as many rows, 0 calls repeated")


def test_the_printed_command_is_one_that_works(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "50")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(80))
    with workplace.start("run", config, "--db", "my results.db", "--concurrency", "4") as process:
        wait_until(lambda: endpoint.answered() >= 10, what="ten answers")
        process.send(signal.SIGINT)
        finished = process.wait().expect(130)
    (line,) = [line for line in finished.err.splitlines() if "-m narrun_async resume" in line]
    command = line.strip().removeprefix("or").strip()

    resumed = subprocess.run(
        ["bash", "-c", f"exec {command}"],
        cwd=workplace.directory,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=60,
    )

    assert resumed.returncode == 0, resumed.stderr


@pytest.mark.fault("P06")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_second_signal_leaves_at_once_however_slow_the_endpoint_is(
    workplace: Workplace, start_endpoint: StartEndpoint, number: signal.Signals, measured: Measured
) -> None:
    endpoint = start_endpoint("--latency-ms", "20", "--latency-spread", "0")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(400))
    with workplace.start("run", config, "--concurrency", "8") as process:
        workplace.wait_for_rows(20, process)
        endpoint.change(latency_ms=60_000)
        time.sleep(0.3)
        n_answered = endpoint.answered()
        process.send(number)
        time.sleep(0.5)
        assert process.is_running  # it drains
        began = time.monotonic()
        process.send(number)
        process.wait(at_most_s=10).expect(130 if number is signal.SIGINT else 143)
        left_after_s = time.monotonic() - began
        assert left_after_s < AT_ONCE_S

    assert workplace.count_rows() == n_answered  # what the endpoint had finished is stored
    assert workplace.count_errors() == 0
    assert workplace.experiment()["status"] == "interrupted"
    measured(f"{number.name} twice: gone after {left_after_s:.2f} s, each of {n_answered} answers stored")


@pytest.mark.fault("P05")
def test_a_signal_while_the_endpoint_is_down_ends_the_wait(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "30")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(200))
    with workplace.start("run", config) as process:
        workplace.wait_for_rows(20, process)
        endpoint.go_down()
        time.sleep(2)
        assert process.is_running
        began = time.monotonic()
        process.send(signal.SIGINT)
        process.wait(at_most_s=10).expect(130)
        assert time.monotonic() - began < AT_ONCE_S

    assert workplace.count_errors() == 0


# --- nobody looks ----------------------------------------------------------------------------------------------------


def assert_complete(workplace: Workplace, total: int) -> None:
    assert workplace.count_rows() == total
    assert workplace.experiment()["status"] == "completed"
    log = next((workplace.directory / "logs").rglob("run.log")).read_text()
    assert "completed" in log


@pytest.mark.fault("P07")
def test_a_hangup_does_not_end_a_run(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "30")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(80))
    with workplace.start("run", config) as process:
        workplace.wait_for_rows(10, process)
        process.send(signal.SIGHUP)
        process.wait().expect(0)

    assert_complete(workplace, 80)


@pytest.mark.fault("P07")
def test_a_terminal_that_is_closed_does_not_end_a_run(workplace: Workplace, start_endpoint: StartEndpoint) -> None:
    endpoint = start_endpoint("--latency-ms", "30")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(80))
    ours, theirs = pty.openpty()
    try:
        terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        with workplace.start(
            "run", config, environment={"TERM": "xterm"}, start_new_session=True, preexec_fn=_own_terminal, **terminal
        ) as process:
            os.close(theirs)
            theirs = -1
            workplace.wait_for_rows(10, process)
            os.close(ours)  # the kernel sends SIGHUP, and every write fails from now on
            ours = -1
            process.wait().expect(0)
    finally:
        for descriptor in (ours, theirs):
            if descriptor >= 0:
                os.close(descriptor)

    assert_complete(workplace, 80)


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.fault("P07")
@pytest.mark.parametrize("redirection", ["2>&-", ">&- 2>&-", "2>/dev/full", ">/dev/full 2>/dev/full"])
def test_closed_or_full_outputs_do_not_end_a_run(
    workplace: Workplace, start_endpoint: StartEndpoint, redirection: str, is_long: bool, measured: Measured
) -> None:
    if not is_long and redirection not in ONE_OF_EACH:
        pytest.skip("the long tier has every combination")
    endpoint = start_endpoint("--latency-ms", "5")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(30))

    in_shell(workplace, f'"$0" -m narrun_async run "{config}" {redirection}').expect(0)

    assert_complete(workplace, 30)
    measured(f"`{redirection}`: 30 of 30 stored, exit 0")


@pytest.mark.fault("P07")
@pytest.mark.parametrize("redirection", ["| head -1", "| true", "2>&1 | head -1", "2>&1 | true"])
def test_a_reader_that_goes_away_does_not_end_a_run(
    workplace: Workplace, start_endpoint: StartEndpoint, redirection: str, is_long: bool, measured: Measured
) -> None:
    if not is_long and redirection not in ONE_OF_EACH:
        pytest.skip("the long tier has every combination")
    endpoint = start_endpoint("--latency-ms", "30")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(60))

    in_shell(workplace, f'"$0" -m narrun_async run "{config}" {redirection}; exit ${{PIPESTATUS[0]}}').expect(0)

    assert_complete(workplace, 60)
    measured(f"`{redirection}`: 60 of 60 stored, exit 0")


def in_shell(workplace: Workplace, script: str) -> Finished:
    with workplace.start_command("bash", "-c", script, os.fspath(workplace.python)) as process:
        return process.wait()
