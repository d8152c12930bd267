"""What two reporting guidelines ask for, item by item, and what the database can answer of it.

Numbers are those of STARD 2015 (Bossuyt et al., BMJ 351 (2015) h5527) and of TRIPOD-LLM (Gallifant et al., Nature
Medicine 31 (2025) 60-69). What an item asks for is said in words of our own, and shortly; the guidelines themselves say
it better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from narrun_async.analysis.evaluation_tree import Level
from narrun_async.reporting.html.blocks import Fold, Paragraph, Row, Section, Table
from narrun_async.reporting.html.material import ReportMaterial
from narrun_async.reporting.html.wording import clean, plural, years_text
from narrun_async.reporting.wording import duration_text

YOURS = "Not in the database: you must say it."
_FLOW = "Under “From the file to the answers”."
#: None: the database cannot answer
Answer = Callable[[ReportMaterial], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One line of a checklist."""

    number: str
    asks_for: str
    answer: Answer | None = None


def checklists_section(material: ReportMaterial) -> Section:
    return Section(
        slug="checklists",
        title="Checklists of reporting guidelines",
        blocks=(
            Paragraph(
                text="What STARD 2015 (studies of diagnostic accuracy) and TRIPOD-LLM (studies that use language "
                "models) ask for, and what the database can answer. The numbers are the guidelines', the words are "
                "not: look there for what an item really asks for."
            ),
            _fold(material, "STARD 2015", STARD),
            _fold(material, "TRIPOD-LLM", TRIPOD_LLM),
        ),
    )


def _fold(material: ReportMaterial, name: str, items: Sequence[Item]) -> Fold:
    answers = [item.answer(material) if item.answer is not None else None for item in items]
    n_answered = sum(answer is not None for answer in answers)
    table = Table(
        caption=name,
        head=("Item", "It asks for", "Answer"),
        rows=tuple(
            Row(head=item.number, cells=(item.asks_for, answer or YOURS))
            for item, answer in zip(items, answers, strict=True)
        ),
        is_prose=True,
    )
    return Fold(summary=f"{name}: {n_answered} of {len(items)} items have an answer here", blocks=(table,))


# --- answers ---------------------------------------------------------------------------------------------------------


def _always(text: str) -> Answer:
    return lambda material: text


def _order_of_things(material: ReportMaterial) -> str | None:
    if material.source is None or not material.runs:
        return None
    if material.review is not None:
        return (
            f"Answers from {material.runs[0].started_at[:10]} on; the narratives to be labelled were drawn from those "
            f"answered, on {material.review.drawn_at[:10]}."
        )
    return (
        f"The texts, with the flags of the file where there are any, were loaded on {material.source.loaded_at[:10]}, "
        f"before the first answer ({material.runs[0].started_at[:10]}): retrospective for the answers."
    )


def _eligibility(material: ReportMaterial) -> str | None:
    flow = material.evaluation.flow
    beyond = material.source is not None and material.source.n_narratives > flow.n_eligible
    which = f"the first {flow.n_eligible:,} narratives" if beyond else f"all {flow.n_eligible:,} narratives"
    skipped = f"; {sum(flow.skipped.values()):,} of them were not sent" if flow.skipped else ""
    return f"In the experiment: {which} of the file that have a text{skipped}. Who is in the file, you must say."


def _years(material: ReportMaterial) -> str | None:
    groups = material.analysis.by_year
    if not groups:
        return None
    of_one = [group for group in groups if group.kind == groups[0].kind]
    return f"Years of the incidents: {years_text(of_one[0])} to {years_text(of_one[-1])}. Where, you must say."


def _instrument(material: ReportMaterial) -> str | None:
    model = material.column("model_name")
    return f"{clean(model)}, prompts and settings in full under “Provenance”." if model else None


def _cut_off(material: ReportMaterial) -> str | None:
    return "The model's own yes or no. No threshold was put on its confidence."


def _blind_model(material: ReportMaterial) -> str | None:
    return "A request holds the prompts and one narrative. Labels are never sent."


