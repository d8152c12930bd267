"""Databases of the R project, opened: one result a narrative stays, nothing is lost, and ids can be repaired."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from r_databases import DATA_FILE, dump, read_rows, writing_legacy
from reliability import Measured

from narrun_async.app.examining import verify_database
from narrun_async.app.loading import ingest_file, migrate_database, preview_migration
from narrun_async.config import DataSection
from narrun_async.errors import BadInputError, ExitCode, StorageError
from narrun_async.models import ExperimentId, SetAsideReason
from narrun_async.operations.repairing import refuse_strays
from narrun_async.stores import SqliteStore, open_sqlite_writer

X, Y = (ExperimentId(f"{letter}1111111-2222-4333-8444-555555555555") for letter in "ab")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "experiments.db"


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite_writer(path, **options)
    try:
        yield store
    finally:
        await store.aclose()


async def migrate(path: Path, *, fix_ids: bool = False) -> str:
    return "\n".join(await migrate_database(path, dedupe=True, fix_ids=fix_ids))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def old_part(rows: list[dict[str, Any]], columns: list[str]) -> list[dict[str, Any]]:
    """Rows as the predecessor knew them, in the order in which it wrote them."""
    return sorted(({name: row[name] for name in columns} for row in rows), key=lambda row: row["result_id"])


async def assert_sound(path: Path) -> list[str]:
    """Nothing of ours is wrong; what was inherited is listed."""
    seen = await verify_database(path, None, as_json=False)
    assert seen.exit_code is ExitCode.COMPLETED, seen.lines
    return list(seen.lines)


# --- duplicates ------------------------------------------------------------------------------------------------------


def write_duplicates(path: Path) -> dict[str, int]:
    """A file of the first generation with every kind of duplicate; what is expected to stay → its result_id."""
    with writing_legacy(path, "a") as file:
        for number in range(6):
            file.add_narrative(f"c{number}")
        file.add_experiment(X)
        file.add_experiment(Y)
        stays = {}
        # of several successes the newest, whatever came after it
        file.add_result(X, "c0", "cme", detected=0)
        stays["newest success"] = file.add_result(X, "c0", "cme", detected=1)
        file.add_result(X, "c0", "cme", error_occurred=1)
        # without a success the newest error
        file.add_result(X, "c1", "cme", error_occurred=1, error_message="first")
        stays["newest error"] = file.add_result(X, "c1", "cme", error_occurred=1, error_message="second")
        # detected and an error at once is an error; an answer that says nothing is not even that
        file.add_result(X, "c2", "cme", error_occurred=1, detected=1)
        stays["a plain error"] = file.add_result(X, "c2", "cme", error_occurred=1)
        file.add_result(X, "c2", "cme", detected=None)
        file.add_result(X, "c3", "cme", detected=None)
        stays["newest of what says nothing"] = file.add_result(X, "c3", "cme", detected=None)
        # one of each is no duplicate
        stays["other experiment"] = file.add_result(Y, "c0", "cme")
        stays["other type"] = file.add_result(X, "c0", "le")
        stays["alone"] = file.add_result(X, "c4", "cme")
        # NULL equals nothing: nobody knows whether these are about the same narrative
        for number in range(2):
            stays[f"no id {number}"] = file.add_result(X, None, "cme")
            stays[f"no type {number}"] = file.add_result(X, "c5", None)
    return stays


@pytest.mark.fault("D14")
async def test_of_each_narrative_one_result_stays_and_the_others_are_kept_whole(path: Path, measured: Measured) -> None:
    stays = write_duplicates(path)
    with closing(sqlite3.connect(path)) as db, db:  # a column of somebody's own
        db.execute("ALTER TABLE narrative_results ADD COLUMN reviewer TEXT")
        db.execute("UPDATE narrative_results SET reviewer = 'reader ' || result_id")
    before = dump(path)
    columns = list(before["narrative_results"][0])

    async with opened(path) as store:
        reports, backup = store.migrated.set_aside, store.migrated.backup

    after = dump(path)
    assert {row["result_id"] for row in after["narrative_results"]} == set(stays.values())
    together = [*after["narrative_results"], *after["legacy_results"]]
    assert old_part(together, columns) == old_part(before["narrative_results"], columns)
    kept = {row["result_id"] for row in after["narrative_results"]}
    for row in after["legacy_results"]:
        assert row["why"].startswith("duplicate: result ")
        assert int(row["why"].split()[2]) in kept
        assert row["set_aside_at"].endswith("+00:00")
    assert backup is not None
    assert dump(backup) == before
    n_moved = len(before["narrative_results"]) - len(stays)
    assert [(one.experiment_id, one.reason, one.n_before, one.n_moved, one.n_after) for one in reports] == [
        (X, SetAsideReason.DUPLICATE, 16, n_moved, 16 - n_moved)
    ]
    lines = await assert_sound(path)
    assert any(f"{X}: 16 results, {n_moved} moved to legacy_results (duplicate), 10 remain" in line for line in lines)
    measured(
        f"{n_moved} of 17 results set aside whole, in the transaction of the key; the backup holds the rows it held"
    )


async def test_opening_again_sets_nothing_aside_and_tells_it_no_second_time(path: Path) -> None:
    write_duplicates(path)
    await migrate(path)
    before = dump(path)
    async with opened(path) as store:
        assert store.migrated.set_aside == ()
    assert dump(path) == before
    assert len(list(path.parent.glob("*.bak"))) == 1


@pytest.mark.fault("D14")
async def test_without_leave_a_file_with_duplicates_is_refused_and_not_a_byte_changes(
    path: Path, measured: Measured
) -> None:
    write_duplicates(path)
    before = digest(path)
    for _ in range(2):
        with pytest.raises(StorageError, match="4 narratives have more than one result row") as refused:
            async with opened(path, dedupe=False):
                pass
        assert refused.value.exit_code is ExitCode.STORAGE
        assert "--no-dedupe" in refused.value.advice
    assert digest(path) == before
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    measured("with --no-dedupe refused twice with the number of narratives; not a byte changed, no file beside it")


async def test_without_duplicates_that_leave_is_not_needed(path: Path) -> None:
    with writing_legacy(path, "a") as file:
        file.add_experiment(X)
        for _ in range(2):
            file.add_result(X, None, "cme")
    async with opened(path, dedupe=False) as store:
        assert store.migrated.backup is not None


async def test_a_column_that_results_get_later_is_set_aside_too(path: Path) -> None:
    """A later step of the schema may add columns to the results only."""
    write_duplicates(path)
    await migrate(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("ALTER TABLE narrative_results ADD COLUMN of_tomorrow REAL")
        db.execute("UPDATE narrative_results SET of_tomorrow = 1.5")
        db.execute("DROP INDEX narrative_results_key")
        db.execute(
            "INSERT INTO narrative_results (experiment_id, incident_id, narrative_type, error_occurred,"
            " of_tomorrow) SELECT experiment_id, incident_id, narrative_type, 1, 2.5 FROM narrative_results"
            " WHERE incident_id = 'c4'"
        )
        db.execute("PRAGMA user_version = 0")
    await migrate(path)
    (row,) = read_rows(path, "SELECT * FROM legacy_results WHERE incident_id = 'c4'")
    assert row["of_tomorrow"] == 2.5


async def test_a_preview_says_what_a_migration_does_and_writes_nothing(path: Path) -> None:
    write_duplicates(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "INSERT INTO source_narratives (incident_id, narrative_type, narrative_text)"
            " VALUES ('1e+05', 'cme', 'made up')"
        )
        db.execute(
            "INSERT INTO narrative_results (experiment_id, incident_id, narrative_type, error_occurred)"
            f" VALUES ('{X}', '1e+05', 'cme', 1), ('{X}', '1e+05', 'cme', 1)"
        )
    before = digest(path)

    foreseen = await preview_migration(path, dedupe=True, fix_ids=True)
    with pytest.raises(StorageError, match="--no-dedupe"):
        await preview_migration(path, dedupe=False, fix_ids=False)

    assert digest(path) == before
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    told = (await migrate(path, fix_ids=True)).splitlines()
    for line in foreseen:
        if line.startswith(("set aside", "id ")):
            assert any(said.startswith(line) for said in told), line
    assert sum(line.startswith(("set aside", "id ")) for line in foreseen) == 2
    again = await preview_migration(path, dedupe=True, fix_ids=True)
    assert list(again) == ["dry run: nothing was changed"]


# --- ids -------------------------------------------------------------------------------------------------------------


def write_odd_ids(path: Path, generation: str = "c") -> None:
    with writing_legacy(path, generation) as file:
        for incident in ("1e+05", "1.2e+07", "300000", "1e+15", "2e+05", "400000"):
            for kind in ("cme", "le"):
                file.add_narrative(incident, kind)
        file.add_narrative("200000", "cme")
        file.add_experiment(X)
        file.add_experiment(Y)
        for incident in ("1e+05", "1e+15", "2e+05"):
            file.add_result(X, incident, "cme")
        file.add_result(Y, "3e+05", "cme")  # its narrative has the plain id
        file.add_result(Y, "4e+05", "le")  # likewise, but the plain result is there, too
        file.add_result(Y, "400000", "le")


@pytest.mark.parametrize("is_migrated", [False, True])
async def test_ids_are_repaired_in_both_tables_after_a_backup_and_what_they_were_is_kept(
    path: Path, is_migrated: bool
) -> None:
    write_odd_ids(path)
    before = dump(path)
    if is_migrated:
        await migrate(path)

    told = await migrate(path, fix_ids=True)

    narratives = {(row["narrative_id"], row["incident_id"]) for row in dump(path)["source_narratives"]}
    results = {(row["result_id"], row["incident_id"]) for row in dump(path)["narrative_results"]}
    assert narratives == {
        *((1, "100000"), (2, "100000"), (3, "12000000"), (4, "12000000"), (5, "300000"), (6, "300000")),
        *((7, "1e+15"), (8, "1e+15"), (9, "2e+05"), (10, "2e+05"), (11, "400000"), (12, "400000"), (13, "200000")),
    }
    assert results == {(1, "100000"), (2, "1e+15"), (3, "2e+05"), (4, "300000"), (5, "4e+05"), (6, "400000")}
    for line in (
        "1e+05 becomes 100000: 2 narratives, 1 result",
        "1.2e+07 becomes 12000000: 2 narratives",
        "3e+05 becomes 300000: 1 result",
        "1e+15 stays, because R wrote 15 digits of it, so it cannot be known again: 2 narratives, 1 result",
        "2e+05 (stands for 200000) stays, because another narrative has that id already: 2 narratives",
        "4e+05 (stands for 400000) stays, because the same experiment has a result under that id already: 1 result",
    ):
        assert line in told
    changes = read_rows(path, "SELECT * FROM legacy_changes ORDER BY change_id")
    assert [(one["table_name"], one["row_key"], one["old_value"], one["new_value"]) for one in changes] == [
        ("source_narratives", "1", "1e+05", "100000"),
        ("source_narratives", "2", "1e+05", "100000"),
        ("source_narratives", "3", "1.2e+07", "12000000"),
        ("source_narratives", "4", "1.2e+07", "12000000"),
        ("narrative_results", "1", "1e+05", "100000"),
        ("narrative_results", "4", "3e+05", "300000"),
    ]
    backups = sorted(path.parent.glob("*.bak"))
    assert len(backups) == 1 + is_migrated
    for table, rows in before.items():
        kept = [{name: row[name] for name in old} for row, old in zip(dump(backups[-1])[table], rows, strict=True)]
        assert [row["incident_id"] for row in kept if "incident_id" in row] == [
            row["incident_id"] for row in rows if "incident_id" in row
        ]
    assert any("6 ids repaired" in line for line in await assert_sound(path))


async def test_repairing_again_changes_nothing_and_copies_nothing(path: Path) -> None:
    write_odd_ids(path)
    await migrate(path, fix_ids=True)
    before, backups = dump(path), len(list(path.parent.glob("*.bak")))
    assert "no id can be repaired" in await migrate(path, fix_ids=True)
    assert dump(path) == before
    assert len(list(path.parent.glob("*.bak"))) == backups


async def test_ids_are_only_listed_where_nobody_asked_for_a_repair(path: Path) -> None:
    write_odd_ids(path)
    told = await migrate(path)
    assert "1e+05 stands for 100000: 2 narratives, 1 result" in told
    assert "`narrun migrate --fix-ids` repairs these" in told
    assert {row["incident_id"] for row in dump(path)["source_narratives"]} >= {"1e+05", "1e+15"}
    assert any("1e+05 stands for 100000" in line for line in await assert_sound(path))


@pytest.mark.parametrize(("narrative", "result"), [("100000", "1e+05"), ("1e+05", "100000")])
async def test_an_experiment_whose_results_lost_their_narratives_over_an_id_is_refused_until_it_is_repaired(
    path: Path, narrative: str, result: str
) -> None:
    with writing_legacy(path, "b") as file:
        file.add_narrative(narrative)
        file.add_experiment(X)
        file.add_experiment(Y)
        file.add_result(X, result, "cme")
    async with opened(path) as store:
        with pytest.raises(BadInputError, match=r"paid for again.*narrun migrate --fix-ids") as refused:
            await refuse_strays(store, X)
        assert refused.value.exit_code is ExitCode.BAD_DATA
        await refuse_strays(store, Y)
    await migrate(path, fix_ids=True)
    async with opened(path) as store:
        await refuse_strays(store, X)


async def test_a_workbook_whose_ids_r_wrote_otherwise_is_refused_with_what_to_do(path: Path, tmp_path: Path) -> None:
    workbook = tmp_path / "cases.csv"
    texts = {one: f"made-up account number {one}" for one in ("100000", "7")}
    workbook.write_text(
        "incident_id,narrative_type,narrative_text,manual_flag_ind\n"
        + "".join(f"{one},cme,{text},0\n" for one, text in texts.items())
    )
    with writing_legacy(path, "a") as file:
        file.add_narrative("1e+05", narrative_text=texts["100000"])
        file.add_narrative("7", narrative_text=texts["7"])
    data = DataSection(file=str(workbook))
    with pytest.raises(BadInputError, match="narrun migrate"):
        await ingest_file(path, data, dedupe=True)
    await migrate(path, fix_ids=True)
    told = await ingest_file(path, data, dedupe=True)
    assert list(told) == [f"data       {DATA_FILE}: 2 narratives, already in the database"]
