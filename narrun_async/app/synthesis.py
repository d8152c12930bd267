"""`narrun synth`: a workbook of synthetic narratives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from narrun_async.simulation.synthetic_workbook import write_workbook


def write_synthetic_workbook(path: Path, *, n_cases: int, seed: int, labelled: bool, overwrite: bool) -> Sequence[str]:
    """Write it, and say in lines for people what is in it.

    :raises UsageError: the file exists and may not be replaced
    :raises StorageError: it cannot be written
    """
    report = write_workbook(path, n_cases=n_cases, seed=seed, labelled=labelled, overwrite=overwrite)
    return [
        f"{report.path}: {report.n_cases} cases, {report.n_narratives} narratives,"
        f" {report.n_positive} of them about intimate partner violence",
        f"  {report.n_placeholders} placeholders, {report.n_blank} blank cells; every text is made up",
    ]
