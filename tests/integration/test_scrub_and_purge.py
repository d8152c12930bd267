"""What `narrun scrub` takes and keeps, and what `narrun purge` destroys, leaves alone and certifies."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from narrun_async.app.databases import reading
from narrun_async.app.examining import verify_database
from narrun_async.app.privacy import purge_database, scrub_database
from narrun_async.app.showing import export_experiment
from narrun_async.errors import BadInputError, ExitCode, LockHeldError, StorageError, UsageError
from narrun_async.operations.scrubbing import refuse_scrubbed, scrub
from narrun_async.reporting.exports import ExportOptions
from narrun_async.stores import DatabaseLock, open_sqlite_reader, open_sqlite_writer
from narrun_async.stores.sqlite.migrations import SCHEMA_VERSION
from narrun_async.stores.sqlite.schema import OUR_TABLES
from narrun_async.stores.sqlite.scrubbing import TEXT_COLUMNS

OpenRig = Callable[..., Any]

#: text columns that stay, each because it is an id, a hash, a code, a moment, a setting or a sentence of ours
OF_RESULTS = frozenset(
    {
        "experiment_id",
        "incident_id",
        "narrative_type",
        "processed_at",
        "error_category",
        "last_attempt_at",
        "finish_reason",
        "response_model",
        "system_fingerprint",
        "parse_method",
        "skip_reason",
    }
)
KEPT: dict[str, frozenset[str]] = {
    "source_narratives": frozenset(
        {"incident_id", "narrative_type", "data_source", "data_checksum", "loaded_at", "text_sha256", "text_flags"}
    ),
    "narrative_results": OF_RESULTS,
    "legacy_results": OF_RESULTS | {"set_aside_at", "why"},
    "legacy_reports": frozenset({"experiment_id", "reason", "set_aside_at", "narrun_version"}),
    "legacy_changes": frozenset(
        {"changed_at", "narrun_version", "why", "table_name", "row_key", "column_name", "old_value", "new_value"}
    ),
    "attempts": frozenset({"experiment_id", "started_at", "error_category"}),
    "servings": frozenset({"experiment_id", "model", "system_fingerprint", "server", "first_seen_at"}),
    "canary_answers": frozenset(
        {"experiment_id", "asked_at", "error_category", "response_model", "system_fingerprint"}
    ),
    "prompts": frozenset({"sha256", "prompt_text", "first_used_at"}),
    "sweeps": frozenset({"sweep_id", "sweep_name", "definition_sha256", "sweep_file", "notes", "created_at"}),
    "reviews": frozenset({"experiment_id", "drawn_at", "strata", "bands", "allocation", "narrun_version"}),
    "review_items": frozenset({"item_key", "stratum"}),
    "review_workbooks": frozenset({"workbook_id", "reader", "role", "written_at", "path", "item_keys"}),
    "review_imports": frozenset({"workbook_id", "imported_at", "file_name", "file_sha256"}),
    "review_labels": frozenset({"item_key", "label"}),
    "runs": frozenset(
        {
            "experiment_id",
            "mode",
            "selection",
            "host",
            "narrun_version",
            "concurrency",
            "api_url",
            "started_at",
            "last_saved_at",
            "ended_at",
            "ended_why",
        }
    ),
    "scrubs": frozenset({"scrubbed_at", "narrun_version", "host"}),
    "batch_items": frozenset(),
    "batches": frozenset(
        {
            "experiment_id",
            "selection",
            "state",
            "input_path",
            "input_sha256",
            "endpoint",
            "token",
            "exported_at",
            "intended_at",
            "api_url",
            "remote_file_id",
            "remote_batch_id",
            "remote_status",
            "remote_complaint",
            "output_file_id",
            "error_file_id",
            "polled_at",
            "closed_at",
            "closed_why",
        }
    ),
    "screenings": frozenset({"data_checksum", "rules_name", "rules_sha256", "screened_at"}),
    "ingests": frozenset({"data_checksum", "ingested_at"}),
}


def no_answer(database: Path) -> None:
    return None


def silent(line: str) -> None:
    return None


def bytes_beside(database: Path) -> dict[str, bytes]:
    """Every file whose name begins with that of the database."""
    return {path.name: path.read_bytes() for path in database.parent.iterdir() if path.name.startswith(database.name)}


def change(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A database of a run that has ended, with error rows and rows that are missing."""

    path: Path
    experiment_id: str
    texts: tuple[bytes, ...]
    log_dir: Path


