"""`narrun export` as a person calls it: what it prints, what it refuses, and what it leaves on the machine."""

from __future__ import annotations

import os
import resource
import sqlite3
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from harness import NARRUN, Workplace, clean_environment

pytestmark = pytest.mark.crash

FORMATS = ("csv", "json", "jsonl", "xlsx", "parquet", "dta", "sav", "xpt")
TEXTS = ("narrative_text", "rationale", "reasoning_steps", "raw_response")


def flags(*formats: str) -> list[str]:
    return [word for one in formats for word in ("--format", one)]


def multiply_rows(database: Path, n_rows: int, *, text_bytes: int) -> None:
    """Copies of a result, each with texts of its own; every hundredth has texts four times as long."""
    with closing(sqlite3.connect(database)) as connection, connection:
        (columns,) = zip(*connection.execute("SELECT name FROM pragma_table_info('narrative_results')"), strict=True)
        kept = [name for name in columns if name not in ("result_id", "incident_id", "row_num", *TEXTS)]
        text = f"HEX(RANDOMBLOB({text_bytes // 2} * (1 + 3 * (n % 100 = 0))))"
        connection.execute(
            f"""
            WITH RECURSIVE numbers(n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM numbers WHERE n < {n_rows + 1000})
            INSERT INTO narrative_results ({", ".join([*kept, "incident_id", "row_num", *TEXTS])})
            SELECT {", ".join(kept)}, 'copy' || n, n, {", ".join(text for _ in TEXTS)}
            FROM numbers, (SELECT * FROM narrative_results LIMIT 1)
            """
        )


def finished_run(directory: Path) -> Workplace:
    workplace = Workplace(directory=directory)
    config = workplace.write_config(url=None, narratives=workplace.write_narratives(8), simulation__latency_ms=1)
    workplace.run("run", config, "--concurrency", "8").expect(0)
    return workplace


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return finished_run(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """3,000 rows with 60 MB of texts."""
    workplace = finished_run(tmp_path_factory.mktemp("large"))
    multiply_rows(workplace.database, 3_000, text_bytes=5_000)
    return workplace


def limit_files(n_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def test_it_prints_the_files_and_says_what_a_format_could_not_hold(finished: Workplace) -> None:
    with closing(sqlite3.connect(finished.database)) as connection, connection:
        connection.execute("UPDATE narrative_results SET rationale = ? WHERE row_num = 2", ["x" * 300])
    told = finished.run("export", "latest", *flags(*FORMATS), "--with-text", "--bom").expect(0)

    paths = [finished.directory / line for line in told.out.splitlines()]
    assert [path.name.partition(".with-text.")[2] for path in paths] == [*FORMATS, "codebook.csv"]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    assert sorted(paths) == sorted((finished.directory / "exports").iterdir())
    assert "NOTE: xpt, rationale: cut at 200 bytes (1 row)" in told.err.splitlines()
    assert told.err.splitlines()[-1].startswith("SIMULATED: ")


def test_the_snippet_is_printed_and_no_file_is_written(finished: Workplace) -> None:
    told = finished.run("export", "latest", "--r-snippet", "--export-dir", "none").expect(0)
    assert "dbConnect(RSQLite::SQLite()" in told.out
    assert str(finished.database.resolve()) in told.out
    assert "narrative_text" not in told.out
    assert "narrative_text" in finished.run("export", "latest", "--r-snippet", "--with-text").expect(0).out
    assert not (finished.directory / "none").exists()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (flags("stata"), "--format must be one of csv, json, jsonl, xlsx, parquet, dta, sav, xpt, not 'stata'"),
        ([*flags("xpt"), "--xpt-version", "6"], "--xpt-version must be 5 or 8, not 6"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    finished: Workplace, wrong: list[str], sentence: str
) -> None:
    told = finished.run("export", "latest", *wrong, "--export-dir", "none").expect(2)
    assert told.err.strip() == f"narrun: {sentence}"
    assert not (finished.directory / "none").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_disk_that_takes_only_a_part_of_a_file_leaves_none(large: Workplace, format: str) -> None:
    command = ("export", "latest", *flags(format), "--with-text", "--export-dir", "limited")
    with large.start(*command, preexec_fn=partial(limit_files, 100_000)) as process:
        told = process.wait().expect(74)
    assert "the export cannot be written" in told.err
    assert list((large.directory / "limited").iterdir()) == []


def test_no_narrative_goes_into_a_temporary_file_of_the_database(large: Workplace) -> None:
    """SQLite sorts in files where memory does not suffice; one with texts would be larger than is allowed here."""
    with large.start("export", "latest", *flags("csv"), preexec_fn=partial(limit_files, 2_000_000)) as process:
        process.wait().expect(0)


@pytest.mark.long
@pytest.mark.slow
def test_42_000_rows_with_texts_take_less_than_500_mb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workplace = finished_run(tmp_path)
    multiply_rows(workplace.database, 42_000, text_bytes=850)
    for format in FORMATS:
        places = ("--db", str(workplace.database), "--export-dir", str(tmp_path / format))
        command = [*NARRUN, "export", "latest", *flags(format), "--with-text", *places]
        _, status, used = os.wait4(os.posix_spawn(sys.executable, command, clean_environment()), 0)
        peak_mb = used.ru_maxrss / 1024
        with capsys.disabled():
            print(f"{format}: {peak_mb:.0f} MB")
        assert (os.waitstatus_to_exitcode(status), peak_mb < 500) == (0, True)
