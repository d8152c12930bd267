"""Brings batches to the provider, each exactly once, whatever happens in between.

Before a request that creates something an intent is on disk, after it a handle. Who finds an intent asks the provider
what became of it, and only where it surely has nothing is the request sent (again).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from narrun_async.batching.requests import METADATA_KEY, remote_name, token_of
from narrun_async.batching.states import IN_DOUBT, file_is_broken, file_is_in_work
from narrun_async.clock import utc_now
from narrun_async.errors import ConfigurationError, TemporaryError
from narrun_async.models import Batch, BatchState, RemoteBatch, RemoteFile
from narrun_async.operations.batches.failures import UNKNOWN_THERE, problem_of
from narrun_async.operations.batches.polling import told_by
from narrun_async.ports import BatchProvider, BatchStore
from narrun_async.retrying import CallFailure, may_have_acted
from narrun_async.stores.batch_files import require_unchanged

#: after so long a provider lists what it was asked to create, a request of a killed process that was still on its way
#: included
SETTLE_S = 60.0
#: looks while something settles
LOOKS = 12
SHORTEST_PAUSE_S = 0.05
#: how long a provider may look at a file before it can be used (Azure)
FILE_PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitter:
    """Submits batches of one experiment to one provider, one at a time. The caller holds the lock all the while: a
    second submitter, which sees the intents and not yet the handles, would have to wait anyway.

    :param tell: one line for a person
    :param before_sending: may refuse, by an error, what would be sent and is not with the provider yet
    :param sleep: seconds
    :param now: the wall clock, aware
    """

    store: BatchStore
    provider: BatchProvider
    #: as dialled; recorded with the batch
    api_url: str
    tell: Callable[[str], None]
    sleep: Callable[[float], Awaitable[None]]
    now: Callable[[], datetime] = field(default=utc_now)
    settle_s: float = SETTLE_S
    before_sending: Callable[[Batch], Awaitable[None]] | None = None

    async def submit(self, batch: Batch) -> Batch:
        """From whatever was done before, to a batch that the provider has. Safe to repeat after any failure.

        :raises StorageError: its file is not what was exported; nothing was sent
        :raises NarrunError: the provider refuses, or cannot be asked; what is known is on disk
        """
        found = await self.find(batch)
        if found is not None:
            self.tell(f"batch {batch.number}: the provider has it already, as {found.remote_batch_id}")
            return await self.take_up(batch, found)
        if batch.state in IN_DOUBT:
            batch = await self.store.advance_batch(batch, BatchState.EXPORTED, {"intended_at": None})
        if self.before_sending is not None:
            await self.before_sending(batch)
        if batch.state is not BatchState.UPLOADED:
            batch = await self._upload(batch)
        return await self._create(batch)

    async def resubmit(self, batch: Batch) -> Batch:
        """Send a batch that is in doubt under a new name, on the word of a person that the provider has none.

        Where the provider can be asked after all, and has one, its word counts.
        """
        found = await self.provider.find_batch(token=batch.token, input_file_id=batch.remote_file_id)
        if isinstance(found, RemoteBatch):
            return await self.take_up(batch, found)
        if self.before_sending is not None:
            await self.before_sending(batch)
        n_resubmissions = batch.n_resubmissions + 1
        token = token_of(
            batch.experiment_id, batch.number, input_sha256=batch.input_sha256, n_resubmissions=n_resubmissions
        )
        changes = {"token": token, "n_resubmissions": n_resubmissions, "remote_file_id": None, "intended_at": None}
        return await self._create(
            await self._upload(await self.store.advance_batch(batch, BatchState.EXPORTED, changes))
        )

    # --- what the provider has already ---

    async def find(self, batch: Batch) -> RemoteBatch | None:
        """The provider's batch, where it has one; where one may have been created, None only when it surely has none.

        :raises TemporaryError: it cannot tell
        """
        found = await self._look(batch)
        if found is not None or batch.state not in IN_DOUBT:
            return found
        return await self._find_until_settled(batch)

    async def _find_until_settled(self, batch: Batch) -> RemoteBatch | None:
        """A request may still be on its way, and a list may lag behind: look until both must be over."""
        until = self.now() + timedelta(seconds=self._settles_in_s(batch))
        if until > self.now():
            self.tell(
                f"batch {batch.number}: whether it was created is not known; the provider is asked until"
                f" {until.astimezone():%H:%M:%S}"
            )
        while (left_s := (until - self.now()).total_seconds()) > 0:
            await self.sleep(min(self._pause_s, left_s))
            found = await self._look(batch)
            if found is not None:
                return found
        return None

    @property
    def _pause_s(self) -> float:
        return max(SHORTEST_PAUSE_S, self.settle_s / LOOKS)

    def _settles_in_s(self, batch: Batch) -> float:
        """A clock that was set back means the whole time."""
        if batch.intended_at is None:
            return self.settle_s
        passed_s = (self.now() - batch.intended_at).total_seconds()
        return self.settle_s if passed_s < 0 else max(0.0, self.settle_s - passed_s)

    async def _look(self, batch: Batch) -> RemoteBatch | None:
        found = await self.provider.find_batch(token=batch.token, input_file_id=batch.remote_file_id)
        if not isinstance(found, CallFailure):
            return found
        if found.http_status not in UNKNOWN_THERE:
            raise problem_of(found, doing="the provider cannot be asked for its batches")
        if batch.state not in IN_DOUBT:
            return None  # nothing that costs money was ever asked for
        raise TemporaryError(
            f"batch {batch.number} may have been created, and the provider does not list its batches"
            f" ({found.message}), so only a person can tell",
            advice="look whether the provider shows a batch made at about"
            f" {(batch.intended_at or self.now()).astimezone():%Y-%m-%d %H:%M}; if it has none, `narrun batch submit"
            " --resubmit` sends it again; if it has one, collect its output file with `narrun batch collect --from`",
        )

    # --- the steps ---

    async def _upload(self, batch: Batch) -> Batch:
        require_unchanged(batch.input_path, sha256=batch.input_sha256)
        name = remote_name(batch.token)
        file = await self._find_file(batch, name)
        if file is None:
            intent = {"intended_at": self.now(), "api_url": self.api_url}
            batch = await self.store.advance_batch(batch, BatchState.UPLOADING, intent)
            self.tell(f"batch {batch.number}: uploading {batch.n_bytes:,} bytes, {batch.n_requests:,} requests")
            file = await self._send_file(batch, name)
        await self._wait_for_file(batch, file)
        handle = {"remote_file_id": file.file_id, "api_url": self.api_url}
        return await self.store.advance_batch(batch, BatchState.UPLOADED, handle)

    async def _send_file(self, batch: Batch, name: str) -> RemoteFile:
        sent = await self.provider.upload_file(batch.input_path, name=name)
        if isinstance(sent, RemoteFile):
            return sent
        found = await self._find_file(batch, name) if may_have_acted(sent) else None
        if found is None:
            raise problem_of(sent, doing=f"the file of batch {batch.number} cannot be uploaded")
        return found

    async def _find_file(self, batch: Batch, name: str) -> RemoteFile | None:
        """The file, if the provider has it. Where it does not tell, no harm is done: a second upload costs nothing."""
        found = await self.provider.find_file(name)
        if isinstance(found, CallFailure):
            if found.http_status in UNKNOWN_THERE:
                return None
            raise problem_of(found, doing="the provider cannot be asked for its files")
        is_whole = found is not None and found.n_bytes in (None, batch.n_bytes) and not file_is_broken(found.status)
        return found if is_whole else None

    async def _wait_for_file(self, batch: Batch, file: RemoteFile) -> None:
        until = self.now() + timedelta(seconds=FILE_PATIENCE_S)
        while file_is_in_work(file.status):
            if self.now() > until:
                raise TemporaryError(
                    f"the provider has not done with the file of batch {batch.number} after {FILE_PATIENCE_S:.0f} s",
                    advice="submit again later",
                )
            await self.sleep(self._pause_s)
            looked = await self.provider.load_file(file.file_id)
            if isinstance(looked, CallFailure):
                raise problem_of(looked, doing=f"the file of batch {batch.number} cannot be looked at")
            file = looked
        if file_is_broken(file.status):
            raise ConfigurationError(
                f"the provider has refused the file of batch {batch.number} ({file.status})",
                advice="its own pages may say why; `narrun batch cancel` gives the narratives back",
            )

    async def _create(self, batch: Batch) -> Batch:
        batch = await self.store.advance_batch(batch, BatchState.CREATING, {"intended_at": self.now()})
        assert batch.remote_file_id is not None
        created = await self.provider.create_batch(
            batch.remote_file_id, endpoint=batch.endpoint, metadata={METADATA_KEY: batch.token}
        )
        if isinstance(created, RemoteBatch):
            return await self.take_up(batch, created)
        if may_have_acted(created):
            self.tell(f"batch {batch.number}: the provider's answer was lost ({created.message})")
            # From here on, for a provider that was too slow to answer may be too slow to list.
            batch = await self.store.advance_batch(batch, BatchState.CREATING, {"intended_at": self.now()})
            found = await self.find(batch)
            if found is not None:
                return await self.take_up(batch, found)
        # Surely not created. Its file is looked up anew the next time, for it may be what was refused.
        await self.store.advance_batch(batch, BatchState.EXPORTED, {"intended_at": None})
        raise problem_of(created, doing=f"batch {batch.number} was not created")

    async def take_up(self, batch: Batch, found: RemoteBatch) -> Batch:
        """Record that the provider has a batch."""
        handle = {"remote_batch_id": found.remote_batch_id, "intended_at": None, "api_url": self.api_url}
        return await self.store.advance_batch(batch, BatchState.SUBMITTED, {**told_by(found), **handle})
