"""What every Store promises about texts that are screened, and about rows that take no call: skips and copies."""

# ruff: noqa: F811 - tests name the fixture that the other contract has
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_store_contract import (
    NO_RUN,
    assert_counters_equal_rows,
    attempt_of,
    detection,
    failure,
    load_all,
    outcome_of,
    rows_of,
    store,  # noqa: F401
    write,
)

from narrun_async.metrics import ConfusionCounts
from narrun_async.models import (
    Copy,
    ErrorCategory,
    Experiment,
    FlagCounts,
    PageCursor,
    ResultCounts,
    RunId,
    Selection,
    Skip,
    SkipReason,
    UncalledCounts,
)
from narrun_async.ports import Store
from narrun_async.screening import ScreeningRules
from narrun_async.sources.screening_rules import load_rules
from narrun_async.stores.sqlite.statements import COPIED_COLUMNS

ONE, OTHER, THIRD = (f"A made-up account, number {number}, of somebody found at home." for number in (1, 2, 3))
#: by rank: placeholders are 2, 5 and 9; 4 and 6 repeat 1, 8 repeats 3, 9 repeats 2; 7 is near-empty
TEXTS = (ONE, "No report available.", OTHER, ONE, "N/A", ONE, "GSW.", OTHER, "No report available.")
SKIPPED, REPEATS = (2, 5, 9), {4: 1, 6: 1, 8: 3, 9: 2}
BOTH = {"skip_placeholders": True, "ask_identical_once": True}


@pytest.fixture(scope="session")
def rules() -> ScreeningRules:
    return load_rules()


@pytest.fixture
def other_rules(tmp_path: Path) -> ScreeningRules:
    """GSW is a placeholder to these, and nothing else is."""
    path = tmp_path / "rules.yaml"
    rule = {"name": "gsw", "reason": "made up", "patterns": ["gsw"]}
    path.write_text(yaml.safe_dump({"name": "mine", "placeholders": [rule], "near_empty_below": 0}))
    return load_rules(path)


def source_of(build: Any, texts: Sequence[str] = TEXTS, *, prefix: str = "case") -> Any:
    return build.source(
        [build.narrative(number, text=text, prefix=prefix) for number, text in enumerate(texts)],
        path=f"data/{prefix}.csv",
    )


async def experiment_of(store: Store, build: Any, rules: ScreeningRules, **options: Any) -> Experiment:
    source = source_of(build)
    await store.add_source(source, on_conflict="error", rules=rules)
    made: Experiment = await build.experiment(store, source.checksum, **options)
    return made


async def load_skips(store: Store, experiment: Experiment, *, limit: int = 100) -> list[Skip]:
    cursor, found = PageCursor(), list[Skip]()
    while page := await store.load_skips(experiment, after=cursor, limit=limit):
        found.extend(page)
        cursor = PageCursor(narrative_id=page[-1].narrative_id, row_num=page[-1].row_num)
    return found


async def load_copies(
    store: Store,
    experiment: Experiment,
    selection: Selection = Selection.MISSING,
    *,
    limit: int = 100,
) -> list[Copy]:
    cursor, found = PageCursor(), list[Copy]()
    while page := await store.load_copies(experiment, selection, after=cursor, limit=limit):
        found.extend(page)
        cursor = PageCursor(narrative_id=page[-1].narrative_id, row_num=page[-1].row_num)
    return found


def ranks(messages: Sequence[Any]) -> list[int]:
    return [one.row_num for one in messages]


async def by_rank(store: Store, experiment: Experiment) -> dict[int, dict[str, Any]]:
    return {row["row_num"]: row for row in await rows_of(store, experiment)}


