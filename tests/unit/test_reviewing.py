"""Promises of taking labels in: by key, whole or not at all, and final only where readers are of one mind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from narrun_async.errors import BadInputError, UsageError
from narrun_async.models import (
    ExperimentId,
    FilledRow,
    FilledWorkbook,
    Label,
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
from narrun_async.operations.reviewing import (
    JudgedWorkbook,
    disputed_keys,
    final_labels,
    judge_workbook,
    plan_workbook,
    reviewer_pairs,
)

KEYS = ("R1-0001", "R1-0002", "R1-0003", "R1-0004")
REVIEW = Review(
    review_id=ReviewId(1),
    experiment_id=ExperimentId("e"),
    drawn_at="2026-01-02T03:04:05.000+00:00",
    seed=7,
    strata="predicted",
    bands="0.5",
    allocation="equal",
    n_population=40,
    n_drawn=4,
    narrun_version="0",
)
ITEMS = [
    ReviewItem(narrative_id=NarrativeId(number), item_key=key, stratum="s", stratum_size=40, stratum_drawn=4)
    for number, key in enumerate(KEYS, start=1)
]
SHOWN = {
    key: ReviewNarrative(
        item_key=key,
        narrative_id=NarrativeId(number),
        incident_id=f"case{number}",
        narrative_type="cme",
        narrative_text=f"Made-up text {number}.",
        detected=True,
        confidence=0.9,
        indicators="[]",
        rationale=None,
    )
    for number, key in enumerate(KEYS, start=1)
}


def workbook(reader: str = "anna", role: ReaderRole = ReaderRole.REVIEWER) -> ReviewWorkbook:
    return ReviewWorkbook(
        workbook_id=WorkbookId(f"of {reader}"),
        review_id=ReviewId(1),
        reader=reader,
        role=role,
        is_blinded=True,
        written_at="",
        path=f"{reader}.xlsx",
        item_keys=KEYS,
    )


def state(
    labels: Mapping[str, Mapping[str, Label]] | None = None, *, adjudicator: Mapping[str, Label] | None = None
) -> ReviewState:
    """Labels by reader, an adjudicator's beside them."""
    books = [workbook(reader) for reader in labels or {"anna": {}}]
    said = {book.workbook_id: (labels or {}).get(book.reader, {}) for book in books}
    if adjudicator is not None:
        books.append(workbook("judge", ReaderRole.ADJUDICATOR))
        said[books[-1].workbook_id] = adjudicator
    return ReviewState(
        review=REVIEW,
        items=ITEMS,
        workbooks=books,
        labels={
            book: {key: ReadLabel(item_key=key, label=label) for key, label in of_reader.items()}
            for book, of_reader in said.items()
            if of_reader
        },
        imported={book: f"hash of {book}" for book, of_reader in said.items() if of_reader},
    )


def rows(**changes: Any) -> list[FilledRow]:
    """Every row filled with `no`; `changes` are fields of the second one."""
    filled = [
        FilledRow(
            row=number + 1,
            item_key=key,
            incident_id=f"case{number}",
            narrative_type="cme",
            narrative_text=f"Made-up text {number}.",
            label="no",
            comment=None,
        )
        for number, key in enumerate(KEYS, start=1)
    ]
    filled[1] = replace(filled[1], **changes)
    return filled


def judge(filled: Sequence[FilledRow], *, before: ReviewState | None = None, **options: bool) -> JudgedWorkbook:
    return judge_workbook(
        FilledWorkbook(path="f.xlsx", file_sha256="new", workbook_id=WorkbookId("of anna"), rows=filled),
        workbook(),
        before or state(),
        SHOWN,
        shown_text={key: one.narrative_text or "" for key, one in SHOWN.items()},
        accepts_partial=options.get("partial", False),
        replaces=options.get("replace", False),
    )


def refusal(filled: Sequence[FilledRow], **options: Any) -> str:
    with pytest.raises(BadInputError) as caught:
        judge(filled, **options)
    assert str(caught.value).startswith("f.xlsx")
    return str(caught.value)


def taken(judged: JudgedWorkbook) -> dict[str, Label]:
    assert judged.taken is not None
    return {one.item_key: one.label for one in judged.taken.labels}


def test_labels_are_taken_by_key_with_their_comments() -> None:
    judged = judge(rows(label="  Cannot   TELL ", comment="a remark"))
    assert taken(judged) == dict.fromkeys(KEYS, Label.NO) | {"R1-0002": Label.CANNOT_TELL}
    assert judged.taken is not None
    assert [one.comment for one in judged.taken.labels] == [None, "a remark", None, None]
    assert judged.notes == []


