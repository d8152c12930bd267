"""A review over real files: drawn from a database, filled as a reader would, taken in, adjudicated, final."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sqlite3
import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from narrun_async.app.evaluating import EvaluationRequest, tell_metrics
from narrun_async.app.privacy import purge_database, scrub_database
from narrun_async.app.reviewing import (
    Readers,
    adjudicate_review,
    import_workbooks,
    list_reviews,
    rewrite_workbook,
    sample_review,
    show_review,
    write_labels,
)
from narrun_async.cli.evaluate import read_review
from narrun_async.clock import utc_now
from narrun_async.errors import BadInputError, StorageError, UsageError
from narrun_async.metrics.sampling import DEFAULT_BANDS, Allocation, Stratifier
from narrun_async.models import (
    Attempt,
    Detection,
    ErrorCategory,
    Experiment,
    Failure,
    NarrativeId,
    Outcome,
    PageCursor,
    ProgressMark,
    ReviewId,
    Selection,
    WorkItem,
)
from narrun_async.operations.reviewing import SampleRequest
from narrun_async.stores import open_sqlite_writer

#: what is hard to carry through a spreadsheet: escapes, line ends, formulas, blanks, letters beyond the first plane
HARD_TEXTS = (
    "=SUM(A1:A3) is how this account begins, and it is no formula.",
    'First line.\nSecond line, with a tab\there and a quotation: "no".',
    "  Two blanks before, one behind. ",
    "An escape of Excel's, _x000D_ and _x005F_, stands in this account as it is.",
    "Zażółć gęślą jaźń, 😐, and a replacement \ufffd.",
    "'An apostrophe begins this account.",
    "Long. " * 6000,
    "1234567890123456789",
)
ONE = ReviewId(1)


def outcome_of(item: WorkItem) -> Outcome:
    """Every fifth narrative is detected, every eleventh an error; confidence in three bands."""
    number = item.narrative_id
    verdict = (
        Failure(category=ErrorCategory.BAD_JSON, message="made up")
        if number % 11 == 0
        else Detection(
            detected=number % 5 == 0,
            confidence=(0.4, 0.7, 0.99)[number % 3],
            indicators=("made-up sign",),
            rationale="=a made-up reason",
            parse_method="json",
        )
    )
    attempt = Attempt(
        narrative_id=item.narrative_id,
        started_at=utc_now(),
        duration_s=0.1,
        error_category=verdict.category if isinstance(verdict, Failure) else None,
        error_message=None,
        http_status=200,
        charged=True,
    )
    return Outcome(item=item, verdict=verdict, attempt=attempt)


async def write_outcomes(
    store: Any,
    build: Any,
    experiment: Experiment,
    of_item: Callable[[WorkItem], Outcome],
    *,
    selection: Selection = Selection.MISSING,
) -> None:
    """A run of its own over what there is to do."""
    run_id = await store.begin_run(build.run_start(experiment))
    items = await store.load_page(experiment, selection, run_id=run_id, after=PageCursor(), limit=99)
    mark = ProgressMark(runtime_s=1.0, estimated_completion_time=None)
    await store.write_batch(experiment.experiment_id, run_id, [of_item(item) for item in items], mark)


@pytest.fixture
async def database(tmp_path: Path, build: Any) -> Path:
    path = tmp_path / "experiments.db"
    store = await open_sqlite_writer(path)
    try:
        hard = dict(enumerate(HARD_TEXTS))
        source = build.source([build.narrative(number, text=hard.get(number)) for number in range(60)])
        await store.add_source(source, on_conflict="error")
        await write_outcomes(store, build, await build.experiment(store, source.checksum), outcome_of)
    finally:
        await store.aclose()
    return path


@pytest.fixture
def told() -> list[str]:
    return []


async def draw(
    database: Path, told: list[str], *, n: int = 60, readers: Sequence[str] = ("anna", "ben"), blinded: bool = True
) -> list[Path]:
    request = SampleRequest(n=n, stratifiers=list(Stratifier), bands=DEFAULT_BANDS, allocation=Allocation.EQUAL, seed=3)
    wanted = Readers(names=readers, are_blinded=blinded)
    out = database.parent / "reviews"
    await sample_review(database, "latest", request, wanted, out, tell=told.append)
    return [out / f"review-1-{reader}.xlsx" for reader in readers]


Change = Callable[[Any, dict[str, int]], None]


def fill(path: Path, label_of: Callable[[str], str | None] = lambda _: "no", change: Change | None = None) -> Path:
    """As a reader does it: open, choose, save under another name."""
    book = openpyxl.load_workbook(path)
    sheet = book["review"]
    columns = {cell.value: cell.column for cell in sheet[1]}
    for row in range(2, sheet.max_row + 1):
        sheet.cell(row, columns["label"]).value = label_of(sheet.cell(row, columns["key"]).value)
    if change is not None:
        change(sheet, columns)
    filled = path.with_name(f"filled-{path.name}")
    book.save(filled)
    return filled


async def take(database: Path, told: list[str], *files: Path, partial: bool = False, replace: bool = False) -> None:
    await import_workbooks(database, files, accepts_partial=partial, replaces=replace, tell=told.append)


def n_labels(database: Path) -> int:
    with closing(sqlite3.connect(database)) as db:
        return int(db.execute("SELECT COUNT(*) FROM review_labels").fetchone()[0])


async def shown(database: Path) -> dict[str, Any]:
    (text,) = await show_review(database, ONE, as_json=True)
    return dict(json.loads(text))


async def test_sample_fill_import_adjudicate_and_every_label_is_final(database: Path, told: list[str]) -> None:
    anna, ben = await draw(database, told)
    assert [path.stat().st_mode & 0o777 for path in (anna, ben)] == [0o600, 0o600]
    assert any("hold narratives" in line for line in told)

    # Two readers who differ on every key that ends in 7, and one of whom cannot tell on those in 3.
    of_anna = fill(anna, lambda key: "yes" if key[-1] in "157" else "no")
    of_ben = fill(ben, lambda key: "cannot tell" if key[-1] == "3" else "yes" if key[-1] in "15" else "no")
    await take(database, told, of_anna, of_ben)
    before = await shown(database)
    keys = [final["item_key"] for final in before["final_labels"]]
    disputed = [key for key in keys if key[-1] in "37"]
    assert before["n_disputed"] == len(disputed) > 0
    assert any("anna and ben agree on" in line for line in told)

    await adjudicate_review(database, ONE, "cleo", database.parent / "reviews", tell=told.append)
    of_cleo = database.parent / "reviews" / "review-1-cleo.xlsx"
    sheet = openpyxl.load_workbook(of_cleo)["review"]
    header = [cell.value for cell in sheet[1]]
    assert "reader 1" in header and "anna" not in str(header)
    assert sorted(row[0].value for row in sheet.iter_rows(min_row=2)) == disputed
    await take(database, told, fill(of_cleo, lambda key: "yes" if key[-1] == "7" else "no"))

    after = await shown(database)
    assert (after["n_disputed"], after["n_final"]) == (0, len(keys))
    assert {final["item_key"]: final["is_positive"] for final in after["final_labels"]} == {
        key: key[-1] in "157" for key in keys
    }
    weights = sum(final["weight"] for final in after["final_labels"])
    assert weights == pytest.approx(after["n_population"]) and after["n_population"] == 55  # five are errors

    target = database.parent / "labels.csv"
    assert await write_labels(database, ONE, target) == len(keys)
    rows = list(csv.DictReader(io.StringIO(target.read_text(encoding="utf-8"))))
    assert {row["item_key"] for row in rows} == set(keys)
    assert target.stat().st_mode & 0o777 == 0o600
    assert "narrative_text" not in rows[0]


async def test_scrubbing_and_purging_name_the_workbooks_which_hold_narratives(database: Path, told: list[str]) -> None:
    paths = await draw(database, told)
    said: list[str] = []
    await purge_database(database, certificate=None, dry_run=True, confirm=lambda _: None, tell=said.append)
    beyond = said[said.index("out of reach:") :]
    assert all(any(str(path) in line for line in beyond) for path in paths)
    said.clear()
    await scrub_database(database, dry_run=False, confirm=lambda _: None, tell=said.append)
    assert all(any(str(path) in line and "still holds texts" in line for line in said) for path in paths)


async def test_final_labels_feed_the_metrics_with_the_weights_of_the_sample(database: Path, told: list[str]) -> None:
    """A reader who says what the model said: the weighted table is that of all 55 answers, 11 of them yes."""
    (anna,) = await draw(database, told, n=30, readers=["anna"])
    with closing(sqlite3.connect(database)) as db:
        answers = dict(
            db.execute(
                "SELECT t.item_key, r.detected FROM review_items AS t JOIN source_narratives AS s USING (narrative_id)"
                " JOIN narrative_results AS r USING (incident_id, narrative_type)"
            ).fetchall()
        )
    await take(database, told, fill(anna, lambda key: "yes" if answers[key] else "no"))
    request = EvaluationRequest(wanted="latest", n_resamples=0, seed=1, as_json=True, review=ONE)
    (text,) = await tell_metrics(database, request)
    report = json.loads(text)
    assert "review 1: 30 final labels" in report["labels"]
    level = next(one for one in report["levels"] if one["level"] == "narratives")
    confusion = level["confusion"]
    assert (confusion["tp"], confusion["tn"]) == (pytest.approx(11), pytest.approx(44))
    assert (confusion["fp"], confusion["fn"]) == (0, 0)
    assert level["prevalence"]["labelled"]["value"] == pytest.approx(11 / 55)
    assert level["performance"]["sensitivity"]["interval"]["method"] == "mover"  # drawn by the answers, and told so
    assert any("nothing is said of incidents" in remark for remark in report["remarks"])
    lines = await tell_metrics(database, replace(request, as_json=False))
    assert any("Counts are sums of weights" in line for line in lines)
    lines = await tell_metrics(database, replace(request, as_json=False, review=None))
    assert not any("sums of weights" in line for line in lines)


async def remarks_on(database: Path, wanted: str = "latest", *, below: int | None = None) -> str:
    request = EvaluationRequest(wanted=wanted, n_resamples=0, seed=1, as_json=True, review=ONE, suppress_below=below)
    (text,) = await tell_metrics(database, request)
    return "\n".join(json.loads(text)["remarks"])


async def test_answers_that_came_after_the_draw_are_not_said_to_be_stood_for(
    database: Path, told: list[str], build: Any
) -> None:
    """55 narratives had an answer; the five errors are tried again, and answered, when the labels are in."""
    (anna,) = await draw(database, told, n=30, readers=["anna"])
    await take(database, told, fill(anna))
    assert "had an answer" not in await remarks_on(database)
    store = await open_sqlite_writer(database)
    try:
        (experiment,) = await store.list_experiments()
        await write_outcomes(
            store,
            build,
            experiment,
            lambda item: outcome_of(replace(item, narrative_id=NarrativeId(1))),
            selection=Selection.ERRORS,
        )
    finally:
        await store.aclose()
    assert (
        "was drawn when 55 narratives had an answer, and its labels stand for those; 60 have one"
        in await remarks_on(database)
    )


async def test_labels_of_narratives_that_another_experiment_did_not_answer_are_counted(
    database: Path, told: list[str], build: Any
) -> None:
    """All 55 answers are labelled; the other experiment has none for the even ones among them."""

    def fails_if_even(item: WorkItem) -> Outcome:
        outcome = outcome_of(item)
        failure = Failure(category=ErrorCategory.BAD_JSON, message="made up")
        return outcome if item.narrative_id % 2 else replace(outcome, verdict=failure)

    (anna,) = await draw(database, told, n=60, readers=["anna"])
    await take(database, told, fill(anna))
    store = await open_sqlite_writer(database)
    try:
        (experiment,) = await store.list_experiments()
        other = await build.experiment(store, experiment.cohort.data_checksum, number=2)
        await write_outcomes(store, build, other, fails_if_even)
    finally:
        await store.aclose()
    remarks = await remarks_on(database, other.experiment_id)
    assert "was drawn by the answers of experiment" in remarks and "had an answer" not in remarks
    assert "28 of its final labels are of narratives that have no answer here" in remarks


async def test_the_size_of_a_small_stratum_without_a_label_is_not_told_where_counts_are_large(
    database: Path, told: list[str]
) -> None:
    (anna,) = await draw(database, told, n=60, readers=["anna"])
    with closing(sqlite3.connect(database)) as db:
        (stratum, n_drawn) = db.execute(
            "SELECT stratum, stratum_size FROM review_items ORDER BY stratum_size, stratum LIMIT 1"
        ).fetchone()
        unread = {key for (key,) in db.execute("SELECT item_key FROM review_items WHERE stratum = ?", (stratum,))}
    await take(database, told, fill(anna, lambda key: None if key in unread else "no"), partial=True)
    assert f"strata of {n_drawn} narratives have no final label" in await remarks_on(database)
    assert "strata of a few narratives have no final label" in await remarks_on(database, below=n_drawn + 1)
    assert f"strata of {n_drawn} narratives" in await remarks_on(database, below=n_drawn)


async def test_labels_that_cannot_be_had_are_named(database: Path, told: list[str]) -> None:
    await draw(database, told, n=5, readers=["anna"])
    for number, sentence in ((1, "no final label yet"), (7, "there is no review 7")):
        request = EvaluationRequest(wanted="latest", n_resamples=0, seed=1, as_json=True, review=ReviewId(number))
        with pytest.raises(UsageError, match=sentence):
            await tell_metrics(database, request)
    assert read_review("manual") is None
    for wrong in ("review", "review:", "review:x", "reviews:1", "review:-1"):
        with pytest.raises(UsageError, match="--labels must be"):
            read_review(wrong)


async def test_the_manual_flags_and_the_results_stay_as_they_were(database: Path, told: list[str]) -> None:
    def everything() -> list[Any]:
        with closing(sqlite3.connect(database)) as db:
            tables = ("source_narratives", "narrative_results", "experiments", "attempts", "runs")
            return [db.execute(f"SELECT * FROM {table}").fetchall() for table in tables]

    before = everything()
    anna, _ = await draw(database, told)
    await take(database, told, fill(anna))
    assert everything() == before


async def test_hard_texts_come_back_as_they_were_written(database: Path, told: list[str]) -> None:
    (anna,) = await draw(database, told, readers=["anna"])
    sheet = openpyxl.load_workbook(anna)["review"]
    assert all(cell.data_type != "f" for row in sheet.iter_rows() for cell in row)
    await take(database, told, fill(anna))
    assert n_labels(database) == 55


async def test_a_blinded_workbook_says_nothing_of_the_model(database: Path, told: list[str]) -> None:
    (anna,) = await draw(database, told, readers=["anna"])
    with zipfile.ZipFile(anna) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist()).decode("utf-8", "replace")
    assert "made-up sign" not in content and "predicted" not in content and "made-up reason" not in content

    with closing(sqlite3.connect(database)) as db:
        db.execute("DELETE FROM review_workbooks")
        db.commit()
    database.with_name("reviews").rename(database.with_name("old"))
    request_told: list[str] = []
    (seen,) = await draw_again(database, request_told)
    sheet = openpyxl.load_workbook(seen)["review"]
    assert "model says" in [cell.value for cell in sheet[1]]


async def draw_again(database: Path, told: list[str]) -> list[Path]:
    request = SampleRequest(n=9, stratifiers=[], bands=(), allocation=Allocation.PROPORTIONAL, seed=None)
    out = database.parent / "reviews"
    await sample_review(database, "latest", request, Readers(names=["dora"], are_blinded=False), out, tell=told.append)
    return [out / "review-2-dora.xlsx"]


def swap_texts(sheet: Any, columns: dict[str, int]) -> None:
    """As sorting one column does it."""
    first, second = sheet.cell(2, columns["narrative_text"]), sheet.cell(3, columns["narrative_text"])
    first.value, second.value = second.value, first.value


def edit_id(sheet: Any, columns: dict[str, int]) -> None:
    sheet.cell(2, columns["incident_id"]).value = "another"


def drop_row(sheet: Any, columns: dict[str, int]) -> None:
    sheet.delete_rows(4)


def add_row(sheet: Any, columns: dict[str, int]) -> None:
    for column in columns.values():
        sheet.cell(sheet.max_row + (column == 1), column).value = sheet.cell(2, column).value


def rename_column(sheet: Any, columns: dict[str, int]) -> None:
    sheet.cell(1, columns["label"]).value = "Label "


def repeat_column(sheet: Any, columns: dict[str, int]) -> None:
    sheet.cell(1, len(columns) + 1).value = "label"


def no_label(sheet: Any, columns: dict[str, int]) -> None:
    sheet.cell(3, columns["label"]).value = "perhaps"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (swap_texts, "row 2: narrative_text is not what was written beside"),
        (edit_id, "row 2: incident_id is not what was written beside"),
        (drop_row, "1 of 55 rows are missing"),
        (add_row, "have the same key"),
        (rename_column, "the column label is missing from the first row"),
        (repeat_column, "the column label is there twice"),
        (no_label, "the label in row 3 is none of"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_a_workbook_that_was_tampered_with_is_refused_and_nothing_is_taken(
    database: Path, told: list[str], change: Change, sentence: str
) -> None:
    (anna,) = await draw(database, told, readers=["anna"])
    with pytest.raises(BadInputError) as caught:
        await take(database, told, fill(anna, change=change))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value) and "Synthetic account" not in str(caught.value)
    assert n_labels(database) == 0


def reverse_rows(sheet: Any, columns: dict[str, int]) -> None:
    rows = [[cell.value for cell in row] for row in sheet.iter_rows(min_row=2)]
    for number, values in enumerate(reversed(rows), start=2):
        for column, value in enumerate(values, start=1):
            cell = sheet.cell(number, column)
            cell.value = value
            cell.data_type = "s" if isinstance(value, str) else "n"  # what begins with = is no formula here


async def test_rows_in_another_order_are_told_and_read_by_their_keys(database: Path, told: list[str]) -> None:
    anna, ben = await draw(database, told)
    label = dict.fromkeys(("R1-0004", "R1-0009"), "yes")
    await take(database, told, fill(anna, lambda key: label.get(key, "no"), reverse_rows))
    assert any("another order" in line for line in told)
    await take(database, told, fill(ben, lambda key: label.get(key, "no")))
    assert any("anna and ben agree on 55 of 55" in line for line in told)
    assert (await shown(database))["n_positive"] == 2


async def test_files_that_are_no_review_of_this_database_are_refused(
    database: Path, told: list[str], tmp_path: Path
) -> None:
    anna, _ = await draw(database, told)
    filled = fill(anna)
    other = tmp_path / "other.db"
    store = await open_sqlite_writer(other)
    await store.aclose()
    with pytest.raises(BadInputError, match="was not written from this database"):
        await take(other, told, filled)

    plain = tmp_path / "plain.xlsx"
    openpyxl.Workbook().save(plain)
    table = tmp_path / "table.csv"
    table.write_text("key,label\nR1-0001,yes\n")
    (tmp_path / "cut.xlsx").write_bytes(filled.read_bytes()[:2000])
    for path, sentence in (
        (plain, "no review workbook of narrun"),
        (table, "no review workbook of narrun"),
        (tmp_path / "cut.xlsx", "damaged or cut short"),
        (tmp_path / "none.xlsx", "there is no such file"),
    ):
        with pytest.raises(BadInputError, match=sentence):
            await take(database, told, path)
    assert n_labels(database) == 0


async def test_labels_are_replaced_only_on_request_and_earlier_ones_are_kept(database: Path, told: list[str]) -> None:
    (anna,) = await draw(database, told, readers=["anna"])
    await take(database, told, fill(anna))
    await take(database, told, anna.with_name(f"filled-{anna.name}"))
    assert any("nothing changed" in line for line in told)
    changed = shutil.copy(fill(anna, lambda key: "yes"), database.parent / "changed.xlsx")
    with pytest.raises(BadInputError, match="55 of them differ here"):
        await take(database, told, Path(changed))
    await take(database, told, Path(changed), replace=True)
    assert (await shown(database))["n_positive"] == 55
    assert n_labels(database) == 2 * 55


async def test_a_workbook_can_be_written_again_and_is_the_same(database: Path, told: list[str]) -> None:
    (anna,) = await draw(database, told, readers=["anna"])
    first = [[cell.value for cell in row] for row in openpyxl.load_workbook(anna)["review"].iter_rows()]
    anna.unlink()
    await rewrite_workbook(database, ONE, "anna", anna.parent, tell=told.append)
    again = [[cell.value for cell in row] for row in openpyxl.load_workbook(anna)["review"].iter_rows()]
    assert again == first
    await take(database, told, fill(anna))
    with pytest.raises(UsageError, match="has no workbook for 'nobody'"):
        await rewrite_workbook(database, ONE, "nobody", anna.parent, tell=told.append)


async def test_no_workbook_takes_the_place_of_another_file(database: Path, told: list[str]) -> None:
    out = database.parent / "reviews"
    out.mkdir()
    (out / "review-1-anna.xlsx").write_text("labels of a review of another database")
    await draw(database, told, readers=["anna", "a/b", "a b"])
    assert (out / "review-1-anna.xlsx").read_text() == "labels of a review of another database"
    assert sorted(path.name for path in out.iterdir()) == [
        "review-1-a_b-2.xlsx",
        "review-1-a_b.xlsx",
        "review-1-anna-2.xlsx",
        "review-1-anna.xlsx",
    ]
    await rewrite_workbook(database, ONE, "a/b", out, tell=told.append)
    assert told[-1] == f"written    {out / 'review-1-a_b-3.xlsx'}"


async def test_a_sample_that_cannot_be_written_is_not_drawn(database: Path, told: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a reader's name is one line"):
        await draw(database, told, readers=["anna", "x" * 61])
    (tmp_path / "reviews").write_text("no directory")
    with pytest.raises(StorageError, match="reviews: cannot make the directory"):
        await draw(database, told)
    assert await list_reviews(database) == ["no reviews yet"]


async def test_an_adjudication_that_cannot_be_written_is_not_recorded(
    database: Path, told: list[str], tmp_path: Path
) -> None:
    anna, ben = await draw(database, told, n=5)
    await take(database, told, fill(anna), fill(ben, lambda _: "yes"))
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(StorageError, match="file: cannot make the directory"):
        await adjudicate_review(database, ONE, "cleo", tmp_path / "file", tell=told.append)
    assert [one["reader"] for one in (await shown(database))["readers"]] == ["anna", "ben"]


async def test_where_texts_were_scrubbed_no_workbook_without_them_is_written(
    database: Path, told: list[str], tmp_path: Path
) -> None:
    anna, ben = await draw(database, told, n=5)
    await take(database, told, fill(anna), fill(ben, lambda _: "yes"))
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("UPDATE source_narratives SET narrative_text = NULL")
    with pytest.raises(BadInputError, match="no scrub is recorded"):
        await adjudicate_review(database, ONE, "cleo", tmp_path, tell=told.append)
    with pytest.raises(BadInputError, match="no scrub is recorded"):
        await rewrite_workbook(database, ONE, "anna", tmp_path, tell=told.append)
    assert not list(tmp_path.glob("*.xlsx"))


async def test_labels_take_the_place_of_no_directory_and_no_device(
    database: Path, told: list[str], tmp_path: Path
) -> None:
    await draw(database, told, n=5, readers=["anna"])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target in (Path(), tmp_path, pipe):
        with pytest.raises(StorageError, match="this is no regular file"):
            await write_labels(database, ONE, target)
    assert pipe.is_fifo()


async def test_what_cannot_be_drawn_or_decided_is_said(database: Path, told: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no review 1"):
        await show_review(database, ONE, as_json=False)
    assert await list_reviews(database) == ["no reviews yet"]
    await draw(database, told, n=5, readers=["anna"])
    with pytest.raises(UsageError, match="nothing to adjudicate"):
        await adjudicate_review(database, ONE, "cleo", tmp_path, tell=told.append)
    assert len(await list_reviews(database)) == 2


async def test_a_row_without_a_label_is_left_out_on_request(database: Path, told: list[str]) -> None:
    (anna,) = await draw(database, told, readers=["anna"])
    half = fill(anna, lambda key: "no" if key[-1] in "02468" else None)
    with pytest.raises(BadInputError, match="rows have no label"):
        await take(database, told, half)
    await take(database, told, half, partial=True)
    assert n_labels(database) == 27
    assert (await shown(database))["n_final"] == 27
