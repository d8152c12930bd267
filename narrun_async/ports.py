"""The seams of the house: what the stages need of a database, an endpoint and a source file.

Only domain operations cross them, never SQL and never HTTP. The Store is split by consumer, so that a stage
sees no more of it than it uses; one adapter implements all parts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from narrun_async.models import (
    DataSource,
    Experiment,
    ExperimentId,
    IngestReport,
    NarrativeId,
    RawReply,
    ResultCounts,
    RunId,
    Selection,
    SourceNarrative,
    SourceSummary,
    WorkItem,
    WriterMessage,
)


class NarrativeSource(Protocol):
    """One workbook or table, opened once and read once."""

    @property
    def path(self) -> str:
        """The path as it was given."""

    @property
    def checksum(self) -> str:
        """SHA-256 hex of the file's bytes, the same bytes that `iter_narratives` reads."""

    def iter_narratives(self) -> Iterator[SourceNarrative]:
        """Every narrative in file order, CME before LE within a case.

        :raises BadInputError: at the first thing that cannot be taken as it is
        """

    def summary(self) -> SourceSummary:
        """What was dropped and repaired; complete once `iter_narratives` is exhausted."""


class ChatProvider(Protocol):
    """An endpoint. `complete` is one attempt: it never retries and never sleeps."""

    async def complete(self, body: bytes) -> RawReply:
        """POST one chat completion request and return whatever HTTP answer came.

        Cancelling it closes its connection. The deadline is the caller's.

        :param body: the JSON request, encoded
        :raises CallError: no HTTP answer came (see `retrying`)
        """

    async def aclose(self) -> None:
        """Close every connection."""


class RemainingReader(Protocol):
    """What the planner needs."""

    async def load_page(
        self, experiment: Experiment, selection: Selection, *, run_id: RunId, after: PageCursor, limit: int
    ) -> Sequence[WorkItem]:
        """The next items of the remaining set, in `narrative_id` order; empty at the end."""


class OutcomeWriter(Protocol):
    """What the writer needs."""

    async def write_batch(self, run_id: RunId, messages: Sequence[WriterMessage], progress: Mapping[str, object]) -> None:
        """Store a batch in one transaction; when it returns, the batch is on disk."""
