"""Data sources in SQLite: a file's narratives go in whole, in one transaction, or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from itertools import islice

import aiosqlite
import anyio

from narrun_async.clock import local_now, utc_now, utc_text
from narrun_async.errors import BadInputError
from narrun_async.models import (
    ROWS_IDENTITY,
    Cohort,
    DataSource,
    FlagCounts,
    IngestRecord,
    IngestReport,
    NarrativeId,
    Screening,
    SourceNarrative,
)
from narrun_async.ports import ConflictRule, NarrativeSource
from narrun_async.screening import ScreeningRules, flags_text
from narrun_async.stores.sqlite import statements
from narrun_async.stores.sqlite.database import Database, Parameters
from narrun_async.stores.sqlite.legacy_statements import LIST_ODD_IDS

#: rows handed to SQLite at once; larger chunks were no faster and cost memory
CHUNK_ROWS = 500
#: ids listed in an error before it says "and N more"
LISTED_CONFLICTS = 10
#: where a whole source is meant
_LAST_OF_ALL = (1 << 63) - 1


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

    async def add_source(
        self, source: NarrativeSource, *, on_conflict: ConflictRule, rules: ScreeningRules | None = None
    ) -> IngestReport:
        with self.wrap_errors():
            await self.writer.execute(statements.CREATE_INCOMING)
            await self.writer.execute(statements.CLEAR_INCOMING)
            async with self._long_transaction() as writer:
                last_known_id = (await self.fetch_exactly_one(statements.MAX_NARRATIVE_ID, {}))[0]
                await _insert_narratives(writer, source, rules)
                return await self._judge_incoming(source, on_conflict, last_known_id, rules)

    @asynccontextmanager
    async def _long_transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """Not `transaction()`: what takes a minute must stay interruptible, so only the rollback is shielded."""
        writer = self.writer
        await writer.execute("BEGIN IMMEDIATE")
        try:
            yield writer
            await writer.execute("COMMIT")
        except BaseException:
            with anyio.CancelScope(shield=True):
                if writer.in_transaction:
                    await writer.execute("ROLLBACK")
            raise

    # --- screening ---

    async def screen_source(self, checksum: str, rules: ScreeningRules) -> Screening:
        """20 s for a million texts, half of them for writing flags where there were none."""
        latest = await self.load_screening(checksum)
        with self.wrap_errors():
            async with self._long_transaction() as writer:
                n_changed = await self._flag_texts(checksum, rules)
                n_changed += (await writer.execute(statements.MARK_REPEATS, {"checksum": checksum or None})).rowcount
                if latest is not None and latest.rules_sha256 == rules.sha256 and not n_changed:
                    return latest
                n_screened = (
                    await self._fetch_in_transaction(statements.COUNT_SCREENED, {"checksum": checksum or None})
                )[0]
                return await self._record_screening(checksum, rules, n_screened=n_screened)

    async def load_screening(self, checksum: str) -> Screening | None:
        row = await self.fetch_one(statements.LOAD_SCREENING, {"checksum": checksum})
        return Screening(**dict(row)) if row else None

    async def count_flags(self, cohort: Cohort) -> FlagCounts | None:
        if await self.load_screening(cohort.data_checksum) is None:
            return None
        parameters = {"checksum": cohort.data_checksum or None, "last_narrative_id": cohort.last_narrative_id}
        return FlagCounts(**dict(await self.fetch_exactly_one(statements.COUNT_FLAGS, parameters)))

    async def _flag_texts(self, checksum: str, rules: ScreeningRules) -> int:
        """:returns: how many have other flags than before"""
        parameters = {"checksum": checksum or None, "limit": CHUNK_ROWS, "after": 0}
        n_changed = 0
        while rows := list(await self.writer.execute_fetchall(statements.PAGE_TEXTS, parameters)):
            found = [(flags_text(rules.flags_of(text)), narrative_id) for narrative_id, text, _ in rows]
            changed = [new for new, (*_, stored) in zip(found, rows, strict=True) if new[0] != stored]
            await self.writer.executemany(statements.SET_FLAGS, changed)
            n_changed += len(changed)
            parameters["after"] = rows[-1]["narrative_id"]
        return n_changed

    async def _record_screening(self, checksum: str, rules: ScreeningRules, *, n_screened: int) -> Screening:
        """Count what the open transaction has flagged, and note it."""
        whole = {"checksum": checksum or None, "last_narrative_id": _LAST_OF_ALL}
        counts = dict(await self._fetch_in_transaction(statements.COUNT_FLAGS, whole))
        screening = Screening(
            rules_name=rules.name,
            rules_sha256=rules.sha256,
            screened_at=utc_text(utc_now()),
            n_screened=n_screened,
            **counts,
        )
        await self.writer.execute(statements.INSERT_SCREENING, asdict(screening) | {"checksum": checksum})
        return screening

    # --- loading ---

    async def _judge_incoming(
        self,
        source: NarrativeSource,
        on_conflict: ConflictRule,
        last_known_id: int,
        rules: ScreeningRules | None,
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
        return await self._report_loaded(source, incoming, rules)

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
                stored = await self._identified(row, source)
                screening = await self.load_screening(stored.checksum)
                return IngestReport(source=stored, loaded=False, screening=screening, summary=source.summary())
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
        for statement in (statements.IDENTIFY_SOURCE, statements.IDENTIFY_COHORTS, statements.IDENTIFY_SCREENINGS):
            await self.writer.execute(statement, known_by)
        return replace(found, checksum=source.checksum)

    async def _advise_on_known(self) -> str:
        async with self.writer.execute(LIST_ODD_IDS) as cursor:
            has_odd_ids = await cursor.fetchone() is not None
        if has_odd_ids:
            return "ids in the database are written as in 1e+05: see `narrun migrate`, which says how to repair them"
        return "use another --db for this file"

    async def _report_loaded(
        self, source: NarrativeSource, incoming: sqlite3.Row, rules: ScreeningRules | None
    ) -> IngestReport:
        checksum = {"checksum": source.checksum}
        stored = await self._fetch_in_transaction(statements.FIND_SOURCE, checksum)
        kinds = await self._fetch_in_transaction(statements.SUMMARISE_SOURCE, checksum)
        screening = None
        if rules is not None:
            await self.writer.execute(statements.MARK_REPEATS, checksum)
            screening = await self._record_screening(source.checksum, rules, n_screened=stored["n_narratives"])
        summary = source.summary()
        record = IngestRecord(
            n_cases=summary.n_cases,
            n_blank=summary.n_blank,
            n_blank_ids=summary.n_blank_ids,
            n_texts_repaired=summary.n_texts_repaired,
            n_duplicates=incoming["n_rows"] - incoming["n_texts"],
            n_conflicts_dropped=incoming["n_texts"] - incoming["n_keys"],
        )
        noted = asdict(record) | checksum | {"ingested_at": utc_text(utc_now())}
        await self.writer.execute(statements.INSERT_INGEST, noted)
        return IngestReport(
            source=_data_source(stored),
            loaded=True,
            screening=screening,
            summary=summary,
            n_cme=kinds["n_cme"],
            n_le=kinds["n_le"],
            n_labelled=kinds["n_labelled"],
            n_positive=kinds["n_positive"],
            n_duplicates=record.n_duplicates,
            n_conflicts_dropped=record.n_conflicts_dropped,
        )

    async def _fetch_in_transaction(self, statement: str, parameters: Parameters) -> sqlite3.Row:
        """One row as the open transaction sees it, temporary table included."""
        async with self.writer.execute(statement, parameters) as cursor:
            row = await cursor.fetchone()
        assert row is not None
        return row


async def _insert_narratives(
    writer: aiosqlite.Connection, source: NarrativeSource, rules: ScreeningRules | None
) -> None:
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
                    None if rules is None else flags_text(rules.flags_of(one.narrative_text)),
                    one.incident_year,
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
