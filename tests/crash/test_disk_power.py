"""A power failure at any moment of a real run: what was called saved is there, and the file is sound.

The run is recorded once, write by write and sync by sync. A cut then takes what had been written until some moment:
everything that a sync had followed, and of the rest any part, in sectors, as a disk may leave it. With the syncs left
out of the record (what synchronous=OFF would do) the same cuts must show losses, or the test would prove nothing.
"""

from __future__ import annotations

import ast
import random
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import StartEndpoint
from disk import joined, needs_strace, results_in, strace
from harness import NARRUN, Workplace
from reliability import Measured

pytestmark = [pytest.mark.crash, pytest.mark.slow, needs_strace]

SEED = 20240611
#: enough for SQLite to begin its -wal file anew in the long tier, which it does after 1,000 pages
NARRATIVES, NARRATIVES_LONG = 160, 1500
SECTOR_BYTES = 512
_CALL = re.compile(
    r"\d+ +(?P<call>pwrite64|write|fdatasync|fsync|ftruncate|unlink)\((?P<rest>.*)\) += (?P<result>-?\d+)"
)
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(?P<rest>.*)")
_FILE = re.compile(r"\d+<(?P<path>[^>]*)>(?:, )?(?P<rest>.*)", re.S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    file: str
    offset: int
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate:
    file: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The run said that it has stored so many results."""

    n_results: int


Step = Write | Truncate | Sync | Saved


def _whole_calls(lines: Iterable[str]) -> Iterator[str]:
    """Calls in the order in which they ended; strace cuts one in two when another thread speaks in between."""
    begun: dict[str, str] = {}
    for line in lines:
        thread, text = line.rstrip("\n").split(None, 1)
        if text.endswith("<unfinished ...>"):
            begun[thread] = text.removesuffix("<unfinished ...>").rstrip()
        elif found := _RESUMED.match(text):
            yield f"{thread} {begun.pop(thread)}{found['rest']}"
        else:
            yield f"{thread} {text}"


def read_steps(lines: Iterable[str], database: Path) -> list[Step]:
    """What a run did to its database, until it removed the -wal file at its end."""
    names = {str(database): "db", f"{database}-wal": "wal"}
    steps: list[Step] = []
    for line in _whole_calls(lines):
        found = _CALL.match(line)
        if found is None:
            assert not re.match(r"\d+ +(pwrite64|fdatasync|ftruncate)\(", line), f"not understood: {line[:80]}"
            continue
        if found["call"] == "unlink":
            if found["rest"] == f'"{database}-wal"':
                break
            continue
        opened = _FILE.match(found["rest"])
        assert opened is not None
        path, rest = opened["path"], opened["rest"]
        if path.endswith("/journal"):
            steps.append(Saved(n_results=results_in(ast.literal_eval("b" + rest.rsplit(", ", 1)[0]).decode())))
        elif path in names and found["call"] == "pwrite64":
            quoted, _, offset = rest.rsplit(", ", 2)
            content = ast.literal_eval("b" + quoted)
            assert len(content) == int(found["result"]), "the record is cut short"
            steps.append(Write(file=names[path], offset=int(offset), content=content))
        elif path in names and found["call"] == "ftruncate":
            steps.append(Truncate(file=names[path], size=int(rest)))
        elif path in names:
            steps.append(Sync(file=names[path]))
    return steps


def disk_after(steps: list[Step], start: dict[str, bytes], rng: random.Random) -> dict[str, bytearray]:
    """What the disk may hold when the power fails after these steps."""
    disk = {name: bytearray(content) for name, content in start.items()}
    pending: dict[str, list[Write | Truncate]] = {name: [] for name in disk}
    for step in steps:
        if isinstance(step, Sync):
            for change in pending[step.file]:
                _apply(disk[step.file], change)
            pending[step.file].clear()
        elif not isinstance(step, Saved):
            pending[step.file].append(step)
    for name, changes in pending.items():
        for change in changes:
            fate = rng.random()
            if fate < 0.4:
                _apply(disk[name], change)
            elif fate < 0.6 and isinstance(change, Write):
                for torn in _sectors(change):
                    if rng.random() < 0.5:
                        _apply(disk[name], torn)
    return disk


def _apply(content: bytearray, change: Write | Truncate) -> None:
    if isinstance(change, Truncate):
        del content[change.size :]
        content.extend(bytes(change.size - len(content)))
        return
    content.extend(bytes(max(0, change.offset - len(content))))
    content[change.offset : change.offset + len(change.content)] = change.content


def _sectors(write: Write) -> Iterable[Write]:
    for at in range(0, len(write.content), SECTOR_BYTES):
        yield Write(file=write.file, offset=write.offset + at, content=write.content[at : at + SECTOR_BYTES])


Rows = dict[int, tuple[object, ...]]


def rows_of(database: Path) -> Rows:
    with closing(sqlite3.connect(database)) as db:
        return {row[0]: row for row in db.execute("SELECT * FROM narrative_results ORDER BY result_id")}


def what_is_wrong(disk: dict[str, bytearray], directory: Path, n_saved: int, all_rows: Rows) -> str | None:
    """None when the database is sound and holds every row that was called saved, as it was."""
    path = directory / "cut.db"
    for name, content in disk.items():
        path.with_name("cut.db" if name == "db" else "cut.db-wal").write_bytes(content)
    try:
        with closing(sqlite3.connect(path)) as db:
            found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            return "unsound"
        rows = rows_of(path)
    except sqlite3.DatabaseError:
        return "unreadable"
    if len(rows) < n_saved:
        return "saved rows are gone"
    return None if rows.items() <= all_rows.items() else "rows changed"


@pytest.mark.fault("D05")
def test_no_power_failure_takes_a_row_that_was_called_saved(
    workplace: Workplace, start_endpoint: StartEndpoint, measured: Measured, is_long: bool
) -> None:
    steps, start, all_rows = record_a_run(workplace, start_endpoint, NARRATIVES_LONG if is_long else NARRATIVES)
    rng = random.Random(SEED)
    n_cuts = 1000 if is_long else 50
    moments = [rng.randrange(1, len(steps)) for _ in range(n_cuts)]
    lost = count_losses(steps, start, all_rows, moments, workplace.directory, rng)
    without_syncs = [step for step in steps if not isinstance(step, Sync)]
    moments = [rng.randrange(1, len(without_syncs)) for _ in range(n_cuts)]
    lost_without = count_losses(without_syncs, start, all_rows, moments, workplace.directory, rng)
    print(
        f"seed {SEED}: {len(steps)} steps, {sum(isinstance(step, Sync) for step in steps)} syncs; {lost} {lost_without}"
    )
    assert lost == {}
    assert sum(lost_without.values()) > n_cuts / 2
    measured(
        f"{n_cuts} cuts: 0 lost a saved row or left an unsound file; without the syncs {sum(lost_without.values())} did"
    )


def record_a_run(
    workplace: Workplace, start_endpoint: StartEndpoint, n_narratives: int
) -> tuple[list[Step], dict[str, bytes], Rows]:
    """The steps of a run, the files before it, and its rows."""
    endpoint = start_endpoint("--latency-ms", "20")
    narratives = workplace.write_narratives(n_narratives)
    config = workplace.write_config(url=endpoint.url, narratives=narratives, run__concurrency=4)
    workplace.run("ingest", narratives).expect(0)
    start = {"db": workplace.database.read_bytes(), "wal": b""}
    record = workplace.directory / "strace.txt"
    options = ("-y", "-s", "1000000", "-e", "trace=pwrite64,write,fdatasync,fsync,ftruncate,unlink")
    with workplace.start_command(*joined(strace(record, *options), NARRUN), "run", str(config)) as process:
        process.wait().expect(0)
    with record.open(encoding="utf-8") as lines:
        steps = read_steps(lines, workplace.database)
    assert sum(isinstance(step, Saved) for step in steps) > 10
    return steps, start, rows_of(workplace.database)


def count_losses(
    steps: list[Step],
    start: dict[str, bytes],
    all_rows: Rows,
    moments: list[int],
    directory: Path,
    rng: random.Random,
) -> dict[str, int]:
    """What went wrong → at how many moments."""
    losses: dict[str, int] = {}
    for moment in moments:
        before = steps[:moment]
        n_saved = max((step.n_results for step in before if isinstance(step, Saved)), default=0)
        wrong = what_is_wrong(disk_after(before, start, rng), directory, n_saved, all_rows)
        if wrong is not None:
            losses[wrong] = losses.get(wrong, 0) + 1
    return losses
