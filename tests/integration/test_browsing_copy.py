"""What is browsed is a copy: as new as the file, without a word that scrubbing would take, in nobody's way."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from narrun_async.app.browsing import browse_database
from narrun_async.codebook import BROWSED_COLUMNS, QUESTIONS, Question
from narrun_async.errors import MissingPackageError, StorageError
from narrun_async.models import ExperimentId
from narrun_async.stores import DatabaseLock, open_sqlite_writer
from narrun_async.stores.sqlite.browsing import BrowsingCopy, browsed_columns, withheld_columns
from narrun_async.stores.sqlite.scrubbing import TEXT_COLUMNS

CANARY = "CANARY of a made-up narrative"
FIRST, SECOND = ExperimentId("experiment-1"), ExperimentId("experiment-2")

SETUP = f"""
INSERT INTO source_narratives (narrative_id, incident_id, narrative_type, narrative_text)
VALUES (1, '007', 'cme', '{CANARY}'), (2, '007', 'le', '{CANARY}');
INSERT INTO experiments (experiment_id, experiment_name, status, system_prompt, user_template, config_json, created_at,
                         n_narratives_total)
VALUES ('{FIRST}', 'first', 'running', '{CANARY}', '{CANARY}', '{CANARY}', '2026-01-01 00:00:00', 4),
       ('{SECOND}', 'second', 'completed', '{CANARY}', '{CANARY}', '{CANARY}', '2026-01-02 00:00:00', 1);
INSERT INTO runs (run_id, experiment_id, mode, selection, started_at, exit_code, ended_why)
VALUES (1, '{FIRST}', 'new', 'missing', '2026-01-01T00:00:00', 78, '{CANARY}'),
       (2, '{SECOND}', 'new', 'missing', '2026-01-01T00:00:00', 0, 'completed');
INSERT INTO narrative_results (result_id, experiment_id, incident_id, narrative_type, row_num, narrative_text,
    manual_flag_ind, detected, confidence, indicators, rationale, reasoning_steps, raw_response, error_occurred,
    error_message, first_error_message, is_true_positive, is_true_negative, is_false_positive, is_false_negative,
    error_category, processed_at, run_id)
VALUES (1, '{FIRST}', '007', 'cme', 1, '{CANARY}', 1, 1, 0.9, '{CANARY}', '{CANARY}', '{CANARY}', '{CANARY}', 0, NULL,
        '{CANARY}', 1, 0, 0, 0, NULL, '2026-01-01 00:00:01', 1),
       (2, '{FIRST}', '007', 'le', 2, '{CANARY}', 0, 1, 0.8, '{CANARY}', '{CANARY}', '{CANARY}', '{CANARY}', 0, NULL,
        NULL, 0, 0, 1, 0, NULL, '2026-01-01 00:00:02', 1),
       (3, '{FIRST}', '008', 'cme', 3, '{CANARY}', 1, NULL, NULL, NULL, NULL, NULL, '{CANARY}', 1, '{CANARY}',
        '{CANARY}', NULL, NULL, NULL, NULL, 'bad_json', '2026-01-01 00:00:03', 1),
       (4, '{SECOND}', '007', 'cme', 1, '{CANARY}', NULL, 0, 0.7, '{CANARY}', NULL, NULL, '{CANARY}', 0, NULL, NULL,
        NULL, NULL, NULL, NULL, NULL, '2026-01-02 00:00:01', 2);
