"""The matrix is whole: each row has a test or a reason, and each mark has a row."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_matrix import FAULTS, FaultRow
from reliability import draw_table, merge

TESTS = Path(__file__).resolve().parents[1]


def _marked(path: Path) -> Iterator[str]:
    """The ids in `pytest.mark.fault(...)` anywhere in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.fault"):
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))


COVERED = {fault for path in TESTS.rglob("test_*.py") for fault in _marked(path)}


def test_no_id_stands_twice() -> None:
    ids = [row.id for row in FAULTS]
    assert sorted(set(ids)) == sorted(ids)


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: row.id)
def test_every_row_is_covered_by_a_test_or_says_why_not(row: FaultRow) -> None:
    assert (row.id in COVERED) != (row.not_covered is not None)


def test_every_mark_names_a_row_of_the_matrix() -> None:
    assert {row.id for row in FAULTS} >= COVERED


def test_the_table_has_every_row_and_shows_what_failed_and_what_was_never_run() -> None:
    rows = [
        FaultRow(id="X1", fault="a", injected="b", required="c"),
        FaultRow(id="X2", fault="a", injected="b", required="c", not_covered="needs a second machine"),
        FaultRow(id="X3", fault="a", injected="b", required="c"),
    ]
    seen = {
        "X1": {
            "tests/unit/test_fault_matrix.py::test_no_id_stands_twice": {
                "outcome": "failed",
                "figures": ["2 lost"],
                "day": "2026-01-02",
            },
            "tests/unit/test_gone.py::test_gone": {"outcome": "passed", "figures": [], "day": "2026-01-02"},
        }
    }
    table = draw_table(rows, merge({}, seen))
    x1, x2, x3 = (line for line in table.splitlines() if line.startswith("| X"))
    assert "2 lost" in x1
    assert "**failed**" in x1
    assert "test_gone" not in x1
    assert "second machine" in x2
    assert "**not run**" in x3
