"""The lines a person reads before the first call is made: what is about to happen, and to whom narratives are sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from narrun_async.reporting.wording import SIMULATED


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """A run that is about to begin."""

    experiment_id: str
    name: str
    #: new, resume, retry-errors
    mode: str
    model: str
    endpoint: str
    is_simulated: bool
    is_overridden: bool
    database: str
    n_cohort: int
    n_done: int
    n_errors: int
    n_remaining: int
    #: such as `8 calls at a time`
    pace: str
    log_dir: str | None


def banner_lines(banner: Banner) -> Sequence[str]:
    """Plain lines, aligned, without colours."""
    rows = [
        ("experiment", f"{banner.experiment_id}  ({banner.name}, {banner.mode})"),
        ("cohort", f"{banner.n_cohort} narratives, {banner.n_done} done, {banner.n_errors} of them errors"),
        ("to do", f"{banner.n_remaining} narratives, {banner.pace}"),
        ("endpoint", f"{banner.endpoint}  model {banner.model}"),
        ("database", banner.database),
        ("logs", banner.log_dir or "none"),
    ]
    lines = [f"{label:<11}{text}" for label, text in rows]
    if banner.is_overridden:
        lines.append("NOTE: --api-url replaces the URL that this experiment was created with; the run records it.")
    if banner.is_simulated:
        lines.append(SIMULATED)
    return lines
