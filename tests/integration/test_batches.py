"""Batches from their export to their rows, over real sockets and a real database: nothing lost, nothing paid twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from functools import partial
from pathlib import Path

import anyio
import pytest
from batch_rig import BatchRig, mode_of, open_batch_rig, vllm_lines, write_lines

from narrun_async.app.batches import list_batches
from narrun_async.app.planning import RunRequest
from narrun_async.app.privacy import purge_database, scrub_database
from narrun_async.app.running import preview_run
from narrun_async.app.showing import show_experiment
from narrun_async.batching.shards import ShardLimits
from narrun_async.errors import (
    BadInputError,
    BatchesOpenError,
    ConfigurationError,
    ExitCode,
    FatalEndpointError,
    LockHeldError,
    NarrunError,
    StorageError,
    TemporaryError,
    UsageError,
)
from narrun_async.simulation.behaviour import Behaviour
from narrun_async.stores import DatabaseLock

OpenRig = Callable[..., AbstractAsyncContextManager[BatchRig]]

#: faults that stay with a narrative, so that a batch meets what a run meets
LASTING = {"refusal": 0.1, "malformed": 0.1, "http_400": 0.1}


@pytest.fixture
def open_rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenRig:
    monkeypatch.chdir(tmp_path)
    return partial(open_batch_rig, tmp_path)


def requests_in(directory: Path, number: int = 1) -> Path:
    """The only batch file of that number that was exported there."""
    (path,) = directory.glob(f"????????-batch-{number:04}.jsonl")
    return path


# --- the whole way ---------------------------------------------------------------------------------------------------


async def test_the_rows_of_batches_are_those_of_a_run(open_rig: OpenRig, tmp_path: Path) -> None:
    async with open_rig(fault_rates=LASTING) as rig:
        config = rig.write_config(60)
        limits = ShardLimits(max_requests=25)
        assert await rig.all_of_it(config, limits=limits) is ExitCode.COMPLETED_WITH_ERRORS
        from_batches = rig.rows()
        assert rig.states() == ["closed"] * 3
        assert [row["mode"] for row in rig.ask("SELECT mode FROM runs")] == ["batch"]
        assert rig.ask_one("SELECT status FROM experiments") == "completed"
        await rig.verify()
        ledger = rig.ask("SELECT batch_id, COUNT(*) AS n, SUM(prompt_tokens) AS t FROM attempts GROUP BY 1 ORDER BY 1")
        assert [(row["batch_id"], row["n"]) for row in ledger] == [(1, 25), (2, 25), (3, 10)]
        assert all(row["t"] for row in ledger)
        assert rig.endpoint.stats().calls == 0

        (tmp_path / "data").rename(tmp_path / "data-of-batches")
        assert await rig.run(config_file=config) is ExitCode.COMPLETED_WITH_ERRORS
        assert rig.rows() == from_batches


async def test_what_takes_no_call_gets_its_row_when_the_answers_are_collected(
    open_rig: OpenRig, tmp_path: Path
) -> None:
    async with open_rig() as rig:
        config = rig.write_config(20, run__skip_placeholders=True, run__ask_identical_once=True)
        table = tmp_path / "narratives.csv"
        first = table.read_text().splitlines()[1].split(",", 2)[2]
        table.write_text(f"{table.read_text()}8001,cme,No narrative available.,0\n8002,cme,{first}\n")
        assert await rig.all_of_it(config) is ExitCode.COMPLETED
        from_batches = rig.rows()
        assert [row["n"] for row in rig.ask("SELECT n_requests AS n FROM batches")] == [20]
        kinds = "SELECT COUNT(skip_reason), COUNT(copied_from) FROM narrative_results"
        assert tuple(rig.ask(kinds)[0].values()) == (1, 1)
        assert rig.ask_one("SELECT status FROM experiments") == "completed"
        await rig.verify()

        (tmp_path / "data").rename(tmp_path / "data-of-batches")
        assert await rig.run(config_file=config) is ExitCode.COMPLETED
        assert rig.rows() == from_batches


async def test_a_batch_asks_exactly_what_a_run_asks(open_rig: OpenRig, tmp_path: Path) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config(5, model__max_tokens=300, model__seed=7))
        await rig.verify()
        (path,) = (tmp_path / "logs").rglob("batch-0001.jsonl")
        asked = [json.loads(line) for line in path.read_text().splitlines()]
        assert [one["body"]["messages"][1]["content"][:24] for one in asked] == [
            f"Read: Synthetic account {n}"[:24] for n in range(5)
        ]
        assert {(one["body"]["model"], one["body"]["max_tokens"], one["body"]["seed"]) for one in asked} == {
            ("model-of-tests", 300, 7)
        }
        assert len({one["custom_id"] for one in asked}) == 5


async def test_answers_in_any_order_twice_of_nobody_and_unreadable_make_one_row_each(open_rig: OpenRig) -> None:
    async with open_rig(fault_rates=LASTING) as rig:
        rig.endpoint.batches.change(shuffled=1, odd_lines=1)
        config = rig.write_config()
        assert await rig.all_of_it(config) is ExitCode.COMPLETED_WITH_ERRORS
        assert len(rig.rows()) == 40
        assert rig.ask_one("SELECT COUNT(*) FROM attempts") == 40
        await rig.verify()
        told = "\n".join(rig.told)
        assert "lines answer no request of these batches" in told
        assert "lines cannot be read" in told
        # What could not be read may be looked at: the files stay.
        assert rig.batch_files()
        ranks = [row["row_num"] for row in rig.ask("SELECT row_num FROM narrative_results ORDER BY incident_id")]
        assert ranks == list(range(1, 41))


async def test_what_was_exported_and_collected_is_removed_and_was_for_its_owner_only(
    open_rig: OpenRig, tmp_path: Path
) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config())
        (path,) = (tmp_path / "logs").rglob("batch-0001.jsonl")
        assert (mode_of(path), mode_of(path.parent)) == (0o600, 0o700)
        await rig.submit()
        await rig.collect(keeps_files=True)
        assert rig.batch_files() == ["batch-0001.jsonl", "batch-0001.output.jsonl"]
        assert mode_of(path.with_name("batch-0001.output.jsonl")) == 0o600
    async with open_rig() as rig:
        shutil.rmtree(tmp_path / "data")
        shutil.rmtree(tmp_path / "logs")
        await rig.all_of_it(rig.write_config())
        assert rig.batch_files() == []


# --- what does not come back -----------------------------------------------------------------------------------------


async def test_what_an_expired_batch_did_not_answer_is_missing_again_and_is_all_that_is_exported_next(
    open_rig: OpenRig,
) -> None:
    async with open_rig() as rig:
        rig.endpoint.batches.change(expired_share=0.25)
        assert await rig.all_of_it(rig.write_config()) is ExitCode.TEMPORARY
        assert (len(rig.rows()), rig.n_missing()) == (30, 10)
        assert rig.ask_one("SELECT COUNT(*) FROM attempts") == 30  # no call was made for the others
        assert any("10 requests were not answered: batch_expired 10" in line for line in rig.told)
        assert rig.ask_one("SELECT status FROM experiments") == "interrupted"
        await rig.verify()

        rig.endpoint.batches.change(expired_share=0)
        await rig.export()
        assert rig.ask_one("SELECT n_requests FROM batches WHERE number = 2") == 10
        await rig.submit()
        assert await rig.collect() is ExitCode.COMPLETED
        assert rig.endpoint.batches.stats().max_per_request == 1
        await rig.verify()


async def test_a_cancelled_batch_gives_what_it_answered_and_the_rest_back(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        rig.endpoint.batches.change(latency_ms=1e6)
        await rig.export(new=rig.write_config())
        await rig.submit()
        assert await rig.poll() is ExitCode.TEMPORARY
        assert await rig.collect() is ExitCode.TEMPORARY
        await rig.cancel()
        assert rig.states() == ["submitted"]
        assert await rig.collect() is ExitCode.TEMPORARY
        assert (rig.states(), len(rig.rows()), rig.n_missing()) == (["closed"], 20, 20)
        await rig.verify()
        assert await rig.resume() is ExitCode.COMPLETED
        assert rig.endpoint.stats().calls == 20


async def test_what_failed_in_passing_is_in_the_ledger_and_missing_and_a_run_may_finish_it(open_rig: OpenRig) -> None:
    async with open_rig(fault_rates={"http_500": 0.3, "http_429": 0.2}) as rig:
        assert await rig.all_of_it(rig.write_config()) is ExitCode.TEMPORARY
        failed = rig.ask("SELECT error_category, charged, batch_id FROM attempts WHERE error_category IS NOT NULL")
        assert {row["error_category"] for row in failed} == {"server_error", "overloaded"}
        assert {(row["charged"], row["batch_id"]) for row in failed} == {(0, 1)}
        assert len(failed) == rig.n_missing() > 5
        await rig.verify()
        rig.endpoint.change_behaviour(fault_rates={})
        assert await rig.resume() is ExitCode.COMPLETED
        assert rig.endpoint.stats().calls == len(failed)
        await rig.verify()


async def test_a_batch_whose_file_was_refused_closes_with_the_reason_and_nothing_is_lost(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        rig.endpoint.batches.change(invalid=1)
        await rig.export(new=rig.write_config())
        await rig.submit()
        assert await rig.poll() is ExitCode.COMPLETED
        assert any("failed (invalid_json_line in line 1)" in line for line in rig.said)
        assert await rig.collect() is ExitCode.TEMPORARY
        assert (rig.states(), rig.n_missing()) == (["closed"], 40)
        assert rig.ask_one("SELECT remote_complaint FROM batches") == "invalid_json_line in line 1"
        rig.endpoint.batches.change(invalid=0)
        await rig.export()
        await rig.submit()
        assert await rig.collect() is ExitCode.COMPLETED


async def test_error_rows_are_retried_by_a_batch_and_a_success_is_never_touched(open_rig: OpenRig) -> None:
    async with open_rig(fault_rates={"refusal": 0.3}) as rig:
        assert await rig.all_of_it(rig.write_config()) is ExitCode.COMPLETED_WITH_ERRORS
        before = rig.rows()
        n_errors = sum(row["error_occurred"] for row in before.values())
        rig.endpoint.change_behaviour(fault_rates={})
        await rig.export(retry_errors_only=True)
        assert rig.ask_one("SELECT n_requests FROM batches WHERE number = 2") == n_errors > 3
        assert rig.ask_one("SELECT selection FROM batches WHERE number = 2") == "errors"
        await rig.submit()
        assert await rig.collect() is ExitCode.COMPLETED
        after = rig.rows()
        assert not any(row["error_occurred"] for row in after.values())
        for key, row in before.items():
            assert row["error_occurred"] or after[key] == row
        retried = rig.ask("SELECT first_error_message, attempt_count FROM narrative_results WHERE attempt_count > 1")
        assert len(retried) == n_errors
        assert all(row["first_error_message"] for row in retried)
        await rig.verify()


async def test_what_is_missing_and_what_failed_can_be_one_batch(open_rig: OpenRig) -> None:
    async with open_rig(fault_rates={"refusal": 0.3}) as rig:
        rig.endpoint.batches.change(expired_share=0.25)
        await rig.all_of_it(rig.write_config())
        n_errors = sum(row["error_occurred"] for row in rig.rows().values())
        rig.endpoint.change_behaviour(fault_rates={})
        rig.endpoint.batches.change(expired_share=0)
        await rig.export(retry_errors=True)
        assert rig.ask_one("SELECT n_requests FROM batches WHERE number = 2") == n_errors + rig.n_missing()
        await rig.submit()
        assert await rig.collect() is ExitCode.COMPLETED
        assert (len(rig.rows()), rig.ask_one("SELECT MAX(attempt_count) FROM narrative_results")) == (40, 2)
        await rig.verify()


# --- paid once -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("B03")
async def test_a_lost_answer_to_an_upload_or_a_creation_leads_to_one_file_and_one_batch(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        rig.endpoint.batches.change(lost_uploads=1, lost_creations=1)
        await rig.export(new=rig.write_config())
        await rig.submit()
        stats = rig.endpoint.batches.stats()
        assert (stats.uploads, stats.batches, stats.max_per_request) == (1, 1, 1)
        assert await rig.collect() is ExitCode.COMPLETED


@pytest.mark.fault("B03")
async def test_a_batch_that_the_list_shows_late_is_waited_for_and_not_created_twice(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        rig.endpoint.batches.change(lost_creations=1, listed_after_ms=150)
        await rig.export(new=rig.write_config())
        await rig.submit(settle_s=2.0)
        assert rig.states() == ["submitted"]
        assert rig.endpoint.batches.stats().batches == 1


@pytest.mark.fault("B03")
async def test_a_creation_that_never_happened_is_known_after_a_while_and_done_by_the_next_command(
    open_rig: OpenRig,
) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config())
        rig.endpoint.batches.change(creation_status=500)
        with pytest.raises(TemporaryError, match="batch 1 was not created"):
            await rig.submit()
        assert rig.states() == ["exported"]
        rig.endpoint.batches.change(creation_status=0)
        await rig.submit()
        stats = rig.endpoint.batches.stats()
        assert (stats.uploads, stats.batches) == (1, 1)  # its file was found again


async def test_a_refused_creation_is_told_in_the_providers_words_and_leaves_the_batch_to_be_sent(
    open_rig: OpenRig,
) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config())
        for status, kind in ((429, TemporaryError), (400, ConfigurationError), (403, FatalEndpointError)):
            rig.endpoint.batches.change(creation_status=status)
            with pytest.raises(kind, match="batch 1 was not created"):
                await rig.submit()
            assert rig.states() == ["exported"]
        with pytest.raises(BatchesOpenError):
            await rig.resume()


@pytest.mark.fault("B03")
async def test_where_the_provider_cannot_list_a_doubt_is_left_to_a_person(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        rig.endpoint.batches.change(unlisted=1)
        await rig.export(new=rig.write_config(), limits=ShardLimits(max_requests=20))
        await rig.submit(numbers=[1])  # nothing was ever sent, so there is no doubt
        rig.endpoint.batches.change(lost_creations=1)
        for _ in range(2):
            with pytest.raises(TemporaryError, match="only a person can tell") as told:
                await rig.submit()
            assert "--resubmit" in told.value.advice
            assert rig.states() == ["submitted", "creating"]
        assert rig.endpoint.batches.stats().batches == 2
        with pytest.raises(UsageError, match="no batch 9"):
            await rig.submit(resubmit=True, numbers=[9])
        await rig.submit(resubmit=True)  # on the word of a person
        stats = rig.endpoint.batches.stats()
        assert (stats.batches, len(stats.batches_by_token)) == (3, 3)
        assert rig.ask_one("SELECT n_resubmissions FROM batches WHERE number = 2") == 1


async def test_only_a_batch_in_doubt_can_be_resubmitted(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config())
        with pytest.raises(UsageError, match="in doubt"):
            await rig.submit(resubmit=True)
        assert rig.endpoint.batches.stats().batches == 0


async def test_a_database_that_was_put_back_finds_its_batches_again_instead_of_paying_twice(
    open_rig: OpenRig, tmp_path: Path
) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config())
        await rig.cancel()
        shutil.copytree(tmp_path / "data", tmp_path / "older")
        await rig.export()
        await rig.submit()
        shutil.rmtree(tmp_path / "data")
        shutil.copytree(tmp_path / "older", tmp_path / "data")
        await rig.export()
        await rig.submit()
        stats = rig.endpoint.batches.stats()
        assert (stats.uploads, stats.batches, stats.max_per_request) == (1, 1, 1)
        assert any("has it already" in line for line in rig.told)
        assert await rig.collect() is ExitCode.COMPLETED


@pytest.mark.fault("B03")
async def test_a_metadata_less_provider_is_no_reason_to_pay_twice(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        rig.endpoint.batches.change(forgets_metadata=1, lost_creations=1)
        await rig.export(new=rig.write_config())
        await rig.submit()
        assert rig.endpoint.batches.stats().batches == 1


async def test_a_file_that_the_provider_takes_its_time_for_is_waited_for(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        rig.endpoint.batches.change(file_pending_ms=200)
        await rig.export(new=rig.write_config())
        await rig.submit()
        assert rig.states() == ["submitted"]


async def test_only_the_file_that_was_exported_is_sent(open_rig: OpenRig, tmp_path: Path) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config())
        (path,) = (tmp_path / "logs").rglob("batch-0001.jsonl")
        path.write_text(path.read_text().replace("Synthetic", "Changed"))
        with pytest.raises(StorageError, match="not what was exported"):
            await rig.submit()
        assert rig.endpoint.batches.stats().uploads == 0


async def test_requests_that_an_export_left_behind_when_it_was_killed_are_removed_by_the_next(
    open_rig: OpenRig,
) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config())
        (requests,) = Path("logs").rglob("batch-0001.jsonl")
        for name in ("batch-0007.jsonl", ".batch-0007.jsonl.4711"):
            requests.with_name(name).write_text("made up\n")
        await rig.export()
        assert rig.batch_files() == ["batch-0001.jsonl"]


# --- while a batch is open -------------------------------------------------------------------------------------------


async def test_while_a_batch_is_open_its_experiment_cannot_be_run(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config())
        with pytest.raises(BatchesOpenError) as refused:
            await rig.resume()
        assert refused.value.exit_code is ExitCode.TEMPORARY
        assert "pay for them twice" in refused.value.advice
        with pytest.raises(BatchesOpenError):
            await rig.resume(retry_errors_only=True)
        preview = RunRequest(database=rig.database, resume=True, experiment_id="latest", log_root=Path("logs"))
        with pytest.raises(BatchesOpenError):
            await preview_run(preview, {}, tell=lambda _: None)
        assert rig.endpoint.stats().calls == 0
        await rig.cancel()
        assert rig.states() == ["closed"]
        assert rig.batch_files() == []
        assert await rig.resume() is ExitCode.COMPLETED


async def test_while_a_batch_is_open_the_sweep_of_its_experiment_cannot_go_on(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        config, two = rig.write_config(run__max_tokens_total=1), {"run": {"seed": [1, 2]}}
        assert await rig.sweep(config, **two) is ExitCode.TEMPORARY
        await rig.export()
        n_calls = rig.endpoint.stats().calls
        config = rig.write_config()
        with pytest.raises(BatchesOpenError):
            await rig.sweep(config, **two)
        assert rig.endpoint.stats().calls == n_calls
        await rig.cancel()
        assert await rig.sweep(config, **two) is ExitCode.COMPLETED


async def test_another_experiment_of_the_same_database_is_free_to_run(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        config = rig.write_config()
        await rig.export(new=config)
        assert await rig.run(config_file=config) is ExitCode.COMPLETED


async def test_where_no_file_can_be_made_no_experiment_is_left_behind(open_rig: OpenRig, tmp_path: Path) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config(5))
        for place in ({"out": tmp_path / "c.yaml"}, {"log_root": tmp_path / "c.yaml"}):
            with pytest.raises(StorageError, match=r"c\.yaml: no file can be made there"):
                await rig.export(new=tmp_path / "c.yaml", **place)
        assert rig.ask_one("SELECT COUNT(*) FROM experiments") == 1


async def test_what_is_in_an_open_batch_is_not_exported_again(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config(), limits=ShardLimits(max_requests=15))
        await rig.export()
        assert rig.states() == ["exported"] * 3
        assert any("40 narratives are in open batches already" in line for line in rig.told)
        await rig.cancel(numbers=[2])
        await rig.export()
        assert rig.ask_one("SELECT n_requests FROM batches WHERE number = 4") == 15


async def test_every_file_stays_within_its_limits_and_every_narrative_is_in_one(
    open_rig: OpenRig, tmp_path: Path
) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config(40), limits=ShardLimits(max_requests=7))
        batches = rig.ask("SELECT * FROM batches ORDER BY number")
        assert [one["n_requests"] for one in batches] == [7] * 5 + [5]
        ids = [row["narrative_id"] for row in rig.ask("SELECT narrative_id FROM batch_items ORDER BY 1")]
        assert ids == list(range(1, 41))
        for one in batches:
            path = Path(one["input_path"])
            assert path.stat().st_size == one["n_bytes"]
            assert len(path.read_text().splitlines()) == one["n_requests"]


async def test_a_text_that_is_not_what_was_ingested_is_not_sent(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config())
        await rig.cancel()
        with closing(sqlite3.connect(rig.database)) as db, db:
            db.execute("UPDATE source_narratives SET narrative_text = 'changed' WHERE narrative_id = 3")
        await rig.export()
        assert rig.ask_one("SELECT n_requests FROM batches WHERE number = 2") == 39
        assert any("1 texts are not what was ingested" in line for line in rig.told)


async def test_a_batch_is_not_sent_beyond_the_budget(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config(), limits=ShardLimits(max_requests=20))
        await rig.submit(numbers=[1])
        await rig.collect()
        used = rig.ask_one("SELECT SUM(prompt_tokens + completion_tokens) FROM attempts")
        with pytest.raises(TemporaryError, match="would use about"):
            await rig.submit(overrides={"run.max_tokens_total": round(1.9 * used)})
        assert rig.states() == ["closed", "exported"]
        await rig.submit(overrides={"run.max_tokens_total": round(2.1 * used)})
        assert rig.states() == ["closed", "submitted"]


async def test_a_budget_that_is_used_up_does_not_keep_a_batch_that_exists_from_being_taken_up(
    open_rig: OpenRig, tmp_path: Path
) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config())
        shutil.copytree(tmp_path / "data", tmp_path / "older")
        await rig.submit()
        shutil.rmtree(tmp_path / "data")
        shutil.copytree(tmp_path / "older", tmp_path / "data")
        await rig.submit(overrides={"run.max_tokens_total": 1})
        assert rig.states() == ["submitted"]
        assert rig.endpoint.batches.stats().batches == 1


async def test_cancelling_passes_by_what_has_ended_and_refuses_it_by_name(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config(), limits=ShardLimits(max_requests=20))
        await rig.submit(numbers=[1])
        await rig.poll()
        rig.endpoint.batches.change(latency_ms=1e6)
        await rig.submit()
        with pytest.raises(UsageError, match="batch 1 has ended"):
            await rig.cancel(numbers=[2, 1])
        assert (await rig.poll(), rig.said[-1].partition(",")[0]) == (ExitCode.TEMPORARY, "batch 2: in_progress")
        await rig.cancel()
        await rig.poll()
        assert rig.states() == ["ended", "ended"]
        await rig.collect()
        assert (rig.states(), len(rig.rows())) == (["closed", "closed"], 30)
        await rig.cancel()
        assert rig.told[-1] == "nothing to cancel"


async def test_abandoning_asks_nobody_whatever_the_state(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config(), limits=ShardLimits(max_requests=20))
        await rig.submit(numbers=[1])
        await rig.poll()
        await rig.endpoint.go_down()
        await rig.cancel(abandons=True)
        assert (rig.states(), rig.batch_files(), rig.n_missing()) == (["closed", "closed"], [], 40)
        await rig.verify()


async def test_cancelling_deletes_the_upload_of_a_batch_that_was_never_created(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config())
        rig.endpoint.batches.change(creation_status=429)
        with pytest.raises(TemporaryError):
            await rig.submit()
        assert (rig.states(), rig.endpoint.batches.stats().files) == (["exported"], 1)
        await rig.cancel()
        assert (rig.states(), rig.endpoint.batches.stats().files) == (["closed"], 0)


async def test_polling_needs_the_lock_for_news_only_and_does_without_it(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        rig.endpoint.batches.change(latency_ms=1e6)
        await rig.export(new=rig.write_config())
        await rig.submit()
        with DatabaseLock(rig.database, purpose="a run of something else"):
            assert await rig.poll() is ExitCode.TEMPORARY
            rig.endpoint.batches.change(latency_ms=0)
            await rig.poll()
            assert any("not noted" in line for line in rig.told)
            assert rig.states() == ["submitted"]
            with pytest.raises(LockHeldError):
                await rig.submit()
        assert await rig.poll() is ExitCode.COMPLETED
        assert rig.states() == ["ended"]


async def test_where_nothing_was_sent_nobody_is_asked_and_no_key_is_needed(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config(model__api_key_env="KEY_OF_NOBODY"))
        assert await rig.poll() is ExitCode.COMPLETED
        assert await rig.collect() is ExitCode.TEMPORARY
        assert "nothing to collect yet" in rig.told
        with pytest.raises(NarrunError, match="KEY_OF_NOBODY"):
            await rig.submit()


async def test_who_waits_is_told_what_is_new_and_nothing_twice(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        rig.endpoint.batches.change(latency_ms=1e6)
        await rig.export(new=rig.write_config())
        await rig.submit()
        rig.said.clear()
        async with anyio.create_task_group() as beside:

            async def end_it() -> None:
                while not rig.said:
                    await anyio.sleep(0.01)
                await anyio.sleep(0.2)  # some more questions, all answered alike
                rig.endpoint.batches.change(latency_ms=0)

            beside.start_soon(end_it)
            assert await rig.poll(waits=True) is ExitCode.COMPLETED
        assert [line.partition(",")[0] for line in rig.said] == ["batch 1: in_progress", "batch 1: completed"]


async def test_a_batch_is_asked_for_where_it_was_sent(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        config = rig.write_config(model__api_url="http://127.0.0.1:9/v1/chat/completions")
        await rig.export(new=config)
        with pytest.raises(TemporaryError):
            await rig.submit()
        await rig.submit(api_url=rig.endpoint.url)
        assert rig.ask_one("SELECT api_url FROM batches") == rig.endpoint.url
        assert await rig.poll() is ExitCode.COMPLETED
        assert await rig.collect() is ExitCode.COMPLETED
        assert rig.ask_one("SELECT api_url FROM runs WHERE mode = 'batch'") == rig.endpoint.url


async def test_ended_batches_are_collected_though_others_cannot_be_asked_about(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config(), limits=ShardLimits(max_requests=20))
        await rig.submit(numbers=[1])
        await rig.poll()
        rig.endpoint.batches.change(latency_ms=1e6)
        await rig.submit(numbers=[2])
        with closing(sqlite3.connect(rig.database)) as db, db:
            db.execute("UPDATE batches SET remote_batch_id = 'batch_of_nobody' WHERE number = 2")
        assert await rig.collect() is ExitCode.TEMPORARY
        assert (rig.states(), len(rig.rows())) == (["closed", "submitted"], 20)
        assert any(line.startswith("NOTE: ") and "batch 2" in line for line in rig.told)


async def test_batches_are_listed_as_they_are_known_and_told_beside_their_experiment(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config(), limits=ShardLimits(max_requests=20))
        await rig.submit(numbers=[1])
        await rig.collect()
        header, *rows = await list_batches(rig.database, None, open_only=False, as_json=False)
        assert header.split()[:3] == ["batch", "experiment", "state"]
        key = rig.experiment_id()[:8]
        assert [row.split()[:4] for row in rows] == [["1", key, "closed", "completed"], ["2", key, "exported", "-"]]
        document = "\n".join(await list_batches(rig.database, "latest", open_only=True, as_json=True))
        (only,) = json.loads(document)
        assert (only["number"], only["n_requests"], only["n_recorded"]) == (2, 20, 0)
        shown = "\n".join(await show_experiment(rig.database, "latest", as_json=False))
        assert "1 open, with 20 narratives" in shown


async def test_waiting_outlasts_a_provider_that_is_away_for_a_while(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config())
        await rig.submit()
        await rig.endpoint.go_down()
        with pytest.raises(TemporaryError):
            await rig.poll()
        async with anyio.create_task_group() as beside:

            async def come_back() -> None:
                await anyio.sleep(0.2)
                await rig.endpoint.come_up()

            beside.start_soon(come_back)
            assert await rig.poll(waits=True) is ExitCode.COMPLETED


async def test_an_output_file_that_is_older_than_its_batch_is_not_taken_for_its_answers(open_rig: OpenRig) -> None:
    """It may lie there from before the database was put back from a copy."""
    async with open_rig() as rig:
        await rig.export(new=rig.write_config())
        (requests,) = Path("logs").rglob("batch-0001.jsonl")
        stale = write_lines(requests.with_name("batch-0001.output.jsonl"), [])
        os.utime(stale, (1_600_000_000, 1_600_000_000))
        await rig.submit()
        await rig.poll(waits=True)
        assert await rig.collect() is ExitCode.COMPLETED
        assert rig.n_missing() == 0


async def test_answers_that_are_here_already_are_collected_without_asking_anybody_again(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config(), limits=ShardLimits(max_requests=20))
        await rig.submit()
        await rig.poll()
        await rig.collect(numbers=[1], keeps_files=True)
        n_files = rig.endpoint.batches.stats().files
        assert rig.states() == ["closed", "ended"]
        assert (
            await rig.collect(numbers=[2], deletes_remote=True, run={"experiment_id": "latest"}) is ExitCode.COMPLETED
        )
        assert rig.endpoint.batches.stats().files == n_files - 2


# --- settings that are wrong -----------------------------------------------------------------------------------------


async def test_refusals_alone_are_no_verdict_about_the_texts_unless_a_person_says_so(open_rig: OpenRig) -> None:
    async with open_rig(unsupported_parameters=("temperature",)) as rig:
        assert await rig.all_of_it(rig.write_config()) is ExitCode.CONFIGURATION
        assert (rig.states(), rig.n_missing()) == (["ended"], 40)
        assert rig.ask_one("SELECT COUNT(*) FROM attempts") == 0
        assert rig.ask_one("SELECT status FROM experiments") == "failed"
        assert any("it may be the setting" in line for line in rig.told)
        await rig.verify()
        assert await rig.collect(accepts_refusals=True) is ExitCode.COMPLETED_WITH_ERRORS
        assert {row["error_category"] for row in rig.rows().values()} == {"bad_request"}
        assert rig.states() == ["closed"]
        await rig.verify()


async def test_refusals_beside_answers_are_error_rows_as_in_a_run(open_rig: OpenRig) -> None:
    async with open_rig(fault_rates={"http_400": 0.2}) as rig:
        assert await rig.all_of_it(rig.write_config()) is ExitCode.COMPLETED_WITH_ERRORS
        assert rig.ask_one("SELECT COUNT(*) FROM narrative_results WHERE error_category = 'bad_request'") > 2


async def test_a_model_that_nobody_knows_ends_with_one_sentence_and_no_rows(open_rig: OpenRig) -> None:
    async with open_rig(known_models=("another",)) as rig:
        assert await rig.all_of_it(rig.write_config()) is ExitCode.CONFIGURATION
        assert (rig.states(), rig.n_missing()) == (["closed"], 40)
        assert any("does not know the model" in line for line in rig.told)
        await rig.verify()


async def test_a_wrong_key_stops_every_command_before_anything_is_recorded(open_rig: OpenRig) -> None:
    async with open_rig(auth_key="the-right-key-0123456789") as rig:
        await rig.export(new=rig.write_config())
        rig.environment["OPENAI_API_KEY"] = "another-key-0123456789"
        with pytest.raises(FatalEndpointError) as refused:
            await rig.submit()
        assert "another-key" not in f"{refused.value} {refused.value.advice}"
        assert rig.states() == ["exported"]
        rig.environment["OPENAI_API_KEY"] = "the-right-key-0123456789"
        await rig.submit()
        rig.environment["OPENAI_API_KEY"] = "another-key-0123456789"
        for refused_command in (rig.poll, rig.collect, rig.cancel):
            with pytest.raises(FatalEndpointError):
                await refused_command()
        assert rig.states() == ["submitted"]


async def test_another_model_than_before_stops_where_that_was_asked_for_and_nothing_is_lost(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        config = rig.write_config(40, run__on_model_change="stop")
        await rig.export(new=config, limits=ShardLimits(max_requests=20))
        await rig.submit(numbers=[1])
        await rig.collect()
        rig.endpoint.change_behaviour(model_name="another-model")
        await rig.submit()
        assert await rig.collect() is ExitCode.TEMPORARY
        assert (rig.states(), len(rig.rows())) == (["closed", "ended"], 20)
        warn = {"overrides": {"run.on_model_change": "warn"}}
        assert await rig.collect(run=warn) is ExitCode.COMPLETED
        assert any("the endpoint changed" in line for line in rig.told)


async def test_a_run_that_named_its_server_and_a_batch_that_cannot_are_one_instrument(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        rig.endpoint.batches.change(expired_share=0.5)
        await rig.all_of_it(rig.write_config())
        with closing(sqlite3.connect(rig.database)) as db, db:
            db.execute("UPDATE servings SET server = 'made-up-server'")
        rig.endpoint.batches.change(expired_share=0)
        await rig.export()
        await rig.submit()
        await rig.collect()
        assert not any("endpoint changed" in line for line in rig.told)
        assert rig.ask_one("SELECT COUNT(*) FROM servings") == 1


async def test_a_simulated_experiment_is_exported_and_collected_and_sent_nowhere(
    open_rig: OpenRig, tmp_path: Path
) -> None:
    async with open_rig() as rig:
        config = rig.write_config(12, model__provider="simulated", model__api_url=None)
        await rig.export(new=config)
        with pytest.raises(UsageError, match="no provider"):
            await rig.submit()
        (path,) = (tmp_path / "logs").rglob("batch-0001.jsonl")
        output = write_lines(tmp_path / "out.jsonl", vllm_lines(path, Behaviour()))
        assert await rig.collect(output) is ExitCode.COMPLETED
        assert any("SIMULATED" in line for line in rig.said)


# --- without a network -----------------------------------------------------------------------------------------------


async def test_on_files_alone_a_batch_goes_out_and_comes_back_part_by_part(open_rig: OpenRig, tmp_path: Path) -> None:
    async with open_rig() as rig:
        config = rig.write_config()
        await rig.endpoint.go_down()
        out = tmp_path / "stick"
        await rig.export(new=config, out=out)
        assert mode_of(requests_in(out)) == 0o600
        lines = vllm_lines(requests_in(out), Behaviour(fault_rates=LASTING))
        first, second = write_lines(tmp_path / "1", lines[:25]), write_lines(tmp_path / "2", lines[20:])
        assert await rig.collect(first) is ExitCode.TEMPORARY
        assert (rig.states(), len(rig.rows())) == (["exported"], 25)
        assert [line for line in rig.told if "stays open" in line] == [
            "batch 1: stays open; collect the rest of it, or give it back with `narrun batch cancel`"
        ]
        assert await rig.collect(first, second) is ExitCode.COMPLETED_WITH_ERRORS
        assert (rig.states(), len(rig.rows())) == (["closed"], 40)
        assert rig.ask_one("SELECT COUNT(*) FROM attempts") == 40
        await rig.verify()
        assert requests_in(out).exists()
        assert any("is yours to remove" in line for line in rig.told)

        # and they are the rows that a run would have made
        from_files = rig.rows()
        (tmp_path / "data").rename(tmp_path / "data-of-batches")
        await rig.endpoint.come_up()
        rig.endpoint.change_behaviour(fault_rates=LASTING)
        await rig.run(config_file=config)
        assert rig.rows() == from_files


async def test_a_file_of_another_experiment_is_refused_and_a_mixed_one_gives_each_its_own(
    open_rig: OpenRig, tmp_path: Path
) -> None:
    async with open_rig() as rig:
        for name in ("one", "two"):
            await rig.export(new=rig.write_config(name=name), out=tmp_path / "out")
        exported = [Path(row["input_path"]) for row in rig.ask("SELECT input_path FROM batches ORDER BY batch_id")]
        assert len(set(exported)) == 2  # they share a directory, and neither has taken the other's name
        of_one, of_two = (vllm_lines(path, Behaviour()) for path in exported)
        first, second = (
            row["experiment_id"] for row in rig.ask("SELECT experiment_id FROM experiments ORDER BY rowid")
        )
        with pytest.raises(BadInputError, match="40 of its 40 lines answer requests of another experiment"):
            await rig.collect(write_lines(tmp_path / "wrong", of_one), run={"experiment_id": second})
        assert rig.ask_one("SELECT COUNT(*) FROM runs") == 0
        both = write_lines(tmp_path / "both", [*of_one, *of_two])
        for experiment_id in (first, second):
            assert await rig.collect(both, run={"experiment_id": experiment_id}) is ExitCode.COMPLETED
        assert rig.ask_one("SELECT COUNT(*) FROM narrative_results") == 80
        await rig.verify()


@pytest.mark.parametrize("content", ["", "no json\n", '{"custom_id": "request-1", "response": null}\n', "\xff" * 10])
async def test_a_file_that_is_no_output_of_ours_is_refused_and_nothing_changes(
    open_rig: OpenRig, tmp_path: Path, content: str
) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config(5))
        path = tmp_path / "output"
        path.write_text(content, encoding="latin-1")
        with pytest.raises(BadInputError):
            await rig.collect(path)
        (requests,) = (tmp_path / "logs").rglob("batch-0001.jsonl")
        with pytest.raises(BadInputError):  # the wrong one of two files
            await rig.collect(requests)
        with pytest.raises(StorageError):
            await rig.collect(tmp_path / "nowhere")
        assert rig.ask_one("SELECT COUNT(*) FROM runs") == 0
        assert rig.states() == ["exported"]


async def test_an_old_output_is_not_taken_for_the_answer_to_a_later_asking(open_rig: OpenRig, tmp_path: Path) -> None:
    async with open_rig() as rig:
        out = tmp_path / "out"
        await rig.export(new=rig.write_config(12), out=out)
        old = write_lines(tmp_path / "old", vllm_lines(requests_in(out), Behaviour(fault_rates={"refusal": 1})))
        assert await rig.collect(old) is ExitCode.COMPLETED_WITH_ERRORS
        await rig.export(retry_errors_only=True, out=out)
        with pytest.raises(BadInputError, match="no request that was exported and is not answered yet"):
            await rig.collect(old)
        assert rig.states() == ["closed", "exported"]
        new = write_lines(tmp_path / "new", vllm_lines(requests_in(out, 2), Behaviour()))
        assert await rig.collect(old, new) is ExitCode.COMPLETED
        await rig.verify()


async def test_answers_to_a_batch_that_was_given_up_are_still_taken_where_nothing_else_has_answered(
    open_rig: OpenRig, tmp_path: Path
) -> None:
    async with open_rig() as rig:
        out = tmp_path / "out"
        await rig.export(new=rig.write_config(10), out=out)
        late = vllm_lines(requests_in(out), Behaviour())
        await rig.cancel(abandons=True)
        await rig.export(limits=ShardLimits(max_requests=4), out=tmp_path / "again")
        again = vllm_lines(requests_in(tmp_path / "again", 2), Behaviour())
        await rig.collect(write_lines(tmp_path / "2", again))
        before = rig.rows()
        assert len(before) == 4
        await rig.cancel()
        assert await rig.collect(write_lines(tmp_path / "1", late)) is ExitCode.COMPLETED
        after = rig.rows()
        assert {key: after[key] for key in before} == before
        assert rig.ask_one("SELECT COUNT(*) FROM attempts") == 10
        await rig.verify()


# --- narratives that are no longer needed ----------------------------------------------------------------------------


async def test_scrubbing_names_batch_files_and_answers_that_come_later_are_refused(
    open_rig: OpenRig, tmp_path: Path
) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config())
        await rig.submit()
        told: list[str] = []
        await scrub_database(rig.database, dry_run=False, confirm=lambda _: None, tell=told.append)
        assert any("batches are open (1, with 40 requests)" in line for line in told)
        assert any("this batch file still holds texts" in line and "batch-0001.jsonl" in line for line in told)
        with pytest.raises(BadInputError, match="scrubbed"):
            await rig.collect()
        assert rig.rows() == {}
        with pytest.raises(BadInputError, match="scrubbed"):
            await rig.export()


async def test_answers_to_retried_errors_do_not_come_back_after_a_scrubbing(open_rig: OpenRig) -> None:
    """Nothing is missing here, so that a run would have had nothing to refuse."""
    async with open_rig(fault_rates={"refusal": 0.3}) as rig:
        await rig.all_of_it(rig.write_config())
        rig.endpoint.change_behaviour(fault_rates={})
        await rig.export(retry_errors_only=True)
        await rig.submit()
        await scrub_database(rig.database, dry_run=False, confirm=lambda _: None, tell=lambda _: None)
        before = rig.rows()
        with pytest.raises(BadInputError, match="scrubbed"):
            await rig.collect()
        assert rig.rows() == before


async def test_purging_destroys_batch_files_and_says_what_it_cannot_reach(open_rig: OpenRig, tmp_path: Path) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config(), limits=ShardLimits(max_requests=20))
        await rig.submit(numbers=[1])
        await rig.poll()
        await rig.cancel(numbers=[2])
        await rig.export(out=tmp_path / "stick")
        certificate = tmp_path / "certificate.json"
        await purge_database(
            rig.database, certificate=certificate, dry_run=False, confirm=lambda _: None, tell=lambda _: None
        )
        document = json.loads(certificate.read_text())
        assert [Path(one["path"]).name for one in document["removed"]].count("batch-0001.jsonl") == 1
        assert not list((tmp_path / "logs").rglob("*"))[2:]
        beyond = "\n".join(document["out_of_reach"])
        assert re.search("stick/[0-9a-f]{8}-batch-0003.jsonl", beyond)
        assert "file-000001" in beyond
        assert "Synthetic account" not in certificate.read_text()


async def test_no_narrative_is_in_any_log_or_line_of_output(open_rig: OpenRig, tmp_path: Path) -> None:
    async with open_rig(fault_rates=LASTING) as rig:
        rig.endpoint.batches.change(odd_lines=1)
        await rig.all_of_it(rig.write_config())
        texts = ["\n".join(rig.told + rig.said)]
        texts += [path.read_text() for path in (tmp_path / "logs").rglob("*.log")]
        texts += [(tmp_path / "logs").rglob("journal").__next__().read_text()]
        assert all("Synthetic account" not in text for text in texts)


async def test_a_failure_of_ours_says_what_to_do_next_and_is_one_of_ours(open_rig: OpenRig) -> None:
    async with open_rig() as rig:
        await rig.export(new=rig.write_config(5))
        with pytest.raises(NarrunError) as missing:
            await rig.poll(experiment_id="ffffffff")
        assert missing.value.exit_code is ExitCode.USAGE
        assert await rig.poll() is ExitCode.COMPLETED
        assert await rig.collect() is ExitCode.TEMPORARY
        assert "nothing to collect yet" in rig.told
