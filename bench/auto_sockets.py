"""Prints what `--concurrency auto` reaches over real sockets, beside fixed numbers: `python -m bench.auto_sockets`.

The real command line works against `narrun simulate`, both as processes. A rate counts from the first call to the last
answer, as the ledger of attempts has them, so starting a process is not in it. What takes ten minutes or needs a server
that the simulation is not (memory that thrashes, refused calls that count) is in `bench.auto_virtual`.
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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.machine import describe_machine
from bench.workload import RESULTS, ROOT, Workload, copy_database, make_workload, write_config

FIXED = (1, 4, 8, 16, 32, 64)
#: shown in full beside `auto`; the other numbers only work long enough for a steady rate
SHOWN = (16, 64)
STEADY_S = 10.0
STEADY_MOST = 1_500
OUTAGE_AFTER_S = 4.0
AUTO = "auto"
#: how a run notes in its log that the limit has changed
_LIMIT = re.compile(r"limit: (\d+) in flight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A simulated server and how much is asked of it."""

    name: str
    latency_ms: float
    flags: tuple[str, ...] = ()
    #: knobs that have no flag
    knobs: Mapping[str, object] = field(default_factory=dict)
    n_narratives: int = 5_000
    #: calls a second that it permits; None: it refuses nothing
    permitted_per_s: float | None = None
    outage_s: float = 0.0

    def n_steady(self, concurrency: int) -> int:
        """Narratives that so many calls in flight could finish in `STEADY_S` if nothing slowed them down."""
        return min(STEADY_MOST, int(STEADY_S * concurrency * 1000 / self.latency_ms))


QUEUEING = (
    Server(name="batching: 100 ms + 2.5 % a call", latency_ms=100, flags=("--latency-model", "batching"),
           knobs={"batch_slowdown": 0.025}),
    Server(name="4 slots, 20 ms", latency_ms=20, flags=("--latency-model", "slots", "--slots", "4")),
    Server(name="1 slot, 5 ms", latency_ms=5, flags=("--latency-model", "slots", "--slots", "1")),
)  # fmt: skip


def refusing(minutes: float) -> tuple[Server, ...]:
    return tuple(
        Server(
            name=f"{rate:g} calls a second, Retry-After",
            latency_ms=300,
            flags=("--rate", f"{rate:g}"),
            n_narratives=int(rate * 60 * minutes),
            permitted_per_s=rate,
        )
        for rate in (10.0, 2.0)
    )


