"""What every store of batches promises, whatever database is behind it.

To join, a store adds a callable to `STORES` that opens an empty one below a directory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from narrun_async.batching.states import TRANSITIONS
from narrun_async.errors import BatchChangedError
from narrun_async.models import (
    Attempt,
    Batch,
    BatchItem,
    BatchState,
    Detection,
    ErrorCategory,
    Experiment,
    Failure,
    NarrativeId,
    NewBatch,
    Outcome,
    PageCursor,
    ProgressMark,
    RunId,
    Selection,
    WorkItem,
    WriterMessage,
)
from narrun_async.operations.batches.collecting import CollectingStore
from narrun_async.operations.batches.refusing import refuse_open_batches
from narrun_async.stores import open_sqlite_writer

OpenStore = Callable[[Path], Awaitable[CollectingStore]]


async def open_sqlite(directory: Path) -> CollectingStore:
    return await open_sqlite_writer(directory / "experiments.db")


STORES: dict[str, OpenStore] = {"sqlite": open_sqlite}

STARTED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
MARK = ProgressMark(runtime_s=1.5, estimated_completion_time=None)
N_NARRATIVES = 8


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CollectingStore]:
    opened = await STORES[request.param](tmp_path)
    yield opened
    await opened.aclose()


@pytest.fixture
async def experiment(store: CollectingStore, build: Any) -> Experiment:
    source = build.source(N_NARRATIVES)
    await store.add_source(source, on_conflict="error")
    return await build.experiment(store, source.checksum)


async def items_of(store: CollectingStore, experiment: Experiment) -> Sequence[WorkItem]:
    return await store.load_page(experiment, Selection.MISSING, run_id=RunId(0), after=PageCursor(), limit=N_NARRATIVES)


def new_batch(experiment: Experiment, number: int = 1, **changes: Any) -> NewBatch:
    fields: dict[str, Any] = {
        "experiment_id": experiment.experiment_id,
        "number": number,
        "selection": Selection.MISSING,
        "input_path": Path("/made/up/batch-0001.jsonl"),
        "input_sha256": "a" * 64,
        "endpoint": "/v1/chat/completions",
        "n_requests": 3,
        "n_bytes": 999,
        "token": f"token-{number}",
    }
    return NewBatch(**fields | changes)


async def add(
    store: CollectingStore, experiment: Experiment, items: Sequence[WorkItem], number: int = 1, **changes: Any
) -> Batch:
    members = [
        BatchItem(narrative_id=one.narrative_id, row_num=one.row_num, replaces_error=one.replaces_error)
        for one in items
    ]
    return await store.add_batch(new_batch(experiment, number, n_requests=len(items), **changes), members)


def answer(item: WorkItem, batch: Batch | None, *, category: ErrorCategory | None = None) -> Outcome:
    verdict = (
        Detection(detected=True, confidence=0.5, parse_method="json")
        if category is None
        else Failure(category=category, message="made up")
    )
    return Outcome(item=item, verdict=verdict, attempt=call(item, batch, category))


def call(item: WorkItem, batch: Batch | None, category: ErrorCategory | None) -> Attempt:
    return Attempt(
        narrative_id=item.narrative_id,
        started_at=STARTED,
        duration_s=0.0,
        error_category=category,
        error_message=None if category is None else "made up",
        http_status=200,
        charged=True,
        batch_id=None if batch is None else batch.batch_id,
    )


async def write(store: CollectingStore, experiment: Experiment, build: Any, *messages: WriterMessage) -> None:
    run_id = await store.begin_run(build.run_start(experiment))
    await store.write_batch(experiment.experiment_id, run_id, messages, MARK)


# --- batches ---------------------------------------------------------------------------------------------------------


async def test_a_batch_comes_back_as_it_was_recorded(store: CollectingStore, experiment: Experiment) -> None:
    items = await items_of(store, experiment)
    batch = await add(store, experiment, items[:3], selection=Selection.MISSING_AND_ERRORS)
    assert list(await store.list_batches()) == [batch] == list(await store.list_batches(experiment.experiment_id))
    new = new_batch(experiment)
    assert (batch.input_path, batch.input_sha256, batch.endpoint, batch.token) == (
        new.input_path,
        new.input_sha256,
        new.endpoint,
        new.token,
    )
    assert (batch.number, batch.n_requests, batch.n_bytes) == (1, 3, 999)
    assert (batch.state, batch.selection) == (BatchState.EXPORTED, Selection.MISSING_AND_ERRORS)
    assert batch.exported_at.tzinfo is not None
    unknown = (batch.intended_at, batch.api_url, batch.remote_file_id, batch.remote_batch_id, batch.closed_at)
    assert unknown == (None,) * 5
    assert batch.n_resubmissions == 0


async def test_batches_are_listed_oldest_first_and_by_experiment(
    store: CollectingStore, experiment: Experiment, build: Any
) -> None:
    other = await build.experiment(store, experiment.cohort.data_checksum, number=2)
    items = await items_of(store, experiment)
    first = await add(store, experiment, items[:3])
    of_other = await add(store, other, items[:3])
    second = await add(store, experiment, items[3:], number=2)
    assert list(await store.list_batches()) == [first, of_other, second]
    assert list(await store.list_batches(experiment.experiment_id)) == [first, second]


async def test_a_number_is_given_once_in_an_experiment_and_a_batch_that_fails_leaves_nothing(
    store: CollectingStore, experiment: Experiment
) -> None:
    items = await items_of(store, experiment)
    batch = await add(store, experiment, items[:3])
    with pytest.raises(Exception, match="UNIQUE"):
        await add(store, experiment, items[3:])
    assert list(await store.list_batches()) == [batch]
    assert set(await store.load_members(batch.batch_id)) == {one.narrative_id for one in items[:3]}


async def test_a_step_is_on_disk_with_what_it_sets(store: CollectingStore, experiment: Experiment) -> None:
    batch = await add(store, experiment, (await items_of(store, experiment))[:3])
    uploading = await store.advance_batch(batch, BatchState.UPLOADING, {"intended_at": STARTED, "api_url": "http://x"})
    assert (uploading.state, uploading.intended_at, uploading.api_url) == (BatchState.UPLOADING, STARTED, "http://x")
    uploaded = await store.advance_batch(uploading, BatchState.UPLOADED, {"remote_file_id": "file-1"})
    assert list(await store.list_batches()) == [uploaded]
    assert (uploaded.state, uploaded.remote_file_id) == (BatchState.UPLOADED, "file-1")


@pytest.mark.parametrize("state", BatchState)
async def test_no_step_is_taken_that_the_table_does_not_know(
    store: CollectingStore, experiment: Experiment, state: BatchState
) -> None:
    batch = await add(store, experiment, (await items_of(store, experiment))[:3])
    if state in TRANSITIONS[batch.state]:
        assert (await store.advance_batch(batch, state, {})).state is state
        return
    with pytest.raises(ValueError, match="cannot become"):
        await store.advance_batch(batch, state, {})
    assert list(await store.list_batches()) == [batch]


async def test_a_column_that_there_is_not_is_refused(store: CollectingStore, experiment: Experiment) -> None:
    batch = await add(store, experiment, (await items_of(store, experiment))[:3])
    with pytest.raises(KeyError):
        await store.advance_batch(batch, BatchState.UPLOADING, {"made_up": 1})


async def test_of_two_processes_that_go_on_with_a_batch_the_second_changes_nothing(
    store: CollectingStore, experiment: Experiment
) -> None:
    batch = await add(store, experiment, (await items_of(store, experiment))[:3])
    first = await store.advance_batch(batch, BatchState.UPLOADING, {"api_url": "http://first"})
    with pytest.raises(BatchChangedError, match="not exported any more"):
        await store.advance_batch(batch, BatchState.UPLOADING, {"api_url": "http://second"})
    assert list(await store.list_batches()) == [first]


# --- narratives ------------------------------------------------------------------------------------------------------


async def test_narratives_of_open_batches_are_spoken_for_between_two_and_those_of_closed_ones_are_not(
    store: CollectingStore, experiment: Experiment, build: Any
) -> None:
    other = await build.experiment(store, experiment.cohort.data_checksum, number=2)
    items = await items_of(store, experiment)
    ids = [one.narrative_id for one in items]
    batch = await add(store, experiment, items[:3])
    await add(store, experiment, items[5:7], number=2)
    await add(store, other, items)

    async def spoken_for(after: int, until: int) -> set[int]:
        return set(
            await store.list_spoken_for(experiment.experiment_id, after=NarrativeId(after), until=NarrativeId(until))
        )

    assert await spoken_for(0, ids[-1]) == {*ids[:3], *ids[5:7]}
    assert await spoken_for(ids[0], ids[2]) == set(ids[1:3])
    assert await spoken_for(ids[2], ids[4]) == set()
    await store.advance_batch(batch, BatchState.CLOSED, {})
    assert await spoken_for(0, ids[-1]) == set(ids[5:7])


async def test_a_run_is_refused_while_a_batch_is_open_and_not_afterwards(
    store: CollectingStore, experiment: Experiment
) -> None:
    await refuse_open_batches(store, experiment.experiment_id)
    items = await items_of(store, experiment)
    batch = await add(store, experiment, items[:3])
    second = await add(store, experiment, items[3:], number=2)
    with pytest.raises(Exception, match="8 narratives in batches 1, 2, which are not closed"):
        await refuse_open_batches(store, experiment.experiment_id)
    await store.advance_batch(batch, BatchState.CLOSED, {})
    with pytest.raises(Exception, match="5 narratives in batch 2, which is not closed"):
        await refuse_open_batches(store, experiment.experiment_id)
    await store.advance_batch(second, BatchState.CLOSED, {})
    await refuse_open_batches(store, experiment.experiment_id)


async def test_items_come_back_as_they_were_exported_and_only_those_of_the_batch(
    store: CollectingStore, experiment: Experiment
) -> None:
    items = await items_of(store, experiment)
    batch = await add(store, experiment, items[2:5])
    wanted = [one.narrative_id for one in items] + [NarrativeId(10**15)]
    found = await store.load_batch_items(batch.batch_id, wanted)
    assert sorted(found, key=lambda one: one.row_num) == list(items[2:5])
    assert list(await store.load_batch_items(batch.batch_id, [])) == []


async def test_that_an_error_row_is_to_be_replaced_is_remembered(
    store: CollectingStore, experiment: Experiment, build: Any
) -> None:
    items = await items_of(store, experiment)
    await write(store, experiment, build, answer(items[0], None, category=ErrorCategory.REFUSAL))
    (error,) = await store.load_page(
        experiment, Selection.ERRORS, run_id=RunId(0), after=PageCursor(), limit=N_NARRATIVES
    )
    batch = await add(store, experiment, [error], selection=Selection.ERRORS)
    (item,) = await store.load_batch_items(batch.batch_id, [error.narrative_id])
    assert item.replaces_error
    assert dict(await store.load_members(batch.batch_id)) == {error.narrative_id: False}


async def test_what_the_ledger_has_of_a_batch_is_done_with(
    store: CollectingStore, experiment: Experiment, build: Any
) -> None:
    items = await items_of(store, experiment)
    batch = await add(store, experiment, items[:4])
    other = await add(store, experiment, items[4:], number=2)
    assert not any((await store.load_members(batch.batch_id)).values())
    assert dict(await store.count_recorded()) == {}
    await write(
        store,
        experiment,
        build,
        answer(items[0], batch),
        answer(items[1], batch, category=ErrorCategory.REFUSAL),
        call(items[2], batch, ErrorCategory.SERVER_ERROR),
    )
    done = {one for one, is_done in (await store.load_members(batch.batch_id)).items() if is_done}
    assert done == {one.narrative_id for one in items[:3]}
    assert not any((await store.load_members(other.batch_id)).values())
    assert dict(await store.count_recorded(experiment.experiment_id)) == {batch.batch_id: 3}


async def test_what_has_a_row_from_elsewhere_is_done_with_unless_it_is_an_error_to_be_replaced(
    store: CollectingStore, experiment: Experiment, build: Any
) -> None:
    items = await items_of(store, experiment)
    batch = await add(store, experiment, items[:3])
    await store.advance_batch(batch, BatchState.CLOSED, {"closed_why": "abandoned"})
    await write(
        store,
        experiment,
        build,
        answer(items[0], None),
        answer(items[1], None, category=ErrorCategory.REFUSAL),
    )
    members = await store.load_members(batch.batch_id)
    assert [members[one.narrative_id] for one in items[:3]] == [True, True, False]
    (error,) = await store.load_page(
        experiment, Selection.ERRORS, run_id=RunId(0), after=PageCursor(), limit=N_NARRATIVES
    )
    retry = await add(store, experiment, [error], number=2, selection=Selection.ERRORS)
    assert dict(await store.load_members(retry.batch_id)) == {error.narrative_id: False}


async def test_a_row_from_a_batch_has_no_time_of_its_own_and_its_call_names_the_batch(
    store: CollectingStore, experiment: Experiment, build: Any
) -> None:
    items = await items_of(store, experiment)
    batch = await add(store, experiment, items[:1])
    await write(store, experiment, build, answer(items[0], batch), answer(items[1], None))
    rows = [dict(row) async for row in store.iter_results(experiment.experiment_id)]
    assert [row["response_sec"] for row in rows] == [None, 0.0]
    assert [row["attempt_count"] for row in rows] == [1, 1]