class TestScreening:
    async def test_texts_are_screened_while_they_are_loaded(
        self,
        store: Store,
        build: Any,
        rules: ScreeningRules,
    ) -> None:
        source = source_of(build)
        report = await store.add_source(source, on_conflict="error", rules=rules)
        assert report.screening is not None
        assert report.screening == await store.load_screening(source.checksum)
        assert (report.screening.rules_name, report.screening.rules_sha256) == (rules.name, rules.sha256)
        found = report.screening
        assert (found.n_screened, found.n_placeholder, found.n_near_empty, found.n_truncated) == (9, 3, 1, 0)
        assert found.n_identical == 3
        known = await store.add_source(source_of(build), on_conflict="error", rules=rules)
        assert (known.loaded, known.screening) == (False, found)

    async def test_what_nobody_has_looked_at_is_not_counted_as_sound(self, store: Store, build: Any) -> None:
        source = source_of(build)
        report = await store.add_source(source, on_conflict="error")
        cohort = await store.load_cohort(source.checksum, max_narratives=None)
        assert report.screening is None
        assert await store.load_screening(source.checksum) is None
        assert await store.count_flags(cohort) is None

    async def test_looking_later_finds_the_same_and_looking_again_changes_nothing(
        self,
        store: Store,
        build: Any,
        rules: ScreeningRules,
    ) -> None:
        source = source_of(build)
        await store.add_source(source, on_conflict="error")
        first = await store.screen_source(source.checksum, rules)
        assert (first.n_screened, first.n_placeholder, first.n_near_empty, first.n_identical) == (9, 3, 1, 3)
        assert await store.screen_source(source.checksum, rules) == first
        assert await store.load_screening(source.checksum) == first

    async def test_other_rules_take_the_place_of_the_first_and_can_be_taken_back(
        self,
        store: Store,
        build: Any,
        rules: ScreeningRules,
        other_rules: ScreeningRules,
    ) -> None:
        experiment = await experiment_of(store, build, rules)
        checksum = experiment.cohort.data_checksum
        found = await store.screen_source(checksum, other_rules)
        assert (found.rules_name, found.n_placeholder, found.n_near_empty, found.n_identical) == ("mine", 1, 0, 4)
        assert ranks(await load_skips(store, experiment)) == [7]
        back = await store.screen_source(checksum, rules)
        assert (back.rules_name, back.n_placeholder) == (rules.name, 3)
        assert await store.load_screening(checksum) == back

    async def test_flags_are_counted_for_the_cohort_alone(
        self,
        store: Store,
        build: Any,
        rules: ScreeningRules,
    ) -> None:
        experiment = await experiment_of(store, build, rules, max_narratives=5)
        expected = FlagCounts(n_placeholder=2, n_near_empty=0, n_truncated=0, n_identical=1)
        assert await store.count_flags(experiment.cohort) == expected

    async def test_a_text_of_another_source_is_nobody_s_original(
        self,
        store: Store,
        build: Any,
        rules: ScreeningRules,
    ) -> None:
        await store.add_source(source_of(build, prefix="other"), on_conflict="error", rules=rules)
        experiment = await experiment_of(store, build, rules, ask_identical_once=True)
        assert ranks(await load_all(store, experiment, Selection.MISSING)) == [1, 2, 3, 5, 7]


class TestWhatIsSent:
    @pytest.mark.parametrize(
        ("options", "sent", "uncalled"),
        [
            pytest.param({}, [1, 2, 3, 4, 5, 6, 7, 8, 9], (0, 0), id="everything"),
            pytest.param({"skip_placeholders": True}, [1, 3, 4, 6, 7, 8], (3, 0), id="no placeholders"),
            pytest.param({"ask_identical_once": True}, [1, 2, 3, 5, 7], (0, 4), id="no repeats"),
            pytest.param(BOTH, [1, 3, 7], (3, 3), id="neither"),
            pytest.param(BOTH | {"max_narratives": 5}, [1, 3], (2, 1), id="of a part"),
        ],
    )
    @pytest.mark.parametrize("selection", [Selection.MISSING, Selection.MISSING_AND_ERRORS])
    async def test_what_takes_no_call_is_left_out_of_what_is_sent(
        self,
        store: Store,
        build: Any,
        rules: ScreeningRules,
        options: Any,
        sent: list[int],
        uncalled: tuple[int, int],
        selection: Selection,
    ) -> None:
        experiment = await experiment_of(store, build, rules, **options)
        for limit in (1, 2, 100):
            assert ranks(await load_all(store, experiment, selection, limit=limit)) == sent
        n_to_skip, n_to_copy = uncalled
        assert await store.count_uncalled(experiment, selection) == UncalledCounts(
            n_to_skip=n_to_skip, n_to_copy=n_to_copy
        )
        n_remaining = await store.count_remaining(experiment, selection)
        assert n_remaining == experiment.cohort.n_narratives == len(sent) + n_to_skip + n_to_copy

    async def test_texts_that_nobody_has_looked_at_are_all_sent(self, store: Store, build: Any) -> None:
        source = source_of(build)
        await store.add_source(source, on_conflict="error")
        experiment = await build.experiment(store, source.checksum, **BOTH)
        assert len(await load_all(store, experiment, Selection.MISSING)) == 9
        assert await store.count_uncalled(experiment, Selection.MISSING) == UncalledCounts()
        assert await load_skips(store, experiment) == []


