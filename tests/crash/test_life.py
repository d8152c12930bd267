"""What a process may meet besides kills: standing still, a wrong clock, few files, little memory, a long time."""

from __future__ import annotations

import re
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from conftest import StartEndpoint
from harness import NARRUN, Process, Workplace, wait_until
from reliability import Measured

pytestmark = pytest.mark.crash

LAUNCHER = Path(__file__).with_name("wrong_clock.py")


# --- standing still --------------------------------------------------------------------------------------------------


def limit_of(workplace: Workplace, concurrency: str) -> int:
    """Calls that are allowed now; of `auto` as the run says in its log."""
    if concurrency != "auto":
        return int(concurrency)
    log = next((workplace.directory / "logs").rglob("run.log")).read_text()
    return int(re.findall(r"limit: (\d+) in flight", log)[-1])


@pytest.mark.slow
@pytest.mark.fault("P08")
@pytest.mark.parametrize("concurrency", [pytest.param("16", marks=pytest.mark.long), "auto"])
def test_a_process_that_stood_still_past_every_deadline_goes_on_without_an_error_row(
    workplace: Workplace, start_endpoint: StartEndpoint, concurrency: str, is_long: bool, measured: Measured
) -> None:
    stopped_s, deadline_s = (60.0, 5.0) if is_long else (3.0, 1.0)
    endpoint = start_endpoint("--latency-ms", "150", "--latency-spread", "0.2")
    total = 4000 if is_long else 400
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(total))
    flags = ("--concurrency", concurrency, "--attempt-deadline", str(deadline_s), "--max-concurrency", "32")
    with workplace.start("run", config, *flags) as process:
        workplace.wait_for_rows(total // 3, process)
        limit_before, n_before = limit_of(workplace, concurrency), workplace.count_rows()
        process.send(signal.SIGSTOP)
        time.sleep(stopped_s)
        process.send(signal.SIGCONT)
        wait_until(lambda: workplace.count_rows() >= n_before + 2 * limit_before, what="it goes on", at_most_s=20)
        process.wait().expect(0)
    assert (workplace.count_rows(), workplace.count_errors()) == (total, 0)
    n_given_up = workplace.ask_one("SELECT COUNT(*) FROM attempts WHERE error_category = 'timeout'")
    assert n_given_up <= 2 * limit_before  # those in flight when it stood still, once
    assert endpoint.calls() <= total + 2 * limit_before
    if concurrency == "auto" and is_long:
        assert limit_of(workplace, concurrency) >= 0.9 * limit_before
    measured(
        f"stopped for {stopped_s:.0f} s at {concurrency} ({limit_before} in flight): 0 error rows,"
        f" {n_given_up} calls repeated, {limit_of(workplace, concurrency)} in flight at the end"
    )


# --- the clock -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("T01")
@pytest.mark.parametrize(
    ("shift", "zone"),
    [("-3600@0.2", "UTC"), ("=1792889999.8", "Europe/Berlin"), ("-86400@0.1", "America/St_Johns")],
    ids=["an hour back", "the hour that comes twice", "a day back"],
)
def test_a_clock_that_is_set_back_changes_no_duration_and_no_result(
    workplace: Workplace, start_endpoint: StartEndpoint, shift: str, zone: str, measured: Measured
) -> None:
    endpoint = start_endpoint("--latency-ms", "20")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(120))
    with workplace.start_command(
        sys.executable, str(LAUNCHER), shift, "run", str(config), "-c", "8", environment={"TZ": zone}
    ) as process:
        process.wait().expect(0)
    workplace.run("verify").expect(0)
    (run,) = workplace.ask(
        "SELECT *, (JULIANDAY(ended_at) - JULIANDAY(started_at)) * 86400 AS wall_s,"
        " JULIANDAY(last_saved_at) >= JULIANDAY(started_at) AS is_saved_later FROM runs"
    )
    assert 0.2 < run["runtime_s"] < 60
    assert -0.01 <= run["wall_s"] - run["runtime_s"] < 1
    assert run["is_saved_later"]
    assert workplace.ask_one("SELECT MIN(response_sec) FROM narrative_results") >= 0.015
    assert workplace.experiment()["total_runtime_sec"] == pytest.approx(run["runtime_s"])
    assert (workplace.count_rows(), workplace.count_errors(), endpoint.calls()) == (120, 0, 120)
    measured(
        f"{shift} in {zone}: a run of {run['runtime_s']:.1f} s ends {run['wall_s']:.1f} s after it began; I14 holds"
    )


# --- descriptors and memory ------------------------------------------------------------------------------------------


def limited_to(soft: int, hard: int) -> dict[str, object]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return {"preexec_fn": limit}