@pytest.fixture
def open_finished(open_rig: OpenRig, tmp_path: Path) -> Callable[[], Any]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Finished]:
        log_dir = tmp_path / "logs" / "experiments" / "00000000-0000-4000-8000-000000000001"
        async with open_rig(40, latency_ms=0, fault_rates={"malformed": 0.2}) as rig:
            await rig.run()
            path, experiment_id = rig.path, rig.experiment.experiment_id
            rows = await rig.rows()
            await rig.store.update_experiment(experiment_id, {"log_dir": str(log_dir)})
        log_dir.mkdir(parents=True)
        for name in ("run.log", "errors.log", "performance.log", "live.json"):
            (log_dir / name).write_text(f"made up: {name}")
        held = {row[name] for row in rows for name in TEXT_COLUMNS["narrative_results"] if row[name]}
        assert any(row["error_occurred"] for row in rows)
        change(path, "DELETE FROM narrative_results WHERE row_num > 30")  # something remains
        yield Finished(
            path=path,
            experiment_id=experiment_id,
            texts=tuple(one.encode() for one in held if len(one) > 8),
            log_dir=log_dir,
        )

    return opened


# --- scrub -----------------------------------------------------------------------------------------------------------


def what_stays(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(database)) as connection:
        found = {}
        for table in ("source_narratives", "narrative_results", "attempts", "experiments"):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            kept = [name for name in columns if name not in TEXT_COLUMNS.get(table, ())]
            found[table] = connection.execute(f"SELECT {', '.join(kept)} FROM {table} ORDER BY rowid").fetchall()
        return found


async def test_scrub_leaves_no_byte_of_a_text_in_any_file_and_every_number_where_it_was(
    open_finished: Callable[[], Any],
) -> None:
    async with open_finished() as finished:
        database, texts = finished.path, finished.texts
        before = what_stays(database)
        assert sum(text in bytes_beside(database)[database.name] for text in texts) > 40

        told: list[str] = []
        await scrub_database(database, dry_run=False, confirm=no_answer, tell=told.append)

        for name, content in bytes_beside(database).items():
            assert not [text for text in texts if text in content], f"texts are left in {name}"
        assert what_stays(database) == before
        assert "scrubbed" in "\n".join(told)
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT n_narratives, last_narrative_id FROM scrubs").fetchall() == [(40, 40)]


async def test_every_column_that_can_hold_words_is_either_scrubbed_or_known_to_hold_no_narrative(
    tmp_path: Path,
) -> None:
    store = await open_sqlite_writer(tmp_path / "new.db")
    await store.aclose()
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        assert tables - {"sqlite_sequence"} == OUR_TABLES
        for table in OUR_TABLES - {"experiments"}:  # settings and prompts, all kept
            columns = {
                row[1]
                for row in connection.execute(f"PRAGMA table_info({table})")
                if not row[2].startswith(("INTEGER", "REAL"))
            }
            assert columns == KEPT[table] | set(TEXT_COLUMNS.get(table, ())), table


