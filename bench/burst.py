"""Prints how a run comes back when all its connections fell idle or broke together: `python -m bench.burst`.

The real command line works against `narrun simulate`. Once it is at full rate, the endpoint either refuses everything
with 429 and `Retry-After` for a while, or is gone and comes back. Fixed numbers in flight: the work is bound by
latency, so the ideal rate is known.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from bench.auto_servers import Server
from bench.auto_sockets import ask, serving
from bench.machine import describe_machine
from bench.workload import RESULTS, ROOT, Workload, copy_database, make_workload, write_config

RETRY_AFTER_S = 3.0
#: how long the endpoint refuses or is gone: longer than an answer takes, so that nothing is in flight
UNWELL_S = 2.0
CALM_S = 6.0
#: the rate afterwards is taken over this long, from the first good second on
AFTER_S = 10.0
#: … which is waited for this long
PATIENCE_S = 40.0
LATENCY_S = 1.0
IN_FLIGHT = (128, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What one run showed."""

    event: str
    in_flight: int
    #: calls a second before the event, as a share of in flight / latency
    share_before: float
    #: from the moment the endpoint is well again
    first_answer_s: float
    #: likewise, to the first second at 0.9 of the ideal rate; None: it never came
    full_rate_s: float | None
    #: over the ten seconds after the first answer, the return to full rate included
    share_after: float
    #: over the ten seconds after the first second at full rate
    share_steady: float
    n_error_rows: int


def _refuse(fault: str, endpoint: subprocess.Popen[str], url: str) -> None:
    ask(url, "/simulation/behaviour", {"fault_rates": {fault: 1.0}, "retry_after_s": RETRY_AFTER_S})
    time.sleep(UNWELL_S)
    ask(url, "/simulation/behaviour", {"fault_rates": {}})


def _restart(endpoint: subprocess.Popen[str], url: str) -> None:
    endpoint.send_signal(signal.SIGUSR1)
    time.sleep(UNWELL_S)
    endpoint.send_signal(signal.SIGUSR2)


EVENTS: dict[str, Callable[[subprocess.Popen[str], str], None]] = {
    f"503 to everything for {UNWELL_S:g} s, Retry-After {RETRY_AFTER_S:g}": partial(_refuse, "http_503"),
    "429 likewise": partial(_refuse, "http_429"),
    f"server gone for {UNWELL_S:g} s": _restart,
}


def recover(event: str, workload: Workload, in_flight: int) -> Recovery:
    server = Server(key="burst", name=event, latency_ms=LATENCY_S * 1000, flags=("--latency-spread", "0"))
    with tempfile.TemporaryDirectory() as name, serving(server) as (endpoint, url):
        directory = Path(name)
        database, config = copy_database(workload, directory), write_config(workload, directory, url)
        places = [*("--db", str(database)), *("--log-dir", str(directory / "logs"))]
        words = ["--concurrency", str(in_flight), "--max-narratives", str(workload.n_narratives)]
        command = [sys.executable, "-m", "narrun_async", "run", str(config), *places, *words]
        with (directory / "output.txt").open("wb") as file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=ROOT)
        while not ask(url, "/simulation/stats")["calls"]:
            time.sleep(0.05)
        time.sleep(CALM_S)
        began = time.time()
        EVENTS[event](endpoint, url)
        well_again = time.time()
        time.sleep(PATIENCE_S)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
        return _read(database, event, in_flight, began=began, well_again=well_again)


def _read(database: Path, event: str, in_flight: int, *, began: float, well_again: float) -> Recovery:
    connection = sqlite3.connect(database)
    calls = connection.execute("SELECT started_at, duration_s FROM attempts WHERE error_category IS NULL").fetchall()
    (n_errors,) = connection.execute("SELECT COUNT(*) FROM narrative_results WHERE error_occurred = 1").fetchone()
    connection.close()
    answered: list[float] = sorted(datetime.fromisoformat(begun).timestamp() + took_s for begun, took_s in calls)
    ideal_per_s = in_flight / LATENCY_S

    def share(start: float, length_s: float) -> float:
        return round(sum(start <= at < start + length_s for at in answered) / length_s / ideal_per_s, 3)

    first = min(at for at in answered if at > well_again)
    # calls of one second come in one burst, so a second may begin anywhere
    steps = (first + step / 10 for step in range(int(10 * (PATIENCE_S - AFTER_S - RETRY_AFTER_S))))
    full = next((at for at in steps if share(at, LATENCY_S) >= 0.9), None)
    return Recovery(
        event=event,
        in_flight=in_flight,
        share_before=share(began - 3 * LATENCY_S, 3 * LATENCY_S),
        first_answer_s=round(first - well_again, 2),
        full_rate_s=None if full is None else round(full - well_again, 2),
        share_after=share(first, AFTER_S),
        share_steady=0.0 if full is None else share(full, AFTER_S),
        n_error_rows=n_errors,
    )


def main() -> None:
    longest_s = CALM_S + UNWELL_S + PATIENCE_S + 5
    workload = make_workload(int(max(IN_FLIGHT) / LATENCY_S * longest_s))
    found = []
    print(
        "| event | in flight | before | first answer | 0.9 of the ideal rate | ten seconds from the first answer "
        "| from full rate | error rows |\n|---|---|---|---|---|---|---|---|"
    )
    for event in EVENTS:
        with ThreadPoolExecutor(len(IN_FLIGHT)) as pool:
            pair = list(pool.map(partial(recover, event, workload), IN_FLIGHT))
        for one in pair:
            found.append(one)
            full = "never" if one.full_rate_s is None else f"after {one.full_rate_s:.1f} s"
            print(
                f"| {event} | {one.in_flight} | {one.share_before:.2f} | after {one.first_answer_s:.1f} s | {full} | "
                f"**{one.share_after:.2f}** | {one.share_steady:.2f} | {one.n_error_rows} |",
                flush=True,
            )
    path = RESULTS / f"burst_{time.strftime('%Y%m%dT%H%M%S')}.json"
    record = {"machine": describe_machine(), "recoveries": [asdict(one) for one in found]}
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