@pytest.mark.fault("P12")
@pytest.mark.parametrize(
    "simulated",
    [pytest.param(False, id="an endpoint"), pytest.param(True, id="the simulated one", marks=pytest.mark.long)],
)
@pytest.mark.parametrize(("soft", "hard", "peak"), [(32, 32, 6), (32, 4096, 40)], ids=["hard limit", "soft limit"])
def test_few_descriptors_mean_fewer_calls_or_a_raised_limit_and_never_an_error_row(
    workplace: Workplace,
    start_endpoint: StartEndpoint,
    simulated: bool,
    soft: int,
    hard: int,
    peak: int,
    measured: Measured,
) -> None:
    endpoint = None if simulated else start_endpoint("--latency-ms", "60")
    narratives = workplace.write_narratives(150)
    config = workplace.write_config(
        url=endpoint.url if endpoint else None, narratives=narratives, run__save_csv_json=True
    )
    with workplace.start("run", config, "-c", "40", **limited_to(soft, hard)) as process:
        finished = process.wait().expect(0)
    assert (workplace.count_rows(), workplace.count_errors()) == (150, 0)
    assert workplace.ask("SELECT 1 FROM attempts WHERE error_category IS NOT NULL") == []
    assert ("so few files open" in finished.err) == (hard < 100)
    assert "the export failed" not in finished.err
    if endpoint:
        assert endpoint.stats()["peak_in_flight"] == peak
        measured(f"soft {soft}, hard {hard}, 40 asked for: {peak} calls at a time, 0 failed calls, 0 error rows")


@pytest.mark.fault("P12")
def test_a_process_that_may_open_next_to_nothing_says_so_and_writes_nothing(
    workplace: Workplace, measured: Measured
) -> None:
    config = workplace.write_config(url=None, narratives=workplace.write_narratives(5))
    with workplace.start("run", config, **limited_to(20, 20)) as process:
        refused = process.wait().expect(78)
    assert "only 20 files open" in refused.err
    assert "ulimit -n" in refused.err
    assert refused.err.count("\n") == 1
    assert not workplace.database.parent.exists()
    measured("limit 20: exit 78, one sentence, no file")


def resident_mib(process: Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024


@pytest.mark.slow
@pytest.mark.fault("P09")
def test_memory_is_bounded_and_flat_however_many_narratives_there_are(
    workplace: Workplace, start_endpoint: StartEndpoint, is_long: bool, measured: Measured
) -> None:
    total, concurrency = (60_000, 64) if is_long else (2_500, 16)
    endpoint = start_endpoint("--latency-ms", "5")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(total))
    seen: list[float] = []
    with workplace.start("run", config, "-c", str(concurrency)) as process:
        workplace.wait_for_rows(total // 5, process)
        began = time.monotonic()
        while process.is_running:
            try:
                seen.append(resident_mib(process))
            except (OSError, IndexError):
                break  # it has ended
            time.sleep(0.05)
            assert time.monotonic() - began < 900
        process.wait(at_most_s=60).expect(0)
    assert workplace.count_rows() == total
    assert len(seen) >= 5
    assert max(seen) <= 150 + 8 * concurrency
    if is_long:
        assert max(seen) <= 1.1 * seen[0]
    measured(f"{total} narratives at C={concurrency}: {seen[0]:.0f} MiB after a fifth, {max(seen):.0f} MiB at most")


# --- children --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.fault("P10")
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_no_process_is_made_after_the_lock_is_taken_so_that_none_can_inherit_it(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    endpoint = start_endpoint("--latency-ms", "5")
    narratives = workplace.write_narratives(40)
    config = workplace.write_config(url=endpoint.url, narratives=narratives, run__save_csv_json=True)
    trace = workplace.directory / "trace.txt"
    command = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=clone,clone3,fork,vfork,flock"]
    with workplace.start_command(*command, *NARRUN, "run", str(config)) as process:
        process.wait().expect(0)
    lines = trace.read_text().splitlines()
    locked = next(number for number, line in enumerate(lines) if "flock(" in line)
    made = [line for line in lines[locked:] if re.search(r"\b(clone3?|v?fork)\(", line) and "CLONE_THREAD" not in line]
    assert made == []
    measured(f"{len(lines) - locked} threads and locks after the lock was taken, 0 processes")


@pytest.mark.fault("P10")
def test_the_lock_dies_with_its_holder_although_a_thread_of_it_is_in_mid_write(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    endpoint = start_endpoint("--latency-ms", "5")
    config = workplace.write_config(url=endpoint.url, narratives=workplace.write_narratives(2000))
    with workplace.start("run", config, "-c", "16") as process:
        workplace.wait_for_rows(20, process)
        assert not workplace.lock_is_free()
        process.send(signal.SIGKILL)
        free_after_s = wait_until(workplace.lock_is_free, what="the lock is free", at_most_s=1)
    measured(f"free {1000 * free_after_s:.0f} ms after SIGKILL")
