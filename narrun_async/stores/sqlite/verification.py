"""Looks for violations of the invariants in SQLite: all of them in one read transaction, with little memory."""

from __future__ import annotations

import hashlib
import sqlite3

import anyio

from narrun_async.models import ExperimentId, InvariantFinding
from narrun_async.stores.sqlite.connection import wrap_sqlite_errors
from narrun_async.stores.sqlite.database import Database
from narrun_async.stores.sqlite.invariants import INVARIANTS, Invariant

#: places that are shown of each kind
MAX_EXAMPLES = 5
#: rows fetched at once
CHUNK_ROWS = 500
MAX_PLACE_CHARS = 160


class VerificationPart(Database):
    """`ports.VerificationStore`."""

    async def check_invariants(self, experiment_id: ExperimentId | None) -> list[InvariantFinding]:
        with wrap_sqlite_errors(self.path):
            await self._reader.create_function("sha256_hex", 1, _sha256_hex, deterministic=True)
            # One snapshot for all of it: beside a run, what is found must be true of one and the same moment.
            await self._reader.execute("BEGIN")
            try:
                return [await self._check(invariant, experiment_id) for invariant in INVARIANTS]
            except BaseException:
                # A statement goes on in its thread after its await was cancelled; the check of a file may take minutes.
                await self._reader.interrupt()
                raise
            finally:
                with anyio.CancelScope(shield=True):
                    if self._reader.in_transaction:
                        await self._reader.execute("ROLLBACK")

    async def _check(self, invariant: Invariant, experiment_id: ExperimentId | None) -> InvariantFinding:
        places: dict[bool, list[str]] = {False: [], True: []}
        counts = {False: 0, True: 0}
        obstacle = remark = None
        # As bytes: a key of a damaged or foreign file need not be valid UTF-8.
        statement = f"SELECT CAST(place AS BLOB) AS place, COALESCE(is_inherited, 0) FROM ({invariant.statement})"
        try:
            async with self._reader.execute(statement, {"experiment_id": experiment_id}) as cursor:
                while chunk := await cursor.fetchmany(CHUNK_ROWS):
                    for place, is_inherited in chunk:
                        kind = bool(is_inherited)
                        counts[kind] += 1
                        if len(places[kind]) < MAX_EXAMPLES:
                            places[kind].append(_place_text(place))
            if invariant.remark is not None:
                async with self._reader.execute(invariant.remark, {"experiment_id": experiment_id}) as cursor:
                    said = await cursor.fetchone()
                remark = said[0] if said else None
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
            obstacle = "the file is damaged where this would have to be read"
        return InvariantFinding(
            invariant_id=invariant.invariant_id,
            sentence=invariant.sentence,
            n_violations=counts[False],
            examples=tuple(places[False]),
            n_inherited=counts[True],
            inherited_examples=tuple(places[True]),
            obstacle=obstacle,
            remark=remark,
        )


def _sha256_hex(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()


def _place_text(place: bytes | None) -> str:
    return (place or b"?").decode("utf-8", "replace")[:MAX_PLACE_CHARS]
