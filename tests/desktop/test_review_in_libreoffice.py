"""A review workbook goes through LibreOffice, as it would on a reader's machine, and every label comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import openpyxl
import pytest
from conftest import Resave

REPOSITORY = Path(__file__).resolve().parents[2]


def narrun(directory: Path, *arguments: str | Path, code: int = 0) -> str:
    finished = subprocess.run(
        [sys.executable, "-m", "narrun_async", *map(str, arguments)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == code, finished.stderr
    return finished.stdout + finished.stderr


def fill(path: Path, labels: dict[str, str]) -> Path:
    book = openpyxl.load_workbook(path)
    sheet = book["review"]
    columns = {cell.value: cell.column for cell in sheet[1]}
    for row in range(2, sheet.max_row + 1):
        key = sheet.cell(row, columns["key"]).value
        sheet.cell(row, columns["label"]).value = labels.get(key, "no")
        sheet.cell(row, columns["comment"]).value = "=a remark, not a formula" if key in labels else None
        sheet.cell(row, columns["comment"]).data_type = "s"
    book.save(path)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A finished experiment over the narratives that come with the program."""
    config = (REPOSITORY / "configs" / "exp_101_smoke.yaml").read_text(encoding="utf-8")
    for name in ("data/synthetic_narratives.xlsx", "prompts/ipv_system.txt", "prompts/ipv_user.txt"):
        root = REPOSITORY if name.startswith("data") else REPOSITORY / "configs"
        config = config.replace(name, str(root / name))
    (tmp_path / "smoke.yaml").write_text(config.replace("latency_ms: 200", "latency_ms: 1"), encoding="utf-8")
    narrun(tmp_path, "run", "smoke.yaml")
    return tmp_path


def test_sample_two_readers_in_libreoffice_import_adjudicate(directory: Path, resave: Resave) -> None:
    sample = ("review", "sample", "latest", "--n", "40", "--reviewer", "anna", "--reviewer", "ben", "--seed", "5")
    narrun(directory, *sample, "--unblinded")
    reviews = directory / "reviews"
    opened = resave(reviews / "review-1-anna.xlsx")
    sheet = openpyxl.load_workbook(opened)["review"]
    assert sheet.protection.sheet
    (choice,) = sheet.data_validations.dataValidation
    assert choice.formula1 == '"yes,no,cannot tell"'
    label = next(cell.column for cell in sheet[1] if cell.value == "label")
    assert [sheet.cell(2, column).protection.locked for column in (1, 2, label, label + 1)] == [1, 1, 0, 0]

    labels = {"R1-0001": "yes", "R1-0002": "yes", "R1-0003": "cannot tell"}
    of_anna = resave(fill(opened, labels))
    of_ben = resave(resave(fill(reviews / "review-1-ben.xlsx", {"R1-0001": "yes"}), "ods"), "xlsx")
    said = narrun(directory, "review", "import", of_anna, of_ben)
    assert "40 labels of anna" in said and "40 labels of ben" in said
    assert "agree on 38 of 39" in said
    assert "2 texts have no clear label" in said

    narrun(directory, "review", "adjudicate", "1", "--reader", "cleo")
    decided = resave(fill(reviews / "review-1-cleo.xlsx", {"R1-0002": "yes"}))
    narrun(directory, "review", "import", decided)
    shown = json.loads(narrun(directory, "review", "show", "1", "--json"))
    assert (shown["n_final"], shown["n_positive"], shown["n_disputed"]) == (40, 2, 0)


def test_a_column_sorted_apart_from_the_others_is_noticed_after_libreoffice(directory: Path, resave: Resave) -> None:
    narrun(directory, "review", "sample", "latest", "--n", "20", "--reviewer", "anna", "--seed", "5")
    path = fill(directory / "reviews" / "review-1-anna.xlsx", {})
    book = openpyxl.load_workbook(path)
    sheet = book["review"]
    ids = sorted(sheet.cell(row, 2).value for row in range(2, 22))
    for row, incident_id in enumerate(ids, start=2):
        sheet.cell(row, 2).value = incident_id
    book.save(path)
    assert "incident_id is not what was written beside" in narrun(directory, "review", "import", resave(path), code=65)
