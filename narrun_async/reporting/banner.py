"""The lines a person reads before the first call is made: what is about to happen, and to whom narratives are sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from narrun_async.config import ModelSection
from narrun_async.models import AnswerFormat, UncalledCounts
from narrun_async.reporting.wording import SIMULATED

UNSCREENED_NOTICE = (
    "nobody has looked at the texts of this file yet, so placeholders and repeats are not known and not left out here;"
    " a run looks first, and so does `narrun screen`"
)


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
    #: of those that are done
    n_skipped: int
    n_to_ask: int
    uncalled: UncalledCounts
    #: by which placeholders are known, where they are skipped
    placeholder_rules: str | None
    #: such as `8 calls at a time`
    pace: str
    #: what answers are bound to; None: the endpoint is not asked to bind them
    answers: str | None
    log_dir: str | None


def answer_words(model: ModelSection, decided: AnswerFormat | None = None) -> str | None:
    """What the endpoint is asked to bind its answers to; None where it is asked for nothing.

    :param decided: what `auto` came to, where that is known
    """
    asked = model.response_format
    if isinstance(asked, dict):
        return "as the mapping in `model.response_format` says"
    if asked != "auto":
        return None if asked is None else f"bound to {asked}"
    if decided is None:
        return "auto: a question without any narrative shows, before the first one is sent, what the endpoint obeys"
    if decided is AnswerFormat.OFF:
        return "not bound to anything, for the endpoint was found to obey nothing (auto)"
    return f"bound to {decided}, which the endpoint was found to obey (auto)"


def banner_lines(banner: Banner) -> Sequence[str]:
    """Plain lines, aligned, without colours."""
    rows = [
        ("experiment", f"{banner.experiment_id}  ({banner.name}, {banner.mode})"),
        ("cohort", f"{banner.n_cohort} narratives, {banner.n_done} done, {_of_them(banner)}"),
        ("to do", f"{banner.n_to_ask} narratives, {banner.pace}"),
        *uncalled_rows(banner.uncalled, banner.placeholder_rules),
        ("endpoint", f"{banner.endpoint}  model {banner.model}"),
        *([("answers", banner.answers)] if banner.answers else []),
        ("database", banner.database),
        ("logs", banner.log_dir or "none"),
    ]
    lines = [f"{label:<11}{text}" for label, text in rows]
    if banner.is_overridden:
        lines.append("NOTE: --api-url replaces the URL that this experiment was created with; the run records it.")
    if banner.is_simulated:
        lines.append(SIMULATED)
    return lines


def uncalled_rows(uncalled: UncalledCounts, placeholder_rules: str | None) -> Sequence[tuple[str, str]]:
    """What gets its row without a call, as labels and texts; nothing where every narrative is asked."""
    rows = []
    if uncalled.n_to_skip:
        by = f", by the rules {placeholder_rules}" if placeholder_rules else ""
        rows.append(("no call", f"{uncalled.n_to_skip} placeholders are skipped{by}"))
    if uncalled.n_to_copy:
        rows.append(("no call", f"{uncalled.n_to_copy} narratives have the text of another one, and get its answer"))
    return rows


def _of_them(banner: Banner) -> str:
    skipped = f", {banner.n_skipped} skipped" if banner.n_skipped else ""
    return f"{banner.n_errors} of them errors{skipped}"
