"""A disk that fails: the run stops and asks it nothing more, and the next start finds every row that was committed."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import StartEndpoint
from disk import acknowledged, joined, log_lines, needs_strace, strace
from harness import NARRUN, Finished, Workplace
from reliability import Measured

pytestmark = [pytest.mark.crash, pytest.mark.slow, needs_strace]

FEW = 60
CALLS = "pwrite64,fdatasync,fsync,pread64"
#: system call, which one of its kind fails; a run of so few narratives makes some 150, 15, 3 and 30 of them a thread
QUICK = (("fdatasync", 9),)
LONG = (
    *(("fdatasync", number) for number in range(1, 26)),
    *(("fsync", number) for number in range(1, 4)),
    *(("pwrite64", number) for number in range(1, 151, 2)),
    *(("pread64", number) for number in range(1, 31)),
)


def prepare(workplace: Workplace, name: str) -> Workplace:
    """A directory with a database that knows the narratives and is at rest."""
    place = Workplace(directory=workplace.directory / name)
    shutil.copytree(workplace.database.parent, place.database.parent)
    return place


def run_traced(place: Workplace, config: Path, *options: str) -> tuple[Finished, list[str]]:
    """How a run ended, and the system calls that it made on the database, in order."""
    record = place.directory / "strace.txt"
    command = joined(strace(record, "-e", f"trace={CALLS}", *options, database=place.database), NARRUN)
    with place.start_command(*command, "run", str(config)) as process:
        return process.wait(), record.read_text(encoding="utf-8", errors="replace").splitlines()


def finish(place: Workplace, config: Path) -> None:
    """Whatever was left undone, by the ordinary commands."""
    has_experiment = bool(place.ask("SELECT 1 FROM experiments"))
    place.run(*(("resume", "--config", config) if has_experiment else ("run", config))).expect(0)


@pytest.mark.fault("D04")
def test_a_disk_that_fails_at_any_call_costs_no_committed_row_and_is_not_asked_again(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured, is_long: bool
) -> None:
    endpoint = start_endpoint("--latency-ms", "2")
    narratives = workplace.write_narratives(FEW)
    config = workplace.write_config(url=endpoint.url, narratives=narratives, run__concurrency=4)
    workplace.run("ingest", narratives).expect(0)
    ended: Counter[str] = Counter()
    for call, number in LONG if is_long else QUICK:
        place = prepare(workplace, f"{call}-{number}")
        finished, calls = run_traced(place, config, "-e", f"inject={call}:error=EIO:when={number}")
        injected = next((at for at, line in enumerate(calls) if "(INJECTED)" in line), None)
        promised = acknowledged(place.directory)
        place.require_sound()
        assert place.count_rows() >= promised, f"{call} {number}: rows that were called saved are gone"
        if injected is None:
            finished.expect(0)
            ended["never came so far"] += 1
        elif finished.code == 0:
            ended["no harm"] += 1
        else:
            # What `quick_check` cannot read it calls damaged.
            assert re.search("the disk reported an error|its disk fails to read it", finished.expect(74).err)
            ended["stopped"] += 1
            if call != "pread64":
                later = [line for line in calls[injected + 1 :] if "sync(" in line and "(INJECTED)" not in line]
                assert later == [], f"{call} {number}: synced after a failure"
            finish(place, config)
        place.require_sound()
        assert (place.count_rows(), place.count_errors()) == (FEW, 0), f"{call} {number}"
    print(dict(ended))
    assert ended["stopped"]
    measured(
        f"{sum(ended.values())} failing calls: {ended['stopped']} runs stopped with 74, {ended['no harm']} took no "
        "harm; 0 committed rows lost, 0 syncs after a failure"
    )


@pytest.mark.usefixtures("long_tier")
@pytest.mark.fault("D02")
def test_a_spent_quota_is_a_full_disk_although_the_database_calls_it_an_error(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured
) -> None:
    endpoint = start_endpoint("--latency-ms", "2")
    narratives = workplace.write_narratives(FEW)
    config = workplace.write_config(url=endpoint.url, narratives=narratives, run__concurrency=4)
    workplace.run("ingest", narratives).expect(0)
    place = prepare(workplace, "quota")
    record = place.directory / "strace.txt"
    # Without -P: the program asks the disk itself what is wrong, and must be told the same.
    inject = "inject=pwrite64:error=EDQUOT:when=40..42"
    command = joined(strace(record, "-e", "trace=pwrite64", "-e", inject), NARRUN)
    with place.start_command(*command, "run", str(config)) as process:
        process.wait().expect(0)
    assert "EDQUOT" in record.read_text(encoding="utf-8", errors="replace")
    assert any("disk is full" in line for line in log_lines(place.directory, "run.log"))
    place.require_sound()
    assert (place.count_rows(), place.count_errors(), endpoint.calls()) == (FEW, 0, FEW)
    measured("EDQUOT: the run went on by itself, 0 rows lost, 0 calls repeated")