@pytest.fixture
async def frugal(store: Store, build: Any, rules: ScreeningRules) -> Experiment:
    return await experiment_of(store, build, rules, **BOTH)


@pytest.fixture
async def run_id(store: Store, frugal: Experiment, build: Any) -> RunId:
    begun: RunId = await store.begin_run(build.run_start(frugal))
    return begun


class TestSkips:
    @pytest.mark.parametrize("limit", [1, 2, 100])
    async def test_placeholders_without_a_row_are_found_with_their_ranks(
        self,
        store: Store,
        frugal: Experiment,
        run_id: RunId,
        limit: int,
    ) -> None:
        found = await load_skips(store, frugal, limit=limit)
        assert ranks(found) == [*SKIPPED]
        assert {one.reason for one in found} == {SkipReason.PLACEHOLDER}
        await write(store, frugal, run_id, found[:1])
        assert ranks(await load_skips(store, frugal, limit=limit)) == [5, 9]

    async def test_a_skip_is_neither_an_answer_nor_an_error(
        self,
        store: Store,
        frugal: Experiment,
        run_id: RunId,
    ) -> None:
        await write(store, frugal, run_id, (await load_skips(store, frugal))[:1])
        (row,) = await rows_of(store, frugal)
        held = {name: value for name, value in row.items() if value is not None}
        assert held.pop("result_id") >= 1
        assert len(held.pop("processed_at")) == len("2026-01-02 03:04:05")
        assert held == {
            "experiment_id": frugal.experiment_id,
            "incident_id": "case0",
            "narrative_type": "le",
            "row_num": 2,
            "narrative_text": "No report available.",
            "manual_flag_ind": 0,
            "manual_flag": 1,
            "error_occurred": 0,
            "skip_reason": "placeholder",
            "attempt_count": 0,
            "run_id": run_id,
        }
        assert await store.count_results(frugal) == ResultCounts(n_total=9, n_success=0, n_errors=0, n_skipped=1)
        assert await store.count_detected(frugal.experiment_id) == (0, 0)
        assert await store.count_confusion(frugal.experiment_id) == ConfusionCounts(tp=0, fp=0, fn=0, tn=0)
        assert await store.count_remaining(frugal, Selection.MISSING) == 8

    async def test_writing_skips_again_changes_no_row_and_no_counter(
        self,
        store: Store,
        frugal: Experiment,
        run_id: RunId,
    ) -> None:
        skips = await load_skips(store, frugal)
        for _ in range(2):
            await write(store, frugal, run_id, skips)
            await assert_counters_equal_rows(store, frugal)
        columns = (await store.load_experiment(frugal.experiment_id)).columns
        assert (columns["n_narratives_skipped"], columns["n_errors"]) == (3, 0)
        assert (await store.list_runs(frugal.experiment_id))[0].n_saved == 3

    async def test_a_row_that_is_there_is_never_skipped_away(
        self,
        store: Store,
        frugal: Experiment,
        run_id: RunId,
        build: Any,
    ) -> None:
        plain = replace(frugal, skips_placeholders=False)
        items = {item.row_num: item for item in await load_all(store, plain, Selection.MISSING)}
        await write(store, frugal, run_id, [outcome_of(items[2]), outcome_of(items[5], failure())])
        before = await rows_of(store, frugal)
        assert ranks(await load_skips(store, frugal)) == [9]
        ids = [items[rank].narrative_id for rank in (2, 5)]
        forged = [Skip(narrative_id=one, row_num=1, reason=SkipReason.PLACEHOLDER) for one in ids]
        await write(store, frugal, run_id, forged)
        assert await rows_of(store, frugal) == before
        await assert_counters_equal_rows(store, frugal)
        # an error that is there all the same can be tried again
        later = await store.begin_run(build.run_start(frugal, Selection.ERRORS))
        assert ranks(await load_all(store, frugal, Selection.ERRORS, run_id=later)) == [5]


