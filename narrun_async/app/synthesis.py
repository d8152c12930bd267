"""`narrun synth`: a workbook of synthetic narratives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from narrun_async.simulation.synthetic_workbook import Rates, write_workbook


def write_synthetic_workbook(
    path: Path, *, n_cases: int, seed: int, labelled: float, repeated: float, overwrite: bool
) -> Sequence[str]:
    """Write it, and say in lines for people what is in it.

    :param labelled: share of the cases that get labels
    :param repeated: share of the texts that are those of an earlier case

    :raises UsageError: the file exists and may not be replaced
    :raises StorageError: it cannot be written
    """
    rates = Rates(labelled=labelled, repeated=repeated)
    report = write_workbook(path, n_cases=n_cases, seed=seed, rates=rates, overwrite=overwrite)
    again = f", {report.n_repeated} texts of an earlier case" if report.n_repeated else ""
    return [
        f"{report.path}: {report.n_cases} cases, {report.n_narratives} narratives,"
        f" {report.n_positive} of them about intimate partner violence",
        f"  {report.n_placeholders} placeholders, {report.n_blank} blank cells{again}; every text is made up",
    ]
