"""Owns the small file in which a run shows what only it knows: limit and its history, latencies, calls in flight."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anyio

from narrun_async.clock import utc_now, utc_text
from narrun_async.logs import replace_private_file
from narrun_async.progress.tally import Progress
from narrun_async.reporting.wording import (
    aligned,
    categories_text,
    clock_text,
    duration_text,
    percent_text,
    rate_text,
)

#: name of the file in the experiment's log directory
FILE_NAME = "live.json"
WRITE_EVERY_S = 1.0
#: changes of the limits that are shown to people, the newest last
CHANGES_SHOWN = 8
_LARGEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitView:
    """The limits of the endpoint at one moment."""

    limit: int
    is_auto: bool
    #: calls a second; None: as fast as slots allow
    pace_per_s: float | None
    is_paused: bool
    #: latest changes, oldest first: UTC, what it became, why
    history: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveView:
    """A run at one moment, as it shows itself to others."""

    pid: int
    experiment_id: str
    #: UTC, ISO 8601
    written_at: str
    n_done: int
    n_total: int
    n_saved: int
    in_flight: int
    rate_per_s: float | None
    tokens_per_s: float | None
    eta_s: float | None
    runtime_s: float
    downtime_s: float
    latency_p50_s: float | None
    latency_p95_s: float | None
    waiting_for: str | None
    limits: LimitView
    n_skipped: int = 0
    n_copied: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)


def read_live_view(path: Path) -> LiveView | None:
    """What a run wrote last, or None when there is nothing that makes sense."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LARGEST_BYTES))
        limits = found.pop("limits")
        history = tuple((str(at), str(what), str(why)) for at, what, why in limits.pop("history"))
        view = LiveView(**found, limits=LimitView(**limits, history=history))
        live_lines(view)  # what cannot be shown makes no sense
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
        return None
    return view if type(view.pid) is int else None


def live_lines(view: LiveView) -> Sequence[str]:
    """The view for people: progress, pace, latencies, and how the limits came to be what they are."""
    limits = view.limits
    rows = [
        ("done", f"{view.n_done:,} of {view.n_total:,} ({percent_text(view.n_done, view.n_total)})"),
        ("rate", _or_unknown(view.rate_per_s, rate_text) + f", {_or_unknown(view.tokens_per_s, _tokens_text)}"),
        ("left", _or_unknown(view.eta_s, clock_text) + f", running {clock_text(view.runtime_s)}"),
        ("in flight", f"{view.in_flight:,} of {limits.limit:,}" + (", auto" if limits.is_auto else "")),
        (
            "latency",
            f"p50 {_or_unknown(view.latency_p50_s, duration_text)},"
            f" p95 {_or_unknown(view.latency_p95_s, duration_text)}",
        ),
        ("errors", categories_text(view.errors) if view.errors else "none"),
    ]
    if view.n_skipped or view.n_copied:
        rows.append(("no call", f"{view.n_skipped:,} skipped, {view.n_copied:,} copied"))
    if limits.pace_per_s is not None:
        rows.append(("pace", f"{limits.pace_per_s:.3g} calls a second"))
    if view.waiting_for:
        rows.append(("waiting", view.waiting_for))
    if view.downtime_s >= 1:
        rows.append(("waited", duration_text(view.downtime_s)))
    lines = aligned(rows)
    return lines + [f"  {at[11:19]}  {what} ({why})" for at, what, why in limits.history[-CHANGES_SHOWN:]]


def _tokens_text(per_s: float) -> str:
    return f"{per_s:,.0f} completion tokens/s"


def _or_unknown(value: float | None, render: Callable[[float], str]) -> str:
    return "unknown" if value is None else render(value)


async def write_live_views(
    progress: Progress,
    path: Path,
    experiment_id: str,
    limits: Callable[[], LimitView],
    *,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> None:
    """Write the view every second until cancelled, and take it away then. A view that cannot be written is left out."""
    try:
        while True:
            with suppress(OSError):
                replace_private_file(path, json.dumps(asdict(_view(progress, experiment_id, limits()))))
            await sleep(WRITE_EVERY_S)
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _view(progress: Progress, experiment_id: str, limits: LimitView) -> LiveView:
    snapshot = progress.snapshot()
    latencies = sorted(progress.recent_latencies_s)
    return LiveView(
        pid=os.getpid(),
        experiment_id=experiment_id,
        written_at=utc_text(utc_now()),
        n_done=snapshot.n_done,
        n_total=snapshot.n_total,
        n_saved=snapshot.n_saved,
        in_flight=snapshot.in_flight,
        rate_per_s=snapshot.rate_per_s,
        tokens_per_s=snapshot.tokens_per_s,
        eta_s=snapshot.eta_s,
        runtime_s=snapshot.runtime_s,
        downtime_s=snapshot.downtime_s,
        latency_p50_s=_quantile(latencies, 0.50),
        latency_p95_s=_quantile(latencies, 0.95),
        waiting_for=snapshot.waiting_for,
        limits=limits,
        n_skipped=snapshot.n_skipped,
        n_copied=snapshot.n_copied,
        errors=snapshot.errors,
    )


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of all is not above (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
