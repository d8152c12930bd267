"""Data sources in SQLite: a file's narratives go in whole, in one transaction, or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import aiosqlite
import anyio

from narrun_async.clock import local_now
from narrun_async.errors import BadInputError
from narrun_async.models import ROWS_IDENTITY, Cohort, DataSource, IngestReport, NarrativeId, SourceNarrative
from narrun_async.ports import ConflictRule, NarrativeSource
from narrun_async.stores.sqlite import statements
from narrun_async.stores.sqlite.database import Database, Parameters
from narrun_async.stores.sqlite.legacy_statements import LIST_ODD_IDS

#: rows handed to SQLite at once; larger chunks were no faster and cost memory
CHUNK_ROWS = 500
#: ids listed in an error before it says "and N more"
LISTED_CONFLICTS = 10


class SourcesPart(Database):
    """`ports.SourceStore`."""

    async def find_source(self, *, checksums: Sequence[str]) -> DataSource | None:
        for checksum in checksums:
            row = await self.fetch_one(statements.FIND_SOURCE, {"checksum": checksum})
            if row:
                return _data_source(row)
        return None

    async def find_source_by_path(self, path: str) -> DataSource | None:
        row = await self.fetch_one(statements.FIND_SOURCE_BY_PATH, {"path": path})
        return _data_source(row) if row else None

    async def list_sources(self) -> Sequence[DataSource]:
        return [_data_source(row) for row in await self.fetch_all(statements.LIST_SOURCES, {})]

    async def load_cohort(self, checksum: str, *, max_narratives: int | None) -> Cohort:
        limit = -1 if max_narratives is None else max_narratives
        row = await self.fetch_exactly_one(statements.LOAD_COHORT, {"checksum": checksum, "limit": limit})
        return Cohort(
            data_checksum=checksum,
            last_narrative_id=NarrativeId(row["last_narrative_id"]),
            n_narratives=row["n_narratives"],
        )

    async def add_source(self, source: NarrativeSource, *, on_conflict: ConflictRule) -> IngestReport:
        with self.wrap_errors():
            writer = self.writer
            await writer.execute(statements.CREATE_INCOMING)
            await writer.execute(statements.CLEAR_INCOMING)
            # Not `transaction()`: a long file must stay interruptible, so only the rollback is shielded.
            await writer.execute("BEGIN IMMEDIATE")
            try:
                last_known_id = (await self.fetch_exactly_one(statements.MAX_NARRATIVE_ID, {}))[0]
                await _insert_narratives(writer, source)
                report = await self._judge_incoming(source, on_conflict, last_known_id)
                await writer.execute("COMMIT")
            except BaseException:
                with anyio.CancelScope(shield=True):
                    if writer.in_transaction:
                        await writer.execute("ROLLBACK")
                raise
        return report

    async def _judge_incoming(
        self, source: NarrativeSource, on_conflict: ConflictRule, last_known_id: int
    ) -> IngestReport:
        incoming = await self._fetch_in_transaction(statements.COUNT_INCOMING, {})
        if not incoming["n_rows"]:
            raise BadInputError(
                f"{source.path}: there is no narrative in this file",
                advice="every text cell is blank; check the sheet and the columns",
            )
        if on_conflict == "error":
            await self._refuse_conflicts(source)
        known = await self._fetch_in_transaction(statements.COUNT_KNOWN, {"last_known_id": last_known_id})
        if known["n_known"]:
            return await self._report_known(source, n_keys=incoming["n_keys"], known=known)
        return await self._report_loaded(source, incoming)

    async def _refuse_conflicts(self, source: NarrativeSource) -> None:
        count = (await self._fetch_in_transaction(statements.COUNT_CONFLICTS, {}))[0]
        if not count:
            return
        async with self.writer.execute(statements.LIST_CONFLICTS, {"limit": LISTED_CONFLICTS}) as cursor:
            listed = [f"{row['incident_id']}/{row['narrative_type']} (rows {row['file_rows']})" async for row in cursor]
        more = f" and {count - len(listed)} more" if count > len(listed) else ""
        raise BadInputError(
            f"{source.path}: {count} narratives occur more than once with different text: {', '.join(listed)}{more}",
            advice="correct the file, or keep the first of each with --on-conflict first",
        )

    async def _report_known(self, source: NarrativeSource, *, n_keys: int, known: sqlite3.Row) -> IngestReport:
        if known["n_known"] == n_keys == known["n_equal"]:
            row = await self._fetch_in_transaction(statements.FIND_KNOWN_SOURCE, {})
            # A part of a source, or parts of several, would be another cohort than the one asked for.
            if row["n_narratives"] == n_keys:
                return IngestReport(source=await self._identified(row, source), loaded=False, summary=source.summary())
        raise BadInputError(
            f"{source.path}: {known['n_known']} of its {n_keys} narratives are in the database already"
            f" ({known['n_equal']} with the same text), so it is neither the same file nor a new one",
            advice=await self._advise_on_known(),
        )

    async def _identified(self, row: sqlite3.Row, source: NarrativeSource) -> DataSource:
        """What the database knows of this file. Where the predecessor kept no checksum of it, there is one now."""
        found = _data_source(row)
        if not found.checksum.startswith(ROWS_IDENTITY):
            return found
        known_by = {"identity": found.checksum, "checksum": source.checksum}
        await self.writer.execute(statements.IDENTIFY_SOURCE, known_by)
        await self.writer.execute(statements.IDENTIFY_COHORTS, known_by)
        return replace(found, checksum=source.checksum)

    async def _advise_on_known(self) -> str:
        async with self.writer.execute(LIST_ODD_IDS) as cursor:
            has_odd_ids = await cursor.fetchone() is not None
        if has_odd_ids:
            return "ids in the database are written as in 1e+05: see `narrun migrate`, which says how to repair them"
        return "use another --db for this file"

    async def _report_loaded(self, source: NarrativeSource, incoming: sqlite3.Row) -> IngestReport:
        checksum = {"checksum": source.checksum}
        stored = await self._fetch_in_transaction(statements.FIND_SOURCE, checksum)
        kinds = await self._fetch_in_transaction(statements.SUMMARISE_SOURCE, checksum)
        return IngestReport(
            source=_data_source(stored),
            loaded=True,
            summary=source.summary(),
            n_cme=kinds["n_cme"],
            n_le=kinds["n_le"],
            n_labelled=kinds["n_labelled"],
            n_positive=kinds["n_positive"],
            n_duplicates=incoming["n_rows"] - incoming["n_texts"],
            n_conflicts_dropped=incoming["n_texts"] - incoming["n_keys"],
        )

    async def _fetch_in_transaction(self, statement: str, parameters: Parameters) -> sqlite3.Row:
        """One row as the open transaction sees it, temporary table included."""
        async with self.writer.execute(statement, parameters) as cursor:
            row = await cursor.fetchone()
        assert row is not None
        return row


async def _insert_narratives(writer: aiosqlite.Connection, source: NarrativeSource) -> None:
    loaded_at = local_now()
    for chunk in _chunked(source.iter_narratives()):
        await writer.executemany(
            statements.INSERT_INCOMING,
            [(one.incident_id, one.narrative_type.value, one.text_sha256, one.row) for one in chunk],
        )
        await writer.executemany(
            statements.INSERT_SOURCE_NARRATIVE,
            [
                (
                    one.incident_id,
                    one.narrative_type.value,
                    one.narrative_text,
                    one.manual_flag_ind,
                    one.manual_flag,
                    source.path,
                    source.checksum,
                    loaded_at,
                    one.text_sha256,
                )
                for one in chunk
            ],
        )


def _chunked(narratives: Iterable[SourceNarrative]) -> Iterator[list[SourceNarrative]]:
    iterator = iter(narratives)
    while chunk := list(islice(iterator, CHUNK_ROWS)):
        yield chunk


def _data_source(row: sqlite3.Row) -> DataSource:
    return DataSource(
        path=row["path"] or "",
        checksum=row["checksum"] or "",
        n_narratives=row["n_narratives"],
        loaded_at=row["loaded_at"] or "",
    )
