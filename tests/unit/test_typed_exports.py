"""Parquet, Stata, SPSS and SAS files hold what the csv holds, as independent readers see it, and say what they cannot.

Stata files are ours, so both other programs that read them here are asked.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
import polars
import pyreadstat
import pytest
from test_exports import ID, experiment, export, export_all, read_csv, row

from narrun_async.codebook import RESULT_COLUMNS, Column, chosen_columns
from narrun_async.errors import ExitCode, MissingPackageError

LONG = "Ein Fall, früher. " * 3_000  # 57,000 bytes
ROWS = [
    row(1, manual_flag_ind=0, is_false_positive=1, response_sec=1 / 3, prompt_tokens=1203, rationale="ÄÖ\nü" * 700),
    row(2, detected=None, confidence=None, error_occurred=1, error_category="bad_json", error_message="no JSON"),
    row(3, narrative_type="le", detected=0, confidence=0.0, result_id=2**40, rationale="", indicators=None),
    row(4, narrative_text=LONG, raw_response=None, confidence=1e-70, response_sec=4_611_686_018.25),
]
#: version of the SAS transport file, and options of the export
TYPED: Mapping[str, Mapping[str, Any]] = {
    "parquet": {"formats": ["parquet"]},
    "dta": {"formats": ["dta"]},
    "sav": {"formats": ["sav"]},
    "xpt 5": {"formats": ["xpt"]},
    "xpt 8": {"formats": ["xpt"], "xpt_version": 8},
}

Frame = Mapping[str, Sequence[object]]


def read_parquet(path: Path) -> Frame:
    return polars.read_parquet(path).to_dict(as_series=False)


def read_with_pandas(path: Path) -> Frame:
    return pandas.read_stata(path, convert_categoricals=False).to_dict("list")


def read_with_readstat(read: Callable[..., Any]) -> Callable[[Path], Frame]:
    def read_file(path: Path) -> Frame:
        frame, _ = read(path, output_format="polars")
        return frame.to_dict(as_series=False)

    return read_file


READERS: Sequence[tuple[str, Callable[[Path], Frame]]] = [
    ("parquet", read_parquet),
    ("dta", read_with_readstat(pyreadstat.read_dta)),
    ("dta", read_with_pandas),
    ("sav", read_with_readstat(pyreadstat.read_sav)),
    ("xpt 5", read_with_readstat(pyreadstat.read_xport)),
    ("xpt 8", read_with_readstat(pyreadstat.read_xport)),
]


def name_in(format: str, column: Column) -> str:
    return column.short_name if format == "xpt 5" else column.name


def as_found(column: Column, value: object) -> object:
    """A value, whichever way a reader says that there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return float(value) if column.kind.is_numeric else value or None  # type: ignore[arg-type]


@pytest.mark.parametrize(("format", "read"), READERS)
@pytest.mark.parametrize("with_text", [False, True])
async def test_values_are_equal_to_those_of_the_rows(
    tmp_path: Path, format: str, read: Callable[[Path], Frame], with_text: bool
) -> None:
    exported = await export_all(ROWS, tmp_path, with_text=with_text, **TYPED[format])
    (path,) = exported.files.values()
    frame = read(path)

    columns = chosen_columns(with_text=with_text)
    assert list(frame) == [name_in(format, column) for column in columns]
    cut = {remark.column for remark in exported.remarks}
    for column in columns:
        expected = [as_found(column, one[column.name]) for one in ROWS]
        found = [as_found(column, value) for value in frame[name_in(format, column)]]
        if column.name not in cut:
            assert found == expected, column.name
        for text, value in zip(found, expected, strict=True):
            assert text == value or str(value).startswith(str(text).removesuffix(" [cut]"))
    assert cut == {
        "xpt 5": {"narrative_text", "rationale"} if with_text else set(),
        "xpt 8": {"narrative_text"} if with_text else set(),
        "sav": {"narrative_text"} if with_text else set(),
    }.get(format, set())


