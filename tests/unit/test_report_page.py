"""Promises of the report's words: every number with its denominator, nothing claimed that was not found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_cohorts import Rates, draw_cohort, make_row, rows_of_table
from made_up_reports import (
    BEGAN,
    SYSTEM_PROMPT,
    blocks_of,
    make_calls,
    make_experiment,
    make_material,
    make_run,
    section,
    words_of,
    words_of_page,
)

from narrun_async.analysis.breakdowns import rank_indicators
from narrun_async.analysis.cohort import Label, LabelSet
from narrun_async.analysis.evaluation_tree import Validity
from narrun_async.analysis.values import Measure, Share
from narrun_async.models import (
    AnswerIndicators,
    CanaryCounts,
    CohortRow,
    ExperimentStatus,
    IngestRecord,
    RunRecord,
    Serving,
    ServingUse,
)
from narrun_async.reporting.html.blocks import Cards, Figure, FlowChart, Fold, Page, Table, Tone
from narrun_async.reporting.html.material import ReaderPairFacts, ReviewFacts
from narrun_async.reporting.html.page import build_page
from narrun_async.reporting.html.sections.checklists import STARD, TRIPOD_LLM, YOURS
from narrun_async.reporting.html.sections.methods import methods_sentences, results_sentences

BEST = rows_of_table(42, 14, 6, 342)
#: a value that was printed as Python has it; the word “none” may begin a sentence
NONSENSE = re.compile(r"\b(nan|inf)\b|None(?! (with|that|is))|Level\.|frozenset|Measure\(")


def page(rows: Sequence[CohortRow], **options: object) -> Page:
    return build_page(make_material(rows, **options))  # type: ignore[arg-type]  # fields of the material


def words(rows: Sequence[CohortRow], slug: str, **options: object) -> str:
    return words_of(section(page(rows, **options), slug).blocks)


# --- the first page --------------------------------------------------------------------------------------------------


def test_the_brief_gives_every_share_with_its_counts_and_its_interval() -> None:
    (cards,) = (one for one in section(page(BEST), "in-brief").blocks if isinstance(one, Cards))
    told = {card.label: (card.value, card.detail) for card in cards.items}
    assert told["Sensitivity, of narratives"][0] == "0.875" and "42 of 48" in told["Sensitivity, of narratives"][1]
    assert told["Specificity, of narratives"][0] == "0.961" and "342 of 356" in told["Specificity, of narratives"][1]
    assert told["Precision, of narratives"][0] == "0.750" and "42 of 56" in told["Precision, of narratives"][1]
    assert told["Incidents detected"][0] == "13.86 %" and "56 of 404" in told["Incidents detected"][1]
    assert all(re.search(r"95 %.*\d to .*\d", detail) for _, detail in told.values())


def test_raw_agreement_never_stands_without_kappa() -> None:
    told = words(BEST, "in-brief")
    assert "Agreement of 95.05 %" in told and "kappa is 0.78" in told
    assert "kappa" in words(BEST, "agreement") and "at random" in words(BEST, "agreement")


def test_a_corrected_interval_that_reaches_zero_is_said_twice() -> None:
    rows = [make_row(f"case{n}", detected=int(n < 30)) for n in range(1_000)]
    known = Validity(
        sensitivity=Share(value=42 / 48, n_effective=48),
        specificity=Share(value=342 / 356, n_effective=356),
        source="x",
    )
    for slug in ("in-brief", "prevalence"):
        told = words(rows, slug, find_validity=lambda units: known)
        assert "includes zero" in told and "may be false alarms" in told


def test_without_labels_it_says_that_nobody_knows_how_good_the_answers_are() -> None:
    rows = [make_row(f"case{n}", detected=n % 5 == 0) for n in range(50)]
    told = words_of_page(page(rows))
    assert "nobody knows how often the answers are wrong" in told
    assert "this cannot be said" in words(rows, "accuracy")


def test_where_every_answer_has_a_label_nothing_is_said_to_be_corrected() -> None:
    told = words(BEST, "in-brief")
    assert "Incidents labelled yes by people" in told and "by the labels it is 11.88 %" in told
    assert "corrected" not in told


def test_what_the_labels_say_is_not_what_a_correction_from_elsewhere_says() -> None:
    """Every incident is labelled, 11.88 % of them yes; a sensitivity from a paper would make something else of it."""
    known = Validity(
        sensitivity=Share(value=0.5, n_effective=48), specificity=Share(value=0.9, n_effective=356), source="a paper"
    )
    told = words(BEST, "in-brief", find_validity=lambda units: known)
    assert "by the labels it is 11.88 %" in told


def test_how_many_experiments_were_judged_on_the_same_labels_is_said() -> None:
    assert "52 experiments were judged" in words(BEST, "in-brief", n_configurations=52)
    assert "experiments were judged" not in words(BEST, "in-brief")


def test_a_simulation_says_so_loudly_everywhere_it_matters() -> None:
    found = page(BEST, is_simulated=True)
    assert found.asides[0].tone is Tone.ALARM and "mean nothing" in found.asides[0].text
    assert "mean nothing" in words_of(section(found, "in-brief").blocks)
    assert "do not publish" in words_of(section(found, "methods").blocks)
    assert "not from a language model" in words_of(section(found, "methods").blocks)
    assert "SIMULATED" not in words_of_page(page(BEST))


def test_an_unfinished_experiment_says_so() -> None:
    rows = [*BEST, *(make_row(f"late{n}", has_result=False) for n in range(7))]
    found = page(rows, status=ExperimentStatus.INTERRUPTED)
    assert any("not complete (interrupted)" in aside.text for aside in found.asides)
    assert "7 narratives have not been asked about" in words_of(section(found, "in-brief").blocks)
    assert "not reached yet: 7" in words_of(section(found, "flow").blocks)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="empty"),
        pytest.param([make_row(has_result=False)], id="nothing done"),
        pytest.param([make_row(f"c{n}", error="refusal") for n in range(9)], id="all errors"),
        pytest.param([make_row(f"c{n}", detected=1, label=1, case_label=1) for n in range(9)], id="all yes"),
        pytest.param([make_row(f"c{n}", detected=0, label=0, case_label=0) for n in range(9)], id="all no"),
        pytest.param([make_row(f"c{n}", detected=n % 2, label=1, case_label=1) for n in range(9)], id="one label"),
        pytest.param([make_row(f"c{n}", skipped="placeholder") for n in range(3)], id="all skipped"),
        pytest.param([make_row("c", detected=1, label=0, case_label=0, confidence=1.0)], id="one row"),
    ],
)
@pytest.mark.parametrize("suppress_below", [None, 5])
def test_whatever_the_cohort_there_is_a_report_and_it_shows_no_nonsense(
    rows: list[CohortRow], suppress_below: int | None
) -> None:
    told = words_of_page(page(rows, suppress_below=suppress_below, runs=[], servings=[], source=None))
    assert not NONSENSE.search(told)


@settings(max_examples=25)
@given(st.integers(0, 60), st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 1.0]))
def test_any_drawn_cohort_gives_a_page_whose_parts_have_names_of_their_own(n: int, seed: int, labelled: float) -> None:
    rows = draw_cohort(Rates(n_incidents=n, labelled=labelled, failed=0.2, missing=0.1), seed)
    found = page(rows, calls=make_calls(n))
    slugs = [one.slug for one in found.sections]
    figures = [one.name for part in found.sections for one in blocks_of(part.blocks) if isinstance(one, Figure)]
    assert len(set(slugs)) == len(slugs) and len(set(figures)) == len(figures)
    assert not NONSENSE.search(words_of_page(found))


# --- the flow --------------------------------------------------------------------------------------------------------


def test_the_flow_adds_up_from_the_file_to_the_incidents() -> None:
    rows = [
        *(make_row(f"a{n}", kind, detected=0) for n in range(10) for kind in ("cme", "le")),
        make_row("b1", detected=1, label=1, case_label=1),
        make_row("b2", skipped="placeholder"),
        make_row("b3", error="refusal"),
        make_row("b4", error="refusal"),
        make_row("b5", copied_from=1, detected=0),
        make_row("b6", has_result=False),
    ]
    (chart,) = (one for one in section(page(rows), "flow").blocks if isinstance(one, FlowChart))
    told = {step.box.title: (step.box.count, step.leaves) for step in chart.steps}
    assert told["Eligible"][0] == "26 narratives"
    not_sent = told["Eligible"][1]
    assert not_sent is not None and not_sent.count == "2 narratives"
    assert not_sent.lines == ("texts that say there is no report: 1", "not reached yet: 1")
    assert told["Put to the model"][0] == "24 narratives"
    failed = told["Put to the model"][1]
    assert failed is not None and failed.lines == ("refused by the model (refusal): 2",)
    assert told["Answered"][0] == "22 narratives"
    without = told["Answered"][1]
    assert without is not None and without.count == "4 incidents"
    assert told["Classified"][0] == "12 incidents"
    assert [box.count for box in chart.outcomes] == ["1 incident", "11 incidents"]


def test_what_was_in_the_file_and_not_loaded_is_seen_to_leave() -> None:
    ingest = IngestRecord(
        n_cases=450, n_blank=30, n_blank_ids=0, n_texts_repaired=0, n_duplicates=2, n_conflicts_dropped=1
    )
    (chart,) = (one for one in section(page(BEST, ingest=ingest), "flow").blocks if isinstance(one, FlowChart))
    first, second = chart.steps[:2]
    assert (first.box.title, first.box.count) == ("In the file cases.xlsx", "450 cases")
    assert first.box.lines == ("with 437 cells for texts",)
    assert first.leaves is not None and first.leaves.count == "33 cells"
    assert first.leaves.lines == ("blank: 30", "the same narrative again: 2", "another text of the same narrative: 1")
    assert second.box.count == "404 narratives"


def test_cases_without_any_text_are_seen_to_leave_where_they_can_be_counted() -> None:
    ingest = IngestRecord(
        n_cases=415, n_blank=426, n_blank_ids=0, n_texts_repaired=0, n_duplicates=0, n_conflicts_dropped=0
    )
    (chart,) = (one for one in section(page(BEST, ingest=ingest), "flow").blocks if isinstance(one, FlowChart))
    leaves = chart.steps[0].leaves
    assert leaves is not None and leaves.lines == ("blank: 426", "11 cases had no text at all")


def test_narratives_beyond_the_cohort_are_seen_to_leave() -> None:
    material = make_material(BEST)
    assert material.source is not None
    material = replace(material, source=replace(material.source, n_narratives=500))
    assert "96 narratives" in words_of(section(build_page(material), "flow").blocks)


# --- years, confidence, errors, indicators ---------------------------------------------------------------------------


def test_years_are_shown_for_each_kind_and_unknown_ones_are_counted() -> None:
    rows = [make_row(f"a{n}", kind, detected=n % 2, year=2015 + n % 3) for n in range(30) for kind in ("cme", "le")]
    rows += [make_row("x", detected=1)]
    blocks = section(page(rows), "results").blocks
    (figure,) = (one for one in blocks_of(blocks) if isinstance(one, Figure))
    assert figure.numbers is not None
    assert {row.head for row in figure.numbers.rows} == {"2015", "2016", "2017", "unknown"}
    assert {row.cells[0] for row in figure.numbers.rows} == {"CME", "LE"}
    assert "Of 1 answered narrative the year is not known" in words_of(blocks)


def test_where_no_year_is_known_it_says_how_it_would_be() -> None:
    told = words(BEST, "results")
    assert "does not know in which year" in told and "IncidentYear" in told


def test_indicators_are_left_out_unless_asked_for_and_the_page_warns_where_they_are_not() -> None:
    quotation = "he had said he would find her"
    answers = [AnswerIndicators(is_yes=True, indicators=(quotation, quotation.upper(), "  "))] * 3
    answers += [AnswerIndicators(is_yes=False, indicators=(quotation, "other"))]
    ranked = rank_indicators(answers, at_most=5)
    assert [(one.indicator, one.n_narratives, one.n_yes, one.n_no) for one in ranked] == [
        (quotation.upper(), 4, 3, 1),
        ("other", 1, 0, 1),
    ]
    assert "left out" in words(BEST, "indicators")
    with_text = page(BEST, indicators=ranked)
    assert any("phrases from narratives" in aside.text for aside in with_text.asides)
    assert "other" in words_of(section(with_text, "indicators").blocks)


def test_indicators_that_few_narratives_share_or_lack_are_not_shown_where_small_counts_are_not() -> None:
    answers = [AnswerIndicators(is_yes=number < 12, indicators=("common", "of all")) for number in range(14)]
    answers += [AnswerIndicators(is_yes=True, indicators=("rare", "of all"))]
    answers += [AnswerIndicators(is_yes=False, indicators=("of all",))] * 9
    (common,) = rank_indicators(answers, at_most=5, suppress_below=10)
    assert (common.indicator, common.n_narratives, common.n_yes, common.n_no) == ("common", 14, None, None)
    answers += [AnswerIndicators(is_yes=number < 10, indicators=("common",)) for number in range(30)]
    answers += [AnswerIndicators(is_yes=number < 10, indicators=()) for number in range(30)]
    (common,) = [one for one in rank_indicators(answers, at_most=5, suppress_below=10) if one.indicator == "common"]
    assert (common.n_narratives, common.n_yes, common.n_no) == (44, 22, 22)


# --- the course ------------------------------------------------------------------------------------------------------


def test_the_time_between_runs_is_no_working_time() -> None:
    calls = [*make_calls(10), *make_calls(10, run_id=2, began=BEGAN + timedelta(days=3), failed=4)]
    material = make_material(BEST, calls=calls, runs=[make_run(1), make_run(2, mode="resume")])
    course = material.analysis.course
    assert course is not None
    assert course.working_s == pytest.approx(22.0)  # ten calls of 2 s, one begun every second: 11 s, twice
    assert (course.n_calls, course.n_failed, course.peak_in_flight) == (20, 4, 2)
    assert [(run.run_id, run.n_calls) for run in course.runs] == [(1, 10), (2, 10)]
    answered = sum((one.end_s - one.start_s) * one.answers_per_s for one in course.bins)
    assert answered == pytest.approx(16)
    in_flight_s = sum((one.end_s - one.start_s) * one.in_flight for one in course.bins)
    assert in_flight_s == pytest.approx(40)
    assert "of which 4 (20.00 %) failed" in words_of(section(build_page(material), "course").blocks)


def test_what_an_endpoint_said_when_it_refused_is_not_repeated() -> None:
    runs = [make_run(1, exit_code=78, ended_why="400: the heron on the weir is too long"), make_run(2)]
    told = words(BEST, "course", runs=runs)
    assert "heron" not in told and "was refused" in told


def test_calls_through_batches_are_told_apart_from_the_others() -> None:
    told = words(BEST, "course", n_batched_calls=404)
    assert "404 calls went through batches" in told and "no ledger of calls" not in told
    assert "404 calls went through the provider's batch interface" in words(BEST, "methods", n_batched_calls=404)


def test_without_a_ledger_of_calls_it_says_so() -> None:
    assert "no ledger of calls" in words(BEST, "course")


# --- provenance ------------------------------------------------------------------------------------------------------


def test_prompts_are_printed_in_full_and_known_by_their_hash() -> None:
    folds = [one for one in section(page(BEST), "provenance").blocks if isinstance(one, Fold)]
    assert any(getattr(inner, "text", None) == SYSTEM_PROMPT for fold in folds for inner in fold.blocks)
    assert all("SHA-256" in fold.summary or "settings" in fold.summary for fold in folds)


def test_directories_of_the_machine_are_not_in_the_report() -> None:
    found = page(BEST, settings={"data.file": "/home/somebody/data/cases.xlsx"})
    assert "somebody" not in words_of_page(found)
    assert "cases.xlsx" in words_of(section(found, "provenance").blocks)


def test_where_narratives_may_go_and_who_approved_it_is_said() -> None:
    assert "private networks only" in words(BEST, "provenance")
    told = words(BEST, "provenance", settings={"privacy.allow_remote": "true"}, approval_note="IRB 12-34")
    assert "approved: IRB 12-34" in told


def test_another_model_that_answered_is_a_warning() -> None:
    uses = [
        ServingUse(serving=Serving(model="m", system_fingerprint=name), run_id=1, first_seen_at=None, n_results=1)
        for name in ("fp_1", "fp_2")
    ]
    assert "More than one model or version answered" in words(BEST, "provenance", servings=uses)
    assert "More than one model" not in words(BEST, "provenance")


def test_flips_of_canaries_are_told_with_their_number() -> None:
    told = words(BEST, "provenance", canaries=CanaryCounts(n_asked=11, n_answered=10, n_flipped=2))
    assert "2 of 10 answers (20.00 %) came out the other way" in told


REVIEW = ReviewFacts(
    review_id=3,
    drawn_at="2026-03-06T09:00:00",
    seed=5,
    strata="predicted,confidence",
    allocation="equal",
    n_population=404,
    n_drawn=40,
    n_final=38,
    n_adjudicated=2,
    n_disputed=0,
    n_readers=2,
    n_blinded=2,
    pairs=[ReaderPairFacts(first=1, second=2, n=38, n_agreed=36, n_undecided=2, kappa=Measure(value=0.8))],
    hides_agreement=False,
    is_drawn_elsewhere=False,
    is_used=True,
)


def test_readers_of_a_review_have_numbers_and_no_names() -> None:
    told = words(BEST, "review", reviews=[REVIEW])
    assert "36 of 38" in told and "1 and 2" in told and "yardstick of this report" in told


def reviewed_rows() -> tuple[list[CohortRow], LabelSet]:
    """20 of 100 detected and 20 of 900 others were read: 12 and 2 are labelled yes."""
    rows = [make_row(f"case{n}", detected=int(n < 100), confidence=0.9) for n in range(1_000)]
    labels = {
        (f"case{first + n}", "cme"): Label(is_positive=n < n_yes, weight=weight)
        for first, n_yes, weight in ((0, 12, 5.0), (100, 2, 45.0))
        for n in range(20)
    }
    return rows, LabelSet(name="review 3", narratives=labels, incidents={}, is_drawn_by_answer=True)


def test_estimates_from_a_review_are_not_told_as_counts_of_labelled_narratives() -> None:
    """12 of 20 and 2 of 20 labels stand for 60 of 100 and 90 of 900; nobody labelled 100 detected narratives."""
    rows, labels = reviewed_rows()
    told = words_of_page(page(rows, labels=labels, reviews=[REVIEW]))
    assert "40 answers can be held against a label from people, who read a random sample of 404 narratives" in told
    assert "were detected, estimated from 40 labels" in told
    assert "of the 100 detected narratives that the labels stand for, 40 would be labelled no" in told
    assert (
        "the counts below are estimates" in told
        and "is an estimate for all narratives that the sample was drawn from" in told
    )
    for claim in ("detected narratives with a label", "of 1,000 with a label", "nobody has looked", "part only"):
        assert claim not in told


def test_rivals_are_not_said_to_be_judged_on_the_labels_of_a_review() -> None:
    rows, labels = reviewed_rows()
    told = words_of_page(page(rows, labels=labels, reviews=[REVIEW], n_configurations=52))
    assert (
        "52 experiments are over the narratives of this file. If this one was chosen because it did best by the" in told
    )
    assert "52 experiments of this database are over the same narratives" in told and "experiments were" not in told


def test_the_methods_paragraph_says_how_a_review_was_drawn_and_weighted() -> None:
    rows, labels = reviewed_rows()
    told = " ".join(methods_sentences(make_material(rows, labels=labels, reviews=[REVIEW])))
    assert (
        "a random sample, stratified by predicted, confidence, of the 404 narratives that had an answer on 2026-03-06"
        in told
    )
    assert "inverse of their chance" in told and "2 narratives without a final label" in told
    assert "recovered from those of PPV and NPV" in told
    of_all = " ".join(methods_sentences(make_material(BEST)))
    assert "random sample" not in of_all and "recovered" not in of_all


# --- paragraphs for a paper ------------------------------------------------------------------------------------------


def test_the_methods_paragraph_says_which_calls_another_program_made_and_when() -> None:
    """A run that was killed has no end; the day on which it began is known."""
    of_r = make_run(1, mode="r", started_at="2025-01-01T10:00:00", ended_at=None, n_saved=40, narrun_version=None)
    killed = make_run(3, started_at="2026-03-09T08:00:00.000+00:00", ended_at=None)

    def told(*runs: RunRecord) -> str:
        return " ".join(methods_sentences(make_material(BEST, runs=runs)))

    taken_up = told(of_r, make_run(2), killed)
    assert "The first 40 narratives were sent by another program, written in R, on 2025-01-01." in taken_up
    assert (
        "The other calls were made by narrun_async 0.1.0 between 2026-03-04 and 2026-03-09 (UTC), in 2 runs" in taken_up
    )
    assert "narrun_async" not in told(of_r) and "The calls were made by narrun_async 0.1.0 on" in told(make_run(2))


def test_the_methods_paragraph_says_what_was_done_with_the_numbers_of_the_database() -> None:
    rows = [*BEST, make_row("p", skipped="placeholder"), make_row("q", detected=0, copied_from=1)]
    material = make_material(rows, calls=make_calls(30, failed=2), n_resamples=50, runs=[make_run(1), make_run(2)])
    told = " ".join(methods_sentences(material))
    assert told.startswith("The data were 406 narratives of 406 incidents from cases.xlsx (SHA-256 cccccccccccc…).")
    assert "1 text that only say that there is no report" in told
    assert "1 narrative got the answer of another one" in told
    assert "large language model model-of-tests (provider lmstudio)" in told and "temperature 0.2" in told
    assert "in 2 runs" in told and "30 calls, 2 of which failed" in told
    assert "labels that people gave (manual flags of the file) for 404 narratives of 404 incidents" in told
    assert "50 resamples, seed 1" in told


def test_the_methods_paragraph_says_whose_the_interval_of_kappa_is() -> None:
    """Of narratives it is the bootstrap's where an incident has two of them."""
    alone = " ".join(methods_sentences(make_material(BEST, n_resamples=50)))
    assert "kappa is that of Fleiss" in alone and "balanced accuracy and Cohen's kappa" not in alone
    in_pairs = [
        replace(row, incident_id=f"case{n // 2}", narrative_type=("cme", "le")[n % 2]) for n, row in enumerate(BEST)
    ]
    together = " ".join(methods_sentences(make_material(in_pairs, n_resamples=50)))
    assert "balanced accuracy and Cohen's kappa" in together and "Fleiss" not in together


