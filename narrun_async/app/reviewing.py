"""`narrun review`: draw a sample, write its workbooks, take them in again, and say what the labels come to."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from narrun_async.app.databases import reading, writing
from narrun_async.app.extras import has_analysis
from narrun_async.app.showing import find_shown
from narrun_async.errors import StorageError, UsageError
from narrun_async.logs import can_hold_files, make_private_directory, replace_private_file
from narrun_async.models import ReaderRole, ReviewId, ReviewState, ReviewWorkbook
from narrun_async.operations.reviewing import (
    FinalLabel,
    ReaderPair,
    SampleRequest,
    disputed_keys,
    draw_review,
    final_labels,
    find_workbook,
    judge_workbook,
    list_readable_units,
    plan_workbook,
    require_reader_name,
    reviewer_pairs,
)
from narrun_async.operations.scrubbing import refuse_unreadable
from narrun_async.reporting.review_lines import HOLDS_TEXTS, ReviewCounts, raw_agreement_line, review_lines
from narrun_async.reporting.review_workbook import WorkbookRows, shown_text, write_review_workbook
from narrun_async.reporting.wording import aligned
from narrun_async.stores import SqliteStore

#: one line for a person
Tell = Callable[[str], None]
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """Who is to read a sample."""

    names: Sequence[str]
    #: the workbooks do not show what the model said
    are_blinded: bool


async def sample_review(
    database: Path, wanted: str, request: SampleRequest, readers: Readers, directory: Path, *, tell: Tell
) -> None:
    """Draw a sample, store it, and write one workbook for each reader.

    :raises UsageError: no such experiment, no answers, or names that cannot be
    :raises BadInputError: the texts were scrubbed
    :raises StorageError: a workbook cannot be written; `rewrite_workbook` writes it again
    """
    for name in readers.names:
        require_reader_name(name)
    async with writing(database, purpose="review sample", tell=tell) as (store, _):
        experiment = await find_shown(store, wanted)
        units = await list_readable_units(store, experiment)
        _make_directory(directory)
        review = await draw_review(store, experiment, units, request)
        state = await store.load_review(review.review_id)
        keys = [item.item_key for item in state.items]
        for name in readers.names:
            state = await _issue(
                store, state, name, ReaderRole.REVIEWER, directory, keys=keys, is_blinded=readers.are_blinded, tell=tell
            )
        for line in review_lines(state, _counts(state), []):
            tell(line)
    tell(HOLDS_TEXTS)


async def adjudicate_review(database: Path, review_id: ReviewId, reader: str, directory: Path, *, tell: Tell) -> None:
    """Write what reviewers differ on into a workbook for another reader.

    :raises UsageError: there is nothing to decide
    :raises BadInputError: the texts were scrubbed
    """
    async with writing(database, purpose="review adjudicate", tell=tell) as (store, _):
        state = await store.load_review(review_id)
        await _refuse_textless(store, state)
        keys = disputed_keys(state)
        if not keys:
            raise UsageError(f"review {review_id} has nothing to adjudicate: no reader differs from another")
        _make_directory(directory)
        await _issue(store, state, reader, ReaderRole.ADJUDICATOR, directory, keys=keys, is_blinded=True, tell=tell)
    tell(HOLDS_TEXTS)


async def rewrite_workbook(database: Path, review_id: ReviewId, reader: str, directory: Path, *, tell: Tell) -> None:
    """Write the workbook of a reader again, as it was: lost files, or a kill between drawing and writing.

    :raises UsageError: the reader has none
    :raises BadInputError: the texts were scrubbed
    """
    async with reading(database) as store:
        state = await store.load_review(review_id)
        workbook = next((one for one in state.workbooks if one.reader == reader), None)
        if workbook is None:
            known = ", ".join(one.reader for one in state.workbooks) or "nobody"
            raise UsageError(f"review {review_id} has no workbook for {reader!r}", advice=f"it has some for: {known}")
        await _refuse_textless(store, state)
        _make_directory(directory)
        path = _free_path(directory, state, reader)
        await _write(store, state, workbook, path)
    tell(f"written    {path}")


async def import_workbooks(
    database: Path, files: Sequence[Path], *, accepts_partial: bool, replaces: bool, tell: Tell
) -> None:
    """Take in filled workbooks, one after another; each is taken whole or not at all.

    :raises BadInputError: one is not what was written; those before it were taken
    """
    async with writing(database, purpose="review import", tell=tell) as (store, _):
        states: dict[ReviewId, ReviewState] = {}
        try:
            for file in files:
                state = await _import(store, file, accepts_partial=accepts_partial, replaces=replaces, tell=tell)
                states[state.review.review_id] = state
        finally:
            for number, state in states.items():
                for line in _standing_lines(number, state):
                    tell(line)


def _standing_lines(number: ReviewId, state: ReviewState) -> Iterator[str]:
    """How far the readers agree, and what is left to decide."""
    yield from _agreement_lines(state)
    if n_disputed := len(disputed_keys(state)):
        yield f"{n_disputed:,} texts have no clear label: `narrun review adjudicate {number}` writes them"


async def _import(store: SqliteStore, file: Path, *, accepts_partial: bool, replaces: bool, tell: Tell) -> ReviewState:
    from narrun_async.sources.review_workbook import comparable_text, read_review_workbook

    filled = read_review_workbook(file)
    state, workbook = await find_workbook(store, filled)
    narratives = {one.item_key: one for one in await store.load_review_narratives(workbook.review_id)}
    texts = {key: comparable_text(shown_text(one.narrative_text or "")) for key, one in narratives.items()}
    judged = judge_workbook(
        filled, workbook, state, narratives, shown_text=texts, accepts_partial=accepts_partial, replaces=replaces
    )
    for note in judged.notes:
        tell(f"NOTE: {file}: {note}")
    if judged.taken is None:
        tell(f"{file}: these labels of {workbook.reader} were taken before; nothing changed")
        return state
    await store.add_labels(judged.taken)
    tell(f"{file}: {len(judged.taken.labels):,} labels of {workbook.reader}, review {workbook.review_id}")
    return await store.load_review(workbook.review_id)


async def show_review(database: Path, review_id: ReviewId, *, as_json: bool) -> Sequence[str]:
    """One review as it stands."""
    async with reading(database) as store:
        state = await store.load_review(review_id)
    if as_json:
        return [json.dumps(_review_json(state), ensure_ascii=False, indent=2)]
    return review_lines(state, _counts(state), ["", *_agreement_lines(state)])


async def list_reviews(database: Path) -> Sequence[str]:
    """Every review, oldest first."""
    async with reading(database) as store:
        reviews = await store.list_reviews()
    if not reviews:
        return ["no reviews yet"]
    header = ("review", "experiment", "drawn (UTC)", "narratives", "strata")
    rows = [
        (str(one.review_id), one.experiment_id, one.drawn_at[:19].replace("T", " "), f"{one.n_drawn:,}", one.strata)
        for one in reviews
    ]
    return aligned([header, *rows], right=frozenset({0, 3}))


async def write_labels(database: Path, review_id: ReviewId, target: Path) -> int:
    """The final labels with strata and weights as CSV, without texts and comments.

    :returns: how many rows
    :raises StorageError: the file cannot be written
    """
    async with reading(database) as store:
        state = await store.load_review(review_id)
        narratives = {one.item_key: one for one in await store.load_review_narratives(review_id)}
    readers = [workbook.reader for workbook in state.workbooks]
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\r\n")
    columns = ["item_key", "incident_id", "narrative_type", "stratum", "stratum_size", "stratum_drawn", "weight"]
    rows.writerow([*columns, "final_label", *(f"label of {reader}" for reader in readers)])
    finals = final_labels(state)
    for final in finals:
        item, narrative = final.item, narratives[final.item.item_key]
        said = [final.said[reader].label.value if reader in final.said else "" for reader in readers]
        label = "" if final.is_positive is None else int(final.is_positive)
        where = [item.item_key, narrative.incident_id, narrative.narrative_type]
        drawn = [item.stratum, item.stratum_size, item.stratum_drawn, final.weight]
        rows.writerow([*where, *drawn, label, *said])
    try:
        replace_private_file(target, text.getvalue())
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", path=target) from error
    return len(finals)


async def _refuse_textless(store: SqliteStore, state: ReviewState) -> None:
    """:raises BadInputError: a workbook would have nothing to read in it"""
    narratives = await store.load_review_narratives(state.review.review_id)
    await refuse_unreadable(store, [one.narrative_text is not None for one in narratives])


async def _issue(
    store: SqliteStore,
    state: ReviewState,
    reader: str,
    role: ReaderRole,
    directory: Path,
    *,
    keys: Sequence[str],
    is_blinded: bool,
    tell: Tell,
) -> ReviewState:
    """Store what a workbook is, then write it; the other way round, a kill would leave one that nobody knows."""
    path = _free_path(directory, state, reader)
    workbook = plan_workbook(
        state, reader=reader, role=role, is_blinded=is_blinded, path=str(path.absolute()), keys=keys
    )
    await store.add_review_workbook(workbook)
    await _write(store, state, workbook, path)
    tell(f"written    {path}: {len(keys):,} texts for {reader}")
    return await store.load_review(state.review.review_id)


async def _write(store: SqliteStore, state: ReviewState, workbook: ReviewWorkbook, path: Path) -> None:
    narratives = {one.item_key: one for one in await store.load_review_narratives(workbook.review_id)}
    earlier = [
        state.labels[one.workbook_id]
        for one in state.workbooks
        if one.role is ReaderRole.REVIEWER and one.workbook_id in state.labels
    ]
    is_adjudication = workbook.role is ReaderRole.ADJUDICATOR
    rows = WorkbookRows(workbook=workbook, narratives=narratives, earlier=earlier if is_adjudication else ())
    write_review_workbook(path, rows)


def _make_directory(directory: Path) -> None:
    """:raises StorageError: no workbook could be written there"""
    try:
        make_private_directory(directory)
    except OSError as error:
        raise StorageError(f"cannot make the directory: {error.strerror}", path=directory) from error
    if not can_hold_files(directory):
        raise StorageError("no file can be made there", path=directory, advice="choose another directory with --out")


def _free_path(directory: Path, state: ReviewState, reader: str) -> Path:
    """Where nothing is yet: names of readers and of databases may come to the same file, and what is there may hold
    labels that nobody has taken in."""
    stem = f"review-{state.review.review_id}-{_NOT_IN_NAMES.sub('_', reader)}"
    endings = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    return next(path for ending in endings if not os.path.lexists(path := directory / f"{stem}{ending}.xlsx"))


def _counts(state: ReviewState) -> ReviewCounts:
    finals = final_labels(state)
    return ReviewCounts(
        n_final=sum(final.is_positive is not None for final in finals),
        n_positive=sum(final.is_positive is True for final in finals),
        n_adjudicated=sum(final.is_adjudicated for final in finals),
        n_disputed=len(disputed_keys(state)),
    )


def _agreement_lines(state: ReviewState) -> list[str]:
    """Raw agreement of every pair, and agreement beyond chance where what computes it is installed."""
    lines = []
    for pair in reviewer_pairs(state):
        n_agreed = pair.both_yes + pair.both_no
        lines.append(
            raw_agreement_line(pair.first, pair.second, n_agreed=n_agreed, n=pair.n, n_undecided=pair.n_undecided)
        )
        if has_analysis() and pair.n:
            lines.append(_beyond_chance(pair))
    return lines


def _beyond_chance(pair: ReaderPair) -> str:
    from narrun_async.analysis.readers import assess_readers
    from narrun_async.reporting.measure_text import brief_text

    agreement = assess_readers(
        both_yes=pair.both_yes, first_only=pair.first_only, second_only=pair.second_only, both_no=pair.both_no
    )
    return f"  beyond chance: kappa {brief_text(agreement.kappa)}, Gwet's AC1 {brief_text(agreement.ac1)}"


def _review_json(state: ReviewState) -> dict[str, object]:
    review, counts = state.review, _counts(state)
    return {
        "review_id": review.review_id,
        "experiment_id": review.experiment_id,
        "drawn_at": review.drawn_at,
        "seed": review.seed,
        "strata": review.strata.split(",") if review.strata else [],
        "allocation": review.allocation,
        "n_population": review.n_population,
        "n_drawn": review.n_drawn,
        "n_final": counts.n_final,
        "n_positive": counts.n_positive,
        "n_adjudicated": counts.n_adjudicated,
        "n_disputed": counts.n_disputed,
        "readers": [
            {
                "reader": one.reader,
                "role": one.role.value,
                "is_blinded": one.is_blinded,
                "n_texts": len(one.item_keys),
                "n_labelled": len(state.labels.get(one.workbook_id, {})),
            }
            for one in state.workbooks
        ],
        "final_labels": [_final_json(final) for final in final_labels(state)],
    }


def _final_json(final: FinalLabel) -> dict[str, object]:
    return {
        "item_key": final.item.item_key,
        "narrative_id": final.item.narrative_id,
        "stratum": final.item.stratum,
        "weight": final.weight,
        "is_positive": final.is_positive,
        "is_adjudicated": final.is_adjudicated,
    }
