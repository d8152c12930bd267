"""Writes a remaining set into batch files, each recorded as soon as it is whole. Needs no network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from narrun_async.batching.requests import MAX_NUMBER, RequestKey, custom_id_of, experiment_key, request_line, token_of
from narrun_async.batching.shards import ShardLimits
from narrun_async.errors import UsageError
from narrun_async.models import (
    Batch,
    BatchItem,
    Experiment,
    NewBatch,
    PageCursor,
    RunId,
    Selection,
    WorkItem,
    text_sha256,
)
from narrun_async.ports import BatchStore, RemainingStore
from narrun_async.prompting import RequestTemplate
from narrun_async.stores.batch_files import BatchFiles, WholeFile, remove_leftovers

#: narratives read from the database at once
PAGE_ITEMS = 500
#: error rows of any run are met
_NO_RUN = RunId(0)


class ExportingStore(RemainingStore, BatchStore, Protocol):
    """What exporting needs of a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOrder:
    """What is to be exported, and how."""

    experiment: Experiment
    selection: Selection
    template: RequestTemplate = field(repr=False)
    #: what each request is addressed to
    endpoint: str
    limits: ShardLimits
    #: where the files go
    directory: Path
    #: the directory is not ours alone: names say whose they are, and nothing is removed
    is_elsewhere: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export did."""

    batches: Sequence[Batch]
    #: narratives of the selection that are in open batches already
    n_spoken_for: int
    #: narratives whose text is not what was ingested; a run makes them error rows
    n_changed: int


async def export_batches(store: ExportingStore, order: ExportOrder) -> Exported:
    """Put what is selected, and in no open batch yet, into files. The caller holds the lock.

    A file appears whole, then its batch is recorded: a kill in between leaves a file that the next export removes. What
    was recorded before a failure stays.

    :raises UsageError: one request alone is larger than a file may be
    :raises StorageError: a file cannot be written
    """
    experiment_id = order.experiment.experiment_id
    numbers = [batch.number for batch in await store.list_batches(experiment_id)]
    if not order.is_elsewhere:
        remove_leftovers(order.directory, known_numbers=numbers)
    reader = _Reader(store, order)
    batches: list[Batch] = []
    shard: _Shard | None = None
    try:
        async for item in reader.iter_items():
            shard = shard or _Shard(order, max(numbers, default=0) + len(batches) + 1)
            line = shard.line_for(item)
            if shard.is_full_for(line):
                batches.append(await shard.finish(store))
                shard = _Shard(order, shard.number + 1)
                line = shard.line_for(item)
            shard.add(item, line)
        if shard is not None:
            batches.append(await shard.finish(store))
    finally:
        if shard is not None:
            shard.close()
    return Exported(batches=batches, n_spoken_for=reader.n_spoken_for, n_changed=reader.n_changed)


class _Reader:
    """The selection, page by page, without what is spoken for."""

    def __init__(self, store: ExportingStore, order: ExportOrder) -> None:
        self._store = store
        self._order = order
        self.n_spoken_for = 0
        self.n_changed = 0

    async def iter_items(self) -> AsyncIterator[WorkItem]:
        experiment, cursor = self._order.experiment, PageCursor()
        while page := await self._store.load_page(
            experiment, self._order.selection, run_id=_NO_RUN, after=cursor, limit=PAGE_ITEMS
        ):
            spoken_for = await self._store.list_spoken_for(
                experiment.experiment_id, after=cursor.narrative_id, until=page[-1].narrative_id
            )
            for item in page:
                if item.narrative_id in spoken_for:
                    self.n_spoken_for += 1
                elif item.text_sha256 is not None and text_sha256(item.narrative_text) != item.text_sha256:
                    self.n_changed += 1
                else:
                    yield item
            cursor = PageCursor(narrative_id=page[-1].narrative_id, row_num=page[-1].row_num)


class _Shard:
    """One batch file that is being written."""

    def __init__(self, order: ExportOrder, number: int) -> None:
        if number > MAX_NUMBER:
            raise UsageError(f"an experiment can have {MAX_NUMBER:,} batches, and this one has had them all")
        self._order = order
        self.number = number
        self._experiment = experiment_key(order.experiment.experiment_id)
        self._items: list[BatchItem] = []
        path = BatchFiles(directory=order.directory.absolute(), number=number).requests
        prefix = f"{self._experiment[:8]}-" if order.is_elsewhere else ""
        self._path = path.with_name(f"{prefix}{path.name}")
        self._file = WholeFile(self._path)

    def line_for(self, item: WorkItem) -> bytes:
        """The request for one narrative, as it stands in this file."""
        key = RequestKey(experiment=self._experiment, number=self.number, narrative_id=item.narrative_id)
        body = self._order.template.body_for(item.narrative_text)
        return request_line(custom_id_of(key), endpoint=self._order.endpoint, body=body)

    def is_full_for(self, line: bytes) -> bool:
        """Whether a line belongs into the next file."""
        return bool(self._items) and not self._order.limits.takes(
            len(line), n_requests_before=len(self._items), n_bytes_before=self._file.n_bytes
        )

    def add(self, item: WorkItem, line: bytes) -> None:
        """:raises UsageError: it is too large for any file"""
        if len(line) > self._order.limits.max_bytes:
            raise UsageError(
                f"the request for narrative {item.narrative_id} alone has {len(line):,} bytes",
                advice="allow more with --max-bytes, or let a run call for it",
            )
        self._file.write(line)
        self._items.append(
            BatchItem(narrative_id=item.narrative_id, row_num=item.row_num, replaces_error=item.replaces_error)
        )

    async def finish(self, store: BatchStore) -> Batch:
        """Put the file in its place, then record it."""
        order, sha256 = self._order, self._file.sha256
        experiment_id = order.experiment.experiment_id
        self._file.publish()
        new = NewBatch(
            experiment_id=experiment_id,
            number=self.number,
            selection=order.selection,
            input_path=self._path,
            input_sha256=sha256,
            endpoint=order.endpoint,
            n_requests=len(self._items),
            n_bytes=self._file.n_bytes,
            token=token_of(experiment_id, self.number, input_sha256=sha256, n_resubmissions=0),
        )
        return await store.add_batch(new, self._items)

    def close(self) -> None:
        """Remove what is not whole; harmless afterwards."""
        self._file.close()