async def test_work_on_narratives_without_a_text_is_refused_with_one_sentence(
    open_finished: Callable[[], Any],
) -> None:
    async with open_finished() as finished:
        store = await open_sqlite_reader(finished.path)
        cohort = await store.load_cohort((await store.list_sources())[0].checksum, max_narratives=None)
        await refuse_scrubbed(store, cohort)
        await store.aclose()

        await scrub_database(finished.path, dry_run=False, confirm=no_answer, tell=silent)

        async with reading(finished.path) as again:
            with pytest.raises(BadInputError, match=r"40 of these 40 narratives were scrubbed on 20.*another --db"):
                await refuse_scrubbed(again, cohort)
        change(finished.path, "DELETE FROM scrubs")
        async with reading(finished.path) as again:
            with pytest.raises(BadInputError, match="no scrub is recorded"):
                await refuse_scrubbed(again, cohort)


async def test_verify_holds_after_a_scrub_and_says_what_it_could_not_compare(
    open_finished: Callable[[], Any], build: Any
) -> None:
    async with open_finished() as finished:
        await scrub_database(finished.path, dry_run=False, confirm=no_answer, tell=silent)
        document = json.loads((await verify_database(finished.path, None, as_json=True)).lines[0])
        (text_hash,) = [one for one in document["invariants"] if one["id"] == "I11"]
        assert text_hash["holds"]
        assert "40 texts were scrubbed on" in text_hash["remark"]

        # What was loaded afterwards is watched as ever: changed, or gone without a record.
        store = await open_sqlite_writer(finished.path)
        later = [build.narrative(number, prefix="later") for number in range(4)]
        await store.add_source(build.source(later, path="later.csv"), on_conflict="error")
        await store.aclose()
        change(finished.path, "UPDATE source_narratives SET narrative_text = NULL WHERE narrative_id = 42")
        lines = (await verify_database(finished.path, None, as_json=False)).lines
        assert any("narrative 42" in line for line in lines)
        assert (await verify_database(finished.path, None, as_json=False)).exit_code is ExitCode.BAD_DATA


