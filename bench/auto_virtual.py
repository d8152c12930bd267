"""Prints what `--concurrency auto` reaches against servers in virtual time: `python -m bench.auto_virtual [seeds]`.

Queueing servers: throughput as a share of the best fixed concurrency for the same calls, beside fixed 16 and 64.
Rate-limited servers: the used share of the permitted rate over ten minutes, and the share of calls refused.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from narrun_async.limits.auto import AutoConcurrency
from tests.unit.virtual_servers import MACHINES, Bucket, Crowd, Machine, Window, Workload, World, best_fixed, constant

ITEMS = 5_000
WORKLOADS = {
    "equal": Workload(sigma=0, noise=0),
    "a form": Workload(),
    "reasoning": Workload(sigma=0.8),
    "very unequal": Workload(sigma=1.2),
    "tokens untold": Workload(sigma=0.8, tells_tokens=False),
    "time not by tokens": Workload(sigma=0.8, token_share=0.0, noise=0.4),
}
QUOTAS: dict[str, Callable[[], Bucket | Window | Crowd]] = {
    "10/s, bucket of 10": lambda: Bucket(10, 10),
    "10/s, bucket of 10, silent": lambda: Bucket(10, 10, says_when=False),
    "10/s, bucket of 100": lambda: Bucket(10, 100),
    "10 in any second": lambda: Window(10, 1.0),
    "600 in each minute": lambda: Window(600, 60.0, fixed=True),
    "2 in any second, refused count": lambda: Window(2, 1.0, counts_refused=True),
    "20 in any 10 s, refused count": lambda: Window(20, 10.0, counts_refused=True),
    "at most 8 at once, silent": lambda: Crowd(8),
}


def _spread(values: list[float], unit: str = "") -> str:
    return f"{statistics.median(values):6.3f}{unit} ({min(values):.3f}-{max(values):.3f})"


def queueing(seeds: int) -> None:
    print(f"{ITEMS} calls, {seeds} seeds, maximum 128: share of the best fixed concurrency, median (range)")
    print(f"{'server':24} {'answers':18} {'best':>4} {'auto':>22} {'fixed 16':>9} {'fixed 64':>9} {'ends at':>7}")
    for name, machine in MACHINES.items():
        if machine.slots == 300:
            continue  # 5,000 calls are 17 rounds of it: the climb would be the run
        for label, work in WORKLOADS.items():
            shares: list[float] = []
            sixteen: list[float] = []
            sixty_four: list[float] = []
            for seed in range(seeds):
                level, best = best_fixed(machine, work, seed=seed, items=ITEMS, maximum=128)
                outcome = World(machine, work, seed=seed, maximum=128).run(items=ITEMS)
                shares.append(outcome.rate_per_s / best)
                for fixed, rates in ((16, sixteen), (64, sixty_four)):
                    rates.append(World(machine, work, seed=seed, fixed=fixed).run(items=ITEMS).rate_per_s / best)
            assert outcome.auto is not None
            others = f"{statistics.median(sixteen):9.3f} {statistics.median(sixty_four):9.3f}"
            print(f"{name:24} {label:18} {level:4} {_spread(shares):>22} {others} {outcome.auto.limit:7}", flush=True)


def refusing(seeds: int) -> None:
    print(f"\nten minutes, {seeds} seeds, maximum 64: used share of the permitted rate, refused share in per cent")
    machine = Machine(slots=4096, speed=constant)
    for name, build in QUOTAS.items():
        for mean_s in (0.2, 1.0, 5.0):
            used, refused = [], []
            for seed in range(seeds):
                quota = build()
                outcome = World(machine, Workload(mean_s=mean_s), seed=seed, quota=quota).run(seconds=600)
                permitted = quota.most / mean_s if isinstance(quota, Crowd) else quota.rate_per_s
                used.append(outcome.completed / 600 / permitted)
                refused.append(100 * outcome.refused_share)
            print(f"{name:32} answers in {mean_s:3} s  {_spread(used)}  {_spread(refused, ' %')}", flush=True)


def cost() -> None:
    calls = 300_000
    for label, refuse in (("free", False), ("paced", True)):
        auto = AutoConcurrency(now=0.0, maximum=64)
        if refuse:
            auto.on_overload(0.01, call_started=0.005)
        started = time.process_time()
        for index in range(calls):
            now = 1.0 + index * 0.01
            auto.on_completion(now, started=now - 0.5, completion_tokens=100, in_flight=auto.limit)
        each_us = 1e6 * (time.process_time() - started) / calls
        print(f"on_completion, {label}: {each_us:.2f} µs of CPU, the loop around it included")


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    cost()
    queueing(number)
    refusing(number)
