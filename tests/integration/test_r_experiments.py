"""Experiments of the R project, taken up: what they become, over which cohort, and that no promise is broken by it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from r_databases import DATA_FILE, MD5, TEMPLATE, LegacyDatabase, dump, read_rows, writing_legacy

from narrun_async.app.batches import BatchRequest, cancel_batches, export_experiment, submit_batches
from narrun_async.app.endpoints import require_allowed_address
from narrun_async.app.examining import verify_database
from narrun_async.app.planning import NothingToDo, RunPlan, RunRequest, plan_resume
from narrun_async.app.privacy import scrub_database
from narrun_async.app.reviewing import Readers, rewrite_workbook, sample_review
from narrun_async.app.running import preview_run
from narrun_async.batching.shards import ShardLimits
from narrun_async.config import ExperimentConfig, OperationalSettings, parse_config
from narrun_async.errors import BadInputError, ConfigurationError, ExitCode, TemporaryError, UsageError
from narrun_async.metrics.sampling import Allocation, Stratifier
from narrun_async.models import (
    Detection,
    Envelope,
    ExperimentId,
    ExperimentStatus,
    Outcome,
    PageCursor,
    ProgressMark,
    ReviewId,
    RunMode,
    Selection,
)
from narrun_async.operations.adopting import Adoption, AdoptionRequest, adopt, plan_adoption
from narrun_async.operations.reviewing import SampleRequest
from narrun_async.stores import SqliteStore, open_sqlite_reader, open_sqlite_writer

X, Y = (ExperimentId(f"{letter}1111111-2222-4333-8444-555555555555") for letter in "ab")
GENERATIONS = ("a", "b", "c")
NARRATIVES = 8
ASKED = AdoptionRequest(
    given=None,
    config_file=None,
    operational=OperationalSettings(),
    max_narratives=None,
    api_url=None,
    log_root=Path("logs"),
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "experiments.db"


def write(path: Path, generation: str = "c", **columns: Any) -> None:
    """Eight narratives; of X the first five have results, the third of them an error."""
    with writing_legacy(path, generation) as file:
        add_narratives(file)
        file.add_experiment(X, **columns)
        add_results(file, X)


def add_narratives(file: LegacyDatabase, **columns: Any) -> None:
    for number in range(NARRATIVES):
        file.add_narrative(f"n{number}", "le" if number % 2 else "cme", manual_flag_ind=number % 3 == 0, **columns)


def add_results(file: LegacyDatabase, experiment_id: str, numbers: range = range(5)) -> None:
    for number in numbers:
        file.add_result(
            experiment_id,
            f"n{number}",
            "le" if number % 2 else "cme",
            error_occurred=int(number == 2),
            detected=int(number in (0, 1)),
            manual_flag_ind=int(number % 3 == 0),
            processed_at=f"2025-01-01 10:0{number}:00",
        )


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite_writer(path)
    try:
        yield store
    finally:
        await store.aclose()


async def plan(store: SqliteStore, **changes: Any) -> Adoption:
    return await plan_adoption(store, await store.load_experiment(X), replace(ASKED, **changes))


async def take_up(path: Path, **changes: Any) -> Adoption:
    async with opened(path) as store:
        adoption = await plan(store, **changes)
        await adopt(store, adoption)
        assert await store.load_experiment(X) == adoption.experiment  # what a plan shows is what it becomes
        assert await store.count_results(adoption.experiment) == adoption.counts
    return adoption


async def assert_sound(path: Path) -> None:
    """Nothing of ours is wrong, and nothing that was ours to mend is left."""
    seen = await verify_database(path, None, as_json=True)
    document = json.loads("\n".join(seen.lines))
    assert seen.exit_code is ExitCode.COMPLETED, [one for one in document["invariants"] if not one["holds"]]


def configuration(**sections: Mapping[str, Any]) -> ExperimentConfig:
    raw: dict[str, Any] = {
        "experiment": {"name": "of today"},
        "model": {"name": "m", "provider": "openai", "api_url": "http://10.0.0.1/v1", "temperature": 1.0},
        "prompt": {"version": "9", "user_template": "Another: <<TEXT>>"},
        "data": {"file": "of_today.xlsx"},
        "run": {},
    }
    for name, keys in sections.items():
        raw[name] = raw.get(name, {}) | dict(keys)
    return parse_config(raw, read_text=str, origin="of_today.yaml", environment={})


# --- what it becomes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_an_interrupted_experiment_gets_a_snapshot_a_cohort_and_true_counters(
    path: Path, generation: str
) -> None:
    write(path, generation, total_runtime_sec=None)
    before = dump(path)
    adoption = await take_up(path)

    snapshot = json.loads(adoption.experiment.config_json or "")
    assert snapshot["prompt"]["user_template"] == TEMPLATE
    assert snapshot["model"]["temperature"] == 0.2
    (row,) = read_rows(path, "SELECT * FROM experiments")
    assert (row["n_narratives_total"], row["cohort_last_narrative_id"]) == (NARRATIVES, NARRATIVES)
    assert (row["n_narratives_processed"], row["n_narratives_completed"], row["n_errors"]) == (5, 5, 1)
    assert (row["n_true_positive"], row["n_false_positive"], row["n_false_negative"], row["n_true_negative"]) == (
        *(1, 1, 1, 1),
    )
    assert row["accuracy"] == 0.5
    assert row["status"] == "interrupted"
    assert {one["run_id"] for one in dump(path)["narrative_results"]} == {None}
    # whatever of R's row was not empty and is another now can be read
    (old,) = before["experiments"]
    overwritten = {one["column_name"]: one["old_value"] for one in read_rows(path, "SELECT * FROM legacy_changes")}
    assert overwritten == {name: value for name, value in old.items() if value not in (None, row[name])}
    assert overwritten.keys() <= {
        *("status", "n_narratives_processed", "n_narratives_completed", "log_dir", "n_narratives_total"),
    }
    await assert_sound(path)


async def test_its_own_work_becomes_the_first_run_and_no_time_is_lost(path: Path) -> None:
    write(path, status="failed", total_runtime_sec=3600.5, end_time="2025-01-01 11:00:01")
    await take_up(path)
    async with opened(path) as store:
        (run,) = await store.list_runs(X)
    assert (run.mode, run.selection, run.concurrency) == (RunMode.LEGACY, "missing", 1)
    assert (run.runtime_s, run.n_saved, run.exit_code) == (3600.5, 5, None)
    assert run.ended_why == "the work of R, which left it as failed"
    assert run.ended_at is not None
    assert run.started_at < run.ended_at
    assert read_rows(path, "SELECT api_url, host FROM runs") == [
        {"api_url": "http://localhost:1234/v1/chat/completions", "host": "DESKTOP-1"}
    ]


@pytest.mark.parametrize(
    ("columns", "runtime_s"),
    [
        ({"total_runtime_sec": None}, 5 * 4.5),
        ({"total_runtime_sec": -3.0}, 5 * 4.5),
        ({"start_time": "2025-01-02 00:00:00", "end_time": "2025-01-01 00:00:00"}, 5 * 4.5),
        ({"start_time": "yesterday", "created_at": None, "end_time": "31.12.2024"}, 5 * 4.5),
        ({"start_time": None, "created_at": None}, 5 * 4.5),
        ({"start_time": "0001-01-01 00:00:00"}, 5 * 4.5),
    ],
)
async def test_a_clock_that_was_wrong_or_silent_breaks_no_promise(
    path: Path, columns: dict[str, Any], runtime_s: float
) -> None:
    write(path, **columns)
    await take_up(path)
    (run,) = read_rows(path, "SELECT * FROM runs")
    assert run["runtime_s"] == runtime_s
    await assert_sound(path)


@pytest.mark.parametrize("status", ["running", "failed", "completed", "", None, "done"])
async def test_every_status_that_it_was_left_in_is_made_true(path: Path, status: str | None) -> None:
    write(path, status=status)
    adoption = await take_up(path)
    # completed, the cohort ends at the last result, so that nothing is missing
    expected = {"failed": ExperimentStatus.FAILED, "completed": ExperimentStatus.COMPLETED}
    assert adoption.experiment.status is expected.get(status or "", ExperimentStatus.INTERRUPTED)
    await assert_sound(path)


# --- the cohort ------------------------------------------------------------------------------------------------------


async def test_a_completed_pilot_does_not_grow(path: Path) -> None:
    write(path, status="completed", n_narratives_total=5)
    adoption = await take_up(path)
    assert (adoption.experiment.cohort.n_narratives, adoption.counts.n_missing) == (5, 0)
    assert adoption.config.run.max_narratives == 5


async def test_a_completed_experiment_with_holes_is_not_called_complete(path: Path) -> None:
    write(path, status="completed")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM narrative_results WHERE incident_id = 'n1'")
    adoption = await take_up(path)
    assert adoption.experiment.status is ExperimentStatus.INTERRUPTED
    assert adoption.counts.n_missing == 1
    await assert_sound(path)


@pytest.mark.parametrize(("status", "expected"), [("running", 6), ("completed", 5)])
async def test_a_person_may_make_the_cohort_smaller(path: Path, status: str, expected: int) -> None:
    write(path, status=status)
    adoption = await take_up(path, max_narratives=6)
    assert adoption.experiment.cohort.n_narratives == expected
    assert f"the first {expected} of 8 narratives" in adoption.notices[0]
    await assert_sound(path)


async def test_a_cohort_that_would_leave_results_out_is_refused_with_the_smallest_that_does_not(path: Path) -> None:
    write(path)
    before = dump(path)
    async with opened(path) as store:
        with pytest.raises(BadInputError, match="smallest --max-narratives that holds them all is 5"):
            await plan(store, max_narratives=4)
        assert (await plan(store, max_narratives=5)).counts.n_missing == 0
        assert (await plan(store, max_narratives=900)).experiment.cohort.n_narratives == NARRATIVES
    assert dump(path)["narrative_results"] == [
        dict.fromkeys(dump(path)["narrative_results"][0]) | row for row in before["narrative_results"]
    ]


@pytest.mark.parametrize(
    ("recorded", "others", "named", "expected"),
    [
        (DATA_FILE, ["D:/else/cases.xlsx"], None, DATA_FILE),
        ("/home/r/cases.xlsx", ["D:/else.xlsx"], None, DATA_FILE),
        (r"D:\moved\cases.xlsx", ["D:/else.xlsx"], None, DATA_FILE),
        ("gone.xlsx", [], None, DATA_FILE),
        (None, [], None, DATA_FILE),
        ("gone.xlsx", ["D:/else.xlsx"], "D:/else.xlsx", "D:/else.xlsx"),
        (None, ["D:/else.xlsx"], "here/cases.xlsx", DATA_FILE),
        ("cases.xlsx", ["D:/else/cases.xlsx"], "D:/else/cases.xlsx", "D:/else/cases.xlsx"),
    ],
)
async def test_the_cohort_comes_from_the_file_that_it_names(
    path: Path, recorded: str | None, others: list[str], named: str | None, expected: str
) -> None:
    with writing_legacy(path, "a") as file:
        add_narratives(file)
        for number, other in enumerate(others):
            file.add_narrative(f"other{number}", data_source=other)
        file.add_experiment(X, data_file=recorded)
    given = configuration(data={"file": named}) if named else None
    async with opened(path) as store:
        adoption = await plan(store, given=given)
        (source,) = [one for one in await store.list_sources() if one.path == expected]
    assert adoption.experiment.cohort.data_checksum == source.checksum
    assert expected in adoption.notices[0]


@pytest.mark.parametrize("recorded", [None, "gone.xlsx", "cases.xlsx"])
async def test_a_file_that_could_be_several_is_refused_with_their_list(path: Path, recorded: str | None) -> None:
    with writing_legacy(path, "a") as file:
        add_narratives(file)
        file.add_narrative("other", data_source="D:/else/cases.xlsx")
        file.add_experiment(X, data_file=recorded)
    async with opened(path) as store:
        with pytest.raises(BadInputError, match=r"data\.file") as refused:
            await plan(store)
    for listed in (f"{DATA_FILE} (8)", "D:/else/cases.xlsx (1)"):
        assert listed in str(refused.value)


async def test_a_database_without_narratives_has_no_cohort(path: Path) -> None:
    with writing_legacy(path, "c") as file:
        file.add_experiment(X)
    async with opened(path) as store:
        with pytest.raises(BadInputError, match="no narratives"):
            await plan(store)


async def test_results_of_no_narrative_of_the_cohort_are_set_aside_whole(path: Path) -> None:
    write(path, "a")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "INSERT INTO source_narratives (incident_id, narrative_type, narrative_text, data_source)"
            " VALUES ('elsewhere', 'cme', 'made up', 'D:/else.xlsx')"
        )
        for incident in ("'nobody'", "'elsewhere'", "NULL"):
            db.execute(
                "INSERT INTO narrative_results (experiment_id, incident_id, narrative_type, detected)"
                f" VALUES ('{X}', {incident}, 'cme', 1)"
            )
    before = dump(path)["narrative_results"]
    adoption = await take_up(path)

    assert any("3 of its results belong to no narrative" in notice for notice in adoption.notices)
    assert (adoption.counts.n_success, adoption.counts.n_errors) == (4, 1)
    assert {row["why"] for row in read_rows(path, "SELECT why FROM legacy_results")} == {
        "outside the cohort: no narrative has this id and type",
        "outside the cohort: its narrative came from D:/else.xlsx",
    }
    together = [*dump(path)["narrative_results"], *dump(path)["legacy_results"]]
    assert sorted(row["result_id"] for row in together) == [row["result_id"] for row in before]
    async with opened(path) as store:
        (report,) = (await store.load_inheritance(X)).set_aside
        assert await store.sum_tokens(X) == (5 * 300, 5 * 40)
    assert (report.n_before, report.n_moved, report.n_after) == (8, 3, 5)
    await assert_sound(path)


# --- how its narratives are known ------------------------------------------------------------------------------------


async def test_narratives_without_a_checksum_are_known_by_their_rows_and_then_by_their_workbook(
    path: Path, build: Any
) -> None:
    source = build.source(NARRATIVES, path="new/place.xlsx")
    with writing_legacy(path, "a") as file:
        for one in source.narratives:
            file.add_narrative(one.incident_id, one.narrative_type, narrative_text=one.narrative_text)
        file.add_experiment(X)
        file.add_result(X, source.narratives[0].incident_id, source.narratives[0].narrative_type)
    adoption = await take_up(path)
    assert adoption.experiment.cohort.data_checksum.startswith("rows-")
    assert len(adoption.experiment.cohort.data_checksum) not in (32, 64)
    async with opened(path) as store:
        report = await store.add_source(source, on_conflict="error")
        assert (report.loaded, report.source.checksum) == (False, source.checksum)
        assert await store.find_source(checksums=[source.checksum]) is not None
        experiment = await store.load_experiment(X)
        assert experiment.cohort.data_checksum == source.checksum
        run_id = await store.begin_run(build.run_start(experiment))
        page = await store.load_page(experiment, Selection.MISSING, run_id=run_id, after=PageCursor(), limit=99)
        assert len(page) == NARRATIVES - 1
    await assert_sound(path)


async def test_narratives_with_a_checksum_keep_it(path: Path) -> None:
    write(path, "b")
    assert (await take_up(path)).experiment.cohort.data_checksum == MD5


async def test_two_files_without_a_checksum_are_two_sources(path: Path) -> None:
    with writing_legacy(path, "a") as file:
        add_narratives(file)
        file.add_narrative("other", data_source="D:/else.xlsx")
        file.add_narrative("nameless", data_source=None)
    async with opened(path) as store:
        sources = await store.list_sources()
    assert [(one.path, one.n_narratives) for one in sources] == [(DATA_FILE, 8), ("D:/else.xlsx", 1), ("", 1)]
    assert len({one.checksum for one in sources}) == 3


# --- its logs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (f"logs/experiments/{X}", f"logs/experiments/{X}"),
        ("old/logs", "old/logs"),
        (None, f"elsewhere/experiments/{X}"),
        ("", f"elsewhere/experiments/{X}"),
        ("C:/ipv/logs", f"elsewhere/experiments/{X}"),
        (r"ipv\logs", f"elsewhere/experiments/{X}"),
        ("taken/logs", f"elsewhere/experiments/{X}"),
        ("shared", f"elsewhere/experiments/{X}"),
    ],
)
async def test_logs_go_where_r_wrote_them_if_that_is_here_and_its_own(
    path: Path, recorded: str | None, expected: str
) -> None:
    (path.parent / "taken").write_text("a file where a directory would have to be")
    write(path, log_dir=recorded)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"INSERT INTO experiments (experiment_id, log_dir) VALUES ('{Y}', 'shared')")
    adoption = await take_up(path, log_root=Path("elsewhere"))
    assert adoption.experiment.log_dir == str(path.parent / expected)
    was_moved = bool(recorded) and recorded != expected
    assert was_moved == any("log directory" in notice for notice in adoption.notices)


# --- what a person says ----------------------------------------------------------------------------------------------


async def test_a_configuration_says_whether_narratives_may_leave_and_where_the_key_is(path: Path) -> None:
    write(path)
    given = configuration(
        privacy={"allow_remote": True, "approval_note": "by the board of tests"}, model={"api_key_env": "KEY_OF_TESTS"}
    )
    adoption = await take_up(path, given=given, config_file=Path("of_today.yaml"))
    stored = json.loads(adoption.experiment.config_json or "")
    assert stored["privacy"] == {"allow_remote": True, "approval_note": "by the board of tests"}
    assert stored["model"]["api_key_env"] == "KEY_OF_TESTS"
    assert (stored["model"]["name"], stored["prompt"]["user_template"]) == ("gpt-oss-120b", TEMPLATE)
    assert adoption.experiment.columns["config_file"] == str(path.parent / "of_today.yaml")
    await assert_sound(path)


async def test_an_address_with_a_key_is_refused_and_another_one_may_be_given(path: Path) -> None:
    write(path, api_url="http://me:word@localhost:1234/v1/chat/completions")
    async with opened(path) as store:
        with pytest.raises(ConfigurationError, match="--api-url"):
            await plan(store)
    adoption = await take_up(path, api_url="http://localhost:1234/v1")
    assert adoption.config.model.api_url == "http://localhost:1234/v1"
    assert any("--api-url" in notice for notice in adoption.notices)
    assert read_rows(path, "SELECT api_url FROM runs") == [{"api_url": None}]  # the key is not stored a second time
    await assert_sound(path)


@pytest.mark.parametrize(
    ("url", "allow_remote", "error"),
    [
        ("http://127.0.0.1:9/v1", False, None),
        ("http://10.1.2.3/v1", False, None),
        ("http://93.184.216.34/v1", False, ConfigurationError),
        ("http://93.184.216.34/v1", True, None),
        ("http://no-such-host.invalid/v1", True, TemporaryError),
    ],
)
async def test_where_narratives_may_not_go_nothing_is_stored_for_good(
    url: str, allow_remote: bool, error: type[Exception] | None
) -> None:
    if error is None:
        await require_allowed_address(url, allow_remote=allow_remote)
        return
    with pytest.raises(error, match="nothing was changed"):
        await require_allowed_address(url, allow_remote=allow_remote)


# --- a resume --------------------------------------------------------------------------------------------------------


def request(path: Path, wanted: str = X, **changes: Any) -> RunRequest:
    return replace(RunRequest(database=path, resume=True, experiment_id=wanted), **changes)


async def resume(path: Path, wanted: str = X, **changes: Any) -> RunPlan | NothingToDo:
    async with opened(path) as store:
        return await plan_resume(store, path, request(path, wanted, **changes), {}, changes.get("given"))


@pytest.mark.parametrize("wanted", [X, X[:8], "latest"])
async def test_it_is_found_as_any_experiment_is(path: Path, wanted: str) -> None:
    write(path)
    found = await resume(path, wanted)
    assert isinstance(found, RunPlan)
    assert (found.experiment.experiment_id, found.mode, found.n_remaining) == (X, RunMode.RESUME, 3)
    assert found.adoption is not None


async def test_a_completed_one_is_left_as_it_is_unless_errors_are_to_be_retried(path: Path) -> None:
    write(path, status="completed")
    await resume(path)
    before = dump(path)
    finished = await resume(path)
    assert isinstance(finished, NothingToDo)
    assert dump(path) == before
    retried = await resume(path, retry_errors_only=True)
    assert isinstance(retried, RunPlan)
    assert (retried.n_remaining, retried.experiment.cohort.n_narratives) == (1, 5)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM narrative_results WHERE error_occurred = 1")
    assert isinstance(await resume(path, retry_errors_only=True), NothingToDo)


async def test_people_may_read_a_sample_of_one_that_r_has_completed(path: Path) -> None:
    """Of five rows one is an error, and one confidence is a word; the narratives after them have none."""
    write(path, status="completed", data_checksum=None)
    await resume(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE narrative_results SET confidence = 'high' WHERE incident_id = 'n3'")
    request = SampleRequest(n=9, stratifiers=list(Stratifier), bands=(0.5,), allocation=Allocation.EQUAL, seed=1)
    told: list[str] = []
    readers = Readers(names=["anna"], are_blinded=True)
    await sample_review(path, X, request, readers, path.parent / "reviews", tell=told.append)
    assert "sample      4 of 4 narratives with an answer (equal)" in told
    assert (path.parent / "reviews" / "review-1-anna.xlsx").is_file()
    await scrub_database(path, dry_run=False, confirm=lambda _: None, tell=lambda _: None)
    with pytest.raises(
        BadInputError, match=r"the texts of 4 of these 4 narratives were scrubbed .* nobody can read them"
    ):
        await sample_review(path, X, request, replace(readers, names=["ben"]), path.parent / "again", tell=told.append)
    with pytest.raises(BadInputError, match="nobody can read them"):
        await rewrite_workbook(path, ReviewId(1), "anna", path.parent / "again", tell=told.append)
    assert not (path.parent / "again").exists()


async def test_one_whose_settings_are_lost_can_still_be_nothing_to_do(path: Path) -> None:
    write(path, status="completed", temperature=None)
    assert isinstance(await resume(path), NothingToDo)
    with pytest.raises(ConfigurationError, match="`temperature`"):
        await resume(path, retry_errors_only=True)


async def test_one_whose_results_lost_their_narratives_over_an_id_is_not_taken_up(path: Path) -> None:
    with writing_legacy(path, "c") as file:
        file.add_narrative("100000")
        file.add_experiment(X)
        file.add_result(X, "1e+05", "cme")
    with pytest.raises(BadInputError, match="paid for again"):
        await resume(path)


async def test_a_command_of_batches_that_brings_a_file_up_to_date_says_so(path: Path) -> None:
    with writing_legacy(path, "a") as file:
        add_narratives(file)
        file.add_experiment(X)
        add_results(file, X)
        add_results(file, X, range(1))
    told: list[str] = []
    request = BatchRequest(run=RunRequest(database=path, resume=True, experiment_id=X), environment={})
    await cancel_batches(request, abandons=False, tell=told.append)
    assert "the file as it was" in told[0]
    assert "1 moved to legacy_results" in told[1]


async def test_its_batches_are_exported_where_a_configuration_lets_narratives_leave(path: Path) -> None:
    """Without one it is left as it is, and the other commands of batches do not say that it is taken up."""
    write(path, api_url="http://93.184.216.34/v1/chat/completions")
    await resume(path)  # brings the file up to date
    before, told = dump(path), list[str]()
    asked = BatchRequest(run=request(path), environment={"OPENAI_API_KEY": "k"})
    limits = ShardLimits(max_requests=100, max_bytes=1_000_000)

    async def export(asked: BatchRequest) -> ExitCode:
        return await export_experiment(asked, limits=limits, out=None, tell=told.append, say=told.append)

    with pytest.raises(ConfigurationError, match=r"private addresses only, and 93\.184\.216\.34 is none .* --config"):
        await export(asked)
    told.clear()
    await submit_batches(asked, resubmit=False, tell=told.append)
    assert [line for line in told if "taken up" in line] == []
    assert dump(path) == before

    config = path.with_name("of_today.yaml")
    config.write_text(
        yaml.safe_dump(
            {
                "experiment": {"name": "of today"},
                "model": {"name": "m", "provider": "openai", "api_url": "http://10.0.0.1/v1", "temperature": 1.0},
                "prompt": {"version": "9", "user_template": "Another: <<TEXT>>"},
                "data": {"file": "of_today.xlsx"},
                "run": {},
                "privacy": {"allow_remote": True, "approval_note": "the board of these tests"},
            }
        )
    )
    shutil.copy(path, path.with_name("other.db"))
    elsewhere = replace(asked.run, database=path.with_name("other.db"), api_url="http://127.0.0.1:1/v1")
    assert await export(replace(asked, run=elsewhere)) is ExitCode.COMPLETED
    told.clear()
    assert await export(replace(asked, run=replace(asked.run, config_file=config))) is ExitCode.COMPLETED
    assert any("taken up" in line for line in told) and any(line.startswith("batch 1: 3 requests") for line in told)
    with pytest.raises(UsageError, match="--api-url is for an experiment of R that is taken up"):
        await export(replace(asked, run=replace(asked.run, api_url="http://localhost:1/v1")))
    await assert_sound(path)


async def test_a_dry_run_shows_it_and_writes_nothing(path: Path) -> None:
    write(path)
    await resume(path)  # brings the file up to date
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    told: list[str] = []
    code = await preview_run(request(path), {}, tell=told.append)
    assert code is ExitCode.COMPLETED
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert any(
        "an experiment of R, which left it as running, is taken up; its cohort is all 8 narratives" in line
        for line in told
    )
    assert any(line.startswith("to do      3 narratives") for line in told)


async def test_the_cohort_is_frozen_once_it_is_taken_up(path: Path) -> None:
    write(path)
    narrowed = await resume(path, overrides={"run.max_narratives": 6})
    assert isinstance(narrowed, RunPlan)
    assert narrowed.n_remaining == 1
    await take_up(path)
    with pytest.raises(UsageError, match="frozen"):
        await resume(path, overrides={"run.max_narratives": 6})
    again = await resume(path)
    assert isinstance(again, RunPlan)
    assert (again.adoption, again.n_remaining, again.notices) == (None, 3, ())


async def test_an_error_of_r_is_replaced_and_its_message_kept(path: Path, build: Any) -> None:
    write(path)
    await take_up(path)
    async with opened(path) as store:
        experiment = await store.load_experiment(X)
        run_id = await store.begin_run(build.run_start(experiment, Selection.ERRORS))
        (item,) = await store.load_page(experiment, Selection.ERRORS, run_id=run_id, after=PageCursor(), limit=9)
        verdict = Detection(detected=True, confidence=0.5, rationale="a made-up reason", parse_method="strict")
        answer = Outcome(item=item, verdict=verdict, attempt=None, envelope=Envelope(), raw_response="{}")
        mark = ProgressMark(runtime_s=1.0, estimated_completion_time=None)
        await store.write_batch(X, run_id, [answer], mark)
    (row,) = read_rows(path, "SELECT * FROM narrative_results WHERE first_error_message IS NOT NULL")
    assert (row["incident_id"], row["error_occurred"], row["detected"]) == ("n2", 0, 1)
    assert (row["first_error_message"], row["attempt_count"]) == ("Timeout was reached", 2)
    assert read_rows(path, "SELECT n_errors, n_narratives_processed AS n FROM experiments") == [{"n_errors": 0, "n": 5}]


# --- its texts -------------------------------------------------------------------------------------------------------


async def test_scrubbing_takes_the_texts_out_of_what_was_set_aside(path: Path) -> None:
    write(path, "a")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "INSERT INTO narrative_results (experiment_id, incident_id, narrative_type, narrative_text,"
            f" rationale, detected) VALUES ('{X}', 'nobody', 'cme', 'CANARY in a text', 'CANARY quoted', 1)"
        )
    await take_up(path)
    assert read_rows(path, "SELECT rationale FROM legacy_results") == [{"rationale": "CANARY quoted"}]
    await scrub_database(path, dry_run=False, confirm=lambda _: None, tell=lambda _: None)
    for file in path.parent.glob("experiments.db*"):
        if file.suffix != ".bak":
            assert b"CANARY" not in file.read_bytes(), file.name
    assert read_rows(path, "SELECT COUNT(*) AS n FROM legacy_results") == [{"n": 1}]
    await assert_sound(path)


async def test_an_experiment_whose_texts_were_scrubbed_is_not_taken_up_to_be_asked(path: Path) -> None:
    write(path)
    await scrub_database(path, dry_run=False, confirm=lambda _: None, tell=lambda _: None)
    with pytest.raises(BadInputError, match="scrubbed"):
        await resume(path)
    store = await open_sqlite_reader(path)
    try:
        assert (await store.load_experiment(X)).config_json is None
    finally:
        await store.aclose()