@pytest.mark.parametrize(
    ("format", "read"),
    [("dta", pyreadstat.read_dta), ("sav", pyreadstat.read_sav), ("xpt 5", pyreadstat.read_xport)],
)
async def test_columns_have_their_labels_and_values_theirs(
    tmp_path: Path, format: str, read: Callable[..., Any]
) -> None:
    (path,) = await export(ROWS, tmp_path, with_text=True, **TYPED[format])
    _, meta = read(path)
    assert meta.column_names_to_labels == {name_in(format, one): one.label for one in RESULT_COLUMNS}
    assert meta.file_label == "pilot"
    labelled = {
        one.name: dict(one.values)
        for one in RESULT_COLUMNS
        if one.values and (format == "sav" or (format == "dta" and one.kind.is_numeric))
    }
    assert meta.variable_value_labels == labelled
    if format == "sav":
        assert meta.variable_measure["confidence"] == "scale"
        assert meta.variable_measure["detected"] == "nominal"


@pytest.mark.parametrize("format", TYPED)
async def test_a_missing_number_is_missing_and_not_zero(tmp_path: Path, format: str) -> None:
    (path,) = await export(ROWS, tmp_path, **TYPED[format])
    read = next(read for name, read in READERS if name == format)
    confidence = read(path)["CONFID" if format == "xpt 5" else "confidence"]
    assert confidence[1] is None or math.isnan(confidence[1])  # type: ignore[arg-type]
    assert confidence[2] == 0.0


@pytest.mark.parametrize(("format", "read"), READERS)
async def test_an_experiment_without_rows_is_a_file_with_columns(
    tmp_path: Path, format: str, read: Callable[[Path], Frame]
) -> None:
    (path,) = await export([], tmp_path, **TYPED[format])
    frame = read(path)
    assert list(frame) == [name_in(format, one) for one in chosen_columns(with_text=False)]
    assert not any(map(len, frame.values()))


async def test_a_simulated_experiment_says_so_in_the_title(tmp_path: Path) -> None:
    exported = await export_all(ROWS, tmp_path, of=experiment(provider="simulated"), formats=["dta"])
    _, meta = pyreadstat.read_dta(exported.files["dta"])
    assert meta.file_label == "SIMULATED: pilot"


async def test_what_a_format_cannot_hold_is_said_in_words_and_in_the_codebook(tmp_path: Path) -> None:
    odd = row(
        5,
        detected=7.5,  # SQLite stores what it is given
        prompt_tokens="many",
        completion_tokens=2**60,
        confidence=float("inf"),
        rationale="a\0b",
        manual_flag=2**40,
        finish_reason=b"bytes \xff",
        response_model="\udc80",
    )
    exported = await export_all([odd], tmp_path, formats=["parquet", "dta", "sav", "xpt"], with_text=True)

    said = [str(remark) for remark in exported.remarks]
    no_number = "no number, left out; the csv file has it (1 row)"
    beyond = "beyond the numbers of the format, left out (1 row)"
    for format in ("parquet", "dta", "sav", "xpt"):
        assert f"{format}, detected: {no_number}" in said
        assert f"{format}, prompt_tokens: {no_number}" in said
    for format in ("dta", "sav", "xpt"):
        for column in ("completion_tokens", "confidence", "manual_flag"):
            assert f"{format}, {column}: {beyond}" in said
        assert f"{format}, rationale: a NUL character, replaced (1 row)" in said
    assert len(said) == 4 * 2 + 3 * 4
    frame = read_parquet(exported.files["parquet"])
    assert (frame["completion_tokens"], frame["confidence"]) == ([2**60], [math.inf])
    assert (frame["finish_reason"], frame["rationale"]) == (["bytes �"], ["a\0b"])
    stata = read_with_pandas(exported.files["dta"])
    assert stata["rationale"] == ["a�b"]
    with exported.codebook.open(encoding="utf-8", newline="") as file:
        codebook = {one["name"]: one for one in csv.DictReader(file)}
    assert codebook["manual_flag"]["remarks"] == "; ".join(one for one in said if ", manual_flag: " in one)
    assert codebook["experiment_id"]["remarks"] == ""


