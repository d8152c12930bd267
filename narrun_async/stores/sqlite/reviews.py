"""Human review in SQLite: samples, the workbooks that carry them, the labels that came back; labels are only added."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict

from narrun_async.errors import UsageError
from narrun_async.metrics.sampling import ReviewUnit
from narrun_async.models import (
    Experiment,
    ExperimentId,
    Label,
    LabelImport,
    NarrativeId,
    ReaderRole,
    ReadLabel,
    Review,
    ReviewId,
    ReviewItem,
    ReviewNarrative,
    ReviewState,
    ReviewWorkbook,
    WorkbookId,
)
from narrun_async.stores.sqlite import statements
from narrun_async.stores.sqlite.connection import transaction
from narrun_async.stores.sqlite.database import Database


class ReviewsPart(Database):
    """`ports.ReviewStore`."""

    async def list_review_units(self, experiment: Experiment) -> Sequence[ReviewUnit]:
        cohort = experiment.cohort
        is_recorded = cohort.last_narrative_id > 0
        rows = await self.fetch_all(
            statements.LIST_REVIEW_UNITS if is_recorded else statements.LIST_REVIEW_UNITS_OF_ROWS,
            {
                "experiment_id": experiment.experiment_id,
                "data_checksum": cohort.data_checksum,
                "last_narrative_id": cohort.last_narrative_id,
            },
        )
        return [
            ReviewUnit(
                narrative_id=NarrativeId(row["narrative_id"]),
                detected=bool(row["detected"]),
                confidence=row["confidence"],
                has_text=bool(row["has_text"]),
                has_both=bool(row["has_both"]),
                disagrees=bool(row["disagrees"]),
            )
            for row in rows
        ]

    async def create_review(self, review: Review, items: Sequence[ReviewItem]) -> ReviewId:
        with self.wrap_errors():
            async with transaction(self.writer):
                cursor = await self.writer.execute(statements.INSERT_REVIEW, asdict(review))
                assert cursor.lastrowid is not None
                review_id = ReviewId(cursor.lastrowid)
                await self.writer.executemany(
                    statements.INSERT_REVIEW_ITEM,
                    [
                        (
                            review_id,
                            item_key(review_id, item.item_key),
                            item.narrative_id,
                            item.stratum,
                            item.stratum_size,
                            item.stratum_drawn,
                        )
                        for item in items
                    ],
                )
        return review_id

    async def list_reviews(self) -> Sequence[Review]:
        return [_review(row) for row in await self.fetch_all(statements.LIST_REVIEWS, {})]

    async def load_review(self, review_id: ReviewId) -> ReviewState:
        asked = {"review_id": review_id}
        review = next((one for one in await self.list_reviews() if one.review_id == review_id), None)
        if review is None:
            raise UsageError(f"there is no review {review_id}", advice="`narrun review list` shows them")
        items = [_item(row) for row in await self.fetch_all(statements.LIST_REVIEW_ITEMS, asked)]
        workbooks = [_workbook(row) for row in await self.fetch_all(statements.LIST_REVIEW_WORKBOOKS, asked)]
        labels: dict[WorkbookId, dict[str, ReadLabel]] = {}
        imported: dict[WorkbookId, str] = {}
        for row in await self.fetch_all(statements.LIST_REVIEW_LABELS, asked):
            workbook_id = WorkbookId(row["workbook_id"])
            imported[workbook_id] = row["file_sha256"]
            said = labels.setdefault(workbook_id, {})
            if row["item_key"] is not None:
                said[row["item_key"]] = ReadLabel(
                    item_key=row["item_key"], label=Label(row["label"]), comment=row["comment"]
                )
        return ReviewState(review=review, items=items, workbooks=workbooks, labels=labels, imported=imported)

    async def load_review_narratives(self, review_id: ReviewId) -> Sequence[ReviewNarrative]:
        rows = await self.fetch_all(statements.LIST_REVIEW_NARRATIVES, {"review_id": review_id})
        return [
            ReviewNarrative(**{**dict(row), "detected": None if row["detected"] is None else bool(row["detected"])})
            for row in rows
        ]

    async def add_review_workbook(self, workbook: ReviewWorkbook) -> None:
        columns = asdict(workbook) | {"role": workbook.role.value, "item_keys": json.dumps(list(workbook.item_keys))}
        with self.wrap_errors():
            async with transaction(self.writer):
                await self.writer.execute(statements.INSERT_REVIEW_WORKBOOK, columns)

    async def find_review_of(self, workbook_id: WorkbookId) -> ReviewId | None:
        row = await self.fetch_one(statements.FIND_REVIEW_WORKBOOK, {"workbook_id": workbook_id})
        return ReviewId(row["review_id"]) if row else None

    async def add_labels(self, taken: LabelImport) -> None:
        columns = {name: value for name, value in asdict(taken).items() if name != "labels"}
        with self.wrap_errors():
            async with transaction(self.writer):
                cursor = await self.writer.execute(statements.INSERT_REVIEW_IMPORT, columns)
                await self.writer.executemany(
                    statements.INSERT_REVIEW_LABEL,
                    [(cursor.lastrowid, one.item_key, one.label.value, one.comment) for one in taken.labels],
                )


def item_key(review_id: ReviewId, number: str) -> str:
    """What an item is called in workbooks."""
    return f"R{review_id}-{number}"


def _review(row: sqlite3.Row) -> Review:
    columns = dict(row)
    return Review(
        **columns
        | {"review_id": ReviewId(columns["review_id"]), "experiment_id": ExperimentId(columns["experiment_id"])}
    )


def _item(row: sqlite3.Row) -> ReviewItem:
    return ReviewItem(
        narrative_id=NarrativeId(row["narrative_id"]),
        item_key=row["item_key"],
        stratum=row["stratum"],
        stratum_size=row["stratum_size"],
        stratum_drawn=row["stratum_drawn"],
    )


def _workbook(row: sqlite3.Row) -> ReviewWorkbook:
    return ReviewWorkbook(
        workbook_id=WorkbookId(row["workbook_id"]),
        review_id=ReviewId(row["review_id"]),
        reader=row["reader"],
        role=ReaderRole(row["role"]),
        is_blinded=bool(row["is_blinded"]),
        written_at=row["written_at"],
        path=row["path"],
        item_keys=json.loads(row["item_keys"]),
    )
