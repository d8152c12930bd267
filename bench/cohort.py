"""Prints what a large cohort costs before work begins: `python -m bench.cohort [N]`, by default 1,000,000 short texts.

Pages of the planner while nearly all is missing, a sweep over a cohort of which 99 % is done, and the time from the
start of `narrun run --resume` to its first call. Rows and ledger of the 99 % are copies of one real row each.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.endpoint import EndpointProcess, start_endpoint
from bench.machine import describe_machine
from bench.workload import RESULTS, ROOT, copy_database, make_workload, write_config
from narrun_async.app.working import calm_garbage_collector
from narrun_async.models import ExperimentId, PageCursor, RunId, Selection
from narrun_async.stores.sqlite.store import open_sqlite_reader

PAGE = 500
#: every so many narratives one is missing
ONE_IN = 100
#: where the missing narratives lie: evenly, or after all that are done
LAYOUTS = {"evenly": f"s.narrative_id % {ONE_IN} = 0", "at the end": "s.narrative_id > :last * 99 / 100"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """All pages of one sweep over the remaining set."""

    n_pages: int
    n_items: int
    total_s: float
    page_ms_median: float
    page_ms_p99: float
    page_ms_max: float


async def _sweep(database: Path, experiment_id: ExperimentId) -> Sweep:
    store = await open_sqlite_reader(database)
    try:
        experiment = await store.load_experiment(experiment_id)
        cursor, n_items, pages_s = PageCursor(), 0, []
        while True:
            started = time.monotonic()
            page = await store.load_page(experiment, Selection.MISSING, run_id=RunId(0), after=cursor, limit=PAGE)
            pages_s.append(time.monotonic() - started)
            if not page:
                break
            n_items += len(page)
            cursor = PageCursor(narrative_id=page[-1].narrative_id, row_num=page[-1].row_num)
    finally:
        await store.aclose()
    ordered = sorted(pages_s)
    return Sweep(
        n_pages=len(pages_s),
        n_items=n_items,
        total_s=round(sum(pages_s), 2),
        page_ms_median=round(median(pages_s) * 1000, 1),
        page_ms_p99=round(ordered[int(0.99 * (len(ordered) - 1))] * 1000, 1),
        page_ms_max=round(ordered[-1] * 1000, 1),
    )


def _start(database: Path, config: Path, *words: str) -> subprocess.Popen[bytes]:
    places = [*("--db", str(database)), *("--log-dir", str(database.parent / "logs"))]
    command = [sys.executable, "-m", "narrun_async", "run", str(config), *places, *words]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=ROOT, **quiet)  # type: ignore[call-overload, no-any-return]


def _time_to_first_call(endpoint: EndpointProcess, process: subprocess.Popen[bytes]) -> float:
    """And stop it after a few calls."""
    before, started, first_call_s = endpoint.n_served(), time.monotonic(), None
    while first_call_s is None or endpoint.n_served() < before + 10:
        if process.poll() is not None:
            raise RuntimeError(f"the run ended with {process.returncode}")
        if first_call_s is None and endpoint.n_served() > before:
            first_call_s = time.monotonic() - started
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=120)
    return round(first_call_s, 2)


def _fill(database: Path, is_missing: str) -> None:
    """A row and a call for everything that is not to be missing, each a copy of one that the run made itself."""
    connection = sqlite3.connect(database)
    names = [row[1] for row in connection.execute("PRAGMA table_info(narrative_results)")]
    own = {
        "incident_id": "s.incident_id",
        "narrative_type": "s.narrative_type",
        "narrative_text": "s.narrative_text",
        "row_num": "s.narrative_id",
        "manual_flag_ind": "s.manual_flag_ind",
        "manual_flag": "s.manual_flag",
    }
    filled = {name: own.get(name, f"r.{name}") for name in names if name != "result_id"}
    calls = [row[1] for row in connection.execute("PRAGMA table_info(attempts)")][1:]
    (last,) = connection.execute("SELECT MAX(narrative_id) FROM source_narratives").fetchone()
    where = f"WHERE NOT ({is_missing})"
    connection.execute("DELETE FROM narrative_results WHERE result_id > (SELECT MIN(result_id) FROM narrative_results)")
    connection.execute(
        f"INSERT OR IGNORE INTO narrative_results ({', '.join(filled)}) SELECT {', '.join(filled.values())}"
        f" FROM source_narratives AS s CROSS JOIN (SELECT * FROM narrative_results LIMIT 1) AS r {where}",
        {"last": last},
    )
    chosen = ["s.narrative_id" if name == "narrative_id" else f"a.{name}" for name in calls]
    connection.execute(
        f"INSERT INTO attempts ({', '.join(calls)}) SELECT {', '.join(chosen)}"
        f" FROM source_narratives AS s CROSS JOIN (SELECT * FROM attempts LIMIT 1) AS a {where}",
        {"last": last},
    )
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def main() -> None:
    n_narratives = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    workload = make_workload(n_narratives, short_texts=True)
    # As a run does: with the interpreter's own settings, full collections of up to 18 ms fall on pages of 2 ms.
    calm_garbage_collector()
    endpoint = start_endpoint(0)
    record: dict[str, object] = {"machine": describe_machine(), "n_narratives": n_narratives}
    try:
        for layout, is_missing in LAYOUTS.items():
            with tempfile.TemporaryDirectory() as name:
                database = copy_database(workload, Path(name))
                config = write_config(workload, Path(name), endpoint.url)
                begun_s = _time_to_first_call(endpoint, _start(database, config, "--concurrency", "4"))
                connection = sqlite3.connect(database)
                experiment_id = ExperimentId(connection.execute("SELECT experiment_id FROM experiments").fetchone()[0])
                connection.close()
                if not record.get("missing"):
                    _tell(record, "missing", asyncio.run(_sweep(database, experiment_id)), f"begun in {begun_s} s")
                _fill(database, is_missing)
                size = f"{database.stat().st_size / 2**20:,.0f} MiB"
                _tell(record, f"99 % done, missing {layout}", asyncio.run(_sweep(database, experiment_id)), size)
                resumed = _start(database, config, "--resume", "--experiment-id", "latest", "--concurrency", "16")
                resumed_s = _time_to_first_call(endpoint, resumed)
                record[f"resume, missing {layout}"] = resumed_s
                print(f"resume, missing {layout}: first call after {resumed_s} s", flush=True)
    finally:
        endpoint.stop()
    path = RESULTS / f"cohort_{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


def _tell(record: dict[str, object], name: str, sweep: Sweep, note: str) -> None:
    record[name] = asdict(sweep)
    print(
        f"{name} ({note}): {sweep.n_items:,} items in {sweep.n_pages:,} pages, {sweep.total_s} s; a page "
        f"{sweep.page_ms_median} ms, 99 % below {sweep.page_ms_p99}, at most {sweep.page_ms_max}",
        flush=True,
    )


if __name__ == "__main__":
    main()
