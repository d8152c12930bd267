"""Prints what `--concurrency auto` reaches over real sockets, beside fixed numbers: `python -m bench.auto_sockets`.

The real command line works against `narrun simulate`, both as processes. A rate counts from the first call to the last
answer, as the ledger of attempts has them, so starting a process is not in it. `--record` puts the rows into the tables
of bench/README.md; a row that is not measured this time keeps its figures and the commit that they are of.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.auto_servers import MOST_IN_FLIGHT, QUEUEING, SHOWN, STEADY_MOST, Server, failing, keys, refusing
from bench.auto_table import (
    FAILING_TABLE,
    QUEUEING_TABLE,
    REFUSING_TABLE,
    Reached,
    Table,
    failing_row,
    queueing_row,
    refusing_row,
)
from bench.machine import describe_machine
from bench.workload import RESULTS, ROOT, Workload, copy_database, make_workload, write_config

#: how a run notes in its log that the limit has changed
_LIMIT = re.compile(r"limit: (\d+) in flight")
#: done, some narratives failed, stopped on request
_EXPECTED_EXITS = (0, 1, 130)


# --- one run ---------------------------------------------------------------------------------------------------------


@contextmanager
def serving(server: Server) -> Iterator[tuple[subprocess.Popen[str], str]]:
    words = [*("--latency-ms", str(server.latency_ms)), *server.flags]
    process = subprocess.Popen(
        [sys.executable, "-m", "narrun_async", "simulate", *words], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        yield process, url
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


def ask(url: str, route: str, knobs: Mapping[str, object] | None = None) -> Any:
    base = url.removesuffix("/v1/chat/completions")
    body = None if knobs is None else json.dumps(knobs).encode("ascii")
    with urllib.request.urlopen(urllib.request.Request(base + route, data=body), timeout=10) as answer:
        return json.loads(answer.read() or b"{}")


def run_once(server: Server, workload: Workload, concurrency: int | str, *, n_narratives: int) -> Reached:
    """:raises RuntimeError: the run failed"""
    with tempfile.TemporaryDirectory() as name, serving(server) as (endpoint, url):
        directory = Path(name)
        database, config = copy_database(workload, directory), write_config(workload, directory, url)
        words = f"narrun_async run --concurrency {concurrency} --max-concurrency {MOST_IN_FLIGHT}"
        places = ["--db", str(database), "--log-dir", str(directory / "logs"), "--export-dir", str(directory / "out")]
        command = [sys.executable, "-m", *words.split(), "--max-narratives", str(n_narratives), str(config), *places]
        output = directory / "output.txt"
        with output.open("wb") as file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=ROOT)
        try:
            stopped_at = None
            if server.outage_s:
                _take_down(endpoint, process, url, after_calls=n_narratives // 2, outage_s=server.outage_s)
            if server.minutes is not None:
                stopped_at = _stop_after(process, url, server.minutes)
            process.wait()
        finally:
            process.kill()
        if process.returncode not in _EXPECTED_EXITS:
            raise RuntimeError(f"exit code {process.returncode}: {output.read_text(errors='replace')[-2000:]}")
        return _read(database, directory, ask(url, "/simulation/stats"), concurrency, server, stopped_at)


def _take_down(
    endpoint: subprocess.Popen[str], process: subprocess.Popen[bytes], url: str, *, after_calls: int, outage_s: float
) -> None:
    _await_calls(process, url, after_calls)
    endpoint.send_signal(signal.SIGUSR1)
    time.sleep(outage_s)
    endpoint.send_signal(signal.SIGUSR2)


def _stop_after(process: subprocess.Popen[bytes], url: str, minutes: float) -> float | None:
    """When the run was asked to stop; None: it had nothing left to do before."""
    _await_calls(process, url, 1)
    try:
        process.wait(timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        return time.time()
    return None


def _await_calls(process: subprocess.Popen[bytes], url: str, n_calls: int) -> None:
    while process.poll() is None and ask(url, "/simulation/stats")["calls"] < n_calls:
        time.sleep(0.05)


def _read(
    database: Path,
    directory: Path,
    stats: Mapping[str, Any],
    concurrency: int | str,
    server: Server,
    stopped_at: float | None,
) -> Reached:
    connection = sqlite3.connect(database)
    n_rows, n_errors = connection.execute(
        "SELECT COALESCE(SUM(error_occurred = 0), 0), COALESCE(SUM(error_occurred = 1), 0) FROM narrative_results"
    ).fetchone()
    calls = connection.execute("SELECT started_at, duration_s, error_category IS NULL FROM attempts").fetchall()
    connection.close()
    begun = [datetime.fromisoformat(started_at).timestamp() for started_at, _, _ in calls]
    answered = sorted(start + took_s for start, (_, took_s, is_good) in zip(begun, calls, strict=True) if is_good)
    # A run that gets no answers any more is silent until it is stopped.
    ends = [*answered, *([stopped_at] if stopped_at is not None else [])]
    changes = [change for log in (directory / "logs").rglob("run.log") for change in _LIMIT.findall(log.read_text())]
    return Reached(
        concurrency=concurrency,
        n_rows=n_rows,
        n_error_rows=n_errors,
        span_s=max(ends) - min(begun) - server.outage_s,
        refused_pct=100 * stats["calls_by_status"].get("429", 0) / stats["calls"],
        longest_silence_s=max(late - early for early, late in pairwise(sorted(ends))),
        ends_at=int(changes[-1]) if changes else None,
    )


# --- the rows --------------------------------------------------------------------------------------------------------

Row = Callable[[Server, Sequence[Reached], str], list[str]]


@dataclass(slots=True, kw_only=True)
class _Measured:
    """What goes to the screen, into the results and, with `--record`, into the tables."""

    workload: Workload
    into_readme: bool
    machine: dict[str, object] = field(default_factory=describe_machine)
    records: list[dict[str, object]] = field(default_factory=list)

    def show(self, table: Table, row: Row, server: Server, runs: Sequence[Reached]) -> None:
        commit = str(self.machine["commit"])
        cells = row(server, runs, f"`{commit.split()[0]}`" + (" and changes" if " " in commit else ""))
        print(f"| {' | '.join(cells)} |", flush=True)
        if self.into_readme:
            table.put(cells)
        self.records.append(
            {"server": asdict(server), "runs": [asdict(one) | {"rate_per_s": one.rate_per_s} for one in runs]}
        )


def _queueing(measured: _Measured, servers: Sequence[Server]) -> None:
    print(
        "share of the best fixed number of calls in flight; auto, 16 and 64 work on all narratives, the other fixed "
        f"numbers on at most {STEADY_MOST:,}\n{QUEUEING_TABLE.head}",
        flush=True,
    )
    for server in servers:
        runs = []
        for kind in server.kinds:
            n_narratives = server.n_narratives
            if isinstance(kind, int) and kind not in SHOWN:
                n_narratives = server.n_steady(kind)
            runs.append(run_once(server, measured.workload, kind, n_narratives=n_narratives))
        measured.show(QUEUEING_TABLE, queueing_row, server, runs)


def _refusing(measured: _Measured, servers: Sequence[Server]) -> None:
    """All at once: a few calls a second cost next to nothing."""
    print(f"\nused share of the permitted rate, and calls refused\n{REFUSING_TABLE.head}", flush=True)
    with ThreadPoolExecutor(sum(len(server.kinds) for server in servers)) as pool:
        under_way = [
            [
                pool.submit(run_once, server, measured.workload, kind, n_narratives=server.n_narratives)
                for kind in server.kinds
            ]
            for server in servers
        ]
        for server, futures in zip(servers, under_way, strict=True):
            measured.show(REFUSING_TABLE, refusing_row, server, [one.result() for one in futures])


def _failing(measured: _Measured, servers: Sequence[Server]) -> None:
    print(f"\nnarratives a second without the outage, and the longest silence\n{FAILING_TABLE.head}", flush=True)
    for server in servers:
        runs = [run_once(server, measured.workload, kind, n_narratives=server.n_narratives) for kind in server.kinds]
        measured.show(FAILING_TABLE, failing_row, server, runs)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--minutes", type=float, default=2.0, help="of each rate-limited server; all run side by side"
    )
    arguments.add_argument("--outage-s", type=float, default=60.0)
    names = (*keys(QUEUEING), *keys(refusing(1)), failing(1).key)
    arguments.add_argument(
        "--only", metavar="ROW", choices=names, action="append", help=f"{', '.join(names)}; repeatable"
    )
    arguments.add_argument("--record", action="store_true", help="put the rows into the tables of bench/README.md")
    given = arguments.parse_args()
    kinds = ((_queueing, QUEUEING), (_refusing, refusing(given.minutes)), (_failing, (failing(given.outage_s),)))
    chosen = [(measure, [one for one in servers if one.key in (given.only or names)]) for measure, servers in kinds]
    workload = make_workload(max(server.n_narratives for _, servers in chosen for server in servers))
    measured = _Measured(workload=workload, into_readme=given.record)
    try:
        for measure, servers in chosen:
            if servers:
                measure(measured, servers)
    finally:
        path = RESULTS / f"auto_sockets_{time.strftime('%Y%m%dT%H%M%S')}.json"
        path.write_text(json.dumps({"machine": measured.machine, "servers": measured.records}, indent=1) + "\n")


if __name__ == "__main__":
    main()
