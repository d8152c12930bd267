"""`make bench`: the real command line beside the floors; a table on stdout, everything as JSON in bench/results/."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.cells import Cell, Figures, MemoryFigures, as_record, measure_cell, measure_memory
from bench.contestants import FLOOR_CONTESTANTS, NARRUN, Contestant, check_equal_work
from bench.endpoint import check as check_endpoint
from bench.machine import describe_machine
from bench.workload import RESULTS, Workload, make_workload

#: what ratios refer to: the least there is, and the same libraries, columns and attempts as the program's
BASES = ("floor: aiohttp", "floor: transport")

STANDARD = Cell(n_narratives=2_000, latency_ms=50, concurrency=128, rounds=5)
MEMORY = Cell(n_narratives=42_000, latency_ms=50, concurrency=128, rounds=1)
MILLION = Cell(n_narratives=1_000_000, latency_ms=0, concurrency=128, rounds=1)
LATENCIES_MS = (0, 50, 500)
CONCURRENCIES = (1, 16, 128, 512, 1024)
#: a run of the matrix takes about this long where the endpoint is the limit
_MATRIX_RUN_S = 12
_MATRIX_MOST = 10_000


def matrix(rounds: int) -> list[Cell]:
    """Every latency with every concurrency; each as many narratives as fit its time."""
    cells = []
    for latency_ms in LATENCIES_MS:
        for concurrency in CONCURRENCIES:
            fitting = int(_MATRIX_RUN_S * 1000 * concurrency / latency_ms) if latency_ms else 4_000
            n_narratives = min(_MATRIX_MOST, max(fitting, 8 * concurrency, 24))
            cells.append(Cell(n_narratives=n_narratives, latency_ms=latency_ms, concurrency=concurrency, rounds=rounds))
    return cells


def _parse_cell(text: str) -> Cell:
    n_narratives, latency_ms, concurrency = text.split(",")
    return Cell(
        n_narratives=int(n_narratives),
        latency_ms=float(latency_ms),
        concurrency=int(concurrency),
        rounds=STANDARD.rounds,
    )


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--full", action="store_true", help="the whole matrix of latencies and concurrencies")
    arguments.add_argument("--million", action="store_true", help="1,000,000 short narratives at latency 0")
    arguments.add_argument("--cell", type=_parse_cell, action="append", metavar="N,LATENCY_MS,CONCURRENCY")
    arguments.add_argument("--rounds", type=int, help="alternations; figures are medians over them")
    arguments.add_argument("--no-memory", action="store_true", help="leave out the long run with sampled memory")
    arguments.add_argument("--only", help="names of contestants, separated by commas, parts of them suffice")
    arguments.add_argument("--against", type=Path, action="append", help="another checkout, as one more contestant")
    return arguments.parse_args()


def main() -> int:
    given = _arguments()
    cells = given.cell or (matrix(given.rounds or 3) if given.full else [STANDARD])
    if given.rounds:
        cells = [_with_rounds(cell, given.rounds) for cell in cells]
    contestants = _contestants(given.only, given.against or [])
    workload = make_workload(max(cell.n_narratives for cell in cells))
    _tell("the machine is taken as it is: CPU time is the figure to trust, wall time suffers from neighbours")
    differences = check_equal_work(workload)
    for difference in differences:
        _tell(f"UNEQUAL WORK: {difference}")
    machine, endpoint = describe_machine(), check_endpoint()
    record: dict[str, object] = {"machine": machine, "endpoint": endpoint, "unequal_work": differences}
    table = [_measure(cell, contestants, workload) for cell in cells]
    record["cells"] = [{**as_record(cell), "figures": [as_record(one) for one in rows]} for cell, rows in table]
    memories = _measure_memories(given)
    record["memory"] = [as_record(one) for one in memories]
    record["not_measured"] = missing = _not_measured(given)
    for line in [
        machine_line(machine),
        _endpoint_line(endpoint),
        "",
        *table_lines(table),
        "",
        *_memory_lines(memories),
    ]:
        print(line)
    print("\nnot measured: " + "; ".join(missing))
    path = RESULTS / f"bench_{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    _tell(f"written to {path.relative_to(RESULTS.parent.parent)}")
    return 1 if differences else 0


def _with_rounds(cell: Cell, rounds: int) -> Cell:
    return Cell(n_narratives=cell.n_narratives, latency_ms=cell.latency_ms, concurrency=cell.concurrency, rounds=rounds)


def _contestants(only: str | None, checkouts: Sequence[Path]) -> list[Contestant]:
    others = [Contestant(name=f"narrun in {path.name}", checkout=path.resolve()) for path in checkouts]
    everybody = [NARRUN, *others, *FLOOR_CONTESTANTS]
    if only is None:
        return everybody
    return [one for one in everybody if any(part in one.name for part in only.split(","))]


def _measure(cell: Cell, contestants: Sequence[Contestant], workload: Workload) -> tuple[Cell, list[Figures]]:
    _tell(f"{cell.n_narratives:,} narratives, {cell.latency_ms:g} ms, {cell.concurrency} in flight")
    return cell, measure_cell(cell, contestants, workload, bases=BASES, tell=_tell)


def _measure_memories(given: argparse.Namespace) -> list[MemoryFigures]:
    memories = []
    if not given.no_memory:
        _tell(f"{MEMORY.n_narratives:,} narratives with memory sampled")
        memories.append(measure_memory(MEMORY, NARRUN, make_workload(MEMORY.n_narratives)))
    if given.million:
        _tell(f"{MILLION.n_narratives:,} short narratives with memory sampled")
        memories.append(measure_memory(MILLION, NARRUN, make_workload(MILLION.n_narratives, short_texts=True)))
    return memories


def _not_measured(given: argparse.Namespace) -> list[str]:
    missing = []
    if not given.full:
        missing.append("other latencies and concurrencies (--full)")
    if given.no_memory:
        missing.append("memory over a long run (leave out --no-memory)")
    if not given.million:
        missing.append("1,000,000 narratives (--million)")
    return [
        *missing,
        "public alternatives",
        "TLS",
        "real models",
        "disks slower than this machine's",
        "other processors",
    ]


# --- what people see -------------------------------------------------------------------------------------------------


def machine_line(machine: Mapping[str, object]) -> str:
    load = machine["load_average"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}, SQLite {machine['sqlite']}, aiohttp {machine['aiohttp']}, "
        f"httpx {machine['httpx']}, commit {machine['commit']}, load {load}"
    )


def _endpoint_line(endpoint: Mapping[str, float]) -> str:
    return (
        f"the endpoint answers {endpoint['requests_per_core_s']:,} requests of {endpoint['request_bytes']:,} bytes "
        f"per second of one core"
    )


def table_lines(table: Sequence[tuple[Cell, list[Figures]]], *, ratios_to: tuple[str, str] = BASES) -> list[str]:
    head = (
        f"{'narratives':>10} {'ms':>5} {'C':>5}  {'contestant':<24} {'CPU us':>7} {'range':>12} {'ratio':>6} "
        f"{'2nd':>5} {'start s':>7} {'per s':>8} {'wall s':>7} {'/ideal':>7} {'MiB':>6} {'endpoint':>8}"
    )
    lines = [head]
    for cell, rows in table:
        for row in rows:
            low, high = row.cpu_us_range
            lines.append(
                f"{cell.n_narratives:>10,} {cell.latency_ms:>5g} {cell.concurrency:>5}  {row.contestant:<24} "
                f"{row.cpu_us_per_narrative:>7.0f} {f'{low:.0f}-{high:.0f}':>12} {_number(row.cpu_ratios[0], 2):>6} "
                f"{_number(row.cpu_ratios[1], 2):>5} "
                f"{row.cpu_startup_s:>7.2f} {row.narratives_per_s:>8,.0f} {row.wall_s:>7.2f} "
                f"{_number(row.wall_over_ideal, 2):>7} {row.peak_rss_mib:>6.0f} {row.endpoint_busy:>8.0%}"
            )
    return [
        *lines,
        f"CPU: user + system a narrative, start-up excluded; ratio: to {ratios_to[0]}, 2nd: to {ratios_to[1]}; "
        "endpoint: of one core",
    ]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _memory_lines(memories: Sequence[MemoryFigures]) -> list[str]:
    lines = []
    for one in memories:
        quarters = " ".join(f"{rss:.0f}" for rss in one.rss_mib_at_quarters)
        lines.append(
            f"memory over {one.n_narratives:,} narratives at {one.latency_ms:g} ms, {one.concurrency} in flight: "
            f"{quarters} MiB at 25 50 75 100 %, peak {one.peak_rss_mib:.0f} MiB, "
            f"end/quarter {one.end_over_quarter:.3f} ({'flat' if one.is_flat else 'NOT FLAT'}), "
            f"{one.wall_s:.0f} s, {one.cpu_us_per_narrative:.0f} us each"
        )
    return lines


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