async def test_a_text_is_cut_between_characters_and_says_so(tmp_path: Path) -> None:
    texts = ["ü" * 100, "ü" * 101, "x" * 200, "x" + "€" * 100]
    exported = await export_all(
        [row(number, rationale=text) for number, text in enumerate(texts)], tmp_path, formats=["xpt"], with_text=True
    )
    found = read_with_readstat(pyreadstat.read_xport)(exported.files["xpt"])["RATIONAL"]
    assert found == ["ü" * 100, "ü" * 97 + " [cut]", "x" * 200, "x" + "€" * 64 + " [cut]"]
    assert "xpt, rationale: cut at 200 bytes (2 rows)" in map(str, exported.remarks)


@pytest.mark.parametrize("n_bytes", [1, 2044, 2045, 2046, 70_000])
async def test_stata_holds_texts_of_every_length(tmp_path: Path, n_bytes: int) -> None:
    texts = ["x" * n_bytes, "", "y" * (n_bytes // 2), "x" * n_bytes]
    rows = [row(number, rationale=text, raw_response=text[::-1]) for number, text in enumerate(texts)]
    (path,) = await export(rows, tmp_path, formats=["dta"], with_text=True)
    for read in (read_with_pandas, read_with_readstat(pyreadstat.read_dta)):
        frame = read(path)
        assert frame["rationale"] == texts
        assert frame["raw_response"] == [text[::-1] for text in texts]


async def test_many_parts_are_one_file_in_the_order_of_the_rows(tmp_path: Path) -> None:
    paths = await export(
        (row(number, incident_id=f"{number:05d}") for number in range(5_001)),
        tmp_path,
        formats=["csv", "parquet", "dta", "sav", "xpt"],
    )
    expected = [f"{number:05d}" for number in range(5_001)]
    header, *rows = read_csv(paths[0])
    assert [cells[header.index("incident_id")] for cells in rows] == expected
    assert read_parquet(paths[1])["incident_id"] == expected
    assert read_with_pandas(paths[2])["incident_id"] == expected
    assert read_with_readstat(pyreadstat.read_sav)(paths[3])["incident_id"] == expected
    assert read_with_readstat(pyreadstat.read_xport)(paths[4])["INCIDENT"] == expected


async def test_a_stata_file_is_the_same_when_it_is_written_again(tmp_path: Path) -> None:
    (path,) = await export(ROWS, tmp_path, formats=["dta"], with_text=True)
    before = path.read_bytes()
    await export(ROWS, tmp_path, formats=["dta"], with_text=True)
    assert path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == [f"{ID}.with-text.codebook.csv", f"{ID}.with-text.dta"]


@pytest.mark.parametrize(
    ("format", "package"), [("parquet", "polars"), ("dta", "polars"), ("sav", "pyreadstat"), ("xpt", "pyreadstat")]
)
async def test_a_package_that_is_not_installed_is_named_and_nothing_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError) as caught:
        await export(ROWS, tmp_path / "new", formats=["csv", format])
    assert caught.value.exit_code is ExitCode.CONFIGURATION
    assert str(caught.value).startswith(f"--format {format} needs {package}, which is not installed")
    assert "`make analysis`" in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("number", [1e-300, -1e-300, 1e100])
async def test_a_number_beyond_those_of_sas_is_missing_and_said(tmp_path: Path, number: float) -> None:
    exported = await export_all([row(1, response_sec=number)], tmp_path, formats=["xpt", "sav", "dta"])
    assert [str(one).split(",")[0] for one in exported.remarks] == ["xpt"]
    assert read_with_readstat(pyreadstat.read_xport)(exported.files["xpt"])["RESPSEC"] == [None]
    assert read_with_readstat(pyreadstat.read_sav)(exported.files["sav"])["response_sec"] == [number]
