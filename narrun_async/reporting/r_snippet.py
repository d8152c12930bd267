"""Writes R code that opens a database beside whoever works on it and reads one experiment, labels included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from narrun_async.codebook import Column, Kind, chosen_columns
from narrun_async.models import Experiment
from narrun_async.reporting.wording import SIMULATED, printable

_INDENT = 4
_WIDTH = 100


def r_snippet(database: Path, experiment: Experiment, *, with_text: bool) -> Sequence[str]:
    """Lines of R; they need the packages DBI and RSQLite and change nothing.

    :param database: its absolute path
    :param with_text: read the narratives and what quotes them, too
    """
    columns = chosen_columns(with_text=with_text)
    simulated = experiment.columns.get("model_provider") == "simulated"
    return [
        f"# {printable(experiment.name)}: experiment {experiment.experiment_id}",
        *([f"# {SIMULATED}"] if simulated else []),
        '# once: install.packages(c("DBI", "RSQLite"))',
        "library(DBI)",
        f"con <- dbConnect(RSQLite::SQLite(), {_text(str(database))}, flags = RSQLite::SQLITE_RO)",
        "results <- dbGetQuery(",
        "    con,",
        '    "SELECT',
        *_wrapped([column.name for column in columns]),
        '     FROM narrative_results WHERE experiment_id = ? ORDER BY row_num",',
        f"    params = list({_text(experiment.experiment_id)})",
        ")",
        "experiment <- dbGetQuery(",
        "    con,",
        '    "SELECT * FROM experiments WHERE experiment_id = ?",',
        f"    params = list({_text(experiment.experiment_id)})",
        ")",
        "dbDisconnect(con)",
        "",
        *_factors(columns),
        "results$processed_at <- as.POSIXct(results$processed_at)  # local time",
        'table(results$detected, results$manual_flag_ind, useNA = "ifany", dnn = c("detected", "label"))',
    ]


def _factors(columns: Sequence[Column]) -> Sequence[str]:
    flags = [column.name for column in columns if column.kind is Kind.FLAG]
    types = next(column.values for column in columns if column.name == "narrative_type")
    return [
        "flags <- c(",
        *_wrapped([_text(name) for name in flags]),
        ")",
        'results[flags] <- lapply(results[flags], factor, levels = c(0, 1), labels = c("no", "yes"))',
        f"results$narrative_type <- factor(results$narrative_type, {_levels(types)})",
    ]


def _levels(values: Mapping[int | str, str]) -> str:
    levels, labels = (", ".join(_text(str(one)) for one in side) for side in (values, values.values()))
    return f"levels = c({levels}), labels = c({labels})"


def _wrapped(names: Sequence[str]) -> Sequence[str]:
    """A comma-separated list as indented lines."""
    lines, line = [], ""
    for place, name in enumerate(names):
        piece = name + ("," if place < len(names) - 1 else "")
        if line and len(line) + len(piece) + 1 > _WIDTH:
            lines.append(line)
            line = ""
        line = f"{line} {piece}" if line else " " * _INDENT + piece
    return [*lines, line]


def _text(value: str) -> str:
    """An R string; a path may hold quotes and backslashes."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
