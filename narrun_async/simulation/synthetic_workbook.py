"""Owns writing invented cases as a workbook in the labelled wide layout, row by row and the same for the same seed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import xlsxwriter
import xlsxwriter.exceptions

from narrun_async.errors import StorageError, UsageError
from narrun_async.models import NarrativeType
from narrun_async.simulation.synthetic_narratives import SyntheticCase, iter_cases, pick
from narrun_async.simulation.synthetic_sentences import PLACEHOLDERS

#: shares of the predecessor's production workbook
DEFAULT_BLANK_RATE = 0.157
DEFAULT_PLACEHOLDER_RATE = 0.055

DEMO_SEED = 9
DEMO_FILLED_CASES = 100
DEMO_BLANK_CASES = 6
DEMO_PLACEHOLDER_RATE = 0.03

_COLUMNS = ("IncidentID", "IncidentYear", "SiteID", "NarrativeCME", "NarrativeLE")
_LABEL_COLUMNS = ("ipv_manualCME", "ipv_manualLE", "ipv_manual")
#: fixed, so that the bytes depend on the seed alone
_CREATED = datetime(2024, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthReport:
    """What was written."""

    path: Path
    n_cases: int
    #: texts, placeholders included
    n_narratives: int
    n_blank: int
    n_placeholders: int
    #: narratives that tell of intimate partner violence
    n_positive: int


@dataclass(slots=True, kw_only=True)
class _Tally:
    n_cases: int = 0
    n_narratives: int = 0
    n_blank: int = 0
    n_placeholders: int = 0
    n_positive: int = 0


def write_workbook(
    path: Path,
    *,
    n_cases: int,
    seed: int,
    blank_rate: float = DEFAULT_BLANK_RATE,
    placeholder_rate: float = DEFAULT_PLACEHOLDER_RATE,
    labelled: bool = True,
    overwrite: bool = False,
) -> SynthReport:
    """Write `n_cases` rows; each text is blank or a placeholder at the given rates.

    The file appears complete or not at all.

    :raises UsageError: the file exists and `overwrite` is False, or a number makes no sense
    :raises StorageError: it cannot be written
    """
    if n_cases < 1 or not 0 <= blank_rate <= 1 or not 0 <= placeholder_rate <= 1 - blank_rate:
        raise UsageError("the number of cases must be at least 1, and the rates shares that sum to at most 1")
    tally = _Tally()
    rng = random.Random(f"cells:{seed}")
    cases = iter_cases(n_cases=n_cases, seed=seed)
    rows = (_row(case, rng, blank_rate=blank_rate, placeholder_rate=placeholder_rate, tally=tally) for case in cases)
    return _write(path, rows, tally, labelled=labelled, overwrite=overwrite)


def write_demo_workbook(path: Path, *, overwrite: bool = False) -> SynthReport:
    """Write `data/synthetic_narratives.xlsx`: 100 labelled cases told twice, and a few cases without any text.

    To make it anew: `write_demo_workbook(Path("data/synthetic_narratives.xlsx"), overwrite=True)`.

    :raises UsageError: the file exists and `overwrite` is False
    :raises StorageError: it cannot be written
    """
    tally = _Tally()
    return _write(path, _demo_rows(tally), tally, labelled=True, overwrite=overwrite)


def _demo_rows(tally: _Tally) -> Iterator[list[str]]:
    rng = random.Random(f"cells:{DEMO_SEED}")
    n_cases = DEMO_FILLED_CASES + DEMO_BLANK_CASES
    # Every so many rows one is blank, so that they lie among the others.
    step = n_cases // DEMO_BLANK_CASES
    for index, case in enumerate(iter_cases(n_cases=n_cases, seed=DEMO_SEED), start=1):
        is_blank = index % step == 0
        rates = {"blank_rate": float(is_blank), "placeholder_rate": 0.0 if is_blank else DEMO_PLACEHOLDER_RATE}
        yield _row(case, rng, **rates, tally=tally)


def _row(
    case: SyntheticCase, rng: random.Random, *, blank_rate: float, placeholder_rate: float, tally: _Tally
) -> list[str]:
    """The cells of a case, in the order of the columns; a blank or placeholder text loses its positive flag."""
    texts: dict[NarrativeType, str] = {}
    flags: dict[NarrativeType, str] = {}
    for kind, narrative in case.narratives.items():
        draw = rng.random()
        placeholder = pick(rng, PLACEHOLDERS)
        if draw < blank_rate:
            texts[kind], flags[kind] = "", ""
            tally.n_blank += 1
            continue
        is_placeholder = draw < blank_rate + placeholder_rate
        texts[kind] = placeholder if is_placeholder else narrative.text
        flags[kind] = str(int(narrative.is_positive and not is_placeholder))
        tally.n_narratives += 1
        tally.n_placeholders += is_placeholder
        tally.n_positive += flags[kind] == "1"
    tally.n_cases += 1
    of_case = max(flags.values())
    return [case.incident_id, str(case.incident_year), str(case.site_id), *texts.values(), *flags.values(), of_case]


def _write(path: Path, rows: Iterable[list[str]], tally: _Tally, *, labelled: bool, overwrite: bool) -> SynthReport:
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already", advice="choose another name, or say that it may be overwritten")
    columns = (*_COLUMNS, *_LABEL_COLUMNS) if labelled else _COLUMNS
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        _write_rows(unfinished, columns, rows)
        unfinished.replace(path)
    except (OSError, xlsxwriter.exceptions.FileCreateError) as exc:
        raise StorageError("the workbook cannot be written", path=path, advice="check the directory") from exc
    finally:
        unfinished.unlink(missing_ok=True)
    return SynthReport(
        path=path,
        n_cases=tally.n_cases,
        n_narratives=tally.n_narratives,
        n_blank=tally.n_blank,
        n_placeholders=tally.n_placeholders,
        n_positive=tally.n_positive,
    )


def _write_rows(path: Path, columns: tuple[str, ...], rows: Iterable[list[str]]) -> None:
    workbook = xlsxwriter.Workbook(str(path), {"constant_memory": True, "tmpdir": str(path.parent)})
    workbook.set_properties({"title": "Synthetic case narratives", "created": _CREATED})
    sheet = workbook.add_worksheet("narratives")
    for column, name in enumerate(columns):
        sheet.write_string(0, column, name)
    for row, cells in enumerate(rows, start=1):
        for column, value in enumerate(cells[: len(columns)]):
            if value:
                sheet.write_string(row, column, value)
    workbook.close()