def test_rows_in_another_order_are_told_and_their_labels_stay_with_their_keys() -> None:
    judged = judge(list(reversed(rows(label="yes"))))
    assert taken(judged)["R1-0002"] is Label.YES
    assert [label for key, label in taken(judged).items() if key != "R1-0002"] == [Label.NO] * 3
    assert "another order" in judged.notes[0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"incident_id": "case3"}, "row 3: incident_id is not what was written beside R1-0002"),
        ({"narrative_type": "le"}, "row 3: narrative_type is not what was written"),
        ({"narrative_text": "Made-up text 3."}, "row 3: narrative_text is not what was written"),
        ({"narrative_text": ""}, "row 3: narrative_text is not what was written"),
        ({"item_key": "R1-0009"}, "row 3: the key is not one of this workbook's"),
        ({"item_key": None}, "row 3: the key is not one of this workbook's"),
        ({"item_key": "R1-0001"}, "rows 2 and 3 have the same key R1-0001"),
        ({"label": "maybe"}, "the label in row 3 is none of: yes, no, cannot tell"),
        ({"label": None}, "1 rows have no label: row 3"),
    ],
)
def test_a_changed_workbook_is_refused_in_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(rows(**changes))


def test_no_refusal_repeats_a_text() -> None:
    for changes in ({"narrative_text": "changed"}, {"label": "Made-up text 2."}, {"comment": "c", "item_key": "x"}):
        assert "Made-up" not in refusal(rows(**changes))


def test_missing_rows_are_named() -> None:
    assert "2 of 4 rows are missing: R1-0001, R1-0003" in refusal([row for row in rows() if row.row in (3, 5)])


def test_a_partial_workbook_is_taken_on_request_and_said_to_be_partial() -> None:
    judged = judge(rows(label=None), partial=True)
    assert taken(judged).keys() == {"R1-0001", "R1-0003", "R1-0004"}
    assert "1 of 4 rows have no label" in judged.notes[0]
    with pytest.raises(BadInputError, match="no row has a label"):
        judge([replace(row, label=None) for row in rows()], partial=True)


def test_the_same_file_again_changes_nothing_and_a_changed_one_needs_a_word() -> None:
    before = state({"anna": dict.fromkeys(KEYS, Label.NO)})
    same = replace(before, imported={WorkbookId("of anna"): "new"})
    assert judge(rows(), before=same).taken is None
    assert taken(judge(rows(), before=before)) == dict.fromkeys(KEYS, Label.NO)  # saved again: other bytes, same labels
    assert "1 of them differ here: R1-0002" in refusal(rows(label="yes"), before=before)
    assert taken(judge(rows(label="yes"), before=before, replace=True))["R1-0002"] is Label.YES


def test_every_reader_has_an_order_of_their_own_and_one_workbook() -> None:
    def keys(reader: str) -> Sequence[str]:
        planned = plan_workbook(
            replace(state({"x": {}}), items=ITEMS), reader=reader, role=ReaderRole.REVIEWER, is_blinded=True, path="p",
            keys=[f"k{number}" for number in range(30)],
        )  # fmt: skip
        return planned.item_keys

    assert sorted(keys("a")) == sorted(keys("b"))
    assert keys("a") != keys("b")
    assert keys("a") == keys("a")
    with pytest.raises(UsageError, match="x has a workbook of review 1 already"):
        keys("x")
    for name in ("", "two\nlines", "n" * 61):
        with pytest.raises(UsageError, match="one line"):
            keys(name)


YES, NO, UNSURE = Label.YES, Label.NO, Label.CANNOT_TELL


@pytest.mark.parametrize(
    ("said", "decided", "final"),
    [
        ({"anna": YES}, None, True),
        ({"anna": NO, "ben": NO}, None, False),
        ({"anna": YES, "ben": NO}, None, None),
        ({"anna": YES, "ben": UNSURE}, None, None),
        ({"anna": UNSURE}, None, None),
        ({}, None, None),
        ({"anna": YES, "ben": NO}, NO, False),
        ({"anna": YES, "ben": NO}, UNSURE, None),
        ({"anna": YES, "ben": YES}, NO, False),
    ],
)
def test_a_label_is_final_where_readers_agree_or_somebody_has_decided(
    said: Mapping[str, Label], decided: Label | None, final: bool | None
) -> None:
    key = KEYS[0]
    readers = {reader: {key: label} for reader, label in said.items()}
    reviewed = state(readers, adjudicator=None if decided is None else {key: decided})
    first = final_labels(reviewed)[0]
    assert first.is_positive is final
    assert first.is_adjudicated is (decided is not None)
    is_open = bool(said) and final is None and decided is None
    assert disputed_keys(reviewed) == ([key] if is_open else [])


def test_a_final_label_stands_for_its_share_of_the_stratum() -> None:
    assert [final.weight for final in final_labels(state())] == [10.0] * 4


def test_pairs_of_reviewers_are_counted_over_what_both_decided() -> None:
    labels = {
        "anna": dict(zip(KEYS, (YES, YES, NO, UNSURE), strict=True)),
        "ben": dict(zip(KEYS[:3], (YES, NO, NO), strict=True)) | {KEYS[3]: YES},
        "cleo": {KEYS[0]: NO},
    }
    pairs = {(pair.first, pair.second): pair for pair in reviewer_pairs(state(labels, adjudicator={KEYS[0]: YES}))}
    assert pairs.keys() == {("anna", "ben"), ("anna", "cleo"), ("ben", "cleo")}
    first = pairs["anna", "ben"]
    assert (first.both_yes, first.first_only, first.second_only, first.both_no, first.n_undecided) == (1, 1, 0, 1, 1)
    assert first.n == 3
