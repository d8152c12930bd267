"""Owns writing invented cases as a workbook in the labelled wide layout, row by row and the same for the same seed."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import xlsxwriter
import xlsxwriter.exceptions

from narrun_async.errors import StorageError, UsageError
from narrun_async.models import NarrativeType
from narrun_async.simulation.synthetic_narratives import SyntheticCase, SyntheticNarrative, iter_cases, pick
from narrun_async.simulation.synthetic_sentences import PLACEHOLDERS

DEMO_SEED = 9
DEMO_FILLED_CASES = 100
DEMO_BLANK_CASES = 6
DEMO_PLACEHOLDER_RATE = 0.03

_COLUMNS = ("IncidentID", "IncidentYear", "SiteID", "NarrativeCME", "NarrativeLE")
_LABEL_COLUMNS = ("ipv_manualCME", "ipv_manualLE", "ipv_manual")
#: fixed, so that the bytes depend on the seed alone
_CREATED = datetime(2024, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a workbook is made of; blank cells and placeholders as in the predecessor's production workbook."""

    #: of texts
    blank: float = 0.157
    placeholder: float = 0.055
    #: of the other texts: those of an earlier case, word for word
    repeated: float = 0.0
    #: of cases
    labelled: float = 1.0

    @property
    def make_sense(self) -> bool:
        are_shares = all(0 <= one <= 1 for one in (self.blank, self.placeholder, self.repeated, self.labelled))
        return are_shares and self.blank + self.placeholder <= 1


AS_IN_PRODUCTION = Rates()


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthReport:
    """What was written."""

    path: Path
    n_cases: int
    #: texts, placeholders included
    n_narratives: int
    n_blank: int
    n_placeholders: int
    #: texts of an earlier case
    n_repeated: int
    #: narratives that tell of intimate partner violence
    n_positive: int


@dataclass(slots=True, kw_only=True)
class _Tally:
    n_cases: int = 0
    n_narratives: int = 0
    n_blank: int = 0
    n_placeholders: int = 0
    n_repeated: int = 0
    n_positive: int = 0
    #: what later cases may repeat
    told: dict[NarrativeType, list[SyntheticNarrative]] = field(default_factory=lambda: defaultdict(list))


def write_workbook(
    path: Path,
    *,
    n_cases: int,
    seed: int,
    rates: Rates = AS_IN_PRODUCTION,
    overwrite: bool = False,
) -> SynthReport:
    """Write `n_cases` rows; without any labelled case the columns of labels are left out.

    The file appears complete or not at all.

    :raises UsageError: the file exists and `overwrite` is False, or a number makes no sense
    :raises StorageError: it cannot be written
    """
    if n_cases < 1 or not rates.make_sense:
        raise UsageError("the number of cases must be at least 1, and the rates shares that sum to at most 1")
    tally = _Tally()
    rng = random.Random(f"cells:{seed}")
    rows = (_row(case, rng, rates, tally) for case in iter_cases(n_cases=n_cases, seed=seed))
    return _write(path, rows, tally, labelled=rates.labelled > 0, overwrite=overwrite)


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
        rates = Rates(blank=float(is_blank), placeholder=0.0 if is_blank else DEMO_PLACEHOLDER_RATE)
        yield _row(case, rng, rates, tally)


def _row(case: SyntheticCase, rng: random.Random, rates: Rates, tally: _Tally) -> list[str]:
    """The cells of a case, in the order of the columns; a blank or placeholder text loses its positive flag."""
    is_labelled = rates.labelled == 1 or rng.random() < rates.labelled
    texts: dict[NarrativeType, str] = {}
    flags: dict[NarrativeType, str] = {}
    for kind, narrative in case.narratives.items():
        draw = rng.random()
        placeholder = pick(rng, PLACEHOLDERS)
        if draw < rates.blank:
            texts[kind], flags[kind] = "", ""
            tally.n_blank += 1
            continue
        is_placeholder = draw < rates.blank + rates.placeholder
        told = narrative if is_placeholder else _told(narrative, tally.told[kind], rng, rates)
        is_positive = told.is_positive and not is_placeholder
        texts[kind] = placeholder if is_placeholder else told.text
        flags[kind] = str(int(is_positive)) if is_labelled else ""
        tally.n_narratives += 1
        tally.n_placeholders += is_placeholder
        tally.n_repeated += told is not narrative
        tally.n_positive += is_positive
    tally.n_cases += 1
    of_case = max(flags.values())
    return [case.incident_id, str(case.incident_year), str(case.site_id), *texts.values(), *flags.values(), of_case]


def _told(
    narrative: SyntheticNarrative, earlier: list[SyntheticNarrative], rng: random.Random, rates: Rates
) -> SyntheticNarrative:
    """The narrative, or one of an earlier case in its place."""
    if not rates.repeated:
        return narrative
    if earlier and rng.random() < rates.repeated:
        return pick(rng, earlier)
    earlier.append(narrative)
    return narrative


def _write(path: Path, rows: Iterable[list[str]], tally: _Tally, *, labelled: bool, overwrite: bool) -> SynthReport:
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already", advice="choose another name, or replace it with --force")
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
        n_repeated=tally.n_repeated,
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
