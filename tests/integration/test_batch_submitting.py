"""Submitting in virtual time, over a real store and a provider that is slow, late or forgetful as a test wants it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from narrun_async.errors import TemporaryError
from narrun_async.models import (
    Batch,
    BatchItem,
    BatchState,
    ErrorCategory,
    NarrativeId,
    NewBatch,
    RemoteBatch,
    RemoteFile,
    Selection,
)
from narrun_async.operations.batches.cancelling import cancel
from narrun_async.operations.batches.submitting import SETTLE_S, Submitter
from narrun_async.retrying import CallFailure, FailureClass
from narrun_async.stores import SqliteStore, open_sqlite_writer

BEGAN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
CONTENT = b"made up\n"
LOST = CallFailure(
    failure_class=FailureClass.TRANSIENT, category=ErrorCategory.CONNECTION_LOST, message="made up: lost"
)
UNREACHABLE = CallFailure(
    failure_class=FailureClass.UNREACHABLE, category=ErrorCategory.UNREACHABLE, message="made up: away"
)


@dataclass
class World:
    """A clock that only waiting moves, and a provider in it."""

    now_s: float = 0.0
    #: seconds from a creation to its appearance in the list
    listed_after_s: float = 0.0
    #: seconds that the answer to a creation takes; it is lost then
    answers_lost_after_s: float | None = None
    #: the creation never reaches the provider, or is never done
    creates: bool = True
    #: of the next look, instead of an answer
    looks_fail: list[CallFailure] = field(default_factory=list)
    file_statuses: list[str] = field(default_factory=lambda: ["processed"])
    #: of the file that it says it has
    n_bytes: int = len(CONTENT)
    #: what it answers to the question for its end, instead of stopping
    cancelling_fails: CallFailure | None = None
    status: str = "in_progress"
    #: token → when it was created
    created: dict[str, float] = field(default_factory=dict)
    n_creations: int = 0
    n_uploads: int = 0
    n_looks: int = 0
    told: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.now_s)

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds

    # --- `ports.BatchProvider`, as far as submitting goes ---

    async def find_file(self, name: str) -> RemoteFile | CallFailure | None:
        return self._file() if self.n_uploads else None

    async def upload_file(self, path: Path, *, name: str) -> RemoteFile | CallFailure:
        self.n_uploads += 1
        return self._file()

    async def load_file(self, file_id: str) -> RemoteFile | CallFailure:
        return self._file()

    def _file(self) -> RemoteFile:
        status = self.file_statuses.pop(0) if len(self.file_statuses) > 1 else self.file_statuses[0]
        return RemoteFile(file_id="file-1", name=None, n_bytes=self.n_bytes, status=status)

    async def create_batch(
        self, input_file_id: str, *, endpoint: str, metadata: Mapping[str, str]
    ) -> RemoteBatch | CallFailure:
        self.n_creations += 1
        (token,) = metadata.values()
        if self.creates:
            assert token not in self.created, "created twice"
            self.created[token] = self.now_s + (self.answers_lost_after_s or 0.0)
        if self.answers_lost_after_s is not None:
            self.now_s += self.answers_lost_after_s
            return LOST
        return self._batch()

    async def find_batch(self, *, token: str, input_file_id: str | None) -> RemoteBatch | CallFailure | None:
        self.n_looks += 1
        if self.looks_fail:
            return self.looks_fail.pop(0)
        shown = token in self.created and self.now_s >= self.created[token] + self.listed_after_s
        return self._batch() if shown else None

    async def delete_file(self, file_id: str) -> CallFailure | None:
        self.deleted.append(file_id)
        return None

    async def cancel_batch(self, remote_batch_id: str) -> RemoteBatch | CallFailure:
        return self.cancelling_fails or replace(self._batch(), status="cancelling")

    async def load_batch(self, remote_batch_id: str) -> RemoteBatch | CallFailure:
        return self._batch()

    def _batch(self) -> RemoteBatch:
        return RemoteBatch(
            remote_batch_id="batch_1",
            status=self.status,
            input_file_id="file-1",
            output_file_id=None,
            error_file_id=None,
            n_completed=0,
            n_failed=0,
            metadata={},
        )


@dataclass(kw_only=True)
class Rig:
    world: World
    store: SqliteStore
    batch: Batch

    def submitter(self, **options: Any) -> Submitter:
        """Another process, as it were."""
        world: Any = self.world
        return Submitter(
            store=self.store,
            provider=world,
            api_url="http://made.up/v1/chat/completions",
            tell=world.told.append,
            sleep=world.sleep,
            now=world.now,
            **options,
        )

    async def submit(self, **options: Any) -> Batch:
        (batch,) = await self.store.list_batches()
        return await self.submitter(**options).submit(batch)

    async def state(self) -> BatchState:
        (batch,) = await self.store.list_batches()
        return batch.state


@pytest.fixture
async def rig(tmp_path: Path, build: Any) -> AsyncIterator[Rig]:
    store = await open_sqlite_writer(tmp_path / "experiments.db")
    source = build.source(2)
    await store.add_source(source, on_conflict="error")
    experiment = await build.experiment(store, source.checksum)
    path = tmp_path / "batch-0001.jsonl"
    path.write_bytes(CONTENT)
    new = NewBatch(
        experiment_id=experiment.experiment_id,
        number=1,
        selection=Selection.MISSING,
        input_path=path,
        input_sha256=sha256(CONTENT).hexdigest(),
        endpoint="/v1/chat/completions",
        n_requests=1,
        n_bytes=len(CONTENT),
        token="token-1",
    )
    batch = await store.add_batch(new, [BatchItem(narrative_id=NarrativeId(1), row_num=1, replaces_error=False)])
    yield Rig(world=World(), store=store, batch=batch)
    await store.aclose()


async def killed_while_creating(rig: Rig) -> None:
    """As a kill leaves it between the request and the handle."""
    uploaded = await rig.store.advance_batch(rig.batch, BatchState.UPLOADED, {"remote_file_id": "file-1"})
    intent = {"intended_at": rig.world.now()}
    await rig.store.advance_batch(uploaded, BatchState.CREATING, intent)


async def test_without_mishaps_it_takes_one_look_one_upload_and_one_creation_and_no_waiting(rig: Rig) -> None:
    batch = await rig.submit()
    world = rig.world
    assert (batch.state, batch.remote_batch_id, batch.intended_at) == (BatchState.SUBMITTED, "batch_1", None)
    assert (world.n_looks, world.n_uploads, world.n_creations, world.now_s) == (1, 1, 1, 0.0)


@pytest.mark.fault("B03")
@pytest.mark.parametrize("slow_s", [0.0, 59.0, 120.0, 3600.0])
async def test_however_slow_the_lost_answer_the_list_is_believed_only_when_it_had_its_time(
    rig: Rig, slow_s: float
) -> None:
    rig.world.answers_lost_after_s = slow_s
    rig.world.listed_after_s = SETTLE_S - 1
    batch = await rig.submit()
    assert batch.state is BatchState.SUBMITTED
    assert rig.world.n_creations == 1


@pytest.mark.fault("B03")
async def test_what_was_never_created_is_sent_by_the_next_command_and_not_by_this_one(rig: Rig) -> None:
    rig.world.creates, rig.world.answers_lost_after_s = False, 1.0
    with pytest.raises(TemporaryError, match="was not created"):
        await rig.submit()
    assert (await rig.state(), rig.world.n_creations) == (BatchState.EXPORTED, 1)
    rig.world.creates, rig.world.answers_lost_after_s = True, None
    assert (await rig.submit()).state is BatchState.SUBMITTED
    assert (rig.world.n_creations, rig.world.n_uploads) == (2, 1)


@pytest.mark.fault("B03")
@pytest.mark.parametrize("later_s", [0.0, 30.0, 59.0])
async def test_a_killed_creation_that_is_still_on_its_way_is_waited_for(rig: Rig, later_s: float) -> None:
    await killed_while_creating(rig)
    rig.world.created["token-1"] = 40.0  # the request arrives when its sender is long dead
    rig.world.now_s = later_s
    assert (await rig.submit()).state is BatchState.SUBMITTED
    assert rig.world.n_creations == 0


async def test_of_the_time_to_wait_only_what_is_left_is_waited(rig: Rig) -> None:
    await killed_while_creating(rig)
    rig.world.now_s = SETTLE_S - 10
    await rig.submit()
    assert rig.world.now_s == pytest.approx(SETTLE_S)
    assert rig.world.n_creations == 1


async def test_after_that_time_one_look_is_enough(rig: Rig) -> None:
    await killed_while_creating(rig)
    rig.world.now_s = SETTLE_S + 1
    await rig.submit()
    assert rig.world.now_s == SETTLE_S + 1
    assert rig.world.n_creations == 1


async def test_a_clock_that_was_set_back_costs_the_whole_time_and_never_less(rig: Rig) -> None:
    await killed_while_creating(rig)
    rig.world.now_s = -86_400.0
    rig.world.created["token-1"] = -86_400.0 + SETTLE_S - 5
    assert (await rig.submit()).state is BatchState.SUBMITTED
    assert rig.world.n_creations == 0


@pytest.mark.fault("B03")
@pytest.mark.parametrize("failure", [LOST, UNREACHABLE], ids=["lost", "unreachable"])
async def test_a_look_that_fails_settles_nothing(rig: Rig, failure: CallFailure) -> None:
    await killed_while_creating(rig)
    rig.world.created["token-1"] = 0.0
    rig.world.looks_fail = [failure]
    with pytest.raises(TemporaryError, match="cannot be asked for its batches"):
        await rig.submit()
    assert (await rig.state(), rig.world.n_creations) == (BatchState.CREATING, 0)
    assert (await rig.submit()).state is BatchState.SUBMITTED


async def test_a_word_of_a_person_does_not_outweigh_that_of_the_provider(rig: Rig) -> None:
    await killed_while_creating(rig)
    rig.world.created["token-1"] = 0.0
    (batch,) = await rig.store.list_batches()
    assert (await rig.submitter().resubmit(batch)).state is BatchState.SUBMITTED
    assert rig.world.n_creations == 0


async def too_dear(batch: Batch) -> None:
    raise TemporaryError("it would cost too much")


async def test_what_may_not_be_sent_is_not_even_uploaded(rig: Rig) -> None:
    with pytest.raises(TemporaryError, match="too much"):
        await rig.submit(before_sending=too_dear)
    assert (await rig.state(), rig.world.n_uploads, rig.world.n_creations) == (BatchState.EXPORTED, 0, 0)


async def test_what_is_with_the_provider_is_taken_up_though_nothing_may_be_sent(rig: Rig) -> None:
    await killed_while_creating(rig)
    rig.world.created["token-1"] = 40.0
    assert (await rig.submit(before_sending=too_dear)).state is BatchState.SUBMITTED


async def test_a_word_of_a_person_is_no_way_round_what_may_not_be_sent(rig: Rig) -> None:
    await killed_while_creating(rig)
    (batch,) = await rig.store.list_batches()
    with pytest.raises(TemporaryError, match="too much"):
        await rig.submitter(before_sending=too_dear).resubmit(batch)
    assert (await rig.state(), rig.world.n_uploads, rig.world.n_creations) == (BatchState.CREATING, 0, 0)


async def test_cancelling_an_upload_that_was_cut_off_deletes_what_arrived(rig: Rig) -> None:
    batch = await rig.store.advance_batch(rig.batch, BatchState.UPLOADING, {"intended_at": rig.world.now()})
    rig.world.n_uploads = 1
    assert (await cancel(rig.submitter(), batch)).state is BatchState.CLOSED
    assert rig.world.deleted == ["file-1"]


async def test_cancelling_in_doubt_asks_first_and_stops_what_there_is(rig: Rig) -> None:
    await killed_while_creating(rig)
    rig.world.created["token-1"] = 40.0
    (batch,) = await rig.store.list_batches()
    cancelled = await cancel(rig.submitter(), batch)
    assert (cancelled.state, cancelled.remote_status) == (BatchState.SUBMITTED, "cancelling")


async def test_cancelling_in_doubt_closes_what_there_is_not(rig: Rig) -> None:
    await killed_while_creating(rig)
    (batch,) = await rig.store.list_batches()
    assert (await cancel(rig.submitter(), batch)).state is BatchState.CLOSED
    assert rig.world.now_s >= SETTLE_S


@pytest.mark.parametrize(("status", "state"), [("completed", BatchState.ENDED), ("cancelling", BatchState.SUBMITTED)])
async def test_a_batch_that_came_to_its_end_or_stops_already_need_not_be_cancelled(
    rig: Rig, status: str, state: BatchState
) -> None:
    batch = await rig.submit()
    rig.world.status, rig.world.cancelling_fails = status, LOST
    cancelled = await cancel(rig.submitter(), batch)
    assert (cancelled.state, cancelled.remote_status) == (state, status)


async def test_a_batch_that_the_provider_does_not_stop_is_not_said_to_be_cancelled(rig: Rig) -> None:
    batch = await rig.submit()
    rig.world.cancelling_fails = LOST
    with pytest.raises(TemporaryError, match="cannot be cancelled"):
        await cancel(rig.submitter(), batch)
    assert await rig.state() is BatchState.SUBMITTED


@pytest.mark.parametrize(("n_bytes", "status"), [(len(CONTENT) - 1, "processed"), (len(CONTENT), "error")])
async def test_a_file_that_is_not_whole_or_cannot_be_used_is_not_taken_for_the_upload(
    rig: Rig, n_bytes: int, status: str
) -> None:
    await rig.store.advance_batch(rig.batch, BatchState.UPLOADING, {"intended_at": rig.world.now()})
    rig.world.n_uploads, rig.world.n_bytes, rig.world.file_statuses = 1, n_bytes, [status, "processed"]
    assert (await rig.submit()).state is BatchState.SUBMITTED
    assert rig.world.n_uploads == 2


async def test_a_file_is_waited_for_until_it_can_be_used_and_not_for_ever(rig: Rig) -> None:
    rig.world.file_statuses = ["pending"] * 5 + ["processed"]
    assert (await rig.submit()).state is BatchState.SUBMITTED


async def test_a_file_that_is_never_done_with_leaves_the_batch_to_be_sent_later(rig: Rig) -> None:
    rig.world.file_statuses = ["pending"]
    with pytest.raises(TemporaryError, match="has not done with the file"):
        await rig.submit()
    assert await rig.state() is BatchState.UPLOADING
    rig.world.file_statuses = ["processed"]
    assert (await rig.submit()).state is BatchState.SUBMITTED
    assert rig.world.n_uploads == 1


STEPS: Mapping[str, Callable[[World], None]] = {
    "nothing": lambda world: None,
    "lost and late": lambda world: setattr(world, "answers_lost_after_s", 3.0),
}


@pytest.mark.parametrize("how", STEPS)
async def test_submitting_what_is_submitted_is_refused_by_the_table_and_not_by_luck(rig: Rig, how: str) -> None:
    STEPS[how](rig.world)
    await rig.submit()
    (batch,) = await rig.store.list_batches()
    with pytest.raises(ValueError, match="cannot become"):
        await rig.store.advance_batch(batch, BatchState.CREATING, {})
