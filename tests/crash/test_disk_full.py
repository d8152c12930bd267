"""A disk without room: no answers are bought that cannot be kept, what was committed stays, and the run goes on."""

from __future__ import annotations

import resource
import shutil
import time
from pathlib import Path

import pytest
from conftest import StartEndpoint
from disk import (
    SmallDisk,
    acknowledged,
    joined,
    log_lines,
    needs_namespaces,
    needs_strace,
    small_disk,
    strace,
)
from harness import NARRUN, Endpoint, Finished, Process, Workplace, wait_until
from reliability import Measured

pytestmark = [pytest.mark.crash, pytest.mark.slow]

CONCURRENCY = 8
NARRATIVES = 400
#: of a small run, whose system calls are counted
FEW = 60


def copy_out(disk: SmallDisk, workplace: Workplace) -> Workplace:
    """What lies on the small disk now, where SQLite reaches it; nobody may be writing."""
    copy = Workplace(directory=workplace.directory / f"copy-{time.monotonic_ns()}")
    copy.database.parent.mkdir(parents=True)
    for name in ("experiments.db", "experiments.db-wal"):
        if (file := disk.seen_from_outside / "data" / name).exists():
            shutil.copy(file, copy.database.with_name(name))
    return copy


def start_on(disk: SmallDisk, workplace: Workplace, *arguments: str | Path) -> Process:
    database = disk.mount_point / "data" / "experiments.db"
    return workplace.start_command(
        *disk.enter(workplace.directory), *NARRUN, *map(str, arguments), "--db", str(database)
    )


def wait_for_commits(count: int, workplace: Workplace, process: Process) -> None:
    wait_until(lambda: acknowledged(workplace.directory) >= count or not process.is_running, what="commits")
    assert process.is_running, process.read_err()


def wait_for_refusal(workplace: Workplace, process: Process) -> None:
    wait_until(
        lambda: (
            any("cannot be stored" in line for line in log_lines(workplace.directory, "run.log"))
            or not process.is_running
        ),
        what="the run says that the disk is full",
    )
    assert process.is_running, process.read_err()


def calls_while(endpoint: Endpoint, seconds: float) -> int:
    before = endpoint.calls()
    time.sleep(seconds)
    return endpoint.calls() - before


