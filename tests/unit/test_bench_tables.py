"""The tables of `make bench-auto`: a measured row takes the place of its older self, and nothing else moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.auto_servers import QUEUEING, Server, failing, refusing
from bench.auto_table import (
    FAILING_TABLE,
    QUEUEING_TABLE,
    README,
    REFUSING_TABLE,
    Reached,
    failing_row,
    queueing_row,
    refusing_row,
)

TABLE = f"<!-- auto refusing -->\n{REFUSING_TABLE.head}\n| old | 1 |\n| kept | 2 |\n<!-- end of auto refusing -->\n"
TEXT = f"before\n\n{TABLE}\nafter\n"


def reached(concurrency: int | str, *, n_rows: int = 900, n_error_rows: int = 0) -> Reached:
    return Reached(
        concurrency=concurrency,
        n_rows=n_rows,
        n_error_rows=n_error_rows,
        span_s=100.0,
        refused_pct=0.5,
        longest_silence_s=61.25,
        ends_at=12,
    )


def runs_of(server: Server) -> list[Reached]:
    return [reached(kind, n_rows=500 if kind == 16 else 1_000) for kind in server.kinds]


def test_a_measured_row_takes_the_place_of_its_older_self(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    REFUSING_TABLE.put(["old", "10"], path)
    assert path.read_text() == TEXT.replace("| old | 1 |", "| old | 10 |")


def test_a_row_that_is_new_is_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    REFUSING_TABLE.put(["new", "10"], path)
    assert path.read_text() == TEXT.replace("| kept | 2 |\n", "| kept | 2 |\n| new | 10 |\n")


def test_a_file_without_the_table_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    with pytest.raises(ValueError, match="auto failing"):
        FAILING_TABLE.put(["new", "10"], path)
    assert path.read_text() == TEXT


def test_every_row_fits_its_table_and_the_readme_has_the_tables() -> None:
    rows = [(QUEUEING_TABLE, queueing_row(one, runs_of(one), "`c`")) for one in QUEUEING]
    rows += [(REFUSING_TABLE, refusing_row(one, runs_of(one), "`c`")) for one in refusing(10)]
    rows += [(FAILING_TABLE, failing_row(one, runs_of(one), "`c`")) for one in (failing(60),)]
    readme = README.read_text()
    for table, row in rows:
        assert len(row) == len(table.columns)
        assert table.head in readme
        assert not any("|" in cell for cell in row)
    assert len({row[0] for _, row in rows}) == len(rows)


def test_rows_show_auto_first_and_every_error_row() -> None:
    server = refusing(10)[0]
    runs = [reached("auto", n_rows=950, n_error_rows=1), reached(16, n_error_rows=3), reached(64)]
    row = refusing_row(server, runs, "`c`")
    assert row[1:] == [
        "10",
        "**0.950, 0.50 % refused**",
        "0.900, 0.50 % refused",
        "0.900, 0.50 % refused",
        "4 (`auto`: 1)",
        "`c`",
    ]
