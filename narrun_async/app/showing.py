"""`narrun list`, `show`, `status` and `export`: read the database beside whoever writes, and put it into lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from narrun_async.app.databases import reading
from narrun_async.app.steering import find_running
from narrun_async.clock import local_now
from narrun_async.config.sections import ProviderKind, provider_kind_of
from narrun_async.models import Experiment, ExperimentStatus
from narrun_async.operations.experiments import LATEST, find_experiment, is_incomplete
from narrun_async.progress.live_view import live_lines
from narrun_async.reporting.batch_lines import open_batches_lines
from narrun_async.reporting.exports import ExportedFiles, ExportOptions, export_results
from narrun_async.reporting.r_snippet import r_snippet
from narrun_async.reporting.summary import load_summary
from narrun_async.reporting.tables import (
    ExperimentLine,
    canary_text,
    experiment_json,
    experiment_lines,
    experiments_lines,
    runs_json,
    summary_json,
    summary_lines,
)
from narrun_async.reporting.wording import SIMULATED, percent_text
from narrun_async.statuses import shown_status
from narrun_async.stores import SqliteStore, database_is_locked


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusView:
    """One look at an experiment."""

    lines: Sequence[str]
    #: a process is working on it right now
    is_running: bool


async def list_experiments(database: Path, *, incomplete_only: bool, name: str | None, as_json: bool) -> Sequence[str]:
    """Every experiment, newest first."""
    in_use = database_is_locked(database)
    async with reading(database) as store:
        chosen = [
            one
            for one in await store.list_experiments()
            if (name is None or one.name == name) and (is_incomplete(one) or not incomplete_only)
        ]
        lines = [
            ExperimentLine(experiment=one, status=_shown(one, in_use), counts=await store.count_results(one))
            for one in chosen
        ]
    if as_json:
        documents = [experiment_json(one.experiment, status=one.status, counts=one.counts) for one in lines]
        return [_json(documents)]
    return experiments_lines(lines)


async def show_experiment(database: Path, wanted: str, *, as_json: bool) -> Sequence[str]:
    """One experiment: settings, runs, results."""
    in_use = database_is_locked(database)
    async with reading(database) as store:
        experiment = await find_shown(store, wanted)
        runs = await store.list_runs(experiment.experiment_id)
        summary = await load_summary(store, experiment)
        batches = open_batches_lines(await store.list_batches(experiment.experiment_id))
    status, simulated = _shown(experiment, in_use), is_simulated(experiment)
    if as_json:
        document = experiment_json(experiment, status=status, counts=summary.counts)
        document |= {"runs": runs_json(runs), "summary": summary_json(summary, simulated=simulated)}
        return [_json(document)]
    return [
        *experiment_lines(experiment, status=status, runs=runs, servings=summary.servings),
        *batches,
        "",
        *summary_lines(summary, simulated=simulated),
    ]


async def look_at_status(database: Path, wanted: str | None, *, as_json: bool) -> StatusView:
    """How far an experiment is; without an id the one that runs, or the newest."""
    in_use = database_is_locked(database)
    async with reading(database) as store:
        experiment = await find_shown(store, wanted) if wanted else _current(await store.list_experiments())
        if experiment is None:
            return StatusView(lines=["no experiments yet"], is_running=False)
        counts = await store.count_results(experiment)
        errors = await store.count_errors(experiment.experiment_id)
        canaries = await store.count_canaries(experiment.experiment_id)
        batches = open_batches_lines(await store.list_batches(experiment.experiment_id))
    status = _shown(experiment, in_use)
    columns = experiment.columns
    if as_json:
        document = experiment_json(experiment, status=status, counts=counts) | {
            "errors_by_category": dict(errors),
            "canaries": asdict(canaries),
        }
        running = await find_running(database)
        if running is not None and running[1].experiment_id == experiment.experiment_id:
            document["live"] = asdict(running[1])
        return StatusView(lines=[_json(document)], is_running=status is ExperimentStatus.RUNNING)
    lines = [
        f"{experiment.experiment_id}  {experiment.name}  {status.value}  ({local_now()})",
        f"{counts.n_rows:,} of {counts.n_total:,} ({percent_text(counts.n_rows, counts.n_total)}),"
        f" {counts.n_errors:,} errors"
        + "".join(f", {category} {number:,}" for category, number in errors.items())
        + (f", {counts.n_skipped:,} skipped" if counts.n_skipped else "")
        + (f", {counts.n_copied:,} copied" if counts.n_copied else ""),
    ]
    if canaries.n_asked:
        lines.append(canary_text(canaries))
    lines += batches
    running = await find_running(database)
    if running is not None and running[1].experiment_id == experiment.experiment_id:
        return StatusView(lines=[*lines[:1], *lines[2:], *live_lines(running[1])], is_running=True)
    if columns.get("last_progress_update"):
        lines.append(f"last saved {columns['last_progress_update']}")
    if status is ExperimentStatus.RUNNING and columns.get("estimated_completion_time"):
        lines.append(f"expected end {columns['estimated_completion_time']}")
    return StatusView(lines=lines, is_running=status is ExperimentStatus.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An export, and what its reader should know."""

    files: ExportedFiles
    notices: Sequence[str]


async def export_experiment(database: Path, wanted: str, directory: Path, options: ExportOptions) -> Exported:
    """Write the results into files; the database is only read.

    :raises MissingPackageError: a format needs a package that is not installed
    :raises StorageError: a file cannot be written; none is left half done
    """
    async with reading(database) as store:
        experiment = await find_shown(store, wanted)
        files = await export_results(store, experiment, directory, options)
        n_textless = await store.count_textless(experiment.cohort) if options.with_text else 0
    notices = [f"NOTE: {remark}" for remark in files.remarks]
    if n_textless:
        notices.append(f"NOTE: {n_textless:,} texts, and what quoted them, are gone from the database (narrun scrub)")
    return Exported(files=files, notices=[*notices, SIMULATED] if is_simulated(experiment) else notices)


async def r_snippet_lines(database: Path, wanted: str, *, with_text: bool) -> Sequence[str]:
    """R code that reads this experiment from the database."""
    async with reading(database) as store:
        experiment = await find_shown(store, wanted)
    return r_snippet(database.resolve(), experiment, with_text=with_text)


async def find_shown(store: SqliteStore, wanted: str) -> Experiment:
    """As on a resume, except that `latest` is simply the newest: one looks at finished ones, too."""
    if wanted == LATEST and (experiments := await store.list_experiments()):
        return experiments[0]
    return await find_experiment(store, wanted)


def _current(experiments: Sequence[Experiment]) -> Experiment | None:
    running = (one for one in experiments if one.status is ExperimentStatus.RUNNING)
    return next(running, experiments[0] if experiments else None)


def _shown(experiment: Experiment, in_use: bool) -> ExperimentStatus:
    return shown_status(experiment.status, database_in_use=in_use)


def is_simulated(experiment: Experiment) -> bool:
    return provider_kind_of(str(experiment.columns.get("model_provider"))) is ProviderKind.SIMULATED


def _json(document: object) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2)