@pytest.mark.usefixtures("long_tier")
@needs_namespaces
@pytest.mark.fault("D01")
def test_a_full_disk_that_is_freed_in_time_costs_no_answer(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    endpoint = start_endpoint("--latency-ms", "20")
    narratives = workplace.write_narratives(NARRATIVES)
    config = workplace.write_config(url=endpoint.url, narratives=narratives, run__concurrency=CONCURRENCY)
    with small_disk(workplace.directory / "disk", size="8m") as disk:
        with start_on(disk, workplace, "run", config) as process:
            wait_for_commits(50, workplace, process)
            disk.fill()
            wait_for_refusal(workplace, process)
            calls_after = calls_while(endpoint, 0.4)
            disk.free()
            process.wait().expect(0)
        seen = copy_out(disk, workplace)
        seen.require_sound()
        assert len(seen.rows()) == NARRATIVES == endpoint.calls()
        assert seen.count_errors() == 0
    assert calls_after <= CONCURRENCY
    measured(f"freed in time: {calls_after} calls after the disk was full (C = {CONCURRENCY}), none repeated")


@needs_namespaces
@pytest.mark.fault("D01")
def test_a_disk_that_stays_full_ends_the_run_and_loses_nothing_that_was_committed(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    endpoint = start_endpoint("--latency-ms", "20")
    narratives = workplace.write_narratives(NARRATIVES)
    config = workplace.write_config(
        url=endpoint.url, narratives=narratives, run__concurrency=CONCURRENCY, run__max_storage_wait_s=1.5
    )
    with small_disk(workplace.directory / "disk", size="8m") as disk:
        with start_on(disk, workplace, "run", config) as process:
            wait_for_commits(50, workplace, process)
            disk.fill()
            wait_for_refusal(workplace, process)
            calls_before = endpoint.calls()
            stopped = process.wait().expect(74)
        calls_after = endpoint.settled_calls() - calls_before
        assert "disk is full" in stopped.err
        promised = acknowledged(workplace.directory)
        disk.free()
        seen = copy_out(disk, workplace)
        seen.require_sound()
        rows = seen.rows()
        assert len(rows) >= promised >= 50
        answers_lost = endpoint.calls() - len(rows)
        with start_on(disk, workplace, "resume", "--config", config) as process:
            process.wait().expect(0)
        seen = copy_out(disk, workplace)
        after = seen.rows()
        assert rows.items() <= after.items()
        assert len(after) == NARRATIVES
        assert seen.count_errors() == 0
    assert calls_after <= CONCURRENCY
    measured(
        f"stays full: exit 74, {calls_after} calls after the disk was full (C = {CONCURRENCY}), 0 of {promised} "
        f"committed rows lost, {answers_lost} answers in memory asked for again"
    )


@pytest.mark.usefixtures("long_tier")
@pytest.mark.fault("D02")
def test_a_limit_on_the_size_of_files_is_a_full_disk(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    endpoint = start_endpoint("--latency-ms", "20")
    narratives = workplace.write_narratives(NARRATIVES)
    config = workplace.write_config(url=endpoint.url, narratives=narratives, run__concurrency=CONCURRENCY)
    wal = workplace.database.with_name("experiments.db-wal")
    with workplace.start("run", config) as process:
        workplace.wait_for_rows(50, process)
        limits = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (wal.stat().st_size + 32768, limits[1]))
        wait_for_refusal(workplace, process)
        calls_after = calls_while(endpoint, 0.4)
        assert process.is_running
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
        process.wait().expect(0)
    assert any("disk is full" in line for line in log_lines(workplace.directory, "run.log"))
    workplace.require_sound()
    assert workplace.count_rows() == NARRATIVES == endpoint.calls()
    assert workplace.count_errors() == 0
    assert calls_after <= CONCURRENCY
    measured(f"{calls_after} calls after the limit was met (C = {CONCURRENCY}), none repeated, 0 rows lost")


# --- the Nth write ---------------------------------------------------------------------------------------------------


def run_with(workplace: Workplace, record: Path, *options: str, arguments: tuple[str | Path, ...]) -> Finished:
    command = joined(strace(record, *options, database=workplace.database), NARRUN, [str(one) for one in arguments])
    with workplace.start_command(*command) as process:
        return process.wait()


@needs_strace
@pytest.mark.fault("D03")
def test_a_write_that_finds_no_room_once_is_written_again_whichever_it_is(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured, is_long: bool
) -> None:
    endpoint = start_endpoint("--latency-ms", "2")
    narratives = workplace.write_narratives(FEW)
    config = workplace.write_config(
        url=endpoint.url, narratives=narratives, run__concurrency=4, run__max_storage_wait_s=2
    )
    workplace.run("ingest", narratives).expect(0)
    recovered, refused = 0, 0
    numbers = range(1, 201) if is_long else (60,)
    for number in numbers:
        place = Workplace(directory=workplace.directory / f"write-{number}")
        shutil.copytree(workplace.database.parent, place.database.parent)
        calls_before = endpoint.calls()
        record = place.directory / "strace.txt"
        inject = f"inject=pwrite64:error=ENOSPC:when={number}"
        ended = run_with(place, record, "-e", "trace=pwrite64", "-e", inject, arguments=("run", config))
        if ended.code == 0:
            recovered += 1
        else:
            refused += 1
            ended.expect(74)
            place.require_sound()
            place.run(*(("resume",) if place.ask("SELECT 1 FROM experiments") else ("run", config))).expect(0)
        place.require_sound()
        assert (place.count_rows(), place.count_errors()) == (FEW, 0), f"write {number}"
        assert endpoint.calls() - calls_before == FEW, f"write {number}"
    measured(
        f"{len(numbers)} writes: {recovered} runs went on by themselves, {refused} stopped; 0 rows lost or doubled"
    )