class TestCopies:
    async def test_nothing_is_copied_before_the_original_has_a_row(self, store: Store, frugal: Experiment) -> None:
        assert await load_copies(store, frugal) == []

    async def test_a_copy_says_what_its_original_says_at_no_cost_and_is_judged_by_its_own_label(
        self,
        store: Store,
        frugal: Experiment,
        run_id: RunId,
    ) -> None:
        first = (await load_all(store, frugal, Selection.MISSING))[0]
        await write(store, frugal, run_id, [attempt_of(first, ErrorCategory.TIMEOUT), outcome_of(first)])
        copies = await load_copies(store, frugal, limit=1)
        assert [(one.row_num, one.original_id, one.error_category) for one in copies] == [
            (4, first.narrative_id, None),
            (6, first.narrative_id, None),
        ]
        await write(store, frugal, run_id, copies)
        rows = await by_rank(store, frugal)
        original = rows[1]
        assert (original["is_true_positive"], original["copied_from"], original["attempt_count"]) == (1, None, 2)
        for rank, judged in ((4, (1, 0)), (6, (0, 1))):
            copy = rows[rank]
            assert {name: copy[name] for name in COPIED_COLUMNS} == {name: original[name] for name in COPIED_COLUMNS}
            assert (copy["detected"], copy["parse_method"], copy["narrative_text"]) == (1, "strict", ONE)
            assert (copy["copied_from"], copy["run_id"], copy["attempt_count"]) == (first.narrative_id, run_id, 0)
            assert (copy["is_true_positive"], copy["is_false_positive"]) == judged
            paid = ("prompt_tokens", "completion_tokens", "tokens_used", "cached_tokens", "reasoning_tokens")
            assert [copy[name] for name in (*paid, "response_sec", "last_attempt_at", "skip_reason")] == [None] * 8
            assert copy["processed_at"]
        assert await store.sum_tokens(frugal.experiment_id) == (120, 30)
        assert await store.count_confusion(frugal.experiment_id) == ConfusionCounts(tp=2, fp=1, fn=0, tn=0)
        counts = ResultCounts(n_total=9, n_success=3, n_errors=0, n_copied=2)
        assert await store.count_results(frugal) == counts
        assert counts.n_asked == 1
        await assert_counters_equal_rows(store, frugal)
        assert await load_copies(store, frugal) == []

    @pytest.mark.parametrize("detected", [True, False])
    async def test_a_copy_without_a_label_is_not_judged(
        self,
        store: Store,
        build: Any,
        rules: ScreeningRules,
        detected: bool,
    ) -> None:
        narratives = [replace(build.narrative(0, text=ONE)), build.narrative(1, text=ONE)]
        narratives[1] = replace(narratives[1], manual_flag_ind=None)
        source = build.source(narratives)
        await store.add_source(source, on_conflict="error", rules=rules)
        experiment = await build.experiment(store, source.checksum, ask_identical_once=True)
        begun = await store.begin_run(build.run_start(experiment))
        (item,) = await load_all(store, experiment, Selection.MISSING)
        await write(store, experiment, begun, [outcome_of(item, detection(detected))])
        await write(store, experiment, begun, await load_copies(store, experiment))
        copy = (await by_rank(store, experiment))[2]
        judged = ("is_true_positive", "is_true_negative", "is_false_positive", "is_false_negative")
        assert [copy[name] for name in judged] == [None] * 4
        assert copy["detected"] == int(detected)

    async def test_writing_copies_again_changes_no_row_and_no_counter(
        self,
        store: Store,
        frugal: Experiment,
        run_id: RunId,
    ) -> None:
        items = await load_all(store, frugal, Selection.MISSING)
        await write(store, frugal, run_id, [outcome_of(items[0]), outcome_of(items[1], failure())])
        copies = await load_copies(store, frugal)
        assert [(one.row_num, one.error_category) for one in copies] == [(4, None), (6, None), (8, "bad_json")]
        await write(store, frugal, run_id, copies)
        before = await rows_of(store, frugal)
        await write(store, frugal, run_id, copies)
        await write(store, frugal, run_id, [replace(one, replaces_error=True) for one in copies])
        assert await rows_of(store, frugal) == before
        await assert_counters_equal_rows(store, frugal)
        assert (await store.load_experiment(frugal.experiment_id)).columns["n_errors"] == 2

    async def test_an_error_is_copied_asked_for_once_and_follows_its_original(
        self,
        store: Store,
        frugal: Experiment,
        run_id: RunId,
        build: Any,
    ) -> None:
        items = await load_all(store, frugal, Selection.MISSING)
        await write(store, frugal, run_id, [outcome_of(items[1], failure()), *map(outcome_of, items[::2])])
        await write(store, frugal, run_id, [*await load_skips(store, frugal), *await load_copies(store, frugal)])
        copied = (await by_rank(store, frugal))[8]
        assert (copied["error_occurred"], copied["error_category"], copied["detected"]) == (1, "bad_json", None)
        assert copied["first_error_message"] == copied["error_message"] == "the answer is no JSON"
        assert await store.count_remaining(frugal, Selection.MISSING) == 0
        assert await store.count_remaining(frugal, Selection.ERRORS) == 2
        assert await store.count_uncalled(frugal, Selection.ERRORS) == UncalledCounts(n_to_copy=1)

        verdicts = [failure(ErrorCategory.EMPTY, "it said nothing"), detection(False)]
        for verdict in verdicts:
            later = await store.begin_run(build.run_start(frugal, Selection.ERRORS))
            for selection in (Selection.ERRORS, Selection.MISSING_AND_ERRORS):
                (item,) = await load_all(store, frugal, selection, run_id=later)
            assert item.row_num == 3
            await write(store, frugal, later, [outcome_of(item, verdict)])
            # killed here, a run over what is missing would still bring the copy up to its original
            assert await store.count_remaining(frugal, Selection.MISSING) == 1
            assert await store.count_uncalled(frugal, Selection.MISSING) == UncalledCounts(n_to_copy=1)
            for selection in Selection:
                (behind,) = await load_copies(store, frugal, selection)
                assert (behind.row_num, behind.replaces_error) == (8, True)
            await write(store, frugal, later, [behind])
            rows = await by_rank(store, frugal)
            assert {name: rows[8][name] for name in COPIED_COLUMNS} == {name: rows[3][name] for name in COPIED_COLUMNS}
            assert (rows[8]["run_id"], rows[8]["result_id"]) == (later, copied["result_id"])
            assert rows[8]["first_error_message"] == "the answer is no JSON"
            await assert_counters_equal_rows(store, frugal)
            assert await store.count_uncalled(frugal, Selection.MISSING) == UncalledCounts()
        assert (rows[8]["error_occurred"], rows[8]["detected"], rows[8]["is_true_negative"]) == (0, 0, 1)
        assert await store.count_results(frugal) == ResultCounts(
            n_total=9, n_success=6, n_errors=0, n_skipped=3, n_copied=3
        )

    async def test_a_run_over_errors_makes_no_new_copies(
        self,
        store: Store,
        frugal: Experiment,
        run_id: RunId,
    ) -> None:
        first = (await load_all(store, frugal, Selection.MISSING))[0]
        await write(store, frugal, run_id, [outcome_of(first)])
        assert await load_copies(store, frugal, Selection.ERRORS) == []
        assert await store.count_uncalled(frugal, Selection.ERRORS) == UncalledCounts()

    async def test_a_success_is_never_overwritten_by_a_copy(
        self,
        store: Store,
        frugal: Experiment,
        run_id: RunId,
        build: Any,
    ) -> None:
        items = await load_all(store, frugal, Selection.MISSING)
        await write(store, frugal, run_id, [outcome_of(items[0])])
        copies = await load_copies(store, frugal)
        await write(store, frugal, run_id, copies)
        before = await rows_of(store, frugal)
        later = await store.begin_run(build.run_start(frugal))
        await write(store, frugal, later, [replace(one, replaces_error=True) for one in copies])
        assert await rows_of(store, frugal) == before

    async def test_an_asked_error_is_not_taken_for_a_copy(
        self,
        store: Store,
        frugal: Experiment,
        run_id: RunId,
        build: Any,
    ) -> None:
        """A narrative that has an error row of its own keeps its own."""
        plain = replace(frugal, asks_identical_once=False)
        items = {item.row_num: item for item in await load_all(store, plain, Selection.MISSING)}
        await write(store, frugal, run_id, [outcome_of(items[4], failure())])
        later = await store.begin_run(build.run_start(frugal))
        await write(store, frugal, later, [outcome_of(items[1])])
        before = (await by_rank(store, frugal))[4]
        forged = Copy(
            narrative_id=items[4].narrative_id,
            row_num=4,
            original_id=items[1].narrative_id,
            error_category=None,
            replaces_error=True,
        )
        last = await store.begin_run(build.run_start(frugal))
        await write(store, frugal, last, [forged])
        assert (await by_rank(store, frugal))[4] == before


