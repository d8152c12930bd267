"""Names who is measured and how each is started; checks that all of them do the same work."""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.endpoint import EndpointProcess, start_endpoint
from bench.floor import COLUMNS, FLOORS, make_body_encoder
from bench.processes import Life, live
from bench.workload import MODEL, PROMPTS, ROOT, TEMPERATURE, Workload, copy_database, write_config

#: columns that differ from run to run
_OWN_TO_A_RUN = {"experiment_id", "run_id", "response_sec", "processed_at", "last_attempt_at"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A program that works on a cohort."""

    name: str
    #: None: the real command line
    floor: str | None = None
    checkout: Path = ROOT
    #: requests that it makes for itself, beside one a narrative
    n_own_calls: int = 0

    def command(self, *, database: Path, config: Path, url: str, concurrency: int, limit: int) -> list[str]:
        if self.floor is not None:
            words = f"bench.floor {self.floor} --url {url} --concurrency {concurrency} --limit {limit}"
            return [sys.executable, "-m", *words.split(), "--db", str(database)]
        words = f"narrun_async run --concurrency {concurrency} --max-narratives {limit}"
        logs, exports = database.parent / "logs", database.parent / "exports"
        places = ["--db", str(database), "--log-dir", str(logs), "--export-dir", str(exports)]
        return [sys.executable, "-m", *words.split(), str(config), *places]


NARRUN = Contestant(name="narrun")
FLOOR_CONTESTANTS = tuple(Contestant(name=f"floor: {kind}", floor=kind) for kind in FLOORS)


def run_once(
    contestant: Contestant,
    workload: Workload,
    *,
    endpoint: EndpointProcess,
    concurrency: int,
    limit: int,
    directory: Path,
    sampled: bool = False,
) -> Life:
    """One whole process over a fresh copy of the workload.

    :raises RuntimeError: it failed, or did not store and ask for exactly `limit` narratives
    """
    database = copy_database(workload, directory)
    command = contestant.command(
        database=database,
        config=write_config(workload, directory, endpoint.url),
        url=endpoint.url,
        concurrency=concurrency,
        limit=limit,
    )
    life = live(command, endpoint=endpoint, directory=directory, checkout=contestant.checkout, sampled=sampled)
    with sqlite3.connect(database) as connection:
        (n_rows,) = connection.execute("SELECT COUNT(*) FROM narrative_results WHERE error_occurred = 0").fetchone()
    connection.close()
    if n_rows != limit or life.n_served != limit + contestant.n_own_calls:
        raise RuntimeError(f"{contestant.name}: {n_rows} rows and {life.n_served} calls for {limit} narratives")
    return life


def check_equal_work(workload: Workload, *, n_narratives: int = 200) -> list[str]:
    """What the contestants do differently; empty when requests are equal byte for byte and rows column for column."""
    from narrun_async.prompting import RequestFields, RequestTemplate

    template = RequestTemplate.build(
        RequestFields(
            model=MODEL,
            system_prompt=(PROMPTS / "ipv_system.txt").read_text(),
            user_template=(PROMPTS / "ipv_user.txt").read_text(),
            temperature=TEMPERATURE,
        )
    )
    body_for, differences = make_body_encoder(), []
    with sqlite3.connect(workload.database) as source:
        texts = source.execute("SELECT narrative_text FROM source_narratives LIMIT ?", (n_narratives,)).fetchall()
    source.close()
    if any(template.body_for(text) != body_for(text) for (text,) in texts):
        differences.append("the floors send other requests than the program")
    endpoint = start_endpoint(0)
    try:
        ours = _stored_rows(NARRUN, workload, endpoint, n_narratives)
        for floor in FLOOR_CONTESTANTS:
            theirs = _stored_rows(floor, workload, endpoint, n_narratives)
            by_column = zip(_compared_columns(), zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
            unequal = [column for column, our_values, their_values in by_column if our_values != their_values]
            if unequal:
                differences.append(f"{floor.name} stores other values than the program in {', '.join(unequal)}")
    finally:
        endpoint.stop()
    return differences


def _compared_columns() -> list[str]:
    return [column for column in COLUMNS if column not in _OWN_TO_A_RUN]


def _stored_rows(
    contestant: Contestant, workload: Workload, endpoint: EndpointProcess, limit: int
) -> list[tuple[object, ...]]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        run_once(contestant, workload, endpoint=endpoint, concurrency=16, limit=limit, directory=directory)
        connection = sqlite3.connect(directory / "run.db")
        columns = ", ".join(_compared_columns())
        rows = connection.execute(f"SELECT {columns} FROM narrative_results ORDER BY row_num").fetchall()
        connection.close()
    return rows
