"""Promises of `analysis.evaluation`: what is counted, at every level, and that nothing ever breaks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_cohorts import Rates, draw_cohort, make_row, rows_of_table
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.inter_rater import cohens_kappa

from narrun_async.analysis import tables
from narrun_async.analysis.cohort import Label, LabelSet, manual_flags
from narrun_async.analysis.evaluation import evaluate
from narrun_async.analysis.evaluation_tree import EvaluationReport, Level, LevelReport, Subject, Validity
from narrun_async.analysis.resampling import Bootstrap
from narrun_async.analysis.values import Interval, Measure, Method, Share
from narrun_async.models import CohortRow

SUBJECT = Subject(experiment_id="3f2a9c10", name="made up", is_simulated=True)
FEW = Bootstrap(n_resamples=200, seed=1)
NONE = Bootstrap(n_resamples=0, seed=1)


def evaluated(rows: Sequence[CohortRow], bootstrap: Bootstrap = NONE, **options: Any) -> EvaluationReport:
    return evaluate(rows, SUBJECT, bootstrap, **options)


def level(report: EvaluationReport, wanted: Level) -> LevelReport:
    return next(one for one in report.levels if one.level is wanted)


def cells(found: LevelReport) -> tuple[float, ...]:
    return found.confusion.tp, found.confusion.fp, found.confusion.fn, found.confusion.tn


def measures_in(value: object) -> Iterator[Measure]:
    """Every measure of a tree."""
    if isinstance(value, Measure):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from measures_in(getattr(value, field.name))
    elif isinstance(value, tuple):
        for one in value:
            yield from measures_in(one)


# --- what is counted -------------------------------------------------------------------------------------------------


def test_the_predecessors_best_configuration_gives_its_published_figures() -> None:
    found = level(evaluated(rows_of_table(42, 14, 6, 342), FEW), Level.NARRATIVES)
    assert cells(found) == (42, 14, 6, 342)
    performance = found.performance
    values = [performance.ppv.value, performance.sensitivity.value, performance.f1.value]
    assert [round(value or 0, 3) for value in values] == [0.750, 0.875, 0.808]
    assert (performance.sensitivity.numerator, performance.sensitivity.denominator) == (42, 48)
    assert (performance.f1.numerator, performance.f1.denominator) == (84, 104)


#: incident → (CME answer, LE answer), None where there is no such narrative
ANY_POSITIVE = [(1, 0, 1), (0, 1, 1), (0, 0, 0), (1, None, 1), (None, 0, 0)]


@pytest.mark.parametrize(("cme", "le", "expected"), ANY_POSITIVE)
def test_an_incident_is_detected_if_any_of_its_narratives_is(cme: int | None, le: int | None, expected: int) -> None:
    answers = {"cme": cme, "le": le}
    present = {kind: one for kind, one in answers.items() if one is not None}
    rows = [make_row(narrative_type=kind, detected=one, case_label=1) for kind, one in present.items()]
    found = level(evaluated(rows), Level.INCIDENTS)
    assert cells(found) == ((1, 0, 0, 0) if expected else (0, 0, 1, 0))
    with_both = level(evaluated(rows), Level.INCIDENTS_WITH_BOTH)
    assert with_both.counts.n_units == (cme is not None and le is not None)


def test_an_incident_is_judged_by_what_was_answered_and_stays_open_while_an_error_could_change_it() -> None:
    rows = [
        make_row("open", "cme", detected=0, case_label=1),
        make_row("open", "le", error="timeout", case_label=1),
        make_row("closed", "cme", detected=1, case_label=1),
        make_row("closed", "le", error="timeout", case_label=1),
        make_row("failed", "cme", error="timeout", case_label=0),
        make_row("skipped", "cme", skipped="placeholder", case_label=0),
        make_row("waiting", "cme", has_result=False, case_label=0),
    ]
    found = level(evaluated(rows), Level.INCIDENTS)
    counts = found.counts
    assert (counts.n_units, counts.n_answered, counts.n_errors, counts.n_skipped, counts.n_missing) == (5, 2, 1, 1, 1)
    assert cells(found) == (1, 0, 1, 0)
    assert (found.if_errors.n_open, found.if_errors.n_open_all) == (2, 2)
    assert (found.if_errors.sensitivity.worst, found.if_errors.sensitivity.best) == (0.5, 1.0)
    assert (found.if_errors.specificity.worst, found.if_errors.specificity.best) == (0.0, 1.0)


def test_narratives_are_judged_by_their_own_flag_and_incidents_by_the_cases() -> None:
    rows = [
        make_row("a", "cme", detected=1, label=1, case_label=1),
        make_row("a", "le", detected=0, label=0, case_label=1),
        make_row("b", "cme", detected=0, label=0, case_label=None),
    ]
    report = evaluated(rows)
    assert cells(level(report, Level.NARRATIVES)) == (1, 0, 0, 2)
    assert cells(level(report, Level.CME)) == (1, 0, 0, 1)
    assert cells(level(report, Level.LE)) == (0, 0, 0, 1)
    assert cells(level(report, Level.INCIDENTS)) == (1, 0, 0, 0)


def test_one_positive_case_flag_is_enough_where_narratives_of_an_incident_carry_different_ones() -> None:
    for flags in ((1, 0), (0, 1), (1, None), (None, 1)):
        rows = [make_row(narrative_type=kind, case_label=flag) for kind, flag in zip(("cme", "le"), flags, strict=True)]
        assert manual_flags(rows).incidents["case1"].is_positive


def test_the_flow_adds_up_to_the_cohort() -> None:
    rows = [
        make_row("1", detected=1, label=1, text_flags=""),
        make_row("2", detected=0, text_flags="near_empty"),
        make_row("3", detected=0, label=0, copied_from=2, text_flags="truncated"),
        make_row("4", error="refusal", label=0, text_flags=""),
        make_row("5", error="refusal", copied_from=4, text_flags=""),
        make_row("6", error="timeout", text_flags=""),
        make_row("7", skipped="placeholder", text_flags="placeholder,near_empty"),
        make_row("8", has_result=False, text_flags="placeholder"),
    ]
    flow = evaluated(rows).flow
    assert flow.n_eligible == 8 == flow.n_missing + sum(flow.skipped.values()) + flow.n_copied + flow.n_sent
    assert flow.n_sent + flow.n_copied == 6 == flow.n_answered + sum(flow.errors.values())
    assert (flow.errors, flow.skipped) == ({"refusal": 2, "timeout": 1}, {"placeholder": 1})
    assert (flow.n_answered, flow.n_unlabelled, flow.n_evaluated) == (3, 1, 2)
    assert (flow.n_placeholders, flow.n_near_empty, flow.n_truncated) == (2, 2, 1)
    assert evaluated([make_row(detected=1)]).flow.n_placeholders is None


def test_a_skipped_narrative_is_no_answer_even_where_a_verdict_stands_in_its_row() -> None:
    rows = [
        make_row("1", "cme", detected=1, skipped="placeholder", label=0, case_label=0),
        make_row("1", "le", detected=0, label=0, case_label=0),
    ]
    report = evaluated(rows)
    assert report.flow.n_answered == 1
    assert cells(level(report, Level.NARRATIVES)) == cells(level(report, Level.INCIDENTS)) == (0, 0, 0, 1)


def test_agreement_of_both_narratives_is_counted_over_incidents_that_have_both_answers() -> None:
    pairs = [(1, 1)] * 7 + [(1, 0)] * 3 + [(0, 1)] * 2 + [(0, 0)] * 20 + [(1, None)] * 5 + [(None, 0)] * 5
    rows = [
        make_row(f"case{number}", kind, detected=one)
        for number, answers in enumerate(pairs)
        for kind, one in zip(("cme", "le"), answers, strict=True)
        if one is not None
    ]
    found = evaluated(rows).cme_le
    assert (found.table.tp, found.table.fp, found.table.fn, found.table.tn) == (7, 3, 2, 20)
    reference = cohens_kappa([[7, 3], [2, 20]])
    assert found.kappa.value == pytest.approx(reference.kappa, abs=1e-9)
    assert found.kappa.interval is not None
    assert (found.kappa.interval.low, found.kappa.interval.high) == pytest.approx(
        (reference.kappa_low, reference.kappa_upp), abs=1e-9
    )
    assert found.p_mcnemar == pytest.approx(mcnemar([[7, 3], [2, 20]], exact=True).pvalue, abs=1e-9)


def test_errors_are_bounded_by_all_wrong_and_all_right() -> None:
    rows = [*rows_of_table(42, 14, 6, 342), *[make_row(f"e{n}", error="refusal", label=n % 2) for n in range(10)]]
    bounds = level(evaluated(rows), Level.NARRATIVES).if_errors
    assert (bounds.sensitivity.worst, bounds.sensitivity.best) == (42 / 53, 47 / 53)
    assert (bounds.specificity.worst, bounds.specificity.best) == (342 / 361, 347 / 361)
    assert (bounds.ppv.worst, bounds.ppv.best) == (42 / 61, 47 / 61)
    assert (bounds.f1.worst, bounds.f1.best) == (84 / (84 + 19 + 11), 94 / (94 + 14 + 6))
    assert (bounds.apparent.worst, bounds.apparent.best) == (56 / 414, 66 / 414)


# --- labels and weights ----------------------------------------------------------------------------------------------


def test_labels_of_another_source_take_the_place_of_the_manual_flags() -> None:
    rows = rows_of_table(5, 0, 0, 5)
    opposite = LabelSet(
        name="reviewers",
        narratives={(row.incident_id, "cme"): Label(is_positive=row.detected == 0) for row in rows},
        incidents={},
    )
    report = evaluated(rows, labels=opposite)
    assert report.labels == "reviewers"
    assert cells(level(report, Level.NARRATIVES)) == (0, 5, 5, 0)
    assert level(report, Level.INCIDENTS).counts.n_evaluated == 0


def test_a_narrative_of_weight_three_counts_like_three_of_them() -> None:
    rows = [make_row(f"c{n}", detected=n % 2, label=n % 5 < 2) for n in range(30)]
    weights = {f"c{n}": 1 + n % 3 for n in range(30)}
    labels = manual_flags(rows)
    weighted = LabelSet(
        name="reviewed",
        narratives={key: replace(label, weight=weights[key[0]]) for key, label in labels.narratives.items()},
        incidents={},
    )
    copies = [(row, copy) for row in rows for copy in range(weights[row.incident_id])]
    repeated = [replace(row, incident_id=f"{row.incident_id}-{copy}") for row, copy in copies]
    found = level(evaluated(rows, FEW, labels=weighted), Level.NARRATIVES)
    expected = level(evaluated(repeated, FEW), Level.NARRATIVES)
    assert cells(found) == cells(expected)
    for name in ("sensitivity", "specificity", "ppv", "npv", "f1", "mcc", "balanced_accuracy"):
        one, other = getattr(found.performance, name), getattr(expected.performance, name)
        assert one.value == pytest.approx(other.value, abs=1e-9), name
    assert found.agreement.p_mcnemar is None
    assert found.agreement.kappa.interval is not None and found.agreement.kappa.interval.method is Method.BCA
    sensitivity = found.performance.sensitivity.interval
    assert sensitivity is not None and expected.performance.sensitivity.interval is not None
    assert sensitivity.low < expected.performance.sensitivity.interval.low


def test_a_sample_whose_units_stand_for_many_is_no_surer_for_it() -> None:
    rows = rows_of_table(20, 6, 5, 69)
    alone = manual_flags(rows)
    for_many = {key: replace(label, weight=87.0) for key, label in alone.narratives.items()}
    labels = LabelSet(name="reviewed", narratives=for_many, incidents={})
    bootstrap = Bootstrap(n_resamples=2000, seed=1)
    found = level(evaluated(rows, bootstrap, labels=labels), Level.NARRATIVES)
    expected = level(evaluated(rows, bootstrap), Level.NARRATIVES)
    one, other = found.performance.sensitivity.interval, expected.performance.sensitivity.interval
    assert one is not None and other is not None
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-9)
    for again, once in (
        (found.agreement.kappa, expected.agreement.kappa),
        (found.agreement.ac1, expected.agreement.ac1),
    ):
        assert again.value == pytest.approx(once.value, abs=1e-9)
        assert again.interval is not None and once.interval is not None
        assert again.interval.high - again.interval.low == pytest.approx(
            once.interval.high - once.interval.low, rel=0.25
        )
    assert found.agreement.p_mcnemar is None


# --- prevalence ------------------------------------------------------------------------------------------------------


def test_where_every_answer_has_a_label_the_labels_say_the_rate_themselves() -> None:
    found = level(evaluated(rows_of_table(42, 14, 6, 342)), Level.NARRATIVES).prevalence
    assert found.corrected.value == pytest.approx(48 / 404, abs=1e-9)
    assert found.corrected.interval == found.labelled.interval
    assert "the labels say the rate themselves" in " ".join(found.remarks)


def test_the_corrected_rate_is_rogans_and_gladens_whatever_part_is_labelled() -> None:
    rows = [*rows_of_table(42, 14, 6, 342), *[make_row(f"u{n}", detected=n % 17 == 0) for n in range(2000)]]
    found = level(evaluated(rows), Level.NARRATIVES).prevalence
    apparent = (56 + 118) / 2404
    se, sp = 42 / 48, 342 / 356
    assert found.apparent.value == pytest.approx(apparent, abs=1e-9)
    assert found.corrected.value == pytest.approx((apparent + sp - 1) / (se + sp - 1), abs=1e-9)
    assert found.corrected.interval is not None and found.corrected.interval.method is Method.MOVER
    assert "no random sample" in " ".join(found.remarks)


def test_sensitivity_and_specificity_may_be_given() -> None:
    sensitivity, specificity = Share(value=42 / 48, n_effective=48), Share(value=342 / 356, n_effective=356)
    given_validity = Validity(sensitivity=sensitivity, specificity=specificity, source="a paper")
    rows = [make_row(f"u{n}", detected=n < 1995) for n in range(35312)]
    report = evaluated(rows, find_validity=lambda units: given_validity if units.level is Level.NARRATIVES else None)
    found = level(report, Level.NARRATIVES).prevalence
    assert found.corrected.value == pytest.approx(0.0205, abs=2e-4)
    assert found.includes_zero is True
    assert found.predictive_values[0].prevalence == found.corrected.value
    assert [one.prevalence for one in found.predictive_values[1:]] == [0.01, 0.02, 0.05, 0.1, 0.2]
    assert level(report, Level.INCIDENTS).prevalence.corrected.value is None


def test_a_rate_without_labels_is_not_corrected_and_says_so() -> None:
    found = level(evaluated([make_row(detected=1)]), Level.NARRATIVES).prevalence
    assert (found.corrected.value, found.includes_zero, found.predictive_values) == (None, None, ())
    assert "unknown" in found.corrected.remark


# --- nothing breaks --------------------------------------------------------------------------------------------------

DEGENERATE: dict[str, Callable[[], Sequence[CohortRow]]] = {
    "no narratives": list,
    "no row yet": lambda: [make_row(has_result=False, label=1, case_label=1)],
    "all errors": lambda: [make_row(f"c{n}", error="timeout", label=n % 2, case_label=n % 2) for n in range(6)],
    "no labels": lambda: [make_row(f"c{n}", detected=n % 2, confidence=0.5) for n in range(6)],
    "all positive": lambda: rows_of_table(6, 0, 0, 0),
    "all negative": lambda: rows_of_table(0, 0, 0, 6),
    "only false positives": lambda: rows_of_table(0, 6, 0, 0),
    "only false negatives": lambda: rows_of_table(0, 0, 6, 0),
    "always wrong": lambda: rows_of_table(0, 3, 3, 0),
    "always right": lambda: rows_of_table(3, 0, 0, 3),
    "one narrative": lambda: rows_of_table(1, 0, 0, 0),
    "no confidence": lambda: [replace(row, confidence=None) for row in rows_of_table(3, 1, 1, 3)],
    "texts gone": lambda: [replace(row, text_chars=None) for row in rows_of_table(3, 1, 1, 3)],
    "everything skipped": lambda: [make_row(f"c{n}", skipped="placeholder") for n in range(3)],
    "a type nobody knows": lambda: [make_row(narrative_type="toxicology", detected=1, label=1, case_label=1)],
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("bootstrap", [NONE, FEW], ids=["no resamples", "resamples"])
def test_every_measure_of_a_poor_cohort_is_a_number_or_says_why_it_is_none(name: str, bootstrap: Bootstrap) -> None:
    report = evaluated(DEGENERATE[name](), bootstrap)
    for measure in measures_in(report):
        assert measure.value is not None or measure.remark
    json.dumps(asdict(report), allow_nan=False)


MAYBE_FLAG = st.sampled_from([None, 0, 1])
ROW = st.builds(
    make_row,
    st.sampled_from([f"case{n}" for n in range(12)]),
    st.sampled_from(["cme", "le"]),
    detected=st.sampled_from([0, 1]),
    label=MAYBE_FLAG,
    case_label=MAYBE_FLAG,
    confidence=st.none() | st.floats(0, 1),
    error=st.sampled_from([None, None, None, "timeout", "refusal"]),
    skipped=st.sampled_from([None, None, None, "placeholder"]),
    has_result=st.sampled_from([True, True, True, False]),
    text_chars=st.none() | st.integers(0, 3000),
)
COHORT = st.lists(ROW, max_size=24, unique_by=lambda row: (row.incident_id, row.narrative_type))


MEASURES: dict[str, tables.Statistic] = {
    "sensitivity": tables.sensitivity,
    "specificity": tables.specificity,
    "ppv": tables.ppv,
    "npv": tables.npv,
    "balanced_accuracy": tables.balanced_accuracy,
    "f1": tables.f1,
    "mcc": tables.mcc,
    "observed": tables.observed_agreement,
    "kappa": tables.cohens_kappa,
    "pabak": tables.pabak,
    "ac1": tables.gwets_ac1,
    "positive": tables.positive_agreement,
    "negative": tables.negative_agreement,
}


@settings(max_examples=40)
@given(COHORT)
def test_whatever_the_cohort_every_value_lies_in_its_interval_and_every_count_adds_up(rows: list[CohortRow]) -> None:
    report = evaluated(rows, Bootstrap(n_resamples=50, seed=1))
    json.dumps(asdict(report), allow_nan=False)
    for measure in measures_in(report):
        assert measure.value is not None or measure.remark
        for interval in (measure.interval, measure.clustered):
            if interval is None:
                continue
            assert interval.low <= interval.high
            if interval.method in (Method.WILSON, Method.WILSON_EFFECTIVE, Method.MOVER, Method.LOGIT):
                assert measure.value is not None
                assert interval.low - 1e-9 <= measure.value <= interval.high + 1e-9
    for one in report.levels:
        counts = one.counts
        assert counts.n_units == counts.n_answered + counts.n_errors + counts.n_skipped + counts.n_missing
        assert sum(cells(one)) == counts.n_evaluated == one.confusion.n_units
        for name, statistic in MEASURES.items():
            expected = float(statistic(np.array(cells(one))))
            found = getattr(one.performance, name, None) or getattr(one.agreement, name)
            assert found.value == (None if math.isnan(expected) else pytest.approx(expected, abs=1e-9)), name
        for name in ("sensitivity", "specificity", "ppv", "npv", "f1"):
            bounds = getattr(one.if_errors, name)
            if bounds.worst is not None and bounds.best is not None:
                assert bounds.worst <= bounds.best
    with_both = level(report, Level.INCIDENTS_WITH_BOTH).counts.n_units
    assert report.cme_le.table.n_units == with_both <= level(report, Level.INCIDENTS).counts.n_units


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = draw_cohort(Rates(n_incidents=60, failed=0.1, likeness=0.4), seed=3)
    forwards, backwards = evaluated(rows, FEW), evaluated(list(reversed(rows)), FEW)
    for one, other in zip(measures_in(forwards), measures_in(backwards), strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-9)
        if one.interval is not None and other.interval is not None:
            assert one.interval.low == pytest.approx(other.interval.low, abs=1e-9)
            assert one.interval.high == pytest.approx(other.interval.high, abs=1e-9)


def test_the_same_seed_gives_the_same_report() -> None:
    rows = draw_cohort(Rates(n_incidents=60), seed=3)
    assert evaluated(rows, FEW) == evaluated(rows, FEW)
    other = Bootstrap(n_resamples=200, seed=2)
    assert evaluated(rows, FEW).levels[0].performance.f1 != evaluated(rows, other).levels[0].performance.f1


def test_no_interval_is_claimed_without_resamples_for_what_needs_them() -> None:
    found = level(evaluated(rows_of_table(42, 14, 6, 342)), Level.NARRATIVES).performance
    for measure in (found.f1, found.mcc, found.balanced_accuracy):
        assert measure.interval is None
        assert "no resamples" in measure.remark
    assert isinstance(found.sensitivity.interval, Interval)