class TestOthers:
    async def test_canaries_are_drawn_from_what_was_asked(
        self,
        store: Store,
        frugal: Experiment,
        run_id: RunId,
    ) -> None:
        items = await load_all(store, frugal, Selection.MISSING)
        await write(store, frugal, run_id, [*await load_skips(store, frugal), *map(outcome_of, items)])
        await write(store, frugal, run_id, await load_copies(store, frugal))
        assert len(await rows_of(store, frugal)) == 9
        canaries = await store.load_canaries(frugal, limit=50)
        assert [one.narrative_id for one in canaries] == [one.narrative_id for one in items]

    async def test_experiments_over_one_source_do_not_mind_each_other(
        self,
        store: Store,
        frugal: Experiment,
        run_id: RunId,
        build: Any,
    ) -> None:
        plain = await build.experiment(store, frugal.cohort.data_checksum, number=2)
        items = await load_all(store, plain, Selection.MISSING)
        assert len(items) == 9
        begun = await store.begin_run(build.run_start(plain))
        await write(store, plain, begun, list(map(outcome_of, items)))
        assert await load_copies(store, frugal) == []
        assert ranks(await load_skips(store, frugal)) == [*SKIPPED]
        assert await store.count_results(frugal) == ResultCounts(n_total=9, n_success=0, n_errors=0)

    async def test_a_batch_of_all_kinds_counts_right(
        self,
        store: Store,
        frugal: Experiment,
        run_id: RunId,
    ) -> None:
        items = await load_all(store, frugal, Selection.MISSING, run_id=NO_RUN)
        await write(store, frugal, run_id, [outcome_of(items[0])])
        batch = [*await load_skips(store, frugal), outcome_of(items[1], failure()), *await load_copies(store, frugal)]
        await write(store, frugal, run_id, batch)
        assert await store.count_results(frugal) == ResultCounts(
            n_total=9, n_success=3, n_errors=1, n_skipped=3, n_copied=2
        )
        await assert_counters_equal_rows(store, frugal)
        assert (await store.list_runs(frugal.experiment_id))[0].n_saved == 7