def _blind_people(material: ReportMaterial) -> str | None:
    if (review := material.review) is None:
        return None
    return f"{review.n_blinded:,} of {plural(review.n_readers, 'reader')} did not see what the model said."


def _statistics(material: ReportMaterial) -> str | None:
    return "Named beside each table, and in “Paragraphs for a paper”."


def _indeterminate(material: ReportMaterial) -> str | None:
    n_errors = sum(material.evaluation.flow.errors.values())
    return (
        f"Answers that could not be read as yes or no are errors, in no 2×2 table: {n_errors:,}, by category under "
        "“Errors”. What they leave open is told as a range."
    )


def _missing(material: ReportMaterial) -> str | None:
    flow = material.evaluation.flow
    hides_labels = material.hides_labels(Level.NARRATIVES)
    unlabelled = "" if hides_labels else f", {flow.n_unlabelled:,} answers without a label"
    n_skipped = sum(flow.skipped.values())
    skipped = f", {n_skipped:,} not sent" if n_skipped else ""
    others = "Nothing was imputed."
    if flow.n_copied:
        others = f"{flow.n_copied:,} got the answer of a narrative with the same text; nothing else was imputed."
    if material.review is not None:
        unlabelled = ""
        others = "Of the answers a sample has labels, which stand for the others of their stratum by their weights."
    return (
        f"Left out of the tables: {sum(flow.errors.values()):,} without a usable answer{skipped}, "
        f"{flow.n_missing:,} not reached{unlabelled}. {others}"
    )


def _variability(material: ReportMaterial) -> str | None:
    return "By kind of narrative and per incident; failures by length of the text."


def _characteristics(material: ReportMaterial) -> str | None:
    flow = material.evaluation.flow
    kinds = [(name, material.level(level)) for name, level in (("CME", Level.CME), ("LE", Level.LE))]
    told = ", ".join(f"{level.counts.n_units:,} {name}" for name, level in kinds if level is not None)
    return (
        f"{plural(flow.n_eligible, 'narrative')} of {plural(flow.n_incidents, 'incident')}"
        f"{f' ({told})' if told else ''}; by year under “What the model said”. Nothing else about the people is in it."
    )


def _cross_table(material: ReportMaterial) -> str | None:
    main = (Level.NARRATIVES, Level.INCIDENTS)
    if any((level := material.level(one)) is not None and level.counts.n_evaluated for one in main):
        return "Under “How good the answers are”."
    return material.not_shown if any(map(material.hides_labels, main)) else None


def _estimates(material: ReportMaterial) -> str | None:
    found = _cross_table(material)
    if found is None or found == material.not_shown:
        return found
    return "Under “How good the answers are”, each with its 95 % interval."


def _limits(material: ReportMaterial) -> str | None:
    return "Some: “What these numbers do not mean”, at the top. The rest you must say."


def _data(material: ReportMaterial) -> str | None:
    if material.source is None:
        return None
    name = clean(PurePath(material.source.path).name)
    return f"One file, {name}, by its checksum under “Provenance”. Its origin, you must say."


def _preprocessing(material: ReportMaterial) -> str | None:
    skipped = material.evaluation.flow.skipped.get("placeholder", 0)
    told = f"; {skipped:,} placeholders were not sent" if skipped else ""
    return (
        "Line ends and control characters were made uniform when the file was loaded; texts were sent as they are"
        f"{told}."
    )


def _model_name(material: ReportMaterial) -> str | None:
    model = material.column("model_name")
    if model is None:
        return None
    named = {str(use.serving) for use in material.servings}
    says = f"; the endpoint named itself {', '.join(sorted(map(clean, named)))}" if named else ""
    return f"{clean(model)}{says}. When it was trained, you must say."


def _outputs(material: ReportMaterial) -> str | None:
    kept = "are kept in the database" if material.scrub is None else "were removed from the database"
    return f"Yes or no, confidence, indicators, rationale. The raw answers {kept}."


def _generation(material: ReportMaterial) -> str | None:
    if not material.settings and material.column("temperature") is None:
        return None
    temperature = material.column("temperature") or "unknown"
    return f"Temperature {temperature}; all settings and the prompts under “Provenance”."


