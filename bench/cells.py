"""Measures one cell of the table: a latency, a concurrency, contestants in turn, figures as medians over the rounds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.contestants import Contestant, run_once
from bench.endpoint import start_endpoint
from bench.processes import Life
from bench.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What is asked of the contestants."""

    n_narratives: int
    latency_ms: float
    concurrency: int
    rounds: int

    @property
    def n_short(self) -> int:
        """Size of the short run that is subtracted: start-up, the opening of all connections, the end."""
        return max(self.n_narratives // 8, min(2 * self.concurrency, self.n_narratives // 2))

    @property
    def ideal_s(self) -> float:
        return self.n_narratives * self.latency_ms / 1000 / self.concurrency


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one contestant showed in one cell; medians over the rounds."""

    contestant: str
    #: user + system, start-up excluded
    cpu_us_per_narrative: float
    #: smallest and largest of the rounds
    cpu_us_range: tuple[float, float]
    #: of `cpu_us_per_narrative` to that of each floor asked for, round by round; None where it was not measured
    cpu_ratios: tuple[float | None, ...]
    cpu_startup_s: float
    narratives_per_s: float
    wall_s: float
    #: wall time of the whole process over N * latency / concurrency; None at latency 0
    wall_over_ideal: float | None
    peak_rss_mib: float
    #: share of one core that the endpoint used; near 1 it would be the bottleneck
    endpoint_busy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    long: Life
    short: Life


def measure_cell(
    cell: Cell,
    contestants: Sequence[Contestant],
    workload: Workload,
    *,
    bases: Sequence[str],
    tell: Callable[[str], None],
) -> list[Figures]:
    """Contestants in turn, A B C A B C …, each with a long and a short run over its own copy of the database.

    :param bases: the contestants that ratios refer to
    """
    endpoint = start_endpoint(cell.latency_ms)
    rounds: dict[str, list[_Round]] = {one.name: [] for one in contestants}
    try:
        for number in range(cell.rounds):
            for one in contestants:
                with tempfile.TemporaryDirectory() as name:

                    def run(limit: int, one: Contestant = one, name: str = name) -> Life:
                        return run_once(
                            one,
                            workload,
                            endpoint=endpoint,
                            concurrency=cell.concurrency,
                            limit=limit,
                            directory=Path(name),
                        )

                    rounds[one.name].append(_Round(short=run(cell.n_short), long=run(cell.n_narratives)))
                cpu_us = _cpu_us(cell, rounds[one.name][-1])
                tell(f"  round {number + 1}/{cell.rounds}  {one.name}: {cpu_us:.0f} us")
    finally:
        endpoint.stop()
    return [_figures(cell, one.name, rounds[one.name], [rounds.get(base) for base in bases]) for one in contestants]


def _cpu_us(cell: Cell, one: _Round) -> float:
    return (one.long.cpu_s - one.short.cpu_s) / (cell.n_narratives - cell.n_short) * 1e6


def _figures(cell: Cell, name: str, rounds: list[_Round], bases: Sequence[list[_Round] | None]) -> Figures:
    cpu_us = [_cpu_us(cell, one) for one in rounds]
    between_s = median(one.long.wall_s for one in rounds) - median(one.short.wall_s for one in rounds)
    wall_s = median(one.long.wall_s for one in rounds)
    return Figures(
        contestant=name,
        cpu_us_per_narrative=round(median(cpu_us), 1),
        cpu_us_range=(round(min(cpu_us), 1), round(max(cpu_us), 1)),
        cpu_ratios=tuple(_ratio(cell, cpu_us, base) for base in bases),
        cpu_startup_s=round(median(one.short.cpu_s for one in rounds) - cell.n_short * median(cpu_us) / 1e6, 2),
        narratives_per_s=round((cell.n_narratives - cell.n_short) / between_s, 1),
        wall_s=round(wall_s, 2),
        wall_over_ideal=round(wall_s / cell.ideal_s, 3) if cell.ideal_s else None,
        peak_rss_mib=round(max(one.long.peak_rss_kib for one in rounds) / 1024, 1),
        endpoint_busy=round(median(one.long.endpoint_cpu_s / one.long.wall_s for one in rounds), 2),
    )


def _ratio(cell: Cell, cpu_us: Sequence[float], base: Sequence[_Round] | None) -> float | None:
    if not base:
        return None
    return round(median(mine / _cpu_us(cell, theirs) for mine, theirs in zip(cpu_us, base, strict=True)), 2)


# --- memory over a long run ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFigures:
    """Resident memory while a run goes on."""

    contestant: str
    n_narratives: int
    latency_ms: float
    concurrency: int
    #: at 25, 50, 75 and 100 % of the calls
    rss_mib_at_quarters: tuple[float, ...]
    #: largest of all samples and the kernel's own peak
    peak_rss_mib: float
    #: end over quarter; flat means 0.9 to 1.1
    end_over_quarter: float
    wall_s: float
    cpu_us_per_narrative: float
    n_samples: int

    @property
    def is_flat(self) -> bool:
        return 0.9 <= self.end_over_quarter <= 1.1


def measure_memory(cell: Cell, contestant: Contestant, workload: Workload) -> MemoryFigures:
    """One run with its memory sampled; its CPU figure includes the start-up."""
    endpoint = start_endpoint(cell.latency_ms)
    try:
        with tempfile.TemporaryDirectory() as name:
            life = run_once(
                contestant,
                workload,
                endpoint=endpoint,
                concurrency=cell.concurrency,
                limit=cell.n_narratives,
                directory=Path(name),
                sampled=True,
            )
    finally:
        endpoint.stop()
    quarters = tuple(_rss_mib_at(life, cell.n_narratives * share) for share in (0.25, 0.5, 0.75, 1.0))
    return MemoryFigures(
        contestant=contestant.name,
        n_narratives=cell.n_narratives,
        latency_ms=cell.latency_ms,
        concurrency=cell.concurrency,
        rss_mib_at_quarters=quarters,
        peak_rss_mib=round(max(life.peak_rss_kib, *(one.rss_kib for one in life.samples)) / 1024, 1),
        end_over_quarter=round(quarters[-1] / quarters[0], 3),
        wall_s=round(life.wall_s, 1),
        cpu_us_per_narrative=round(life.cpu_s / cell.n_narratives * 1e6, 1),
        n_samples=len(life.samples),
    )


def _rss_mib_at(life: Life, n_served: float) -> float:
    """At the first sample with that many calls; the last sample of all where there is none."""
    reached = (sample for sample in life.samples if sample.n_served >= n_served)
    return round(next(reached, life.samples[-1]).rss_kib / 1024, 1)


def as_record(value: Cell | Figures | MemoryFigures) -> dict[str, object]:
    return asdict(value)
