"""An estimate as lines for people: the middle, and the interval that a sample of this size leaves open."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from narrun_async.metrics import Estimate, Range
from narrun_async.models import UncalledCounts
from narrun_async.reporting.banner import uncalled_rows
from narrun_async.reporting.wording import aligned, clock_text, short_count


def estimate_lines(estimate: Estimate, uncalled: UncalledCounts, *, is_auto: bool, simulated: bool) -> Sequence[str]:
    """What the remaining narratives will take.

    :param uncalled: what is left out, because it takes no call
    :param is_auto: a run would look for a better concurrency by itself
    """
    rows = [
        ("sample", f"{estimate.n_sampled} narratives, {estimate.n_errors} of them errors"),
        ("remaining", f"{estimate.n_remaining:,} narratives"),
        *uncalled_rows(uncalled, None),
        ("duration", _shown(estimate.duration_s, clock_text) + f" with {estimate.concurrency} calls in flight"),
    ]
    if estimate.prompt_tokens is not None and estimate.completion_tokens is not None:
        rows.append(("prompt", _shown(estimate.prompt_tokens, _tokens) + " tokens"))
        rows.append(("completion", _shown(estimate.completion_tokens, _tokens) + " tokens"))
    else:
        rows.append(("tokens", "the endpoint reports none"))
    if estimate.cost is None:
        rows.append(("cost", "not known: `run.prices` says what a million tokens cost"))
    else:
        rows.append(("cost", _shown(estimate.cost, lambda value: f"{value:,.2f}")))
    lines = aligned(rows)
    lines.append("The interval is that of a sample of this size (95 %); more calls at a time may each take longer.")
    if is_auto:
        lines.append("A run with --concurrency auto looks for the best number of calls by itself and may be faster.")
    if simulated:
        lines.append("SIMULATED: this tells nothing about a real endpoint.")
    return lines


def _shown(value: Range, render: Callable[[float], str]) -> str:
    return f"{render(value.middle)} ({render(value.low)} to {render(value.high)})"


def _tokens(count: float) -> str:
    return short_count(round(count)) if count < 1e15 else "unknown"
