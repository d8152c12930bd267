"""Owns databases whose rows are made up: one source, and the answers of some experiments to it."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from narrun_async.models import CohortRow
from narrun_async.stores import open_sqlite_writer
from narrun_async.stores.sqlite.experiment_rows import experiment_columns

#: stands in every text and in every answer, and must come out nowhere
CANARY = "the heron on the weir"
CHECKSUM = "c" * 64


def made_up_id(number: int) -> str:
    return f"{number:08d}-0000-4000-8000-000000000000"


class Database:
    """A file with one source and the answers of some experiments to it."""

    def __init__(self, path: Path, build: Any, rows: Sequence[CohortRow]) -> None:
        self.path, self._build, self.rows = path, build, rows
        asyncio.run(self._create())

    async def _create(self) -> None:
        await (await open_sqlite_writer(self.path)).aclose()
        narratives = [
            {
                "incident_id": row.incident_id,
                "narrative_type": row.narrative_type,
                "narrative_text": f"{CANARY} {row.text_chars}",
                "manual_flag_ind": row.manual_flag_ind,
                "manual_flag": row.manual_flag,
                "data_source": "made_up.xlsx",
                "data_checksum": CHECKSUM,
                "incident_year": row.incident_year,
            }
            for row in self.rows
        ]
        self._insert("source_narratives", narratives)

    def _insert(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        names = list(rows[0])
        places = ", ".join(f":{name}" for name in names)
        with closing(sqlite3.connect(self.path)) as db, db:
            db.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", rows)

    def add(self, number: int, rows: Sequence[CohortRow] | None = None, **columns: Any) -> str:
        """An experiment over the source, with these rows as its answers."""
        given = {"experiment_name": f"made up {number}", "config_json": None, "n_narratives_total": len(self.rows)}
        new = self._build.new_experiment(
            number,
            experiment_id=made_up_id(number),
            data_checksum=CHECKSUM,
            cohort_last_narrative_id=len(self.rows),
            **given | columns,
        )
        self._insert("experiments", [{**experiment_columns(new), "status": "completed"}])
        results = [
            {
                "experiment_id": made_up_id(number),
                "incident_id": row.incident_id,
                "narrative_type": row.narrative_type,
                "row_num": rank,
                "detected": row.detected,
                "confidence": row.confidence,
                "error_occurred": int(row.error_category is not None),
                "error_category": row.error_category,
                "manual_flag_ind": row.manual_flag_ind,
                "manual_flag": row.manual_flag,
                "indicators": f'["{CANARY}"]' if row.detected is not None else None,
                "error_message": CANARY if row.error_category else None,
                "rationale": CANARY,
                "raw_response": CANARY,
                "is_true_positive": int(row.detected == 1 and row.manual_flag_ind == 1),
                "is_true_negative": int(row.detected == 0 and row.manual_flag_ind == 0),
            }
            for rank, row in enumerate(self.rows if rows is None else rows, 1)
            if row.has_result
        ]
        self._insert("narrative_results", results)
        return made_up_id(number)

    def change(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.path)) as db, db:
            for statement in statements:
                db.execute(statement)

    def digest(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()
