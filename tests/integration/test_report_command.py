"""`narrun report` on real databases: the file it writes, what is never in it, what it refuses and leaves alone."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import stat
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up_cohorts import Rates, draw_cohort
from made_up_databases import CANARY, Database
from typer.testing import CliRunner

from narrun_async.cli.program import app
from narrun_async.errors import StorageError, UnknownExperimentError, UsageError
from narrun_async.models import CohortRow

Call = Callable[..., str]
FEW = ("--bootstrap", "50")


@pytest.fixture
def rows() -> Sequence[CohortRow]:
    drawn = draw_cohort(Rates(n_incidents=120, prevalence=0.3, labelled=0.7, failed=0.04), seed=6)
    return [replace(row, incident_year=2015 + int(row.incident_id[4:]) % 5) for row in drawn]


@pytest.fixture
def database(tmp_path: Path, build: Any, rows: Sequence[CohortRow]) -> Database:
    return Database(tmp_path / "experiments.db", build, rows)


@pytest.fixture
def call(database: Database, monkeypatch: pytest.MonkeyPatch) -> Call:
    """A command in this process and in the database's directory; what it raises is raised here."""
    monkeypatch.chdir(database.path.parent)

    def called(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, [*arguments, "--db", str(database.path)], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return str(result.output)

    return called


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_writes_one_private_file_says_where_and_leaves_the_database_alone(database: Database, call: Call) -> None:
    wanted, before = database.add(1), database.digest()
    old_mask = os.umask(0)
    try:
        told = call("report", wanted, *FEW)
    finally:
        os.umask(old_mask)
    path = Path("reports") / f"{wanted}.html"
    assert told == f"{path}\n"
    assert mode_of(path) == 0o600 and mode_of(path.parent) == 0o700
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert database.digest() == before
    document = path.read_text(encoding="utf-8")
    assert document.startswith("<!doctype html>") and document.endswith("</html>")


def test_no_text_of_a_narrative_an_answer_or_an_error_is_in_it(database: Database, call: Call) -> None:
    wanted = database.add(1)
    call("report", wanted, "--html", "without.html", *FEW)
    assert CANARY not in Path("without.html").read_text(encoding="utf-8")
    call("report", wanted, "--html", "with.html", "--with-text", *FEW)
    document = Path("with.html").read_text(encoding="utf-8")
    assert CANARY in document and "This report holds phrases from narratives" in document
    (rest,) = re.findall(r'<section id="indicators".*?</section>', document, flags=re.DOTALL)
    assert CANARY not in document.replace(rest, "")


def test_numbers_are_those_of_metrics(database: Database, call: Call) -> None:
    wanted = database.add(1)
    told = call("metrics", wanted, *FEW)
    call("report", wanted, "--html", "r.html", *FEW)
    document = Path("r.html").read_text(encoding="utf-8")
    (sensitivity,) = re.findall(r"EVERY NARRATIVE.*?sensitivity +(\d\.\d+) +(\d+ of \d+)", told, flags=re.DOTALL)
    assert all(part in document for part in sensitivity)
    (corrected,) = re.findall(r"HOW COMMON IS IT\?.*?incidents\n.*?corrected +(\d+\.\d+) %", told, flags=re.DOTALL)
    assert f"{corrected}\N{NO-BREAK SPACE}%" in document


def test_an_existing_report_is_replaced_and_kept_where_that_is_impossible(
    database: Database, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, path = database.add(1), Path("r.html")
    path.write_text("the one before")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refuse)
        with pytest.raises(StorageError, match=r"r\.html: the report cannot be written: No space left on device"):
            call("report", wanted, "--html", str(path), *FEW)
    assert path.read_text() == "the one before"
    assert not [one for one in Path().iterdir() if one.name.startswith(".r.html")]
    call("report", wanted, "--html", str(path), *FEW)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("target", ["nowhere/r.html", ".", "/dev/null", "", "x" * 300])
def test_a_place_where_no_file_can_be_is_one_sentence(database: Database, call: Call, target: str) -> None:
    with pytest.raises(StorageError, match="the report cannot be written") as refused:
        call("report", database.add(1), "--html", target, *FEW)
    assert "--html" in str(refused.value)


def test_what_is_not_there_or_makes_no_sense_is_refused_before_anything_is_written(
    database: Database, call: Call
) -> None:
    wanted = database.add(1)
    with pytest.raises(UnknownExperimentError):
        call("report", "ffffffff")
    with pytest.raises(UsageError, match="go together"):
        call("report", wanted, "--sensitivity", "4/5")
    with pytest.raises(UsageError, match="no review"):
        call("report", wanted, "--labels", "review:7", *FEW)
    assert "--suppress-below" in call("report", wanted, "--suppress-below", "1", code=2)
    assert not Path("reports").exists()


def test_small_counts_are_not_in_the_file_and_it_says_so(database: Database, call: Call) -> None:
    rare = [replace(row, detected=None if row.detected is None else int(n == 0)) for n, row in enumerate(database.rows)]
    wanted = database.add(1, rare)
    call("report", wanted, "--html", "r.html", "--suppress-below", "10", *FEW)
    document = Path("r.html").read_text(encoding="utf-8")
    assert "Counts of fewer than 10 people are not shown" in document
    n_answered = sum(row.detected is not None for row in rare)
    assert f"1 of {n_answered}" not in document and f"{n_answered - 1:,}" not in document


def test_an_experiment_of_the_predecessor_has_a_report_of_what_is_known(database: Database, call: Call) -> None:
    wanted = database.add(1)
    database.change(
        "UPDATE experiments SET config_json = NULL, config_sha256 = NULL, cohort_last_narrative_id = NULL,"
        " data_checksum = NULL, narrun_version = NULL"
    )
    call("report", wanted, "--html", "r.html", *FEW)
    document = Path("r.html").read_text(encoding="utf-8")
    assert "no ledger of calls" in document and "no snapshot of its settings" in document
    assert "the predecessor recorded no cohort" in document.lower()


def test_rows_of_the_predecessor_without_an_id_or_a_type_are_counted(database: Database, call: Call) -> None:
    wanted = database.add(1)
    database.change(
        "UPDATE experiments SET cohort_last_narrative_id = NULL, data_checksum = NULL",
        "UPDATE narrative_results SET narrative_type = NULL WHERE result_id = 1",
        "UPDATE narrative_results SET incident_id = NULL WHERE result_id = 2",
    )
    call("report", wanted, "--html", "r.html", *FEW)
    assert "no type" in Path("r.html").read_text(encoding="utf-8")


def test_an_experiment_without_any_row_has_one_too(database: Database, call: Call) -> None:
    call("report", database.add(1, []), "--html", "r.html", *FEW)
    assert "have not been asked about yet" in Path("r.html").read_text(encoding="utf-8")


def take_labels(database: Database, said: str) -> None:
    """Of every reader.

    :param said: SQL, of items `i` and readers `w` by number
    """
    with closing(sqlite3.connect(database.path)) as db, db:
        db.execute(
            "INSERT INTO review_imports SELECT rowid, workbook_id, '2026-01-01', reader || '.xlsx', 'f'"
            " FROM review_workbooks"
        )
        db.execute(
            f"INSERT INTO review_labels SELECT w.number, i.item_key, {said}, NULL FROM review_items AS i"
            " JOIN (SELECT rowid AS number, review_id FROM review_workbooks) AS w USING (review_id)"
        )


def test_labels_of_a_review_are_the_yardstick_where_they_are_asked_for(database: Database, call: Call) -> None:
    wanted = database.add(1)
    call("review", "sample", wanted, "--n", "40", "--reviewer", "anna", "--seed", "3")
    take_labels(database, "CASE narrative_id % 3 WHEN 0 THEN 'yes' ELSE 'no' END")
    call("report", wanted, "--html", "r.html", "--labels", "review:1", *FEW)
    document = Path("r.html").read_text(encoding="utf-8")
    assert "review 1: 40 final labels" in document and "yardstick of this report" in document
    assert "anna" not in document


def test_on_how_few_texts_readers_differ_or_cannot_tell_is_not_shown_where_counts_are_large(
    database: Database, call: Call
) -> None:
    """Both say yes to 12 and no to 22 of 40; they differ on 4, and one cannot tell 2."""
    wanted = database.add(1)
    call("review", "sample", wanted, "--n", "40", "--reviewer", "anna", "--reviewer", "ben", "--seed", "3")
    number = "CAST(SUBSTR(i.item_key, -4) AS INTEGER)"
    take_labels(
        database,
        f"CASE WHEN {number} <= 12 THEN 'yes' WHEN {number} > 38 AND w.number = 2 THEN 'cannot tell'"
        f" WHEN {number} BETWEEN 35 AND 38 AND w.number = 1 THEN 'yes' ELSE 'no' END",
    )

    def told(*flags: str) -> str:
        call("report", wanted, "--html", "r.html", *FEW, *flags)
        _, _, of_review = Path("r.html").read_text(encoding="utf-8").partition('id="review"')
        return " ".join(re.sub(r"<[^>]+>", " ", of_review.partition("</section>")[0]).split())

    whole, large = told(), told("--suppress-below", "5")
    assert "34 of 38 89.47 %" in whole and "34, of them 0 by adjudication" in whole and "still disputed 6" in whole
    assert "how far readers agree Not shown, because of counts of people below 5" in large
    for given_away in ("of 38", "89.47", "adjudication", "disputed", "Could not tell"):
        assert given_away not in large
    assert told("--suppress-below", "2").count("34 of 38") == 0, "nobody says yes where the first says no"
