"""Draws narratives for people to read, judges the workbooks that come back, and says which labels are final.

Labels are read by the key of a row, never by its place. A workbook is taken whole or not at all.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from narrun_async import __version__
from narrun_async.clock import utc_now, utc_text
from narrun_async.errors import BadInputError, UsageError
from narrun_async.metrics.sampling import Allocation, ReviewUnit, Stratifier, draw
from narrun_async.models import (
    Experiment,
    FilledWorkbook,
    Label,
    LabelImport,
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
from narrun_async.operations.scrubbing import refuse_unreadable
from narrun_async.ports import ReviewStore, TextPresence

#: rows named in a refusal before it says "and N more"
LISTED_ROWS = 5
MAX_READER_CHARS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """How a sample is to be drawn."""

    n: int
    stratifiers: Sequence[Stratifier]
    bands: Sequence[float]
    allocation: Allocation
    #: None: drawn at random, and recorded
    seed: int | None


class UnitStore(ReviewStore, TextPresence, Protocol):
    """What drawing needs of a store."""


async def list_readable_units(store: UnitStore, experiment: Experiment) -> Sequence[ReviewUnit]:
    """What a sample can be drawn from.

    :raises UsageError: nothing has an answer
    :raises BadInputError: the texts were scrubbed
    """
    units = await store.list_review_units(experiment)
    if not units:
        raise UsageError(f"experiment {experiment.experiment_id} has no answers yet, so nothing can be drawn")
    await refuse_unreadable(store, [unit.has_text for unit in units])
    return units


async def draw_review(
    store: ReviewStore, experiment: Experiment, units: Sequence[ReviewUnit], wanted: SampleRequest
) -> Review:
    """Draw a stratified sample of `list_readable_units`, and store it."""
    seed = wanted.seed if wanted.seed is not None else random.SystemRandom().randrange(2**31)
    drawn = draw(
        units,
        n=wanted.n,
        stratifiers=wanted.stratifiers,
        bands=wanted.bands,
        allocation=wanted.allocation,
        seed=seed,
    )
    width = max(4, len(str(len(drawn))))
    items = [
        ReviewItem(
            narrative_id=unit.narrative_id,
            item_key=f"{number:0{width}}",
            stratum=unit.stratum,
            stratum_size=unit.stratum_size,
            stratum_drawn=unit.stratum_drawn,
        )
        for number, unit in enumerate(drawn, start=1)
    ]
    review = Review(
        review_id=ReviewId(0),
        experiment_id=experiment.experiment_id,
        drawn_at=utc_text(utc_now()),
        seed=seed,
        strata=",".join(wanted.stratifiers),
        bands=",".join(f"{band:g}" for band in wanted.bands),
        allocation=wanted.allocation.value,
        n_population=len(units),
        n_drawn=len(items),
        narrun_version=__version__,
    )
    return replace(review, review_id=await store.create_review(review, items))


def require_reader_name(reader: str) -> None:
    """:raises UsageError: it cannot be one"""
    if not reader.strip() or not reader.isprintable() or len(reader) > MAX_READER_CHARS:
        raise UsageError(f"a reader's name is one line of at most {MAX_READER_CHARS} characters")


def plan_workbook(
    state: ReviewState, *, reader: str, role: ReaderRole, is_blinded: bool, path: str, keys: Sequence[str]
) -> ReviewWorkbook:
    """A workbook for one reader, its rows in an order of the reader's own. Stored before it is written.

    :raises UsageError: the name cannot be one, or the reader has a workbook of this review already
    """
    require_reader_name(reader)
    for other in state.workbooks:
        if other.reader == reader:
            raise UsageError(
                f"{reader} has a workbook of review {state.review.review_id} already: {other.path}",
                advice="`narrun review rewrite` writes the same one again",
            )
    order = list(keys)
    random.Random(f"{state.review.seed}:{reader}").shuffle(order)
    return ReviewWorkbook(
        workbook_id=WorkbookId(str(uuid.uuid4())),
        review_id=state.review.review_id,
        reader=reader,
        role=role,
        is_blinded=is_blinded,
        written_at=utc_text(utc_now()),
        path=path,
        item_keys=tuple(order),
    )


# --- what comes back -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedWorkbook:
    """Labels that may be taken, and what people should know about them."""

    workbook: ReviewWorkbook
    #: None: exactly this was taken before
    taken: LabelImport | None
    notes: Sequence[str] = ()


class ReviewReader(Protocol):
    """What judging needs of a store."""

    async def find_review_of(self, workbook_id: WorkbookId) -> ReviewId | None: ...

    async def load_review(self, review_id: ReviewId) -> ReviewState: ...


async def find_workbook(store: ReviewReader, filled: FilledWorkbook) -> tuple[ReviewState, ReviewWorkbook]:
    """The review and the reader that a workbook belongs to.

    :raises BadInputError: this database has not written it
    """
    review_id = await store.find_review_of(filled.workbook_id)
    if review_id is None:
        raise BadInputError(
            f"{filled.path}: this workbook was not written from this database",
            advice="name the database that it came from with --db",
        )
    state = await store.load_review(review_id)
    (workbook,) = (one for one in state.workbooks if one.workbook_id == filled.workbook_id)
    return state, workbook


def judge_workbook(
    filled: FilledWorkbook,
    workbook: ReviewWorkbook,
    state: ReviewState,
    shown: Mapping[str, ReviewNarrative],
    *,
    shown_text: Mapping[str, str],
    accepts_partial: bool,
    replaces: bool,
) -> JudgedWorkbook:
    """The labels of a workbook that came back, if it is the one that was written.

    :param shown: item key → what was written into its row
    :param shown_text: item key → the text that a cell holds, in the form in which texts are compared
    :param accepts_partial: rows without a label are left out instead of being refused
    :param replaces: labels that were taken from this workbook before may change
    :raises BadInputError: rows are missing, added, changed, or say something that is no label
    """
    if state.imported.get(workbook.workbook_id) == filled.file_sha256:
        return JudgedWorkbook(workbook=workbook, taken=None)
    _require_rows(filled, workbook)
    _require_unchanged(filled, shown, shown_text)
    labels = _read_labels(filled, accepts_partial=accepts_partial)
    _require_same_labels(filled, workbook, state, labels, replaces=replaces)
    notes = []
    if [row.item_key for row in filled.rows] != list(workbook.item_keys):
        notes.append("the rows stand in another order than they were written in; labels were read by their keys")
    if n_blank := len(filled.rows) - len(labels):
        notes.append(f"{n_blank} of {len(filled.rows)} rows have no label and were left out")
    taken = LabelImport(
        workbook_id=workbook.workbook_id,
        imported_at=utc_text(utc_now()),
        file_name=filled.path,
        file_sha256=filled.file_sha256,
        labels=labels,
    )
    return JudgedWorkbook(workbook=workbook, taken=taken, notes=notes)


def _require_rows(filled: FilledWorkbook, workbook: ReviewWorkbook) -> None:
    """Every row that was written is there once, and no other."""
    written, seen = frozenset(workbook.item_keys), dict[str, int]()
    for row in filled.rows:
        if row.item_key is None or row.item_key not in written:
            raise BadInputError(
                f"{filled.path}, row {row.row}: the key is not one of this workbook's",
                advice="undo the change; keys and ids are not to be edited, and rows not to be added",
            )
        if row.item_key in seen:
            raise BadInputError(
                f"{filled.path}: rows {seen[row.item_key]} and {row.row} have the same key {row.item_key}",
                advice="undo the change",
            )
        seen[row.item_key] = row.row
    missing = [key for key in workbook.item_keys if key not in seen]
    if missing:
        raise BadInputError(
            f"{filled.path}: {len(missing)} of {len(workbook.item_keys)} rows are missing: {_listed(missing)}",
            advice="put them back; a row that was not read keeps an empty label (--partial takes the others)",
        )


def _require_unchanged(
    filled: FilledWorkbook, shown: Mapping[str, ReviewNarrative], shown_text: Mapping[str, str]
) -> None:
    """What stands beside each key is what was written beside it, so that no label lands on another narrative."""
    for row in filled.rows:
        assert row.item_key is not None
        narrative = shown[row.item_key]
        for name, found, written in (
            ("incident_id", row.incident_id, narrative.incident_id),
            ("narrative_type", row.narrative_type, narrative.narrative_type),
            ("narrative_text", row.narrative_text, shown_text[row.item_key]),
        ):
            if found != written:
                raise BadInputError(
                    f"{filled.path}, row {row.row}: {name} is not what was written beside {row.item_key}",
                    advice="undo the change; where columns were sorted apart from each other, no label can be trusted",
                )


def _read_labels(filled: FilledWorkbook, *, accepts_partial: bool) -> list[ReadLabel]:
    known = {label.value: label for label in Label}
    labels, wrong, blank = [], [], []
    for row in filled.rows:
        assert row.item_key is not None
        if row.label is None:
            blank.append(row.row)
        elif (label := known.get(" ".join(row.label.lower().split()))) is None:
            wrong.append(row.row)
        else:
            labels.append(ReadLabel(item_key=row.item_key, label=label, comment=row.comment))
    if wrong:
        choices = ", ".join(known)
        raise BadInputError(
            f"{filled.path}: the label in row {_listed(wrong)} is none of: {choices}", advice="choose from the list"
        )
    if blank and not accepts_partial:
        raise BadInputError(
            f"{filled.path}: {len(blank)} rows have no label: row {_listed(blank)}",
            advice="fill them in, or take what is there with --partial",
        )
    if not labels:
        raise BadInputError(f"{filled.path}: no row has a label")
    return labels


def _require_same_labels(
    filled: FilledWorkbook,
    workbook: ReviewWorkbook,
    state: ReviewState,
    labels: Sequence[ReadLabel],
    *,
    replaces: bool,
) -> None:
    before = state.labels.get(workbook.workbook_id)
    if before is None or replaces:
        return
    now = {label.item_key: label.label for label in labels}
    changed = [key for key, label in before.items() if now.get(key) is not label.label]
    if changed:
        raise BadInputError(
            f"{filled.path}: labels of {workbook.reader} were taken before, and {len(changed)} of them differ here:"
            f" {_listed(changed)}",
            advice="--replace takes these instead; the earlier ones are kept in the database",
        )


def _listed(places: Sequence[object]) -> str:
    shown = ", ".join(map(str, places[:LISTED_ROWS]))
    return f"{shown} and {len(places) - LISTED_ROWS} more" if len(places) > LISTED_ROWS else shown


# --- what the labels come to -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalLabel:
    """What readers came to about one narrative."""

    item: ReviewItem
    #: None: not read, or readers differ and nobody has decided, or nobody can tell
    is_positive: bool | None
    #: reader → what they said, reviewers first
    said: Mapping[str, ReadLabel]
    is_adjudicated: bool

    @property
    def weight(self) -> float:
        """How many narratives of the population this one stands for (Horvitz and Thompson, 1952)."""
        return self.item.stratum_size / self.item.stratum_drawn


def final_labels(state: ReviewState) -> list[FinalLabel]:
    """Every item, in the order of the keys: what all its reviewers say, or else what the adjudicator decided."""
    reviewers = _labels_of(state, ReaderRole.REVIEWER)
    adjudicators = _labels_of(state, ReaderRole.ADJUDICATOR)
    finals = []
    for item in state.items:
        said = {reader: labels[item.item_key] for reader, labels in reviewers.items() if item.item_key in labels}
        decided = {reader: labels[item.item_key] for reader, labels in adjudicators.items() if item.item_key in labels}
        # The latest adjudication counts; reviewers count only where they are of one mind.
        deciding = list(decided.values())[-1:] or list(said.values())
        opinions = {one.label for one in deciding}
        is_clear = len(opinions) == 1 and opinions <= {Label.YES, Label.NO}
        finals.append(
            FinalLabel(
                item=item,
                is_positive=opinions == {Label.YES} if is_clear else None,
                said={**said, **decided},
                is_adjudicated=bool(decided),
            )
        )
    return finals


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedLabel:
    """A final label, and how many narratives of the population it stands for."""

    is_positive: bool
    weight: float


def weighted_labels(state: ReviewState) -> Mapping[str, WeightedLabel]:
    """Item key → final label.

    What has none is taken to be like the others of its stratum: its weight goes to them (the weighting-class adjustment
    for nonresponse; R. J. A. Little, International Statistical Review 54 (1986) 139-157).
    """
    finals = [final for final in final_labels(state) if final.is_positive is not None]
    n_final = Counter(final.item.stratum for final in finals)
    return {
        final.item.item_key: WeightedLabel(
            is_positive=final.is_positive is True, weight=final.item.stratum_size / n_final[final.item.stratum]
        )
        for final in finals
    }


def disputed_keys(state: ReviewState) -> list[str]:
    """Items that reviewers have read and that have no final label, as long as nobody has decided them."""
    return [
        final.item.item_key
        for final in final_labels(state)
        if final.said and final.is_positive is None and not final.is_adjudicated
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderPair:
    """Two reviewers over what both have decided."""

    first: str
    second: str
    #: yes/yes, yes/no, no/yes, no/no; `cannot tell` of either is left out
    both_yes: int
    first_only: int
    second_only: int
    both_no: int
    n_undecided: int

    @property
    def n(self) -> int:
        return self.both_yes + self.first_only + self.second_only + self.both_no


def reviewer_pairs(state: ReviewState) -> list[ReaderPair]:
    """Every pair of reviewers with narratives that both have read."""
    readers = list(_labels_of(state, ReaderRole.REVIEWER).items())
    pairs = []
    for place, (first, of_first) in enumerate(readers):
        for second, of_second in readers[place + 1 :]:
            common = sorted(of_first.keys() & of_second.keys())
            said = [(of_first[key].label, of_second[key].label) for key in common]
            if said:
                pairs.append(_pair(first, second, said))
    return pairs


def _pair(first: str, second: str, said: Sequence[tuple[Label, Label]]) -> ReaderPair:
    counts = {
        combination: said.count(combination) for combination in ((a, b) for a in Label for b in Label)
    }  # fmt: skip
    decided = {
        "both_yes": counts[Label.YES, Label.YES],
        "first_only": counts[Label.YES, Label.NO],
        "second_only": counts[Label.NO, Label.YES],
        "both_no": counts[Label.NO, Label.NO],
    }
    return ReaderPair(first=first, second=second, **decided, n_undecided=len(said) - sum(decided.values()))


def _labels_of(state: ReviewState, role: ReaderRole) -> dict[str, Mapping[str, ReadLabel]]:
    """Reader → item key → label."""
    return {
        workbook.reader: state.labels[workbook.workbook_id]
        for workbook in state.workbooks
        if workbook.role is role and workbook.workbook_id in state.labels
    }