def _when_asked(material: ReportMaterial) -> str | None:
    if not material.runs:
        return None
    first, last = material.runs[0].started_at[:10], (material.runs[-1].ended_at or material.runs[-1].started_at)[:10]
    when = f"on {first}" if first == last else f"from {first} to {last}"
    return f"Yes or no to the question of the prompt, read from the answer by the program; asked {when} (UTC)."


def _rivals(material: ReportMaterial) -> str | None:
    if material.n_configurations < 2:
        return None
    same = "were judged on the same labels" if material.review is None else "are over the same narratives"
    return f"{material.n_configurations:,} experiments of this database {same}; narrun compare sets them side by side."


def _how_labelled(material: ReportMaterial) -> str | None:
    if material.review is None:
        return None
    return "A sample within strata, read in workbooks; see “Read by people”. What readers were told, you must say."


def _how_many_labelled(material: ReportMaterial) -> str | None:
    if (review := material.review) is None:
        return None
    adjudicated = "" if review.hides_agreement else f"; {review.n_adjudicated:,} labels by adjudication"
    return f"{plural(review.n_readers, 'reader')}{adjudicated}."


def _compute(material: ReportMaterial) -> str | None:
    course = material.analysis.course
    if course is None:
        return None
    return (
        f"{plural(course.n_calls, 'call')} in {duration_text(course.working_s)}, {material.prompt_tokens:,} prompt and "
        f"{material.completion_tokens:,} completion tokens. On what hardware the model ran, you must say."
    )


def _code(material: ReportMaterial) -> str | None:
    return f"narrun_async {material.narrun_version}; prompts and settings are in this report."


def _updating(material: ReportMaterial) -> str | None:
    identities = {(use.serving.model, use.serving.system_fingerprint) for use in material.servings}
    if not identities:
        return None
    if len(identities) > 1:
        return "More than one model or version answered: see “Provenance”."
    return "What answered named itself the same throughout."


# --- the lists -------------------------------------------------------------------------------------------------------

STARD: tuple[Item, ...] = (
    Item(number="1", asks_for="title: a study of accuracy, named as such"),
    Item(number="2", asks_for="a structured abstract"),
    Item(number="3", asks_for="background; what the test is for"),
    Item(number="4", asks_for="aims and hypotheses"),
    Item(number="5", asks_for="data planned before or after test and reference", answer=_order_of_things),
    Item(number="6", asks_for="who was eligible", answer=_eligibility),
    Item(number="7", asks_for="how those eligible were found"),
    Item(number="8", asks_for="where and when", answer=_years),
    Item(number="9", asks_for="consecutive, random or convenient series"),
    Item(number="10a", asks_for="the test, so that it can be repeated", answer=_instrument),
    Item(number="10b", asks_for="the reference standard, so that it can be repeated"),
    Item(number="11", asks_for="why this reference standard"),
    Item(number="12a", asks_for="cut-offs of the test, fixed before or explored", answer=_cut_off),
    Item(number="12b", asks_for="cut-offs of the reference standard"),
    Item(number="13a", asks_for="what readers of the test knew of the reference", answer=_blind_model),
    Item(number="13b", asks_for="what assessors of the reference knew of the test", answer=_blind_people),
    Item(number="14", asks_for="how accuracy was estimated and compared", answer=_statistics),
    Item(number="15", asks_for="what was done with unclear results", answer=_indeterminate),
    Item(number="16", asks_for="what was done with missing data", answer=_missing),
    Item(number="17", asks_for="whether accuracy varies between groups", answer=_variability),
    Item(number="18", asks_for="intended sample size and why"),
    Item(number="19", asks_for="flow of participants, as a diagram", answer=_always(_FLOW)),
    Item(number="20", asks_for="characteristics of participants", answer=_characteristics),
    Item(number="21a", asks_for="how severe it was in those who have it"),
    Item(number="21b", asks_for="what else those have who do not"),
    Item(number="22", asks_for="time between test and reference"),
    Item(number="23", asks_for="test against reference as a table", answer=_cross_table),
    Item(number="24", asks_for="accuracy with its precision", answer=_estimates),
    Item(number="25", asks_for="harm done by test or reference"),
    Item(number="26", asks_for="limitations", answer=_limits),
    Item(number="27", asks_for="what it means for practice"),
    Item(number="28", asks_for="registration"),
    Item(number="29", asks_for="where the protocol is"),
    Item(number="30", asks_for="funding"),
)