def test_the_results_paragraph_gives_each_share_with_counts_and_interval() -> None:
    told = " ".join(results_sentences(make_material(BEST)))
    assert "Of 404 eligible narratives, 404 (100.00 %) were answered." in told
    assert "56 of 404 incidents (13.86 %, 95 % interval 10.83 to 17.57 %)" in told
    assert "sensitivity 0.875 (95 % interval 0.753 to 0.941), 42 of 48" in told
    assert "Cohen's kappa" in told and "raw agreement" in told


def test_the_paragraphs_claim_nothing_that_was_not_done() -> None:
    rows = [make_row(f"case{n}", detected=n % 5 == 0) for n in range(50)]
    material = make_material(rows, runs=[], servings=[], source=None, settings={})
    told = " ".join([*methods_sentences(material), *results_sentences(material)])
    for claim in ("bootstrap", "Rogan", "compared with", "asked again", "sensitivity", "placeholder", "named itself"):
        assert claim not in told


def test_where_every_answer_has_a_label_the_paragraphs_claim_no_correction() -> None:
    material = make_material(BEST)
    told = " ".join([*methods_sentences(material), *results_sentences(material)])
    assert "By the labels, the share of incidents is 11.88 %" in told
    assert "Rogan" not in told and "orrected" not in told.replace("bias-corrected", "")


