"""Puts summaries, experiments and runs into lines for people and into mappings for `--json`; no text of a narrative.

Plain lines, aligned and without colours: the same in a terminal, a pipe and a file, and never wrapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from narrun_async.metrics import ConfusionCounts, Metrics
from narrun_async.models import (
    CanaryCounts,
    Experiment,
    ExperimentStatus,
    FlagCounts,
    ResultCounts,
    RunRecord,
    Screening,
    Serving,
    text_sha256,
)
from narrun_async.reporting.summary import ExperimentSummary
from narrun_async.reporting.wording import aligned, categories_text, duration_text, percent_text

SIMULATED_NOTICE = "SIMULATED: the answers come from a keyword rule and mean nothing, and so do these measures."

#: shown by their length and checksum
_NO_END = "no end recorded: still running, or killed"
_PROMPTS = ("system_prompt", "user_template", "config_json")

#: label → column, in the order in which one experiment is shown
_SETTINGS = {
    "model": "model_name",
    "provider": "model_provider",
    "api url": "api_url",
    "temperature": "temperature",
    "seed": "run_seed",
    "answer format": "answer_format",
    "prompt version": "prompt_version",
    "prompt author": "prompt_author",
    "data file": "data_file",
    "data checksum": "data_checksum",
    "config file": "config_file",
    "config sha256": "config_sha256",
    "placeholders by": "placeholder_rules",
    "log directory": "log_dir",
    "csv export": "csv_file",
    "json export": "json_file",
    "created": "created_at",
    "started": "start_time",
    "ended": "end_time",
    "last saved": "last_progress_update",
    "notes": "notes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentLine:
    """One experiment in a list."""

    experiment: Experiment
    #: as people are told it, see `statuses.shown_status`
    status: ExperimentStatus
    counts: ResultCounts


# --- lines for people ------------------------------------------------------------------------------------------------


def summary_lines(summary: ExperimentSummary, *, simulated: bool) -> list[str]:
    """What an experiment holds; every fraction with its denominator.

    :param simulated: the answers are those of the simulated endpoint; a sentence says so
    """
    counts, confusion, metrics = summary.counts, summary.confusion, summary.metrics
    rows = [("rows", f"{counts.n_rows:,} of {counts.n_total:,}: {kinds_text(counts)}")]
    if counts.n_copied:
        rows.append(("copied", f"{counts.n_copied:,} of these are of narratives with the text of another one"))
    if counts.n_missing:
        rows.append(("missing", f"{counts.n_missing:,} narratives have no row yet"))
    if summary.errors:
        rows.append(("errors", categories_text(summary.errors)))
    if summary.flags and (words := flags_text(summary.flags)):
        rows.append(("texts", words))
    if summary.n_second_tries:
        rows.append(("second try", f"{summary.n_second_tries:,} of the answers came when asked for once more"))
    rows.append(("detected", f"{summary.n_detected:,} yes, {summary.n_not_detected:,} no"))
    rows.extend(_agreement_rows(confusion, metrics))
    tokens = summary.prompt_tokens + summary.completion_tokens
    rows.append(("tokens", f"{tokens:,} ({summary.prompt_tokens:,} prompt, {summary.completion_tokens:,} completion)"))
    if len(summary.servings) > 1:
        rows.append(("WARNING", f"{len(summary.servings)} models or servers answered; `narrun show` lists them"))
    if summary.canaries.n_asked:
        rows.append(("canaries", canary_text(summary.canaries)))
    lines = aligned(rows)
    return [*lines, SIMULATED_NOTICE] if simulated else lines


def kinds_text(counts: ResultCounts) -> str:
    """What the rows of an experiment are."""
    skipped = f", {counts.n_skipped:,} skipped" if counts.n_skipped else ""
    return f"{counts.n_success:,} answers, {counts.n_errors:,} errors{skipped}"


def flags_text(flags: FlagCounts | Screening) -> str:
    """How many texts are doubtful, and why; "" where none is."""
    counted = {
        "placeholders": flags.n_placeholder,
        "near-empty": flags.n_near_empty,
        "probably cut off": flags.n_truncated,
        "with the text of another narrative": flags.n_identical,
    }
    return ", ".join(f"{count:,} {words}" for words, count in counted.items() if count)


def canary_text(canaries: CanaryCounts) -> str:
    """How many of the narratives that were asked again were answered the other way."""
    flipped = percent_text(canaries.n_flipped, canaries.n_answered) if canaries.n_answered else "none answered"
    unanswered = canaries.n_asked - canaries.n_answered
    failed = f", {unanswered:,} without a usable answer" if unanswered else ""
    return f"{canaries.n_flipped:,} of {canaries.n_answered:,} answers flipped when asked again ({flipped}){failed}"


def _agreement_rows(confusion: ConfusionCounts, metrics: Metrics) -> list[tuple[str, str]]:
    tp, fp, fn, tn = confusion.tp, confusion.fp, confusion.fn, confusion.tn
    if not confusion.n_labelled:
        return [("labels", "no row with an answer has a manual label; there is nothing to compare")]
    return [
        (
            "labels",
            f"{confusion.n_labelled:,} rows with an answer and a label: TP {tp:,}, FP {fp:,}, FN {fn:,}, TN {tn:,}",
        ),
        ("accuracy", _measure(metrics.accuracy, tp + tn, confusion.n_labelled, "labelled rows")),
        ("precision", _measure(metrics.precision, tp, tp + fp, "detected")),
        ("recall", _measure(metrics.recall, tp, tp + fn, "labelled positive")),
        ("F1", _measure(metrics.f1, 2 * tp, 2 * tp + fp + fn, "= 2 TP + FP + FN")),
    ]


def _measure(value: float | None, part: int, whole: int, of: str) -> str:
    return f"undefined (0 {of})" if value is None else f"{value:.3f} ({part:,} of {whole:,} {of})"


def experiments_lines(lines: Sequence[ExperimentLine]) -> list[str]:
    """A list of experiments in the order given, the first eight characters of each id first."""
    if not lines:
        return ["no experiments yet"]
    header = ("id", "name", "status", "done", "total", "%", "errors", "created")
    rows = [
        (
            line.experiment.experiment_id[:8],
            _shortened(line.experiment.name, 40),
            line.status.value,
            f"{line.counts.n_rows:,}",
            f"{line.counts.n_total:,}",
            percent_text(line.counts.n_rows, line.counts.n_total),
            f"{line.counts.n_errors:,}",
            line.experiment.created_at,
        )
        for line in lines
    ]
    return aligned([header, *rows], right=frozenset({3, 4, 5, 6}))


def experiment_lines(
    experiment: Experiment, *, status: ExperimentStatus, runs: Sequence[RunRecord], servings: Sequence[Serving] = ()
) -> list[str]:
    """The settings of one experiment and the history of its runs; prompts by length and checksum only."""
    columns = experiment.columns
    cohort = experiment.cohort
    rows = [
        ("experiment", experiment.experiment_id),
        ("name", experiment.name),
        ("status", status.value),
        ("cohort", f"{cohort.n_narratives:,} narratives, up to narrative_id {cohort.last_narrative_id}"),
    ]
    rows += [(label, str(columns[name])) for label, name in _SETTINGS.items() if columns.get(name) not in (None, "")]
    for name in ("system_prompt", "user_template"):
        text = columns.get(name)
        label = name.replace("_", " ")
        rows.append((label, _prompt_text(text) if isinstance(text, str) and text else "none"))
    rows += [("answered by" if number == 0 else "", str(serving)) for number, serving in enumerate(servings)]
    return [*aligned(rows), "", *runs_lines(runs)]


def runs_lines(runs: Sequence[RunRecord]) -> list[str]:
    """The history of an experiment, oldest first, with the sum of what its runs saved and took."""
    if not runs:
        return ["no runs recorded"]
    header = ("run", "mode", "selection", "C", "started (UTC)", "runtime", "saved", "exit", "ended")
    rows = [
        (
            str(run.run_id),
            run.mode,
            run.selection,
            _or_dash(run.concurrency),
            run.started_at[:19].replace("T", " "),
            duration_text(run.runtime_s),
            f"{run.n_saved:,}",
            _or_dash(run.exit_code),
            run.ended_why or ("ended" if run.ended_at else _NO_END if run is runs[-1] else "no end recorded: killed"),
        )
        for run in runs
    ]
    total_s, n_saved = sum(run.runtime_s for run in runs), sum(run.n_saved for run in runs)
    total = ("all", "", "", "", "", duration_text(total_s), f"{n_saved:,}", "", "")
    return aligned([header, *rows, total], right=frozenset({0, 3, 5, 6, 7}))


def _prompt_text(text: str) -> str:
    return f"{len(text):,} characters, sha256 {text_sha256(text)[:12]}"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _or_dash(value: int | str | None) -> str:
    return "-" if value is None else str(value)


# --- mappings for scripts --------------------------------------------------------------------------------------------


def summary_json(summary: ExperimentSummary, *, simulated: bool) -> dict[str, object]:
    """The numbers of `summary_lines` by name; fractions of 1, null where undefined."""
    return {
        "counts": _counts_json(summary.counts),
        "flow": _flow_json(summary.counts, summary.flags),
        "errors_by_category": dict(summary.errors),
        "n_second_tries": summary.n_second_tries,
        "n_detected": summary.n_detected,
        "n_not_detected": summary.n_not_detected,
        "n_labelled": summary.confusion.n_labelled,
        "confusion": asdict(summary.confusion),
        "metrics": asdict(summary.metrics),
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": summary.completion_tokens,
        "answered_by": [asdict(serving) for serving in summary.servings],
        "canaries": asdict(summary.canaries),
        "simulated": simulated,
    }


def experiment_json(
    experiment: Experiment, *, status: ExperimentStatus, counts: ResultCounts | None = None
) -> dict[str, object]:
    """One experiment: every stored column but the prompts, of which length and checksum are given.

    :param status: as people are told it; the stored one is among the columns
    :param counts: counted rows; left out where the caller did not count
    """
    columns = {name: value for name, value in experiment.columns.items() if name not in _PROMPTS}
    document: dict[str, object] = {
        "experiment_id": experiment.experiment_id,
        "name": experiment.name,
        "status": status.value,
        "created_at": experiment.created_at,
        "cohort": asdict(experiment.cohort),
        "prompts": {name: _prompt_json(experiment.columns.get(name)) for name in ("system_prompt", "user_template")},
        "columns": columns,
    }
    if counts is not None:
        document["counts"] = _counts_json(counts)
    return document


def runs_json(runs: Sequence[RunRecord]) -> list[dict[str, object]]:
    """The runs of an experiment, oldest first, field by field."""
    return [asdict(run) for run in runs]


def _counts_json(counts: ResultCounts) -> Mapping[str, int]:
    return {**asdict(counts), "n_missing": counts.n_missing}


def _flow_json(counts: ResultCounts, flags: FlagCounts | None) -> Mapping[str, int | None]:
    """From the cohort to the answers; what depends on a look at the texts is null where nobody has looked."""
    return {
        "eligible": counts.n_total,
        "placeholder": flags.n_placeholder if flags else None,
        "near_empty": flags.n_near_empty if flags else None,
        "truncated": flags.n_truncated if flags else None,
        "identical": flags.n_identical if flags else None,
        "skipped": counts.n_skipped,
        "copied": counts.n_copied,
        "sent": counts.n_asked,
        "error": counts.n_errors,
        "answered": counts.n_success,
        "missing": counts.n_missing,
    }


def _prompt_json(text: object) -> Mapping[str, object] | None:
    return {"characters": len(text), "sha256": text_sha256(text)} if isinstance(text, str) else None