TRIPOD_LLM: tuple[Item, ...] = (
    Item(number="1", asks_for="title: a language model, the task, the population"),
    Item(number="2", asks_for="a structured abstract"),
    Item(number="3a", asks_for="the problem, and why a language model"),
    Item(number="3b", asks_for="for whom, and where in their care or work"),
    Item(number="4", asks_for="aims"),
    Item(number="5a", asks_for="where the data come from", answer=_data),
    Item(number="5b", asks_for="what the data are like", answer=_characteristics),
    Item(number="5c", asks_for="from when to when", answer=_years),
    Item(number="5d", asks_for="preparation and checks of the texts", answer=_preprocessing),
    Item(number="5e", asks_for="missing and unbalanced data", answer=_missing),
    Item(number="6a", asks_for="name, version, training date of the model", answer=_model_name),
    Item(number="6b", asks_for="how the model was made or adapted"),
    Item(number="6c", asks_for="prompts and settings of generation", answer=_generation),
    Item(
        number="6d",
        asks_for="raw and processed output",
        answer=_outputs,
    ),
    Item(number="6e", asks_for="how output became a class; thresholds", answer=_cut_off),
    Item(number="7a", asks_for="measures of quality", answer=_statistics),
    Item(number="7b", asks_for="what the measures mean for the use"),
    Item(number="7c", asks_for="the outcome, how it was got, when the model was asked", answer=_when_asked),
    Item(number="7d", asks_for="who judged by eye, how instructed", answer=_blind_people),
    Item(number="7e", asks_for="compared with what", answer=_rivals),
    Item(number="8a", asks_for="how texts were labelled", answer=_how_labelled),
    Item(number="8b", asks_for="how many labelled, how much twice", answer=_how_many_labelled),
    Item(number="8c", asks_for="background of those who labelled"),
    Item(number="9a", asks_for="how the prompt was made and chosen"),
    Item(number="9b", asks_for="on which data the prompt was made"),
    Item(
        number="10",
        asks_for="preparation before summarising",
        answer=_always("Does not apply: nothing was summarised."),
    ),
    Item(
        number="11",
        asks_for="tuning and alignment",
        answer=_always("The program trains nothing. Whether you tuned the model, you must say."),
    ),
    Item(number="12", asks_for="computing that it took", answer=_compute),
    Item(number="13", asks_for="ethical approval"),
    Item(number="14a", asks_for="funding"),
    Item(number="14b", asks_for="conflicts of interest"),
    Item(number="14c", asks_for="protocol"),
    Item(number="14d", asks_for="registration"),
    Item(number="14e", asks_for="where the data are"),
    Item(number="14f", asks_for="where the code is", answer=_code),
    Item(number="15", asks_for="part that patients and the public had"),
    Item(number="16a", asks_for="flow, and how many have the outcome", answer=_always(_FLOW)),
    Item(number="16b", asks_for="characteristics, overall and by source", answer=_characteristics),
    Item(number="16c", asks_for="evaluation data against development data"),
    Item(
        number="16d",
        asks_for="numbers and outcomes in each analysis",
        answer=_always("Numbers of narratives and incidents stand beside the shares."),
    ),
    Item(number="17", asks_for="performance", answer=_estimates),
    Item(number="18", asks_for="whether the model was changed", answer=_updating),
    Item(number="19a", asks_for="what the results mean, fairness included"),
    Item(number="19b", asks_for="limitations", answer=_limits),
    Item(number="19c", asks_for="where and with what data it could be used"),
    Item(number="19d", asks_for="intended use"),
    Item(number="19e", asks_for="poor or missing input in use"),
    Item(number="19f", asks_for="what users must do and know"),
    Item(number="19g", asks_for="what should be studied next"),
)