def test_a_setting_that_was_not_set_is_not_in_the_methods() -> None:
    material = make_material(BEST, settings={"model.temperature": "0.2", "model.seed": "not set"})
    assert "seed" not in " ".join(methods_sentences(material)).replace("(seed", "")


# --- checklists ------------------------------------------------------------------------------------------------------


def test_the_checklists_have_the_numbers_of_the_guidelines() -> None:
    assert len({item.number for item in STARD}) == len(STARD) == 34  # 30 items, four of them in two parts
    assert [item.number for item in STARD][-1] == "30"
    assert len({item.number for item in TRIPOD_LLM}) == len(TRIPOD_LLM) == 49
    assert {re.sub(r"\D", "", item.number) for item in TRIPOD_LLM} == {str(n) for n in range(1, 20)}


def test_what_the_database_cannot_know_is_left_to_the_author() -> None:
    folds = [one for one in section(page(BEST), "checklists").blocks if isinstance(one, Fold)]
    tables = [block for fold in folds for block in fold.blocks if isinstance(block, Table)]
    answers = {(table.caption, row.head): row.cells[1] for table in tables for row in table.rows}
    for item in (("STARD 2015", "28"), ("STARD 2015", "30"), ("TRIPOD-LLM", "13"), ("TRIPOD-LLM", "14b")):
        assert answers[item] == YOURS
    assert answers["STARD 2015", "23"] != YOURS
    n_answered = sum(answer != YOURS for (table, _), answer in answers.items() if table == "STARD 2015")
    assert folds[0].summary.startswith(f"STARD 2015: {n_answered} of 34 items")


def test_labels_of_a_review_are_not_said_to_be_older_than_the_answers_nor_the_others_to_be_left_out() -> None:
    rows, labels = reviewed_rows()
    told = words(rows, "checklists", labels=labels, reviews=[REVIEW])
    assert "were drawn from those answered, on 2026-03-06" in told and "stand for the others of their stratum" in told
    assert "before the first answer" not in told and "answers without a label" not in told
    assert "before the first answer" in words(BEST, "checklists")


def test_nothing_in_a_checklist_is_answered_by_an_empty_database() -> None:
    found = page([], runs=[], servings=[], source=None, settings={}, experiment=make_experiment(model_name=None))
    told = words_of(section(found, "checklists").blocks)
    assert "model-of-tests" not in told