INSERT INTO attempts (experiment_id, run_id, narrative_id, started_at, duration_s, error_message, charged)
VALUES ('{FIRST}', 1, 2, '2026-01-01T00:00:00', 1.5, '{CANARY}', 1);
INSERT INTO servings (experiment_id, model, system_fingerprint, server) VALUES ('{FIRST}', 'm', '', '');
INSERT INTO canary_answers (experiment_id, run_id, narrative_id, detected, error_message)
VALUES ('{FIRST}', 1, 1, 0, '{CANARY}');
CREATE TABLE somebodys (words TEXT);
INSERT INTO somebodys VALUES ('{CANARY}');
"""


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    path = tmp_path / "experiments.db"
    await (await open_sqlite_writer(path)).aclose()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SETUP)
    return path


def opened(path: Path, *, experiment_id: ExperimentId | None = None, with_text: bool = False) -> BrowsingCopy:
    copy = BrowsingCopy(path, experiment_id=experiment_id, with_text=with_text, rest_s=lambda took_s: 0)
    copy.freshen()
    return copy


@pytest.fixture
def copy(database: Path) -> Iterator[BrowsingCopy]:
    with closing(opened(database)) as copy:
        yield copy


def ask(copy: BrowsingCopy, statement: str) -> list[tuple[object, ...]]:
    return copy.read(lambda connection: connection.execute(statement).fetchall())


def dump(copy: BrowsingCopy) -> str:
    return copy.read(lambda connection: "\n".join(connection.iterdump()))


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


async def test_no_text_is_in_the_copy_whatever_the_database_holds(copy: BrowsingCopy) -> None:
    assert CANARY not in dump(copy)
    assert ask(copy, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1") == [
        (name,) for name in sorted(BROWSED_COLUMNS)
    ]
    assert ask(copy, "SELECT ended_why FROM runs ORDER BY run_id") == [
        ("the configuration was refused",),
        ("completed",),
    ]


async def test_with_texts_all_of_them_are_there_but_no_table_of_others(database: Path) -> None:
    with closing(opened(database, with_text=True)) as copy:
        for table in BROWSED_COLUMNS:
            for column in withheld_columns(table):
                assert ask(copy, f"SELECT COUNT(*) FROM {table} WHERE {column} = '{CANARY}'") != [(0,)], column
        assert ask(copy, "SELECT ended_why FROM runs WHERE run_id = 1") == [(CANARY,)]
        with pytest.raises(sqlite3.OperationalError):
            ask(copy, "SELECT * FROM somebodys")


@pytest.mark.parametrize("table", BROWSED_COLUMNS)
def test_what_is_shown_without_texts_is_nothing_that_scrubbing_takes(table: str) -> None:
    shown = browsed_columns(with_text=False)[table]
    assert not set(shown) & set(TEXT_COLUMNS.get(table, ()))
    assert not set(shown) & {"system_prompt", "user_template", "config_json"}
    assert set(browsed_columns(with_text=True)[table]) - set(shown) <= withheld_columns(table)


async def test_nothing_can_be_written_and_no_other_file_be_reached(copy: BrowsingCopy, database: Path) -> None:
    for statement in (
        "DELETE FROM runs",
        "CREATE TABLE more (words)",
        f"ATTACH 'file:{database}?mode=ro' AS other",
        "SELECT * FROM source.source_narratives",
    ):
        with pytest.raises(sqlite3.OperationalError):
            ask(copy, statement)


async def test_one_experiment_is_copied_alone(database: Path) -> None:
    with closing(opened(database, experiment_id=SECOND)) as copy:
        assert ask(copy, "SELECT result_id FROM narrative_results") == [(4,)]
        assert ask(copy, "SELECT experiment_name FROM experiments") == [("second",)]
        assert ask(copy, "SELECT run_id FROM runs") == [(2,)]
        assert ask(copy, "SELECT COUNT(*) FROM attempts") == [(0,)]


async def test_what_is_committed_is_seen_and_what_did_not_change_is_not_copied_again(
    copy: BrowsingCopy, database: Path
) -> None:
    before = copy.read(id)
    copy.freshen()
    assert copy.read(id) == before
    change(database, "UPDATE narrative_results SET confidence = 0.123 WHERE result_id = 1")
    copy.freshen()
    assert ask(copy, "SELECT confidence FROM narrative_results WHERE result_id = 1") == [(0.123,)]


async def test_a_young_copy_stays(database: Path) -> None:
    with closing(BrowsingCopy(database, experiment_id=None, with_text=False, rest_s=lambda took_s: 3600)) as copy:
        copy.freshen()
        change(database, "DELETE FROM narrative_results")
        copy.freshen()
        assert ask(copy, "SELECT COUNT(*) FROM narrative_results") == [(4,)]


async def test_a_database_that_is_gone_is_told_and_the_copy_stays(copy: BrowsingCopy, database: Path) -> None:
    for path in database.parent.iterdir():
        path.unlink()
    with pytest.raises(StorageError):
        copy.freshen()
    assert ask(copy, "SELECT COUNT(*) FROM narrative_results") == [(4,)]


async def test_a_reader_holds_no_old_state_open_beside_a_writer(copy: BrowsingCopy, database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        change(database, "UPDATE narrative_results SET confidence = 0.5")
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0


async def test_an_experiment_that_nobody_runs_is_interrupted(database: Path) -> None:
    with closing(opened(database)) as copy:
        assert ask(copy, "SELECT status FROM experiments ORDER BY 1") == [("completed",), ("interrupted",)]
    with DatabaseLock(database, purpose="run"), closing(opened(database)) as copy:
        assert ask(copy, "SELECT status FROM experiments ORDER BY 1") == [("completed",), ("running",)]


async def test_calls_know_their_case(copy: BrowsingCopy) -> None:
    assert ask(copy, "SELECT incident_id, narrative_type FROM attempts") == [("007", "le")]
    assert ask(copy, "SELECT incident_id, narrative_type FROM canary_answers") == [("007", "cme")]


async def test_agreement_says_in_one_word_what_four_columns_say(copy: BrowsingCopy) -> None:
    assert ask(copy, "SELECT result_id, agreement FROM narrative_results ORDER BY 1") == [
        (1, "true positive"),
        (2, "false positive"),
        (3, None),
        (4, None),
    ]


async def test_without_datasette_one_sentence_says_how_to_get_it(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasette", None)
    with pytest.raises(MissingPackageError, match=r"narrun browse needs datasette.*`make analysis` installs it"):
        await browse_database(database, None, port=0, with_text=False, tell=print, say=print)


ANSWERS = {
    "progress": [("second", 1, 1, 100.0, 1, 0, 0), ("first", 4, 3, 75.0, 2, 1, 1)],
    "errors_by_category": [("first", "bad_json", 1, 33.33)],
    "disagreements_with_labels": [(2, "first", "007", "le", "false positive", 0.8)],
    "detection_by_type": [("second", "cme", 1, 0), ("first", "cme", 1, 1), ("first", "le", 1, 1)],
}


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda one: one.name)
async def test_the_questions_have_the_right_answers(copy: BrowsingCopy, question: Question) -> None:
    def answer(connection: sqlite3.Connection, *, beginning: str | None) -> list[tuple[object, ...]]:
        statement = question.statement(asks_for_experiment=beginning is not None)
        cursor = connection.execute(statement, {"experiment": beginning})
        status = [one[0] for one in cursor.description].index("status") if question.name == "progress" else None
        return [tuple(value for place, value in enumerate(row) if place != status) for row in cursor]

    expected = ANSWERS[question.name]
    of_the_second = [row for row in expected if "second" in row]
    for beginning, wanted in ((None, expected), ("", expected), ("experiment-2", of_the_second), ("nothing", [])):
        rows = copy.read(partial(answer, beginning=beginning))
        assert [row[: len(expected[0])] for row in rows] == wanted
