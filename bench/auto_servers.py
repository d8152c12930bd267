"""Owns the servers of `bench.auto_sockets`: what each is made of and how much is asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

AUTO = "auto"
#: what `auto` is always shown beside
SHOWN = (16, 64)
STEADY_S = 10.0
STEADY_MOST = 1_500
#: the program's own default for `--max-concurrency`
MOST_IN_FLIGHT = 64
#: finished narratives that a run of a given time must never run out of, as a share of what is permitted in that time
_SPARE = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A simulated server and how much is asked of it."""

    #: names the row on the command line
    key: str
    #: names it in the table, where a new measurement replaces the old one
    name: str
    latency_ms: float
    flags: tuple[str, ...] = ()
    n_narratives: int = 5_000
    #: numbers of calls in flight that `auto` is compared with
    fixed: tuple[int, ...] = SHOWN
    #: calls a second that it permits; None: it refuses nothing
    permitted_per_s: float | None = None
    #: how long a run goes on; None: until all narratives are done
    minutes: float | None = None
    #: how long it is down once half of the narratives have been asked for
    outage_s: float = 0.0

    @property
    def kinds(self) -> tuple[int | str, ...]:
        """The runs that are made of it."""
        return (AUTO, *self.fixed)

    def n_steady(self, concurrency: int) -> int:
        """Narratives that so many calls in flight could finish in `STEADY_S` if nothing slowed them down."""
        return min(STEADY_MOST, int(STEADY_S * concurrency * 1000 / self.latency_ms))


_LEVELS = (1, 4, 8, 16, 32, 64)
_BATCHING = ("--latency-model", "batching", "--batch-slowdown")
_SLOTS = ("--latency-model", "slots", "--slots")

#: `thrashing` of tests/unit/virtual_servers.py, where a lone call takes 1.01 times the mean
THRASHING: dict[str, Any] = {
    "latency_model": "batching",
    "batch_slowdown": 0.01 / 1.01,
    "thrash_above": 24,
    "thrash_slowdown": 3.7 / 1.24,
}

QUEUEING = (
    Server(key="batching", name="batching: 100 ms + 2.5 % a call", latency_ms=100, flags=(*_BATCHING, "0.025"),
           fixed=_LEVELS),
    Server(key="slots-4", name="4 slots, 20 ms", latency_ms=20, flags=(*_SLOTS, "4"), fixed=_LEVELS),
    Server(key="slot-1", name="1 slot, 5 ms", latency_ms=5, flags=(*_SLOTS, "1"), fixed=_LEVELS),
    Server(key="thrash", name="memory for 24: 101 ms + 1 % a call, a third of the rate beyond", latency_ms=101,
           flags=tuple(f"--{knob.replace('_', '-')}={value}" for knob, value in THRASHING.items()),
           fixed=(1, 4, 8, 16, 24, 32, 64)),
)  # fmt: skip


def refusing(minutes: float) -> tuple[Server, ...]:
    """Servers with a rate limit, for so long."""
    rows = (
        ("rate-10", "10 calls a second, Retry-After", 10.0, ()),
        ("rate-2", "2 calls a second, Retry-After", 2.0, ()),
        ("rate-2-counted", "2 calls in any second, refused calls count", 2.0, ("--refused-calls-count",)),
    )
    return tuple(
        Server(
            key=key,
            name=name,
            latency_ms=300,
            flags=("--rate", f"{rate:g}", *more),
            n_narratives=int(rate * 60 * minutes * _SPARE) + MOST_IN_FLIGHT,
            permitted_per_s=rate,
            minutes=minutes,
        )
        for key, name, rate, more in rows
    )


def failing(outage_s: float) -> Server:
    """A server that goes away in the middle."""
    name = "16 slots, 50 ms, an outage"
    return Server(key="outage", name=name, latency_ms=50, flags=(*_SLOTS, "16"), outage_s=outage_s)


def keys(servers: Sequence[Server]) -> tuple[str, ...]:
    return tuple(server.key for server in servers)
