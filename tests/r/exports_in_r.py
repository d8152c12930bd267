"""Real R reads every export, and the database through the snippet, and finds what the rows hold.

Run by `make test-r-exports`, not by `make test`: R is no part of the development environment. Without it this fails.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
READER = Path(__file__).with_name("read_exports.R")
FORMATS = ("csv", "json", "jsonl", "xlsx", "dta", "sav", "xpt")
INSTALL = "Rscript is not on the PATH (Debian: r-base-core r-cran-haven r-cran-readxl r-cran-jsonlite r-cran-rsqlite)"

#: of one row each: what is easily lost on the way
ODD = (
    {"confidence": 1 / 3, "rationale": "früher: „so“\nand a second line", "incident_id": "0000012"},
    {"confidence": 1e-70, "rationale": "=1+1", "finish_reason": 'quote " and, comma'},
    {"rationale": "x" * 150, "raw_response": "日本" * 33, "indicators": '["threat, written", "früher"]'},
)
ERROR = {"detected": None, "confidence": None, "error_occurred": 1, "error_category": "bad_json", "indicators": None}


def run(*command: str | Path, cwd: Path) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NARRUN_", "EXPERIMENT"))}
    finished = subprocess.run(command, cwd=cwd, env=inherited, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def narrun(*arguments: str, cwd: Path) -> str:
    return run(sys.executable, "-m", "narrun_async", *arguments, cwd=cwd)


def rscript(*arguments: str | Path, cwd: Path) -> str:
    program = shutil.which("Rscript")
    assert program is not None, INSTALL
    return run(program, *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke run in a directory of its own, then a few rows as odd as rows can be."""
    assert shutil.which("Rscript"), INSTALL
    directory = tmp_path_factory.mktemp("r")
    shutil.copytree(REPOSITORY / "configs", directory / "configs")
    (directory / "data").mkdir()
    shutil.copy(REPOSITORY / "data" / "synthetic_narratives.xlsx", directory / "data")
    narrun("run", "--concurrency", "64", cwd=directory)
    with closing(sqlite3.connect(directory / "data" / "experiments.db")) as connection, connection:
        for row_num, changes in enumerate([*ODD, ERROR], 1):
            names = ", ".join(f"{name} = ?" for name in changes)
            connection.execute(f"UPDATE narrative_results SET {names} WHERE row_num = ?", [*changes.values(), row_num])
        # so that a SAS transport file cuts none of them; that format and SPSS keep no blanks at the end
        for name in ("narrative_text", "raw_response", "rationale", "reasoning_steps"):
            connection.execute(f"UPDATE narrative_results SET {name} = RTRIM(SUBSTR({name}, 1, 180)) WHERE row_num > 4")
            connection.execute(f"UPDATE narrative_results SET {name} = RTRIM(SUBSTR({name}, 1, 60)) WHERE row_num <= 4")
    return directory


def rows(directory: Path) -> Sequence[Mapping[str, Any]]:
    with closing(sqlite3.connect(directory / "data" / "experiments.db")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM narrative_results ORDER BY row_num")]


@pytest.fixture(scope="module", params=[False, True], ids=["without texts", "with texts"])
def found(request: pytest.FixtureRequest, directory: Path) -> Mapping[str, Any]:
    """What R read."""
    target = f"exports-{request.param}"
    formats = [word for one in FORMATS for word in ("--format", one)]
    narrun("export", "latest", *formats, "--export-dir", target, *(["--with-text"] * request.param), cwd=directory)
    stem = rows(directory)[0]["experiment_id"] + (".with-text" if request.param else "")
    answer = json.loads(rscript(READER, target, stem, cwd=directory))
    print("read by", answer["versions"])
    with next((directory / target).glob("*.codebook.csv")).open(encoding="utf-8", newline="") as file:
        return answer | {"described": list(csv.DictReader(file))}


def is_equal(read: str | None, stored: object, *, digits: int) -> bool:
    if stored is None or stored == "":
        return read is None
    if isinstance(stored, int | float):
        return read is not None and f"{float(read):.{digits}g}" == f"{float(stored):.{digits}g}"
    return read == stored


@pytest.mark.parametrize("format", FORMATS)
def test_r_reads_the_values_of_the_rows(found: Mapping[str, Any], directory: Path, format: str) -> None:
    described = found["described"]
    names = [one["name_in_xpt_v5" if format == "xpt" else "name"] for one in described]
    assert found[format]["names"] == names
    for one, name in zip(described, names, strict=True):
        cells = found[format]["cells"][name]
        for cell, row in zip(cells, rows(directory), strict=True):
            stored = row[one["name"]]
            if one["name"] == "indicators" and format in ("json", "jsonl"):
                stored = ", ".join(json.loads(stored)) if stored else None
            # a workbook keeps 16 digits of a number
            assert is_equal(cell, stored, digits=15 if format == "xlsx" else 17), (format, name)


@pytest.mark.parametrize("format", ["dta", "sav", "xpt"])
def test_r_reads_the_labels_of_the_codebook(found: Mapping[str, Any], format: str) -> None:
    for one in found["described"]:
        name = one["name_in_xpt_v5" if format == "xpt" else "name"]
        assert found[format]["labels"][name] == one["label"]
        labels = dict(pair.split(" = ") for pair in one["values"].split("; ") if pair)
        has_labels = format == "sav" or (format == "dta" and one["type"] == "0 or 1")
        assert found[format]["values"].get(name, {}) == (labels if has_labels else {})
    assert found["codebook"]["name"] == [one["name"] for one in found["described"]]


def test_the_snippet_reads_the_same_rows_from_the_database(directory: Path) -> None:
    snippet = narrun("export", "latest", "--r-snippet", cwd=directory)
    script = directory / "snippet.R"
    to_csv = "write.csv(results, 'from_r.csv', row.names = FALSE, na = '', fileEncoding = 'UTF-8')"
    script.write_text(f"{snippet}\n{to_csv}\n")
    rscript(script, cwd=directory)
    with (directory / "from_r.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    words = {0: "no", 1: "yes", None: ""}
    types = {"cme": "coroner or medical examiner", "le": "law enforcement"}
    for cells, row in zip(read, rows(directory), strict=True):
        assert "narrative_text" not in cells
        assert (cells["incident_id"], cells["finish_reason"]) == (row["incident_id"], row["finish_reason"])
        assert (cells["detected"], cells["manual_flag_ind"]) == (words[row["detected"]], words[row["manual_flag_ind"]])
        assert is_equal(cells["confidence"] or None, row["confidence"], digits=15)
        assert cells["processed_at"] == row["processed_at"]
        assert cells["narrative_type"] == types[row["narrative_type"]]