def failing(outage_s: float) -> Server:
    flags = ("--latency-model", "slots", "--slots", "16")
    return Server(
        name=f"16 slots, 50 ms, {outage_s:g} s down", latency_ms=50, flags=flags, n_narratives=4_000, outage_s=outage_s
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What one run showed."""

    concurrency: int | str
    n_rows: int
    n_error_rows: int
    #: first call to last answer, outage excluded
    span_s: float
    #: of all calls, in per cent
    refused_pct: float
    #: the longest pause between two answers
    longest_silence_s: float
    ends_at: int | None

    @property
    def rate_per_s(self) -> float:
        return self.n_rows / self.span_s


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
        if server.knobs:
            ask(url, "/simulation/behaviour", server.knobs)
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
        words = f"narrun_async run --concurrency {concurrency} --max-concurrency 64 --max-narratives {n_narratives}"
        places = ["--db", str(database), "--log-dir", str(directory / "logs"), "--export-dir", str(directory / "out")]
        output = directory / "output.txt"
        with output.open("wb") as file:
            command = [sys.executable, "-m", *words.split(), str(config), *places]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=ROOT)
        if server.outage_s:
            _take_down(endpoint, url, server.outage_s)
        if process.wait() not in (0, 1):
            raise RuntimeError(f"exit code {process.returncode}: {output.read_text(errors='replace')[-2000:]}")
        stats = ask(url, "/simulation/stats")
        return _read(database, directory, stats, concurrency, server)


def _take_down(endpoint: subprocess.Popen[str], url: str, outage_s: float) -> None:
    while not ask(url, "/simulation/stats")["calls"]:
        time.sleep(0.05)
    time.sleep(OUTAGE_AFTER_S)
    endpoint.send_signal(signal.SIGUSR1)
    time.sleep(outage_s)
    endpoint.send_signal(signal.SIGUSR2)


def _read(database: Path, directory: Path, stats: Mapping[str, Any], concurrency: int | str, server: Server) -> Reached:
    connection = sqlite3.connect(database)
    n_rows, n_errors = connection.execute(
        "SELECT COALESCE(SUM(error_occurred = 0), 0), COALESCE(SUM(error_occurred = 1), 0) FROM narrative_results"
    ).fetchone()
    calls = connection.execute("SELECT started_at, duration_s, error_category IS NULL FROM attempts").fetchall()
    connection.close()
    begun = [datetime.fromisoformat(started_at).timestamp() for started_at, _, _ in calls]
    answered = sorted(start + took_s for start, (_, took_s, is_good) in zip(begun, calls, strict=True) if is_good)
    changes = [change for log in (directory / "logs").rglob("run.log") for change in _LIMIT.findall(log.read_text())]
    return Reached(
        concurrency=concurrency,
        n_rows=n_rows,
        n_error_rows=n_errors,
        span_s=answered[-1] - min(begun) - server.outage_s,
        refused_pct=100 * stats["calls_by_status"].get("429", 0) / stats["calls"],
        longest_silence_s=max(late - early for early, late in pairwise(answered)),
        ends_at=int(changes[-1]) if changes else None,
    )


# --- the tables ------------------------------------------------------------------------------------------------------


def _queueing(workload: Workload) -> list[dict[str, object]]:
    print(
        "share of the best fixed number of calls in flight; auto, 16 and 64 work on all narratives, the other fixed "
        f"numbers on at most {STEADY_MOST:,}\n"
        "| server | narratives | best fixed | `auto` | ends at | fixed 16 | fixed 64 | error rows |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    records = []
    for server in QUEUEING:
        fixed = {}
        for level in FIXED:
            n_narratives = server.n_narratives if level in SHOWN else server.n_steady(level)
            fixed[level] = run_once(server, workload, level, n_narratives=n_narratives)
        auto = run_once(server, workload, AUTO, n_narratives=server.n_narratives)
        best = max(fixed.values(), key=lambda one: one.rate_per_s)
        shares = [f"{one.rate_per_s / best.rate_per_s:.2f}" for one in (auto, fixed[16], fixed[64])]
        errors = sum(one.n_error_rows for one in (auto, *fixed.values()))
        print(
            f"| {server.name} | {server.n_narratives:,} | {best.concurrency} ({best.rate_per_s:.0f} a second) | "
            f"**{shares[0]}** | {auto.ends_at} | {shares[1]} | {shares[2]} | {errors} |",
            flush=True,
        )
        records.append(_record(server, [auto, *fixed.values()]))
    return records


def _refusing(workload: Workload, minutes: float) -> list[dict[str, object]]:
    """All at once: a few calls a second cost next to nothing."""
    servers = refusing(minutes)
    print(
        f"\nused share of the permitted rate, and calls refused; {minutes:g} minutes\n"
        "| server | `auto` | fixed 16 | fixed 64 | error rows |\n|---|---|---|---|---|"
    )
    kinds: tuple[int | str, ...] = (AUTO, *SHOWN)
    with ThreadPoolExecutor(len(servers) * len(kinds)) as pool:
        under_way = [
            [pool.submit(run_once, server, workload, kind, n_narratives=server.n_narratives) for kind in kinds]
            for server in servers
        ]
        records = []
        for server, futures in zip(servers, under_way, strict=True):
            runs = [one.result() for one in futures]
            assert server.permitted_per_s is not None
            cells = [f"{one.rate_per_s / server.permitted_per_s:.3f}, {one.refused_pct:.2f} % refused" for one in runs]
            print(f"| {server.name} | {' | '.join(cells)} | {sum(one.n_error_rows for one in runs)} |", flush=True)
            records.append(_record(server, runs))
    return records


def _failing(workload: Workload, outage_s: float) -> list[dict[str, object]]:
    server = failing(outage_s)
    runs = [run_once(server, workload, kind, n_narratives=server.n_narratives) for kind in (AUTO, *SHOWN)]
    print(
        f"\n{server.name}, after {OUTAGE_AFTER_S:g} s of {server.n_narratives:,} narratives\n"
        "| | narratives a second, outage excluded | longest silence | error rows |\n|---|---|---|---|"
    )
    for one in runs:
        name = one.concurrency if one.concurrency == AUTO else f"fixed {one.concurrency}"
        print(f"| {name} | {one.rate_per_s:.0f} | {one.longest_silence_s:.1f} s | {one.n_error_rows} |", flush=True)
    return [_record(server, runs)]


def _record(server: Server, runs: Sequence[Reached]) -> dict[str, object]:
    figures = [
        {name: getattr(one, name) for name in Reached.__dataclass_fields__} | {"rate_per_s": one.rate_per_s}
        for one in runs
    ]
    return {"server": server.name, "n_narratives": server.n_narratives, "runs": figures}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=5.0, help="of the rate-limited servers")
    arguments.add_argument("--outage-s", type=float, default=15.0)
    arguments.add_argument("--only", choices=("queueing", "refusing", "failing"), action="append")
    given = arguments.parse_args()
    chosen = given.only or ("queueing", "refusing", "failing")
    longest = max(5_000, *(server.n_narratives for server in refusing(given.minutes)))
    workload = make_workload(longest)
    records: list[dict[str, object]] = []
    if "queueing" in chosen:
        records += _queueing(workload)
    if "refusing" in chosen:
        records += _refusing(workload, given.minutes)
    if "failing" in chosen:
        records += _failing(workload, given.outage_s)
    path = RESULTS / f"auto_sockets_{time.strftime('%Y%m%dT%H%M%S')}.json"
    path.write_text(json.dumps({"machine": describe_machine(), "servers": records}, indent=1) + "\n")


if __name__ == "__main__":
    main()