async def test_a_reader_of_an_older_state_is_named_and_a_repetition_finishes(open_finished: Callable[[], Any]) -> None:
    async with open_finished() as finished:
        with closing(sqlite3.connect(finished.path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT COUNT(*) FROM source_narratives").fetchone()
            with DatabaseLock(finished.path, purpose="test"):
                store = await open_sqlite_writer(finished.path)
                try:
                    await store.writer.execute("PRAGMA busy_timeout=50")
                    with pytest.raises(LockHeldError, match="still holds texts"):
                        await scrub(store, host="here")
                finally:
                    await store.aclose()
            reader.rollback()

        await scrub_database(finished.path, dry_run=False, confirm=no_answer, tell=silent)

        for name, content in bytes_beside(finished.path).items():
            assert not [text for text in finished.texts if text in content], name
        with closing(sqlite3.connect(finished.path)) as connection:
            assert connection.execute("SELECT COUNT(*) FROM scrubs").fetchone() == (1,)


async def test_scrub_names_backups_and_tables_of_others_and_changes_nothing_when_it_is_not_meant(
    open_finished: Callable[[], Any],
) -> None:
    async with open_finished() as finished:
        change(finished.path, "CREATE TABLE my_notes (words TEXT)")
        store = await open_sqlite_writer(finished.path)
        backup = await store.back_up()
        await store.aclose()
        before = bytes_beside(finished.path)[finished.path.name]
        told: list[str] = []

        def refuse(database: Path) -> None:
            raise UsageError("no")

        await scrub_database(finished.path, dry_run=True, confirm=no_answer, tell=told.append)
        with pytest.raises(UsageError):
            await scrub_database(finished.path, dry_run=False, confirm=refuse, tell=silent)
        with DatabaseLock(finished.path, purpose="test"), pytest.raises(LockHeldError):
            await scrub_database(finished.path, dry_run=False, confirm=no_answer, tell=silent)

        assert bytes_beside(finished.path)[finished.path.name] == before
        assert any("my_notes" in line for line in told)
        await scrub_database(finished.path, dry_run=False, confirm=no_answer, tell=told.append)
        assert any(str(backup) in line and "still holds" in line for line in told)


async def test_exporting_texts_that_are_gone_says_that_they_are(open_finished: Callable[[], Any]) -> None:
    async with open_finished() as finished:
        await scrub_database(finished.path, dry_run=False, confirm=no_answer, tell=silent)
        for with_text in (True, False):
            options = ExportOptions(formats=("csv",), with_text=with_text)
            exported = await export_experiment(finished.path, "latest", finished.path.parent / "exports", options)
            assert any("are gone from the database" in line for line in exported.notices) == with_text


async def test_a_database_of_the_version_before_is_scrubbed_after_its_migration(
    open_finished: Callable[[], Any],
) -> None:
    async with open_finished() as finished:
        change(finished.path, "DROP TABLE scrubs", "PRAGMA user_version = 2")
        told: list[str] = []
        finished.path.chmod(0o644)
        await scrub_database(finished.path, dry_run=False, confirm=no_answer, tell=told.append)
        with closing(sqlite3.connect(finished.path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert any(f"chmod 600 {finished.path}" in line for line in told)
        assert any(".bak" in line for line in told)  # the migration made one, and it holds the texts


# --- backups ---------------------------------------------------------------------------------------------------------


async def test_a_backup_is_whole_private_and_holds_what_was_committed(open_finished: Callable[[], Any]) -> None:
    before = os.umask(0)
    try:
        async with open_finished() as finished:
            store = await open_sqlite_writer(finished.path)
            backup = await store.back_up()
            await store.aclose()
            assert stat.S_IMODE(backup.stat().st_mode) == 0o600
            assert what_stays(backup) == what_stays(finished.path)
            assert sorted(path.name for path in backup.parent.glob("*.bak*")) == [backup.name]
    finally:
        os.umask(before)


# --- purge -----------------------------------------------------------------------------------------------------------


async def test_purge_destroys_what_is_ours_and_certifies_it(open_finished: Callable[[], Any], tmp_path: Path) -> None:
    async with open_finished() as finished:
        database = finished.path
        (tmp_path / "workbook.csv").write_text("somebody's")
        held = {path: path.read_bytes() for path in [database, *finished.log_dir.iterdir()]}
        with database.open("rb") as still_open:
            told: list[str] = []
            await purge_database(database, certificate=None, dry_run=False, confirm=no_answer, tell=told.append)
            left_on_disk = still_open.read()

        assert len(left_on_disk) == len(held[database])
        assert not [text for text in finished.texts if text in left_on_disk], "it was not overwritten"
        (certificate,) = tmp_path.glob("*.purged-*.json")
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([certificate.name, "logs", "workbook.csv"])
        assert not finished.log_dir.exists()
        assert stat.S_IMODE(certificate.stat().st_mode) == 0o600
        document = json.loads(certificate.read_text())
        removed = {Path(one["path"]): one for one in document["removed"]}
        for path, content in held.items():
            assert removed[path]["size_bytes"] == len(content)
            assert removed[path]["sha256"] == hashlib.sha256(content).hexdigest()
            assert removed[path]["is_overwritten"]
        assert document["ended"]
        assert document["experiments"] == [finished.experiment_id]
        assert not [text for text in finished.texts if text in certificate.read_bytes()]
        beyond = " ".join(document["out_of_reach"])
        for word in ("backups", "copies", "SSD", "made_up.xlsx", "127.0.0.1"):
            assert word in beyond


async def test_purge_leaves_alone_what_is_not_certainly_ours(open_finished: Callable[[], Any], tmp_path: Path) -> None:
    async with open_finished() as finished:
        precious = tmp_path / "precious.txt"
        precious.write_text("somebody's")
        (finished.log_dir / "notes.odt").write_text("somebody's")
        (finished.log_dir / "link.log").symlink_to(precious)
        os.link(precious, finished.log_dir / "linked.log")
        elsewhere = tmp_path / "elsewhere" / finished.experiment_id
        elsewhere.mkdir(parents=True)
        (elsewhere / "run.log").write_text("somebody's")
        others = {
            "11111111-0000-4000-8000-000000000000": str(tmp_path),
            "22222222-0000-4000-8000-000000000000": "/etc",
            "33333333-0000-4000-8000-000000000000": str(tmp_path / "33333333-0000-4000-8000-000000000000"),
        }
        (tmp_path / "33333333-0000-4000-8000-000000000000").symlink_to(elsewhere)
        for experiment_id, log_dir in others.items():
            change(
                finished.path,
                f"INSERT INTO experiments (experiment_id, log_dir) VALUES ('{experiment_id}', '{log_dir}')",
            )

        await purge_database(finished.path, certificate=None, dry_run=False, confirm=no_answer, tell=silent)

        assert precious.read_text() == "somebody's"
        assert (elsewhere / "run.log").read_text() == "somebody's"
        assert sorted(path.name for path in finished.log_dir.iterdir()) == ["link.log", "notes.odt"]
        (certificate,) = tmp_path.glob("*.purged-*.json")
        document = json.loads(certificate.read_text())
        left = {one["path"]: one["why"] for one in document["left_alone"]}
        assert {Path(path).name for path in left} >= {"notes.odt", "link.log", "etc", tmp_path.name}
        (linked,) = [one for one in document["removed"] if one["path"].endswith("linked.log")]
        assert not linked["is_overwritten"]


async def test_purge_refuses_what_is_in_use_a_link_or_foreign_and_touches_nothing(
    open_finished: Callable[[], Any], tmp_path: Path
) -> None:
    async with open_finished() as finished:
        foreign = tmp_path / "foreign.db"
        change(foreign, "CREATE TABLE recipes (words TEXT)")
        text = tmp_path / "text.db"
        text.write_text("no database at all")
        link = tmp_path / "link.db"
        link.symlink_to(finished.path)
        before = {path: path.read_bytes() for path in (foreign, text, finished.path)}

        for path, error in ((foreign, StorageError), (text, StorageError), (link, UsageError)):
            for dry_run in (False, True):
                with pytest.raises(error):
                    await purge_database(path, certificate=None, dry_run=dry_run, confirm=no_answer, tell=silent)
        with pytest.raises(StorageError):
            await purge_database(tmp_path / "none.db", certificate=None, dry_run=False, confirm=no_answer, tell=silent)
        with DatabaseLock(finished.path, purpose="run"):
            for dry_run in (False, True):
                with pytest.raises(LockHeldError) as caught:
                    await purge_database(
                        finished.path, certificate=None, dry_run=dry_run, confirm=no_answer, tell=silent
                    )
                assert caught.value.exit_code is ExitCode.TEMPORARY
        await purge_database(finished.path, certificate=None, dry_run=True, confirm=no_answer, tell=silent)
        with pytest.raises(StorageError, match="certificate"):
            await purge_database(
                finished.path, certificate=tmp_path / "no" / "c.json", dry_run=False, confirm=no_answer, tell=silent
            )

        assert {path: path.read_bytes() for path in before} == before
        assert finished.log_dir.is_dir()


async def test_a_purge_that_was_cut_short_in_the_database_itself_is_finished_by_the_next(
    open_finished: Callable[[], Any], tmp_path: Path
) -> None:
    async with open_finished() as finished:
        # As a kill leaves it: everything else is gone, the database is renamed and half of it is random.
        shutil.rmtree(finished.log_dir)
        doomed = finished.path.with_name(finished.path.name + ".purging")
        finished.path.rename(doomed)
        doomed.write_bytes(os.urandom(4096) + doomed.read_bytes()[4096:])

        await purge_database(finished.path, certificate=None, dry_run=False, confirm=no_answer, tell=silent)

        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(finished.path.name + ".pur")] == [
            next(tmp_path.glob("*.purged-*.json")).name
        ]
