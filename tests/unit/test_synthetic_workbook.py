"""Invented cases as a workbook, and the one that is shipped."""

from __future__ import annotations

from pathlib import Path

import openpyxl
import pytest

from narrun_async.errors import StorageError, UsageError
from narrun_async.simulation.synthetic_workbook import Rates, write_demo_workbook, write_workbook
from narrun_async.sources import open_source

SHIPPED = Path(__file__).parents[2] / "data" / "synthetic_narratives.xlsx"


def _cells(path: Path) -> list[tuple[object, ...]]:
    book = openpyxl.load_workbook(path, read_only=True)
    rows = list(book.worksheets[0].iter_rows(values_only=True))
    book.close()
    return rows


def test_the_report_is_what_a_reader_finds(tmp_path: Path) -> None:
    path = tmp_path / "cases.xlsx"
    report = write_workbook(path, n_cases=300, seed=4, rates=Rates(blank=0.2, placeholder=0.1))
    source = open_source(path)
    found = list(source.iter_narratives())
    assert report.n_cases == source.summary().n_cases == 300
    assert report.n_narratives == len(found)
    assert report.n_blank == source.summary().n_blank == 600 - len(found)
    assert report.n_positive == sum(n.manual_flag_ind or 0 for n in found)
    assert report.n_placeholders == sum("available" in n.narrative_text and len(n.narrative_text) < 60 for n in found)
    assert 80 <= report.n_blank <= 160 and 30 <= report.n_placeholders <= 90
    assert source.summary().warnings == () and source.summary().n_texts_repaired == 0
    by_id: dict[str, list[int | None]] = {}
    for narrative in found:
        by_id.setdefault(narrative.incident_id, [narrative.manual_flag]).append(narrative.manual_flag_ind)
    assert all(flags[0] == max(flag or 0 for flag in flags[1:]) for flags in by_id.values())


def test_the_bytes_depend_on_the_seed_alone(tmp_path: Path) -> None:
    one, two, other = tmp_path / "one.xlsx", tmp_path / "two.xlsx", tmp_path / "other.xlsx"
    for path, seed in ((one, 4), (two, 4), (other, 5)):
        write_workbook(path, n_cases=20, seed=seed)
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()


def test_an_unlabelled_workbook_has_no_label_columns(tmp_path: Path) -> None:
    write_workbook(tmp_path / "cases.xlsx", n_cases=3, seed=4, rates=Rates(labelled=0))
    assert _cells(tmp_path / "cases.xlsx")[0] == ("IncidentID", "IncidentYear", "SiteID", "NarrativeCME", "NarrativeLE")
    assert all(n.manual_flag is None for n in open_source(tmp_path / "cases.xlsx").iter_narratives())


def test_an_existing_file_is_kept_unless_overwriting_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "cases.xlsx"
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already"):
        write_workbook(path, n_cases=3, seed=4)
    assert path.read_bytes() == b"mine"
    write_workbook(path, n_cases=3, seed=4, overwrite=True)
    assert len(_cells(path)) == 4
    assert [found.name for found in tmp_path.iterdir()] == ["cases.xlsx"]


def test_a_directory_that_is_missing_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        write_workbook(tmp_path / "none" / "cases.xlsx", n_cases=3, seed=4)


@pytest.mark.parametrize(("n_cases", "blank_rate", "placeholder_rate"), [(0, 0, 0), (1, 1.1, 0), (1, 0.6, 0.6)])
def test_numbers_without_sense_are_refused(
    tmp_path: Path, n_cases: int, blank_rate: float, placeholder_rate: float
) -> None:
    with pytest.raises(UsageError):
        write_workbook(
            tmp_path / "x.xlsx", n_cases=n_cases, seed=1, rates=Rates(blank=blank_rate, placeholder=placeholder_rate)
        )
    assert not (tmp_path / "x.xlsx").exists()


def test_the_shipped_workbook_is_what_the_generator_writes(tmp_path: Path) -> None:
    write_demo_workbook(tmp_path / "demo.xlsx")
    assert _cells(SHIPPED) == _cells(tmp_path / "demo.xlsx")


def test_the_shipped_workbook_holds_200_labelled_narratives_and_blank_cells_on_top() -> None:
    source = open_source(SHIPPED)
    found = list(source.iter_narratives())
    assert len(found) == 200
    assert len({n.incident_id for n in found}) == 100
    assert all(n.manual_flag_ind is not None and n.manual_flag is not None for n in found)
    assert source.summary().n_cases == 106 and source.summary().n_blank == 12
    assert 26 <= sum(n.manual_flag_ind or 0 for n in found) <= 34
    assert 3 <= sum(len(n.narrative_text) < 60 for n in found) <= 10


def test_some_cases_may_be_labelled_and_some_texts_be_those_of_earlier_cases(tmp_path: Path) -> None:
    path = tmp_path / "cases.xlsx"
    report = write_workbook(path, n_cases=300, seed=4, rates=Rates(placeholder=0, repeated=0.1, labelled=0.4))
    narratives = list(open_source(path).iter_narratives())
    labelled = {one.incident_id for one in narratives if one.manual_flag_ind is not None}
    assert 90 <= len(labelled) <= 150
    assert all((one.manual_flag is None) == (one.incident_id not in labelled) for one in narratives)
    n_repeats = len(narratives) - len({one.text_sha256 for one in narratives})
    assert report.n_repeated == n_repeats and 30 <= n_repeats <= 80
    flags: dict[str, set[int | None]] = {}
    for one in narratives:
        flags.setdefault(one.text_sha256, set()).add(one.manual_flag_ind)
    assert not any({0, 1} <= found for found in flags.values())
